import { type Expression, type F32, type F64, type I32, type I64, instruction, type ValueType } from './expression.ts';
import type { ByteWriter } from './writer.ts';

/** WebAssembly's scalar floating-point instructions: round to nearest, and NaNs are not told apart. */
type Float = 'f32' | 'f64';

const unary =
  (opcode32: number, opcode64: number) =>
  <T extends Float>(a: Expression<T>): Expression<T> =>
    instruction(a.type, a.type === 'f32' ? opcode32 : opcode64, a);
const binary =
  (opcode32: number, opcode64: number) =>
  <T extends Float>(a: Expression<T>, b: Expression<T>): Expression<T> =>
    instruction(a.type, a.type === 'f32' ? opcode32 : opcode64, a, b);
const compare =
  (opcode32: number, opcode64: number) =>
  <T extends Float>(a: Expression<T>, b: Expression<T>): I32 =>
    instruction('i32', a.type === 'f32' ? opcode32 : opcode64, a, b);

export const floatEq = compare(0x5b, 0x61);
export const floatLt = compare(0x5d, 0x63);
export const floatGt = compare(0x5e, 0x64);
export const floatGe = compare(0x60, 0x66);

export const floatAbs = unary(0x8b, 0x99);
export const floatCeil = unary(0x8d, 0x9b);
export const floatFloor = unary(0x8e, 0x9c);
export const floatTrunc = unary(0x8f, 0x9d);
/** To the nearest integer, ties to even. */
export const floatNearest = unary(0x90, 0x9e);
export const floatSqrt = unary(0x91, 0x9f);
export const floatAdd = binary(0x92, 0xa0);
export const floatSub = binary(0x93, 0xa1);
export const floatMul = binary(0x94, 0xa2);
export const floatDiv = binary(0x95, 0xa3);

export const f32OfI64 = (a: I64): F32 => instruction('f32', 0xb4, a);
export const f64OfI32 = (a: I32): F64 => instruction('f64', 0xb7, a);
export const f64OfI64 = (a: I64): F64 => instruction('f64', 0xb9, a);
export const demote = (a: F64): F32 => instruction('f32', 0xb6, a);
export const promote = (a: F32): F64 => instruction('f64', 0xbb, a);

function saturating<T extends ValueType>(type: T, opcode: number, a: Expression): Expression<T> {
  return {
    type,
    emit: (code: ByteWriter) => {
      a.emit(code);
      code.bytes([0xfc, opcode]);
    },
  };
}
export const i64OfF64 = (a: F64): I64 => saturating('i64', 0x06, a);
