import {
  add,
  and,
  eqz,
  extendU,
  gtU,
  type I32,
  i32,
  load32,
  load128,
  loadInteger,
  or,
  select,
  shl,
  shrU,
  storeInteger,
  type V128,
  v128,
  wrap,
} from '../../wasm/expression.ts';
import * as simd from '../../wasm/simd.ts';
import { State } from '../state.ts';
import type { Context, Semantics } from './context.ts';
import {
  enterMmx,
  immediateByte,
  isMemory,
  isMmx,
  type Lanes,
  markMmx,
  packed,
  requireMmx,
  requireSse,
  writeMmx,
} from './vector-support.ts';

/**
 * Instructions of MMX and SSE to SSE4.1 that move lanes about: unpack, shuffle, align, blend, insert, extract, extend.
 *
 * Where an immediate chooses the lanes it is known only when the instruction executes (unless the context knows it
 * earlier): the bytes of a `swizzle` are computed from it then.
 */

/** Byte numbers 0–15. */
const IOTA = v128(0x0706050403020100n, 0x0f0e0d0c0b0a0908n);

/** Alternates lanes of `bytes` bytes of a and b, from byte `first` of each. */
const interleave = (bytes: number, first: number): Lanes => {
  const order = Array.from({ length: 16 }, (_, i) => {
    const lane = Math.floor(i / bytes);
    return first + (lane >> 1) * bytes + (i % bytes) + (lane & 1) * 16;
  });
  return (a, b) => simd.shuffle(a, b, order);
};

const unpackLow = (bytes: number): Semantics => packed(interleave(bytes, 0));
/** The upper half of an MMX register begins at byte 4. The byte order beyond its eight bytes means nothing, but must be valid. */
const unpackHigh = (bytes: number): Semantics =>
  packed(interleave(bytes, 8), (a, b, c) => interleave(bytes, 0)(upperDwords(a), upperDwords(b), c));
const upperDwords = (a: V128): V128 => simd.i64x2ShrU(a, i32(32));

/** PSHUFB: index bytes with bit 7 set give zero, and only the low three or four bits count otherwise. */
const shuffleBytes = (indexMask: bigint): Lanes => {
  const mask = indexMask * 0x0101_0101_0101_0101n;
  return (a, b) => simd.swizzle(a, simd.andV128(b, v128(mask, mask)));
};

/** Spreads the four two-bit fields of an immediate byte over four bytes. */
function selectors(c: Context, immediate: I32): I32 {
  const halves = c.let(and(or(immediate, shl(immediate, i32(12))), i32(0x000f_000f)));
  return and(or(halves, shl(halves, i32(6))), i32(0x0303_0303));
}

