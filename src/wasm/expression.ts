import type { ByteWriter } from './writer.ts';

/**
 * The expression builder: WebAssembly instructions as typed values that read like arithmetic.
 *
 * An expression is emitted where it is used, each time it is used. Whatever must be evaluated once, or before a later
 * change of a register or of memory, goes through `let` of the function builder first.
 */
export type ValueType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';

export interface Expression<T extends ValueType = ValueType> {
  readonly type: T;
  emit(code: ByteWriter): void;
  /** Present when the value is known: signed, a number as long as those are exact. */
  readonly literal?: number | bigint;
  /** Present when the distance from another value is known. */
  readonly relative?: Relative | undefined;
}

/** A value that is another one, which only has a name here, plus a constant. */
export interface Relative {
  readonly base: object;
  readonly distance: number;
}

export type I32 = Expression<'i32'>;
export type I64 = Expression<'i64'>;
export type V128 = Expression<'v128'>;
export type F32 = Expression<'f32'>;
export type F64 = Expression<'f64'>;
type Integer = 'i32' | 'i64';

class Constant<T extends Integer> implements Expression<T> {
  readonly type: T;
  readonly literal: number | bigint;

  constructor(type: T, literal: number | bigint) {
    this.type = type;
    this.literal = literal;
  }

  emit(code: ByteWriter): void {
    code.byte(this.type === 'i32' ? 0x41 : 0x42);
    code.signed(this.literal);
  }
}

/** Most constants are small: offsets, sizes, numbers of bits. */
const SMALLEST = -16;
const LARGEST = 1024;
const isSmall = (value: number): boolean => value >= SMALLEST && value <= LARGEST;
const small = <T extends Integer>(type: T) =>
  Array.from({ length: LARGEST - SMALLEST + 1 }, (_, index) => new Constant(type, SMALLEST + index));
const SMALL32 = small('i32');
const SMALL64 = small('i64');

export function i32(value: number): I32 {
  const literal = value | 0;
  return isSmall(literal) ? (SMALL32[literal - SMALLEST] as I32) : new Constant('i32', literal);
}

export function i64(value: number | bigint): I64 {
  const isExact = typeof value === 'number' && Number.isSafeInteger(value);
  const literal = isExact ? value : exactly(BigInt.asIntN(64, BigInt(value)));
  if (typeof literal === 'number' && isSmall(literal)) return SMALL64[literal - SMALLEST] as I64;
  return new Constant('i64', literal);
}

function exactly(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

export function f32(value: number): F32 {
  const bytes = new Uint8Array(new Float32Array([value]).buffer);
  return {
    type: 'f32',
    emit: (code) => {
      code.byte(0x43);
      code.bytes(bytes);
    },
  };
}

export function f64(value: number): F64 {
  const bytes = new Uint8Array(new Float64Array([value]).buffer);
  return {
    type: 'f64',
    emit: (code) => {
      code.byte(0x44);
      code.bytes(bytes);
    },
  };
}

/** 128-bit constant from two 64-bit halves. */
export function v128(low: bigint, high: bigint): V128 {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt.asUintN(64, low), true);
  view.setBigUint64(8, BigInt.asUintN(64, high), true);
  return {
    type: 'v128',
    emit: (code) => {
      code.byte(0xfd);
      code.unsigned(12);
      code.bytes(bytes);
    },
  };
}

class Unary<T extends ValueType> implements Expression<T> {
  readonly type: T;
  readonly #opcode: number;
  readonly #operand: Expression;

  constructor(type: T, opcode: number, operand: Expression) {
    this.type = type;
    this.#opcode = opcode;
    this.#operand = operand;
  }

  emit(code: ByteWriter): void {
    this.#operand.emit(code);
    code.byte(this.#opcode);
  }
}

class Binary<T extends ValueType> implements Expression<T> {
  readonly type: T;
  readonly relative?: Relative | undefined;
  readonly #opcode: number;
  readonly #a: Expression;
  readonly #b: Expression;

  constructor(type: T, opcode: number, a: Expression, b: Expression, relative?: Relative) {
    this.type = type;
    this.relative = relative;
    this.#opcode = opcode;
    this.#a = a;
    this.#b = b;
  }

