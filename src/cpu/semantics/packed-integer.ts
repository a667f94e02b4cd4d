import {
  and,
  gtU,
  type I32,
  type I64,
  i32,
  i64,
  select,
  shl,
  shrU,
  type V128,
  v128,
  wrap,
} from '../../wasm/expression.ts';
import * as simd from '../../wasm/simd.ts';
import { OperandKind } from '../decode/instruction.ts';
import type { Context, Semantics } from './context.ts';
import { isMmx, type Lanes, packed, requireMmx, requireSse, writeMmx } from './vector-support.ts';

/** Packed integer arithmetic, comparison, logic and shifts of MMX and SSE to SSE4.2. */

/** The low halves of both, side by side. */
const sideBySide = (a: V128, b: V128): V128 =>
  simd.shuffle(a, b, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]);

/** For MMX: an operation that halves the number of lanes works on both operands side by side. */
const halving =
  (operation: Lanes): Lanes =>
  (a, b, c) => {
    const both = c.let(sideBySide(a, b));
    return operation(both, both, c);
  };

const EVEN_WORDS = [0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29];
const ODD_WORDS = EVEN_WORDS.map((byte) => byte + 2);
const EVEN_DWORDS = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27];
const ODD_DWORDS = EVEN_DWORDS.map((byte) => byte + 4);

/** Combines neighbouring lanes: those of the destination make the lower half, those of the source the upper half. */
const horizontal =
  (operation: (a: V128, b: V128) => V128, even: readonly number[], odd: readonly number[]): Lanes =>
  (a, b) =>
    operation(simd.shuffle(a, b, even), simd.shuffle(a, b, odd));

/** The high words of signed or unsigned products of words. */
const highProducts =
  (low: Lanes, high: Lanes): Lanes =>
  (a, b, c) =>
    simd.shuffle(low(a, b, c), high(a, b, c), ODD_WORDS);

const evenDwords = (a: V128): V128 => simd.shuffle(a, a, [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]);

const absoluteDifference = (a: V128, b: V128): V128 => simd.i8x16Sub(simd.i8x16MaxU(a, b), simd.i8x16MinU(a, b));

/** Sums of absolute differences of eight bytes, one in each half. */
const sumOfDifferences: Lanes = (a, b, c) => {
  const words = simd.i16x8ExtaddPairwiseU(absoluteDifference(a, b));
  const dwords = c.let(simd.i32x4ExtaddPairwiseU(words));
  return simd.i64x2Add(simd.andV128(dwords, v128(0xffff_ffffn, 0xffff_ffffn)), simd.i64x2ShrU(dwords, i32(32)));
};

/** PMADDUBSW: unsigned bytes of the destination times signed bytes of the source, neighbours added with saturation. */
const multiplyAddBytes: Lanes = (a, b, c) => {
  const low = c.let(simd.i16x8Mul(simd.i16x8ExtendLowU(a), simd.i16x8ExtendLowS(b)));
  const high = c.let(simd.i16x8Mul(simd.i16x8ExtendHighU(a), simd.i16x8ExtendHighS(b)));
  return simd.i16x8AddSatS(simd.shuffle(low, high, EVEN_WORDS), simd.shuffle(low, high, ODD_WORDS));
};

/** PMULHRSW: 8000 × 8000 overflows to 8000, where WebAssembly saturates. */
const roundedHighProducts: Lanes = (a, b) => {
  const least = v128(0x8000_8000_8000_8000n, 0x8000_8000_8000_8000n);
  const overflow = simd.andV128(simd.i16x8Eq(a, least), simd.i16x8Eq(b, least));
  return simd.xorV128(simd.i16x8Q15MulrSatS(a, b), overflow);
};

/** PSIGNx: negates, clears or keeps lanes of the destination by the sign of the source's. */
const applySign =
  (subtract: Lanes, greater: Lanes, equal: Lanes): Lanes =>
  (a, b, c) => {
    const negative = c.let(greater(simd.zeroV128, b, c));
    const signed = subtract(simd.xorV128(a, negative), negative, c);
    return simd.andNotV128(signed, equal(b, simd.zeroV128, c));
  };

/** PHMINPOSUW: the least word and its number. Words become keys with the number below, so that the first least wins. */
const leastWord: Lanes = (_a, b, c) => {
  const key = (words: V128, first: number) =>
    simd.orV128(simd.i32x4Shl(words, i32(16)), simd.dwordsV128(first, first + 1, first + 2, first + 3));
  const four = c.let(simd.i32x4MinU(key(simd.i32x4ExtendLowU(b), 0), key(simd.i32x4ExtendHighU(b), 4)));
  const two = c.let(
    simd.i32x4MinU(four, simd.shuffle(four, four, [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7])),
  );
  const least = simd.i32x4MinU(two, simd.shuffle(two, two, [4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]));
  // The word comes below its number: exchange the halves of the lowest lane, clear the rest.
  return simd.shuffle(least, simd.zeroV128, [2, 3, 0, 1, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16]);
};