/** Byte numbers that choose one dword for each field of the immediate. */
function dwordIndices(c: Context, immediate: I32): V128 {
  const fields = simd.i32x4Splat(selectors(c, immediate));
  const spread = simd.shuffle(fields, fields, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
  return simd.orV128(simd.i32x4Shl(spread, i32(2)), simd.dwordsV128(0x03020100, 0x03020100, 0x03020100, 0x03020100));
}

/** Bytes of a literal choice of dwords, for fields `first` … `last`. */
const literalDwords = (immediate: number, fields: readonly number[]): number[] =>
  fields.flatMap((field) => [0, 1, 2, 3].map((byte) => ((immediate >> (2 * field)) & 3) * 4 + byte));

const shuffleDwords: Semantics = (c) => {
  requireSse(c);
  const source = c.let(c.read128(1));
  const immediate = c.let(immediateByte(c));
  const known = immediate.literal;
  c.write128(
    0,
    known === undefined
      ? simd.swizzle(source, dwordIndices(c, immediate))
      : simd.shuffle(source, source, literalDwords(Number(known), [0, 1, 2, 3])),
  );
};

/** Shuffles the four words from byte `first` on; the other half stays. */
function shuffledWords(c: Context, source: V128, first: 0 | 8): V128 {
  const fields = simd.lowDword(selectors(c, c.let(immediateByte(c))));
  const moved = [0, 0, 1, 1, 2, 2, 3, 3];
  const none = new Array<number>(8).fill(4);
  const spread = simd.shuffle(fields, fields, first === 0 ? [...moved, ...none] : [...none, ...moved]);
  // Byte numbers: twice the field plus 0 or 1 in the moved half, themselves in the other.
  const movedBase = 0x0100_0100_0100_0100n + BigInt(first) * 0x0101_0101_0101_0101n;
  const base = first === 0 ? v128(movedBase, 0x0f0e0d0c0b0a0908n) : v128(0x0706050403020100n, movedBase);
  return simd.swizzle(source, simd.i8x16Add(simd.i64x2Shl(spread, i32(1)), base));
}

const shuffleWords =
  (first: 0 | 8): Semantics =>
  (c) => {
    requireSse(c);
    c.write128(0, shuffledWords(c, c.let(c.read128(1)), first));
  };

const shuffleMmxWords: Semantics = (c) => {
  requireMmx(c);
  const source = c.let(simd.i64x2Splat(c.read(1)));
  writeMmx(c, 0, simd.lowHalf(shuffledWords(c, source, 0)));
};

/** SHUFPS: two dwords of the destination, then two of the source. */
const shuffleSingles: Semantics = (c) => {
  requireSse(c);
  const b = c.let(c.read128(1));
  const a = c.let(c.read128(0));
  const immediate = c.let(immediateByte(c));
  const known = immediate.literal;
  if (known !== undefined) {
    const upper = literalDwords(Number(known), [2, 3]).map((byte) => byte + 16);
    c.write128(0, simd.shuffle(a, b, [...literalDwords(Number(known), [0, 1]), ...upper]));
    return;
  }
  const indices = c.let(dwordIndices(c, immediate));
  c.write128(
    0,
    simd.shuffle(
      simd.swizzle(a, indices),
      simd.swizzle(b, indices),
      [0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31],
    ),
  );
};

const shuffleDoubles: Semantics = (c) => {
  requireSse(c);
  const b = c.let(c.read128(1));
  const a = c.let(c.read128(0));
  const immediate = c.let(immediateByte(c));
  const half = (vector: V128, bit: number) =>
    select(and(immediate, i32(bit)), simd.i64x2Extract(vector, 1), simd.i64x2Extract(vector, 0));
  c.write128(0, simd.quadwords(half(a, 1), half(b, 2)));
};

/** PALIGNR: destination above source, shifted right by bytes. */
const alignRight: Semantics = (c) => {
  const onMmx = isMmx(c, 0);
  if (onMmx) {
    requireMmx(c);
    const both = c.let(simd.quadwords(c.let(c.read(1)), c.read(0)));
    const indices = simd.i8x16AddSatU(IOTA, simd.i8x16Splat(immediateByte(c)));
    writeMmx(c, 0, simd.lowHalf(simd.swizzle(both, indices)));
    return;
  }
  requireSse(c);
  const b = c.let(c.read128(1));
  const a = c.let(c.read128(0));
  const immediate = c.let(immediateByte(c));
  const known = immediate.literal;
  if (known !== undefined && known <= 16) {
    const bytes = Array.from({ length: 16 }, (_, i) => i + Number(known));
    c.write128(0, simd.shuffle(b, a, bytes));
    return;
  }
  // Numbers from 16 on give zeros: in the source those beyond it, in the destination those before and beyond it.
  const indices = c.let(simd.i8x16AddSatU(IOTA, simd.i8x16Splat(immediate)));
  const sixteen = v128(0x1010_1010_1010_1010n, 0x1010_1010_1010_1010n);
  c.write128(0, simd.orV128(simd.swizzle(b, indices), simd.swizzle(a, simd.i8x16Sub(indices, sixteen))));
};

const shiftBytesRight: Semantics = (c) => {
  requireSse(c);
  const indices = simd.i8x16AddSatU(IOTA, simd.i8x16Splat(immediateByte(c)));
  c.write128(0, simd.swizzle(c.read128(0), indices));
};

const shiftBytesLeft: Semantics = (c) => {
  requireSse(c);
  const immediate = c.let(immediateByte(c));
  const count = select(gtU(immediate, i32(16)), i32(16), immediate);
  c.write128(0, simd.swizzle(c.read128(0), simd.i8x16Sub(IOTA, simd.i8x16Splat(count))));
};

/** Replaces lanes of the destination by those of the source where the mask has ones. */
const blend =
  (mask: (c: Context) => V128): Semantics =>
  (c) => {
    requireSse(c);
    const b = c.let(c.read128(1));
    c.write128(0, simd.bitSelect(b, c.read128(0), mask(c)));
  };

/** Lanes whose bit of the immediate is set, as all ones. `laneBits` holds each lane's bit. */
function lanesOfImmediate(
  c: Context,
  laneBits: V128,
  splat: (value: I32) => V128,
  equal: (a: V128, b: V128) => V128,
): V128 {
  const chosen = c.let(simd.andV128(splat(immediateByte(c)), laneBits));
  return equal(chosen, laneBits);
}

const SINGLE_BITS = simd.dwordsV128(1, 2, 4, 8);
const blendMasks = {
  words: (c: Context) =>
    lanesOfImmediate(c, v128(0x0008_0004_0002_0001n, 0x0080_0040_0020_0010n), simd.i16x8Splat, simd.i16x8Eq),
  singles: (c: Context) => lanesOfImmediate(c, SINGLE_BITS, simd.i32x4Splat, simd.i32x4Eq),
  doubles: (c: Context) => lanesOfImmediate(c, v128(1n, 2n), (value) => simd.i64x2Splat(extendU(value)), simd.i64x2Eq),
};
/** The variable blends take the sign bits of XMM0. */
const firstRegister = (c: Context) => load128(c.state, State.xmm);

/** Host address of the lane of a register operand that an immediate names. */
function lanePointer(c: Context, operand: number, bytes: number): I32 {
  const lanes = (isMmx(c, operand) ? 8 : 16) / bytes;
  return add(c.operandPointer(operand), shl(and(immediateByte(c), i32(lanes - 1)), i32(Math.log2(bytes))));
}

const insert =
  (bytes: number): Semantics =>
  (c) => {
    const onMmx = isMmx(c, 0);
    if (onMmx) requireMmx(c);
    else requireSse(c);
    const value = c.let(c.read(1));
    c.fn.store(storeInteger(bytes, lanePointer(c, 0, bytes), value));
    if (onMmx) markMmx(c, 0);
  };

const extract =
  (bytes: number): Semantics =>
  (c) => {
    const onMmx = isMmx(c, 1);
    if (onMmx) requireMmx(c);
    else requireSse(c);
    c.write(0, c.let(loadInteger(bytes, false, lanePointer(c, 1, bytes))));
    if (onMmx) enterMmx(c);
  };

/** INSERTPS: bits 6–7 choose the lane of a register source, 4–5 where it goes, 0–3 lanes that become zero. */
const insertSingle: Semantics = (c) => {
  requireSse(c);
  const immediate = c.let(immediateByte(c));
  const value = isMemory(c, 1)
    ? wrap(c.read(1))
    : load32(add(c.operandPointer(1), shl(shrU(immediate, i32(6)), i32(2))));
  const source = c.let(simd.i32x4Splat(value));
  const lane = and(shrU(immediate, i32(4)), i32(3));
  const place = simd.i32x4Eq(simd.i32x4Splat(lane), simd.dwordsV128(0, 1, 2, 3));
  const inserted = simd.bitSelect(source, c.read128(0), place);
  c.write128(0, simd.andNotV128(inserted, blendMasks.singles(c)));
};

const extend =
  (...steps: ((a: V128) => V128)[]): Semantics =>
  (c) => {
    requireSse(c);
    c.write128(
      0,
      steps.reduce((value, step) => step(value), c.read128(1)),
    );
  };

const moveMask =
  (mask: (a: V128) => I32): Semantics =>
  (c) => {
    if (isMmx(c, 1)) {
      requireMmx(c);
      c.write(0, extendU(and(mask(simd.i64x2Splat(c.read(1))), i32(0xff))));
      enterMmx(c);
      return;
    }
    requireSse(c);
    c.write(0, extendU(mask(c.read128(1))));
  };

const duplicate =
  (bytes: readonly number[]): Semantics =>
  (c) => {
    requireSse(c);
    const source = c.let(c.read128(1));
    c.write128(0, simd.shuffle(source, source, bytes));
  };

const duplicateDouble: Semantics = (c) => {
  requireSse(c);
  c.write128(0, simd.i64x2Splat(c.read(1)));
};

/** PTEST: ZF when source and destination have no one in common, CF when the source has none outside the destination. */
const test: Semantics = (c) => {
  requireSse(c);
  const b = c.let(c.read128(1));
  const a = c.let(c.read128(0));
  const zero = eqz(simd.anyTrue(simd.andV128(a, b)));
  const carry = eqz(simd.anyTrue(simd.andNotV128(b, a)));
  c.setFlagsExplicit(extendU(or(shl(zero, i32(6)), carry)));
};

export const SHUFFLE: ReadonlyMap<string, Semantics> = new Map<string, Semantics>([
  ['punpcklbw', unpackLow(1)],
  ['punpcklwd', unpackLow(2)],
  ['punpckldq', unpackLow(4)],
  ['punpcklqdq', unpackLow(8)],
  ['unpcklps', unpackLow(4)],
  ['unpcklpd', unpackLow(8)],
  ['punpckhbw', unpackHigh(1)],
  ['punpckhwd', unpackHigh(2)],
  ['punpckhdq', unpackHigh(4)],
  ['punpckhqdq', unpackHigh(8)],
  ['unpckhps', unpackHigh(4)],
  ['unpckhpd', unpackHigh(8)],

  ['pshufb', packed(shuffleBytes(0x8fn), shuffleBytes(0x87n))],
  ['pshufd', shuffleDwords],
  ['pshuflw', shuffleWords(0)],
  ['pshufhw', shuffleWords(8)],
  ['pshufw', shuffleMmxWords],
  ['shufps', shuffleSingles],
  ['shufpd', shuffleDoubles],
  ['palignr', alignRight],
  ['psrldq', shiftBytesRight],
  ['pslldq', shiftBytesLeft],

  ['pblendw', blend(blendMasks.words)],
  ['blendps', blend(blendMasks.singles)],
  ['blendpd', blend(blendMasks.doubles)],
  ['pblendvb', blend((c) => simd.i8x16ShrS(firstRegister(c), i32(7)))],
  ['blendvps', blend((c) => simd.i32x4ShrS(firstRegister(c), i32(31)))],
  ['blendvpd', blend((c) => simd.i64x2ShrS(firstRegister(c), i32(63)))],

  ['pinsrb', insert(1)],
  ['pinsrw', insert(2)],
  ['pinsrd', insert(4)],
  ['pinsrq', insert(8)],
  ['insertps', insertSingle],
  ['pextrb', extract(1)],
  ['pextrw', extract(2)],
  ['pextrd', extract(4)],
  ['pextrq', extract(8)],
  ['extractps', extract(4)],

  ['pmovsxbw', extend(simd.i16x8ExtendLowS)],
  ['pmovsxbd', extend(simd.i16x8ExtendLowS, simd.i32x4ExtendLowS)],
  ['pmovsxbq', extend(simd.i16x8ExtendLowS, simd.i32x4ExtendLowS, simd.i64x2ExtendLowS)],
  ['pmovsxwd', extend(simd.i32x4ExtendLowS)],
  ['pmovsxwq', extend(simd.i32x4ExtendLowS, simd.i64x2ExtendLowS)],
  ['pmovsxdq', extend(simd.i64x2ExtendLowS)],
  ['pmovzxbw', extend(simd.i16x8ExtendLowU)],
  ['pmovzxbd', extend(simd.i16x8ExtendLowU, simd.i32x4ExtendLowU)],
  ['pmovzxbq', extend(simd.i16x8ExtendLowU, simd.i32x4ExtendLowU, simd.i64x2ExtendLowU)],
  ['pmovzxwd', extend(simd.i32x4ExtendLowU)],
  ['pmovzxwq', extend(simd.i32x4ExtendLowU, simd.i64x2ExtendLowU)],
  ['pmovzxdq', extend(simd.i64x2ExtendLowU)],

  ['pmovmskb', moveMask(simd.i8x16Bitmask)],
  ['movmskps', moveMask(simd.i32x4Bitmask)],
  ['movmskpd', moveMask(simd.i64x2Bitmask)],
  ['movsldup', duplicate([0, 1, 2, 3, 0, 1, 2, 3, 8, 9, 10, 11, 8, 9, 10, 11])],
  ['movshdup', duplicate([4, 5, 6, 7, 4, 5, 6, 7, 12, 13, 14, 15, 12, 13, 14, 15])],
  ['movddup', duplicateDouble],
  ['ptest', test],
]);
