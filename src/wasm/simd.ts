import { type Expression, type F32, type F64, type I32, type I64, type V128, v128, vector } from './expression.ts';

/**
 * WebAssembly's vector instructions, as typed values. Names are the specification's, without the dots.
 *
 * All lanes are little endian: lane 0 is the lowest part of an XMM register.
 */

type Binary = (a: V128, b: V128) => V128;
type Unary = (a: V128) => V128;
type Shift = (a: V128, count: I32) => V128;

const unary =
  (opcode: number): Unary =>
  (a) =>
    vector('v128', opcode, [a]);
const binary =
  (opcode: number): Binary =>
  (a, b) =>
    vector('v128', opcode, [a, b]);
/** Shift counts are taken modulo the width of a lane. */
const shift =
  (opcode: number): Shift =>
  (a, count) =>
    vector('v128', opcode, [a, count]);
const reduction =
  (opcode: number) =>
  (a: V128): I32 =>
    vector('i32', opcode, [a]);

/** All bits zero. */
export const zeroV128 = v128(0n, 0n);

/** A constant from 32-bit lanes, lowest first. */
export function dwordsV128(a: number, b: number, c: number, d: number): V128 {
  const pair = (low: number, high: number) => BigInt(low >>> 0) | (BigInt(high >>> 0) << 32n);
  return v128(pair(a, b), pair(c, d));
}

/** Bytes chosen from `a` (0–15) and `b` (16–31). */
export const shuffle = (a: V128, b: V128, bytes: readonly number[]): V128 => vector('v128', 13, [a, b], bytes);
/** Bytes of `a` chosen by the bytes of `indices`; 0 for an index above 15. */
export const swizzle = binary(14);

const splat =
  <T extends Expression>(opcode: number) =>
  (value: T): V128 =>
    vector('v128', opcode, [value]);
export const i8x16Splat = splat<I32>(15);
export const i16x8Splat = splat<I32>(16);
export const i32x4Splat = splat<I32>(17);
export const i64x2Splat = splat<I64>(18);
export const f32x4Splat = splat<F32>(19);
export const f64x2Splat = splat<F64>(20);

export const i32x4Replace = (a: V128, lane: number, value: I32): V128 => vector('v128', 28, [a, value], [lane]);
export const i64x2Extract = (a: V128, lane: number): I64 => vector('i64', 29, [a], [lane]);
export const i64x2Replace = (a: V128, lane: number, value: I64): V128 => vector('v128', 30, [a, value], [lane]);

/** `value` in the low half, zeros above. */
export const lowQuadword = (value: I64): V128 =>
  value.literal === undefined ? i64x2Replace(zeroV128, 0, value) : v128(BigInt(value.literal), 0n);
/** `value` in the lowest 32-bit lane, zeros above. */
export const lowDword = (value: I32): V128 => i32x4Replace(zeroV128, 0, value);
/** Two 64-bit halves. */
export const quadwords = (low: I64, high: I64): V128 => i64x2Replace(i64x2Splat(low), 1, high);

export const i8x16Eq = binary(35);
export const i8x16GtS = binary(39);
export const i16x8Eq = binary(45);
export const i16x8GtS = binary(49);
export const i32x4Eq = binary(55);
export const i32x4GtS = binary(59);
export const i64x2Eq = binary(214);
export const i64x2GtS = binary(217);
export const f32x4Eq = binary(65);
export const f32x4Lt = binary(67);
export const f32x4Ge = binary(70);
export const f64x2Eq = binary(71);
export const f64x2Lt = binary(73);
export const f64x2Ge = binary(76);

export const andV128 = binary(78);
/** a & ~b */
export const andNotV128 = binary(79);
export const orV128 = binary(80);
export const xorV128 = binary(81);
/** Bits of `a` where `mask` is one, of `b` elsewhere. */
export const bitSelect = (a: V128, b: V128, mask: V128): V128 => vector('v128', 82, [a, b, mask]);
/** 1 when any bit is one. */
export const anyTrue = reduction(83);

/** Two f64 become the two low f32, zeros above. */
export const f32x4DemoteF64x2Zero = unary(94);
export const f64x2PromoteLow = unary(95);

