import { bitLength, significandOf } from './encoding.ts';
import { roundInteger } from './rounding.ts';
import { extended80, type FloatContext, FloatFlag, FloatKind, type Unpacked } from './softfloat.ts';

/**
 * Sines, tangents, logarithms and exponentials of 80-bit numbers, for finite and nonzero operands within the ranges of
 * the instructions. Special values are the business of x87-transcendental.ts.
 *
 * Everything is computed in fixed point: an integer n stands for n / 2^fractionBits. To keep the relative precision of
 * small results, a function f that is nearly linear at zero is taken apart as f(t) = t · S(t): t exact, or with at
 * least 128 significant bits, and S near one in fixed point. Results err by less than 2^−120 of their value, so they
 * are the correctly rounded ones but for a chance of about 2^−55; they are never exact, therefore always inexact.
 */
const fractionBits = 192;
const fraction = BigInt(fractionBits);
const one = 1n << fraction;

/** A number is |t| = magnitude · 2^scale. */
interface Scaled {
  magnitude: bigint;
  scale: number;
}

function roundScaled(context: FloatContext, sign: number, magnitude: bigint, scale: number, result: Unpacked): void {
  // Room below for the sticky bit, whatever the length of the magnitude.
  roundInteger(context, extended80, 64, sign, magnitude << 70n, scale - 70, true, result);
}

/** t in fixed point, truncated; zero when it is too small to count. */
function toFixed(t: Scaled): bigint {
  const shift = fractionBits + t.scale;
  return shift >= 0 ? t.magnitude << BigInt(shift) : t.magnitude >> BigInt(-shift);
}

/** Σ over k of termₖ where term₀ = 1 and termₖ₊₁ = termₖ · factor / divisor(k); stops when terms vanish. */
function sumSeries(factor: bigint, divisor: (k: number) => number): bigint {
  let term = one;
  let sum = one;
  for (let k = 0; term !== 0n && term !== -1n; k++) {
    term = (term * factor) / BigInt(divisor(k));
    term >>= fraction;
    sum += term;
  }
  return sum;
}

/** 1 ± z/3 + z²/5 ± z³/7 …: atanh(t)/t for z = t², atan(t)/t for z = −t². */
function inverseTangentSeries(z: bigint): bigint {
  let power = one;
  let sum = one;
  for (let k = 3n; ; k += 2n) {
    power = (power * z) >> fraction;
    if (power === 0n || power === -1n) return sum;
    sum += power / k;
  }
}

/** ln 2 = 2 · atanh(1/3). */
const ln2 = ((2n * one * inverseTangentSeries(one / 9n)) / 3n) >> fraction;

/** π by Machin: 16 · atan(1/5) − 4 · atan(1/239). */
const pi =
  ((16n * one * inverseTangentSeries(-one / 25n)) / 5n - (4n * one * inverseTangentSeries(-one / 57121n)) / 239n) >>
  fraction;

/**
 * π as the processor's argument reduction knows it, to 66 significant bits (SDM vol. 1, 8.3.8): an integer over 2^66,
 * and half of it over 2^67.
 */
const reductionPi = 0xc90fdaa22168c234cn;
const reductionScale = -67;

/**
 * What is left of |x| after taking off the nearest multiple of π/2. Never zero: a multiple of 66 odd bits does not fit a
 * significand. Scratch, valid until the next call.
 */
const reduced = { magnitude: 0n, scale: 0, negative: false, quadrant: 0 };

function reduceAngle(x: Unpacked): void {
  const magnitude = significandOf(x);
  const scale = x.exponent - 63;
  reduced.negative = false;
  reduced.quadrant = 0;
  reduced.magnitude = magnitude;
  reduced.scale = scale;
  if (x.exponent < -1) return;
  // |x| ≥ 1/2 reaches down to 2^−64 and so fits the scale of the divisor.
  const value = scale >= reductionScale ? magnitude << BigInt(scale - reductionScale) : magnitude;
  const multiple = (value * 2n + reductionPi) / (reductionPi * 2n);
  const rest = value - multiple * reductionPi;
  reduced.quadrant = Number(multiple & 3n);
  reduced.negative = rest < 0n;
  reduced.magnitude = rest < 0n ? -rest : rest;
  reduced.scale = reductionScale;
}

/** sin(t)/t for the reduced angle, in fixed point. Never quite one. */
function sineRatio(): bigint {
  const t = toFixed(reduced);
  const sum = sumSeries(-((t * t) >> fraction), (k) => (2 * k + 2) * (2 * k + 3));
  return sum === one ? one - 1n : sum;
}

/** cos(t) of the reduced angle, in fixed point. Never quite one. */
function cosineValue(): bigint {
  const t = toFixed(reduced);
  const sum = sumSeries(-((t * t) >> fraction), (k) => (2 * k + 1) * (2 * k + 2));
  return sum === one ? one - 1n : sum;
}