/** MPSADBW: eight sums of four absolute differences; the immediate chooses where both operands start. */
const slidingDifferences: Semantics = (c) => {
  requireSse(c);
  const b = c.let(c.read128(1));
  const immediate = c.let(wrap(c.immediate()));
  const iota = v128(0x0706050403020100n, 0x0f0e0d0c0b0a0908n);
  const from = (vector: V128, dword: I32) =>
    c.let(simd.swizzle(vector, simd.i8x16Add(iota, simd.i8x16Splat(shl(dword, i32(2))))));
  const source = from(b, and(immediate, i32(3)));
  const destination = from(c.read128(0), and(shrU(immediate, i32(2)), i32(1)));
  let sum: V128 | null = null;
  for (let k = 0; k < 4; k++) {
    const window = simd.shuffle(
      destination,
      destination,
      Array.from({ length: 16 }, (_, i) => (i + k) & 15),
    );
    const byte = simd.shuffle(source, source, new Array<number>(16).fill(k));
    const [x, y] = [c.let(window), c.let(byte)];
    const words = simd.i16x8ExtendLowU(absoluteDifference(x, y));
    sum = c.let(sum === null ? words : simd.i16x8Add(sum, words));
  }
  c.write128(0, sum as V128);
};

/** Shifts all lanes by one count; counts beyond the width give zeros, or copies of the sign bit. */
const shifts =
  (shift: (a: V128, count: I32) => V128, width: number, arithmetic = false): Semantics =>
  (c) => {
    const onMmx = isMmx(c, 0);
    if (onMmx) requireMmx(c);
    else requireSse(c);
    const count = c.let(shiftCount(c));
    const beyond = gtU(count, i64(width - 1));
    const a = c.let(onMmx ? simd.i64x2Splat(c.read(0)) : c.read128(0));
    const result = arithmetic
      ? shift(a, select(beyond, i32(width - 1), wrap(count)))
      : select(beyond, simd.zeroV128, shift(a, wrap(count)));
    if (onMmx) writeMmx(c, 0, simd.lowHalf(result));
    else c.write128(0, result);
  };

function shiftCount(c: Context): I64 {
  if (c.shape.operands[1]?.kind === OperandKind.immediate) return c.immediate();
  return isMmx(c, 0) ? c.read(1) : simd.lowHalf(c.read128(1));
}

const unary = (operation: (a: V128) => V128): Semantics => packed((_a, b) => operation(b));

