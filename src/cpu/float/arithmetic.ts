import { bitLength, significandOf } from './encoding.ts';
import { roundInteger, roundResult, shiftRightJam, wide } from './rounding.ts';
import { type FloatContext, FloatFlag, type FloatFormat, FloatKind, RoundingMode, type Unpacked } from './softfloat.ts';

/**
 * The four operations, square root and comparison of numbers that are not NaNs.
 *
 * NaNs are the caller's, because SSE and x87 choose differently among two. `result` must be another object than the
 * operands. Results are rounded to `context.precision` bits where that is less than the format has.
 */

function keptBits(context: FloatContext, format: FloatFormat): number {
  return Math.min(context.precision, format.precision);
}

function noteDenormals(context: FloatContext, a: Unpacked, b: Unpacked): void {
  if (a.denormal || b.denormal) context.flags |= FloatFlag.denormal;
}

function invalid(context: FloatContext, result: Unpacked): void {
  context.flags |= FloatFlag.invalid;
  result.setIndefinite();
}

/** Rounds a finite operand into the format, as additions of zero and conversions do. */
export function roundFinite(context: FloatContext, format: FloatFormat, number: Unpacked, result: Unpacked): void {
  const { sign, exponent, high, low } = number;
  roundResult(context, format, keptBits(context, format), sign, exponent, high, low, 0, result);
}

/** a + b, or a − b when `negate` is 1. */
export function add(
  context: FloatContext,
  format: FloatFormat,
  a: Unpacked,
  b: Unpacked,
  negate: number,
  result: Unpacked,
): void {
  const signA = a.sign;
  const signB = b.sign ^ negate;
  noteDenormals(context, a, b);
  if (a.kind === FloatKind.infinity) {
    if (b.kind === FloatKind.infinity && signA !== signB) invalid(context, result);
    else result.set(FloatKind.infinity, signA);
    return;
  }
  if (b.kind === FloatKind.infinity) {
    result.set(FloatKind.infinity, signB);
    return;
  }
  if (a.kind === FloatKind.zero || b.kind === FloatKind.zero) {
    if (a.kind !== FloatKind.zero) roundFinite(context, format, a, result);
    else if (b.kind === FloatKind.zero) {
      const sign = signA === signB ? signA : context.rounding === RoundingMode.down ? 1 : 0;
      result.set(FloatKind.zero, sign);
    } else {
      roundResult(context, format, keptBits(context, format), signB, b.exponent, b.high, b.low, 0, result);
    }
    return;
  }

  // x is the operand of greater magnitude.
  let x = a;
  let y = b;
  let sign = signA;
  if (
    b.exponent > a.exponent ||
    (b.exponent === a.exponent && (b.high >>> 0 > a.high >>> 0 || (b.high === a.high && b.low >>> 0 > a.low >>> 0)))
  ) {
    x = b;
    y = a;
    sign = signB;
  }
  let exponent = x.exponent;
  shiftRightJam(y.high, y.low, 0, exponent - y.exponent);
  let { high, low, rest } = wide;
  if (signA === signB) {
    const sumLow = (x.low >>> 0) + (low >>> 0);
    const sumHigh = (x.high >>> 0) + (high >>> 0) + (sumLow > 0xffffffff ? 1 : 0);
    high = sumHigh | 0;
    low = sumLow | 0;
    if (sumHigh > 0xffffffff) {
      rest = (rest >>> 1) | (rest & 1) | (low << 31);
      low = (low >>> 1) | (high << 31);
      high = (high >>> 1) | 0x80000000;
      exponent++;
    }
  } else {
    const borrowRest = rest !== 0 ? 1 : 0;
    const differenceLow = (x.low >>> 0) - (low >>> 0) - borrowRest;
    high = (x.high - high - (differenceLow < 0 ? 1 : 0)) | 0;
    low = differenceLow | 0;
    rest = -rest | 0;
    if ((high | low | rest) === 0) {
      result.set(FloatKind.zero, context.rounding === RoundingMode.down ? 1 : 0);
      return;
    }
    // Where more than one bit cancels the operands were at most one place apart and `rest` is exact.
    while (high === 0) {
      high = low;
      low = rest;
      rest = 0;
      exponent -= 32;
    }
    const shift = Math.clz32(high);
    if (shift !== 0) {
      high = (high << shift) | (low >>> (32 - shift));
      low = (low << shift) | (rest >>> (32 - shift));
      rest <<= shift;
      exponent -= shift;
    }
  }
  roundResult(context, format, keptBits(context, format), sign, exponent, high, low, rest, result);
}