/** Rounds the sine (`quarter` 0) or cosine (`quarter` 1) of an angle that has been reduced. */
function roundCircular(context: FloatContext, sign: number, quarter: 0 | 1, result: Unpacked): void {
  const quadrant = (reduced.quadrant + quarter) & 3;
  const negated = quadrant >= 2 ? 1 : 0;
  if ((quadrant & 1) !== 0) roundScaled(context, sign ^ negated, cosineValue(), -fractionBits, result);
  else {
    const resultSign = sign ^ negated ^ (reduced.negative ? 1 : 0);
    roundScaled(context, resultSign, reduced.magnitude * sineRatio(), reduced.scale - fractionBits, result);
  }
}

/** sin x for |x| < 2^63. */
export function sine(context: FloatContext, x: Unpacked, result: Unpacked): void {
  reduceAngle(x);
  roundCircular(context, x.sign, 0, result);
}

/** cos x for |x| < 2^63. */
export function cosine(context: FloatContext, x: Unpacked, result: Unpacked): void {
  reduceAngle(x);
  roundCircular(context, 0, 1, result);
}

/** tan x for |x| < 2^63. */
export function tangent(context: FloatContext, x: Unpacked, result: Unpacked): void {
  reduceAngle(x);
  const sign = x.sign ^ (reduced.negative ? 1 : 0);
  const sineOver = sineRatio();
  const cosineOf = cosineValue();
  // tan t = t · ratio / cos t, and −1 over that in the odd quadrants.
  if ((reduced.quadrant & 1) === 0) {
    roundScaled(context, sign, ((reduced.magnitude * sineOver) << 128n) / cosineOf, reduced.scale - 128, result);
  } else {
    const divisor = reduced.magnitude * sineOver;
    roundScaled(context, sign ^ 1, (cosineOf << fraction) / divisor, -reduced.scale - fractionBits, result);
  }
}

/** 2^x − 1 for |x| ≤ 1, x ≠ ±1. */
export function exponentialMinusOne(context: FloatContext, x: Unpacked, result: Unpacked): void {
  // t = x · ln 2, kept at full length; 2^x − 1 = t · (1 + t/2! + t²/3! + …).
  const t: Scaled = { magnitude: significandOf(x) * ln2, scale: x.exponent - 63 - fractionBits };
  const fixed = toFixed(t);
  const sum = sumSeries(x.sign !== 0 ? -fixed : fixed, (k) => k + 2);
  roundScaled(context, x.sign, t.magnitude * sum, t.scale - fractionBits, result);
}

/** Rounds y · log₂ of a number whose natural logarithm is ± magnitude · 2^scale. */
function roundLogarithm(
  context: FloatContext,
  sign: number,
  y: Unpacked,
  magnitude: bigint,
  scale: number,
  result: Unpacked,
): void {
  const log2 = (magnitude << fraction) / ln2;
  roundScaled(context, sign ^ y.sign, significandOf(y) * log2, scale + y.exponent - 63, result);
}

/** Twice the inverse hyperbolic tangent of numerator / denominator, both positive, at most 1/3; as magnitude · 2^scale. */
function logarithmOfRatio(numerator: bigint, denominator: bigint): Scaled {
  const shift = Math.max(0, fractionBits + bitLength(denominator) - bitLength(numerator));
  const ratio = (numerator << BigInt(shift)) / denominator;
  const fixed = toFixed({ magnitude: ratio, scale: -shift });
  const series = inverseTangentSeries((fixed * fixed) >> fraction);
  return { magnitude: ratio * series, scale: 1 - shift - fractionBits };
}

/** y · log₂(value · 2^scale) for a positive number other than one. */
function logarithmOf(context: FloatContext, value: bigint, scale: number, y: Unpacked, result: Unpacked): void {
  // The number is 2^exponent · m / unit with m / unit between √½ and √2, so that exponent and ln m never cancel.
  const length = bitLength(value);
  let exponent = scale + length - 1;
  let unit = 1n << BigInt(length - 1);
  if ((value * value) >> BigInt(2 * length - 1) !== 0n) {
    exponent++;
    unit <<= 1n;
  }
  if (value === unit) {
    // A power of two: the product of two short numbers. The processor calls it inexact even where it is exact.
    const steps = BigInt(Math.abs(exponent));
    const sign = y.sign ^ (exponent < 0 ? 1 : 0);
    roundInteger(context, extended80, 64, sign, significandOf(y) * steps, y.exponent - 63, false, result);
    const denormal = result.kind === FloatKind.finite && result.high >= 0;
    context.flags |= FloatFlag.precision | (denormal ? FloatFlag.underflow : 0);
    return;
  }
  const below = value < unit;
  const part = logarithmOfRatio(below ? unit - value : value - unit, value + unit);
  if (exponent === 0) {
    roundLogarithm(context, below ? 1 : 0, y, part.magnitude, part.scale, result);
    return;
  }
  const fixed = toFixed(part);
  const sum = BigInt(exponent) * ln2 + (below ? -fixed : fixed);
  roundLogarithm(context, sum < 0n ? 1 : 0, y, sum < 0n ? -sum : sum, -fractionBits, result);
}