export const i8x16Abs = unary(96);
export const i8x16Bitmask = reduction(100);
export const i8x16NarrowS = binary(101);
export const i8x16NarrowU = binary(102);
export const f32x4Ceil = unary(103);
export const f32x4Floor = unary(104);
export const f32x4Trunc = unary(105);
export const f32x4Nearest = unary(106);
export const i8x16ShrS = shift(108);
export const i8x16Add = binary(110);
export const i8x16AddSatS = binary(111);
export const i8x16AddSatU = binary(112);
export const i8x16Sub = binary(113);
export const i8x16SubSatS = binary(114);
export const i8x16SubSatU = binary(115);
export const f64x2Ceil = unary(116);
export const f64x2Floor = unary(117);
export const i8x16MinS = binary(118);
export const i8x16MinU = binary(119);
export const i8x16MaxS = binary(120);
export const i8x16MaxU = binary(121);
export const f64x2Trunc = unary(122);
export const i8x16AvgrU = binary(123);
/** Sums of neighbouring bytes. */
export const i16x8ExtaddPairwiseU = unary(125);
/** Sums of neighbouring words. */
export const i32x4ExtaddPairwiseU = unary(127);

export const i16x8Abs = unary(128);
export const i16x8Q15MulrSatS = binary(130);
export const i16x8Bitmask = reduction(132);
export const i16x8NarrowS = binary(133);
export const i16x8NarrowU = binary(134);
export const i16x8ExtendLowS = unary(135);
export const i16x8ExtendHighS = unary(136);
export const i16x8ExtendLowU = unary(137);
export const i16x8ExtendHighU = unary(138);
export const i16x8Shl = shift(139);
export const i16x8ShrS = shift(140);
export const i16x8ShrU = shift(141);
export const i16x8Add = binary(142);
export const i16x8AddSatS = binary(143);
export const i16x8AddSatU = binary(144);
export const i16x8Sub = binary(145);
export const i16x8SubSatS = binary(146);
export const i16x8SubSatU = binary(147);
export const f64x2Nearest = unary(148);
export const i16x8Mul = binary(149);
export const i16x8MinS = binary(150);
export const i16x8MinU = binary(151);
export const i16x8MaxS = binary(152);
export const i16x8MaxU = binary(153);
export const i16x8AvgrU = binary(155);

export const i32x4Abs = unary(160);
export const i32x4AllTrue = reduction(163);
export const i32x4Bitmask = reduction(164);
export const i32x4ExtendLowS = unary(167);
export const i32x4ExtendLowU = unary(169);
export const i32x4ExtendHighU = unary(170);
export const i32x4Shl = shift(171);
export const i32x4ShrS = shift(172);
export const i32x4ShrU = shift(173);
export const i32x4Add = binary(174);
export const i32x4Sub = binary(177);
export const i32x4Mul = binary(181);
export const i32x4MinS = binary(182);
export const i32x4MinU = binary(183);
export const i32x4MaxS = binary(184);
export const i32x4MaxU = binary(185);
/** Sums of two neighbouring products of signed words, modulo 2^32. */
export const i32x4DotS = binary(186);
export const i32x4ExtmulLowS = binary(188);
export const i32x4ExtmulHighS = binary(189);
export const i32x4ExtmulLowU = binary(190);
export const i32x4ExtmulHighU = binary(191);

export const i64x2AllTrue = reduction(195);
export const i64x2Bitmask = reduction(196);
export const i64x2ExtendLowS = unary(199);
export const i64x2ExtendLowU = unary(201);
export const i64x2Shl = shift(203);
export const i64x2ShrS = shift(204);
export const i64x2ShrU = shift(205);
export const i64x2Add = binary(206);
export const i64x2Sub = binary(209);
export const i64x2ExtmulLowS = binary(220);
export const i64x2ExtmulLowU = binary(222);

export const f32x4Abs = unary(224);
export const f32x4Sqrt = unary(227);
export const f32x4Add = binary(228);
export const f32x4Sub = binary(229);
export const f32x4Mul = binary(230);
export const f32x4Div = binary(231);
export const f64x2Abs = unary(236);
export const f64x2Sqrt = unary(239);
export const f64x2Add = binary(240);
export const f64x2Sub = binary(241);
export const f64x2Mul = binary(242);
export const f64x2Div = binary(243);

export const i32x4TruncSatF32x4S = unary(248);
export const f32x4ConvertI32x4S = unary(250);
/** The two f64 become the two low i32, zeros above. */
export const i32x4TruncSatF64x2SZero = unary(252);
export const f64x2ConvertLowI32x4S = unary(254);

/** The low half, for a 64-bit register. */
export const lowHalf = (a: V128): I64 => i64x2Extract(a, 0);