/** Upper 32 bits of the product of two 32-bit integers taken as unsigned. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const cross = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(cross / 0x10000)) | 0;
}

export function multiply(context: FloatContext, format: FloatFormat, a: Unpacked, b: Unpacked, result: Unpacked): void {
  const sign = a.sign ^ b.sign;
  const zero = a.kind === FloatKind.zero || b.kind === FloatKind.zero;
  if (a.kind === FloatKind.infinity || b.kind === FloatKind.infinity) {
    if (zero) invalid(context, result);
    else {
      noteDenormals(context, a, b);
      result.set(FloatKind.infinity, sign);
    }
    return;
  }
  noteDenormals(context, a, b);
  if (zero) {
    result.set(FloatKind.zero, sign);
    return;
  }

  // Four partial products, summed by columns of 32 bits.
  const column0 = Math.imul(a.low, b.low) >>> 0;
  const column1 =
    (multiplyHigh(a.low, b.low) >>> 0) + (Math.imul(a.low, b.high) >>> 0) + (Math.imul(a.high, b.low) >>> 0);
  const column2 =
    (multiplyHigh(a.low, b.high) >>> 0) +
    (multiplyHigh(a.high, b.low) >>> 0) +
    (Math.imul(a.high, b.high) >>> 0) +
    Math.floor(column1 / 0x100000000);
  let high = (multiplyHigh(a.high, b.high) + Math.floor(column2 / 0x100000000)) | 0;
  let low = column2 | 0;
  let rest = column1 | 0;
  const sticky = column0 !== 0 ? 1 : 0;
  let exponent = a.exponent + b.exponent + 1;
  if (high >= 0) {
    high = (high << 1) | (low >>> 31);
    low = (low << 1) | (rest >>> 31);
    rest = (rest << 1) | (column0 >>> 31);
    exponent--;
  }
  roundResult(context, format, keptBits(context, format), sign, exponent, high, low, rest | sticky, result);
}

export function divide(context: FloatContext, format: FloatFormat, a: Unpacked, b: Unpacked, result: Unpacked): void {
  const sign = a.sign ^ b.sign;
  if (a.kind === FloatKind.infinity) {
    if (b.kind === FloatKind.infinity) invalid(context, result);
    else {
      noteDenormals(context, a, b);
      result.set(FloatKind.infinity, sign);
    }
    return;
  }
  if (b.kind === FloatKind.zero) {
    if (a.kind === FloatKind.zero) invalid(context, result);
    else {
      context.flags |= FloatFlag.divideByZero;
      result.set(FloatKind.infinity, sign);
    }
    return;
  }
  noteDenormals(context, a, b);
  if (a.kind === FloatKind.zero || b.kind === FloatKind.infinity) {
    result.set(FloatKind.zero, sign);
    return;
  }
  const dividend = significandOf(a) << 66n;
  const divisor = significandOf(b);
  const quotient = dividend / divisor;
  const inexact = quotient * divisor !== dividend;
  const scale = a.exponent - b.exponent - 66;
  roundInteger(context, format, keptBits(context, format), sign, quotient, scale, inexact, result);
}

/** ⌊√n⌋ of a positive integer below 2^1000. */
export function integerSquareRoot(value: bigint): bigint {
  const length = bitLength(value);
  const excess = length > 106 ? (length - 105) & ~1 : 0;
  // 53 good bits from the processor; each step of Newton's doubles them, and the last ones settle the floor.
  let root = BigInt(Math.floor(Math.sqrt(Number(value >> BigInt(excess))))) << BigInt(excess / 2);
  if (root === 0n) root = 1n;
  for (;;) {
    const next = (root + value / root) >> 1n;
    const distance = next - root;
    root = next;
    if (distance >= -1n && distance <= 1n) break;
  }
  while (root * root > value) root--;
  while ((root + 1n) * (root + 1n) <= value) root++;
  return root;
}

export function squareRoot(context: FloatContext, format: FloatFormat, a: Unpacked, result: Unpacked): void {
  if (a.kind === FloatKind.zero) {
    result.set(FloatKind.zero, a.sign);
    return;
  }
  if (a.sign !== 0) {
    invalid(context, result);
    return;
  }
  if (a.kind === FloatKind.infinity) {
    result.set(FloatKind.infinity, 0);
    return;
  }
  if (a.denormal) context.flags |= FloatFlag.denormal;
  // value = significand · 2^(exponent − 63); made an even power of two below a radicand of 132 or 133 bits.
  const odd = (a.exponent - 63) & 1;
  const radicand = significandOf(a) << BigInt(68 + odd);
  const root = integerSquareRoot(radicand);
  const scale = (a.exponent - 63 - 68 - odd) / 2;
  roundInteger(context, format, keptBits(context, format), 0, root, scale, root * root !== radicand, result);
}

/** −1, 0 or 1 as a is less than, equal to or greater than b. No flag is raised. */
export function compare(a: Unpacked, b: Unpacked): -1 | 0 | 1 {
  if (a.kind === FloatKind.zero && b.kind === FloatKind.zero) return 0;
  if (a.kind === FloatKind.zero) return b.sign !== 0 ? 1 : -1;
  const positive = a.sign !== 0 ? -1 : 1;
  if (b.kind === FloatKind.zero || a.sign !== b.sign) return positive;
  if (a.kind !== b.kind) return a.kind === FloatKind.infinity ? positive : (-positive as -1 | 1);
  if (a.kind === FloatKind.infinity) return 0;
  const difference = a.exponent - b.exponent || (a.high >>> 0) - (b.high >>> 0) || (a.low >>> 0) - (b.low >>> 0);
  if (difference === 0) return 0;
  return difference > 0 ? positive : (-positive as -1 | 1);
}