  emit(code: ByteWriter): void {
    this.#a.emit(code);
    this.#b.emit(code);
    code.byte(this.#opcode);
  }
}

export function instruction<T extends ValueType>(
  type: T,
  opcode: number,
  a: Expression,
  b?: Expression,
): Expression<T> {
  return b ? new Binary(type, opcode, a, b) : new Unary(type, opcode, a);
}

/** An instruction of the vector space (prefix 0xFD), with immediate bytes such as lanes. */
export function vector<T extends ValueType>(
  type: T,
  opcode: number,
  operands: readonly Expression[],
  immediates: readonly number[] = [],
): Expression<T> {
  return {
    type,
    emit: (code) => {
      for (const operand of operands) operand.emit(code);
      code.byte(0xfd);
      code.unsigned(opcode);
      code.bytes(immediates);
    },
  };
}

/** Folds a binary operation when both sides are known; masks the result to its width. */
function binary<T extends Integer>(
  a: Expression<T>,
  b: Expression<T>,
  opcode32: number,
  opcode64: number,
  fold?: (a: bigint, b: bigint) => bigint,
): Expression<T> {
  if (fold && a.literal !== undefined && b.literal !== undefined) {
    const value = fold(BigInt(a.literal), BigInt(b.literal));
    return (a.type === 'i32' ? i32(Number(BigInt.asIntN(32, value))) : i64(value)) as unknown as Expression<T>;
  }
  return instruction(a.type, a.type === 'i32' ? opcode32 : opcode64, a, b);
}

export const add = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> => {
  if (b.literal === 0) return a;
  if (a.literal === 0) return b;
  return displaced(a, b, 1) ?? binary(a, b, 0x6a, 0x7c, (x, y) => x + y);
};
export const sub = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> =>
  b.literal === 0 ? a : (displaced(a, b, -1) ?? binary(a, b, 0x6b, 0x7d, (x, y) => x - y));

/** A sum or difference (`sign` −1) with a constant whose distance from another value is known. */
function displaced<T extends Integer>(a: Expression<T>, b: Expression<T>, sign: 1 | -1): Expression<T> | undefined {
  const { relative } = a;
  if (!relative || typeof b.literal !== 'number') return undefined;
  const { base, distance } = relative;
  const [opcode32, opcode64] = sign > 0 ? [0x6a, 0x7c] : [0x6b, 0x7d];
  const opcode = a.type === 'i32' ? opcode32 : opcode64;
  return new Binary(a.type, opcode, a, b, { base, distance: distance + sign * b.literal });
}

export const mul = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> =>
  binary(a, b, 0x6c, 0x7e, (x, y) => x * y);
export const divS = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> => binary(a, b, 0x6d, 0x7f);
export const divU = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> => binary(a, b, 0x6e, 0x80);
export const remS = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> => binary(a, b, 0x6f, 0x81);
export const remU = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> => binary(a, b, 0x70, 0x82);
export const and = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> =>
  b.literal === -1 ? a : binary(a, b, 0x71, 0x83, (x, y) => x & y);
export const or = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> =>
  b.literal === 0 ? a : binary(a, b, 0x72, 0x84, (x, y) => x | y);
export const xor = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> =>
  binary(a, b, 0x73, 0x85, (x, y) => x ^ y);
/** Shift counts are taken modulo the width, as WebAssembly does. */
export const shl = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> =>
  b.literal === 0 ? a : binary(a, b, 0x74, 0x86, (x, y) => x << (y & (a.type === 'i32' ? 31n : 63n)));
export const shrS = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> =>
  b.literal === 0 ? a : binary(a, b, 0x75, 0x87);
export const shrU = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> =>
  b.literal === 0 ? a : binary(a, b, 0x76, 0x88);
export const rotl = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> => binary(a, b, 0x77, 0x89);
export const rotr = <T extends Integer>(a: Expression<T>, b: Expression<T>): Expression<T> => binary(a, b, 0x78, 0x8a);

const compare =
  (opcode32: number, opcode64: number, holds: (a: bigint, b: bigint) => boolean, unsigned = false) =>
  <T extends Integer>(a: Expression<T>, b: Expression<T>): I32 => {
    if (a.literal === undefined || b.literal === undefined) {
      return instruction('i32', a.type === 'i32' ? opcode32 : opcode64, a, b);
    }
    const bits = a.type === 'i32' ? 32 : 64;
    const plain = (value: number | bigint) => (unsigned ? BigInt.asUintN(bits, BigInt(value)) : BigInt(value));
    return i32(holds(plain(a.literal), plain(b.literal)) ? 1 : 0);
  };
export const eq = compare(0x46, 0x51, (a, b) => a === b);
export const ne = compare(0x47, 0x52, (a, b) => a !== b);
export const ltS = compare(0x48, 0x53, (a, b) => a < b);
export const ltU = compare(0x49, 0x54, (a, b) => a < b, true);
export const gtS = compare(0x4a, 0x55, (a, b) => a > b);
export const gtU = compare(0x4b, 0x56, (a, b) => a > b, true);
export const leS = compare(0x4c, 0x57, (a, b) => a <= b);
export const leU = compare(0x4d, 0x58, (a, b) => a <= b, true);
export const geS = compare(0x4e, 0x59, (a, b) => a >= b);
export const geU = compare(0x4f, 0x5a, (a, b) => a >= b, true);

export const eqz = (a: Expression<Integer>): I32 =>
  a.literal === undefined ? instruction('i32', a.type === 'i32' ? 0x45 : 0x50, a) : i32(a.literal === 0 ? 1 : 0);
const unary =
  (opcode32: number, opcode64: number) =>
  <T extends Integer>(a: Expression<T>): Expression<T> =>
    instruction(a.type, a.type === 'i32' ? opcode32 : opcode64, a);
export const clz = unary(0x67, 0x79);
export const ctz = unary(0x68, 0x7a);
export const popcnt = unary(0x69, 0x7b);

export const wrap = (a: I64): I32 =>
  a.literal === undefined ? instruction('i32', 0xa7, a) : i32(Number(BigInt.asIntN(32, BigInt(a.literal))));
export const extendU = (a: I32): I64 =>
  a.literal === undefined ? instruction('i64', 0xad, a) : i64(Number(a.literal) >>> 0);
export const extendS = (a: I32): I64 => (a.literal === undefined ? instruction('i64', 0xac, a) : i64(a.literal));

/** Sign-extends the low `bytes` bytes of a 64-bit value. */
export function signExtend(a: I64, bytes: number): I64 {
  if (bytes === 8) return a;
  if (a.literal !== undefined) return i64(BigInt.asIntN(bytes * 8, BigInt(a.literal)));
  return instruction('i64', bytes === 1 ? 0xc2 : bytes === 2 ? 0xc3 : 0xc4, a);
}

/** Zero-extends the low `bytes` bytes of a 64-bit value. */
export function zeroExtend(a: I64, bytes: number): I64 {
  if (bytes === 8) return a;
  return and(a, i64(2 ** (bytes * 8) - 1));
}

export function select<T extends ValueType>(condition: I32, a: Expression<T>, b: Expression<T>): Expression<T> {
  if (condition.literal !== undefined) return condition.literal === 0 ? b : a;
  if (a.type === 'v128') {
    return {
      type: a.type,
      emit: (code) => {
        a.emit(code);
        b.emit(code);
        condition.emit(code);
        code.bytes([0x1c, 0x01, TYPE_CODES.v128]);
      },
    };
  }
  return {
    type: a.type,
    emit: (code) => {
      a.emit(code);
      b.emit(code);
      condition.emit(code);
      code.byte(0x1b);
    },
  };
}

export const not = (a: I32): I32 => eqz(a);
export const reinterpretF64 = (a: I64): F64 => instruction('f64', 0xbf, a);
export const reinterpretF32 = (a: I32): F32 => instruction('f32', 0xbe, a);
export const bitsOfF64 = (a: F64): I64 => instruction('i64', 0xbd, a);
export const bitsOfF32 = (a: F32): I32 => instruction('i32', 0xbc, a);

export const TYPE_CODES: Record<ValueType, number> = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b };

class Load<T extends ValueType> implements Expression<T> {
  readonly type: T;
  readonly #opcode: readonly number[];
  readonly #address: I32;
  readonly #offset: number;