export const PACKED_INTEGER: ReadonlyMap<string, Semantics> = new Map<string, Semantics>([
  ['paddb', packed(simd.i8x16Add)],
  ['paddw', packed(simd.i16x8Add)],
  ['paddd', packed(simd.i32x4Add)],
  ['paddq', packed(simd.i64x2Add)],
  ['paddsb', packed(simd.i8x16AddSatS)],
  ['paddsw', packed(simd.i16x8AddSatS)],
  ['paddusb', packed(simd.i8x16AddSatU)],
  ['paddusw', packed(simd.i16x8AddSatU)],
  ['psubb', packed(simd.i8x16Sub)],
  ['psubw', packed(simd.i16x8Sub)],
  ['psubd', packed(simd.i32x4Sub)],
  ['psubq', packed(simd.i64x2Sub)],
  ['psubsb', packed(simd.i8x16SubSatS)],
  ['psubsw', packed(simd.i16x8SubSatS)],
  ['psubusb', packed(simd.i8x16SubSatU)],
  ['psubusw', packed(simd.i16x8SubSatU)],

  ['pmullw', packed(simd.i16x8Mul)],
  ['pmulld', packed(simd.i32x4Mul)],
  ['pmulhw', packed(highProducts(simd.i32x4ExtmulLowS, simd.i32x4ExtmulHighS))],
  ['pmulhuw', packed(highProducts(simd.i32x4ExtmulLowU, simd.i32x4ExtmulHighU))],
  ['pmulhrsw', packed(roundedHighProducts)],
  ['pmuludq', packed((a, b) => simd.i64x2ExtmulLowU(evenDwords(a), evenDwords(b)))],
  ['pmuldq', packed((a, b) => simd.i64x2ExtmulLowS(evenDwords(a), evenDwords(b)))],
  ['pmaddwd', packed(simd.i32x4DotS)],
  ['pmaddubsw', packed(multiplyAddBytes)],

  ['pavgb', packed(simd.i8x16AvgrU)],
  ['pavgw', packed(simd.i16x8AvgrU)],
  ['psadbw', packed(sumOfDifferences)],
  ['mpsadbw', slidingDifferences],
  ['phminposuw', packed(leastWord)],

  ['pminub', packed(simd.i8x16MinU)],
  ['pminuw', packed(simd.i16x8MinU)],
  ['pminud', packed(simd.i32x4MinU)],
  ['pminsb', packed(simd.i8x16MinS)],
  ['pminsw', packed(simd.i16x8MinS)],
  ['pminsd', packed(simd.i32x4MinS)],
  ['pmaxub', packed(simd.i8x16MaxU)],
  ['pmaxuw', packed(simd.i16x8MaxU)],
  ['pmaxud', packed(simd.i32x4MaxU)],
  ['pmaxsb', packed(simd.i8x16MaxS)],
  ['pmaxsw', packed(simd.i16x8MaxS)],
  ['pmaxsd', packed(simd.i32x4MaxS)],

  ['pabsb', unary(simd.i8x16Abs)],
  ['pabsw', unary(simd.i16x8Abs)],
  ['pabsd', unary(simd.i32x4Abs)],
  ['psignb', packed(applySign(simd.i8x16Sub, simd.i8x16GtS, simd.i8x16Eq))],
  ['psignw', packed(applySign(simd.i16x8Sub, simd.i16x8GtS, simd.i16x8Eq))],
  ['psignd', packed(applySign(simd.i32x4Sub, simd.i32x4GtS, simd.i32x4Eq))],

  ['phaddw', neighbours(simd.i16x8Add, EVEN_WORDS, ODD_WORDS)],
  ['phaddd', neighbours(simd.i32x4Add, EVEN_DWORDS, ODD_DWORDS)],
  ['phaddsw', neighbours(simd.i16x8AddSatS, EVEN_WORDS, ODD_WORDS)],
  ['phsubw', neighbours(simd.i16x8Sub, EVEN_WORDS, ODD_WORDS)],
  ['phsubd', neighbours(simd.i32x4Sub, EVEN_DWORDS, ODD_DWORDS)],
  ['phsubsw', neighbours(simd.i16x8SubSatS, EVEN_WORDS, ODD_WORDS)],

  ['pcmpeqb', packed(simd.i8x16Eq)],
  ['pcmpeqw', packed(simd.i16x8Eq)],
  ['pcmpeqd', packed(simd.i32x4Eq)],
  ['pcmpeqq', packed(simd.i64x2Eq)],
  ['pcmpgtb', packed(simd.i8x16GtS)],
  ['pcmpgtw', packed(simd.i16x8GtS)],
  ['pcmpgtd', packed(simd.i32x4GtS)],
  ['pcmpgtq', packed(simd.i64x2GtS)],

  ...['pand', 'andps', 'andpd'].map((name): [string, Semantics] => [name, packed(simd.andV128)]),
  ...['pandn', 'andnps', 'andnpd'].map((name): [string, Semantics] => [name, packed((a, b) => simd.andNotV128(b, a))]),
  ...['por', 'orps', 'orpd'].map((name): [string, Semantics] => [name, packed(simd.orV128)]),
  ...['pxor', 'xorps', 'xorpd'].map((name): [string, Semantics] => [name, packed(simd.xorV128)]),

  ['psllw', shifts(simd.i16x8Shl, 16)],
  ['pslld', shifts(simd.i32x4Shl, 32)],
  ['psllq', shifts(simd.i64x2Shl, 64)],
  ['psrlw', shifts(simd.i16x8ShrU, 16)],
  ['psrld', shifts(simd.i32x4ShrU, 32)],
  ['psrlq', shifts(simd.i64x2ShrU, 64)],
  ['psraw', shifts(simd.i16x8ShrS, 16, true)],
  ['psrad', shifts(simd.i32x4ShrS, 32, true)],

  ['packsswb', packed(simd.i8x16NarrowS, halving(simd.i8x16NarrowS))],
  ['packuswb', packed(simd.i8x16NarrowU, halving(simd.i8x16NarrowU))],
  ['packssdw', packed(simd.i16x8NarrowS, halving(simd.i16x8NarrowS))],
  ['packusdw', packed(simd.i16x8NarrowU)],
]);

function neighbours(operation: (a: V128, b: V128) => V128, even: readonly number[], odd: readonly number[]): Semantics {
  const lanes = horizontal(operation, even, odd);
  return packed(lanes, halving(lanes));
}