/** y · log₂ x for positive x other than one. */
export function logarithm(context: FloatContext, x: Unpacked, y: Unpacked, result: Unpacked): void {
  logarithmOf(context, significandOf(x), x.exponent - 63, y, result);
}

/** y · log₂(1 + x) for x > −1. */
export function logarithmPlusOne(context: FloatContext, x: Unpacked, y: Unpacked, result: Unpacked): void {
  const significand = significandOf(x);
  const scale = x.exponent - 63;
  if (x.exponent > fractionBits) logarithm(context, x, y, result);
  else if (x.exponent >= -1) {
    // Beyond what the manual promises, and too large for the series below: add the one exactly.
    const shift = BigInt(Math.max(0, -scale));
    const scaled = significand << BigInt(Math.max(0, scale));
    logarithmOf(context, (1n << shift) + (x.sign !== 0 ? -scaled : scaled), Math.min(0, scale), y, result);
  } else if (x.exponent < -fractionBits) {
    // ln(1 + x) is x less half its square, which is out of sight.
    const slightlyOff = (significand << fraction) + (x.sign !== 0 ? 1n : -1n);
    roundLogarithm(context, x.sign, y, slightlyOff, scale - fractionBits, result);
  } else {
    // ln(1 + x) = 2 · atanh(x / (2 + x)).
    const denominator = (2n << BigInt(-scale)) + (x.sign !== 0 ? -significand : significand);
    const part = logarithmOfRatio(significand, denominator);
    roundLogarithm(context, x.sign, y, part.magnitude, part.scale, result);
  }
}

/** atan(k/32) for k from 0 to 32, each from the one before by the addition theorem. */
const tangentSteps = 32n;
const arcTable: bigint[] = [0n];

function arcOf(index: number): bigint {
  for (let k = BigInt(arcTable.length); arcTable.length <= index; k++) {
    // atan(k/32) − atan((k−1)/32) = atan(32 / (32² + k(k−1)))
    const t = (tangentSteps * one) / (tangentSteps * tangentSteps + k * (k - 1n));
    const step = (t * inverseTangentSeries(-((t * t) >> fraction))) >> fraction;
    arcTable.push((arcTable[arcTable.length - 1] as bigint) + step);
  }
  return arcTable[index] as bigint;
}

/** atan(small / large) for 0 < small ≤ large, as magnitude · 2^scale. */
function arcTangent(small: Unpacked, large: Unpacked): Scaled {
  const shift = fractionBits;
  const ratio = (significandOf(small) << BigInt(shift)) / significandOf(large);
  const t: Scaled = { magnitude: ratio, scale: small.exponent - large.exponent - shift };
  const fixed = toFixed(t);
  const index = Number((fixed * tangentSteps + (one >> 1n)) >> fraction);
  if (index === 0) {
    const series = inverseTangentSeries(-((fixed * fixed) >> fraction));
    return { magnitude: ratio * (series === one ? one - 1n : series), scale: t.scale - fractionBits };
  }
  // atan t = atan c + atan((t − c) / (1 + t·c)), c = index/32.
  const c = (BigInt(index) << fraction) / tangentSteps;
  const d = ((fixed - c) << fraction) / (one + ((fixed * c) >> fraction));
  const arc = arcOf(index) + ((d * inverseTangentSeries(-((d * d) >> fraction))) >> fraction);
  return { magnitude: arc, scale: -fractionBits };
}

/** The angle of the point (x, y): atan(y/x), in the quadrant that the signs tell. */
export function angle(context: FloatContext, y: Unpacked, x: Unpacked, result: Unpacked): void {
  const steep = y.exponent - x.exponent || (y.high >>> 0) - (x.high >>> 0) || (y.low >>> 0) - (x.low >>> 0);
  const arc = steep > 0 ? arcTangent(x, y) : arcTangent(y, x);
  if (steep <= 0 && x.sign === 0) {
    roundScaled(context, y.sign, arc.magnitude, arc.scale, result);
    return;
  }
  const fixed = toFixed(arc);
  let total: bigint;
  if (steep <= 0) total = pi - fixed;
  else total = (pi >> 1n) + (x.sign !== 0 ? fixed : -fixed);
  roundScaled(context, y.sign, total, -fractionBits, result);
}

/** Rounds quarters · π/4, for the angles of points on the axes and at infinity. */
export function roundQuarters(context: FloatContext, sign: number, quarters: number, result: Unpacked): void {
  roundScaled(context, sign, pi * BigInt(quarters), -fractionBits - 2, result);
}