  constructor(type: T, opcode: readonly number[], address: I32, offset: number) {
    this.type = type;
    this.#opcode = opcode;
    this.#address = address;
    this.#offset = offset;
  }

  emit(code: ByteWriter): void {
    this.#address.emit(code);
    code.bytes(this.#opcode);
    code.byte(0);
    code.unsigned(this.#offset);
  }
}

/** Loads; the address is an unsigned 32-bit host address plus a constant offset. */
const loadOf =
  <T extends ValueType>(type: T, opcode: readonly number[]) =>
  (address: I32, offset = 0): Expression<T> =>
    new Load(type, opcode, address, offset);
export const load32 = loadOf('i32', [0x28]);
export const load64 = loadOf('i64', [0x29]);
export const loadF32 = loadOf('f32', [0x2a]);
export const loadF64 = loadOf('f64', [0x2b]);
export const load8U32 = loadOf('i32', [0x2d]);
export const load16U32 = loadOf('i32', [0x2f]);
export const load128 = loadOf('v128', [0xfd, 0x00]);
const loadSigned = [loadOf('i64', [0x30]), loadOf('i64', [0x32]), loadOf('i64', [0x34]), load64] as const;
const loadUnsigned = [loadOf('i64', [0x31]), loadOf('i64', [0x33]), loadOf('i64', [0x35]), load64] as const;

/** log2 of 1, 2, 4 or 8. */
export function sizeIndex(bytes: number): 0 | 1 | 2 | 3 {
  return bytes === 1 ? 0 : bytes === 2 ? 1 : bytes === 4 ? 2 : 3;
}

export function loadInteger(bytes: number, signed: boolean, address: I32, offset = 0): I64 {
  return (signed ? loadSigned : loadUnsigned)[sizeIndex(bytes)](address, offset);
}

/** A store is not a value; the function builder emits it. */
export interface Store {
  readonly emit: (code: ByteWriter) => void;
}

function storeOf(opcode: readonly number[]) {
  return (address: I32, value: Expression, offset = 0): Store => ({
    emit: (code) => {
      address.emit(code);
      value.emit(code);
      code.bytes(opcode);
      code.byte(0);
      code.unsigned(offset);
    },
  });
}
export const store32 = storeOf([0x36]);
export const store64 = storeOf([0x37]);
export const storeF32 = storeOf([0x38]);
export const storeF64 = storeOf([0x39]);
export const store16of32 = storeOf([0x3b]);
export const store8of32 = storeOf([0x3a]);
export const store128 = storeOf([0xfd, 0x0b]);
const storeLow = [storeOf([0x3c]), storeOf([0x3d]), storeOf([0x3e]), store64] as const;

/** Stores the low `bytes` bytes of a 64-bit value. */
export function storeInteger(bytes: number, address: I32, value: I64, offset = 0): Store {
  return storeLow[sizeIndex(bytes)](address, value, offset);
}
