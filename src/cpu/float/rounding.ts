import { bitLength, highWord, lowWord } from './encoding.ts';
import { type FloatContext, FloatFlag, type FloatFormat, FloatKind, RoundingMode, type Unpacked } from './softfloat.ts';

/**
 * The one place where an exact result loses bits.
 *
 * An exact result is given as 96 bits, high:low:rest, bit 95 set, with everything below "jammed" into the lowest bit of
 * `rest`: it is set when any bit further down was. 64 bits are the most any format keeps, so 32 more with such a sticky
 * bit decide every rounding.
 */

/** What an unmasked overflow takes off the exponent of a register, and an unmasked underflow adds to it. */
const exponentWrap = 24576;

/** Scratch results of the functions below, valid until the next call. Reused to keep the hot paths free of allocation. */
export const wide = {
  high: 0,
  low: 0,
  rest: 0,
  /** `roundSignificand`: the increment went over the top and the significand became 1.0 of the next exponent. */
  carried: false,
  inexact: false,
  up: false,
};

/** Shifts 96 bits right by any distance ≥ 0, jamming what falls off. The result is in `wide`. */
export function shiftRightJam(high: number, low: number, rest: number, distance: number): void {
  let h = high;
  let l = low;
  let r = rest;
  let d = distance;
  if (d >= 96) {
    r = (h | l | r) !== 0 ? 1 : 0;
    h = l = d = 0;
  }
  while (d >= 32) {
    r = l | (r !== 0 ? 1 : 0);
    l = h;
    h = 0;
    d -= 32;
  }
  if (d !== 0) {
    r = (r >>> d) | (l << (32 - d)) | (r << (32 - d) !== 0 ? 1 : 0);
    l = (l >>> d) | (h << (32 - d));
    h >>>= d;
  }
  wide.high = h | 0;
  wide.low = l | 0;
  wide.rest = r | 0;
}

/** Rounds 96 bits to their `precision` (24, 53 or 64) uppermost. The result is in `wide`; no flag is raised. */
export function roundSignificand(
  mode: RoundingMode,
  precision: number,
  sign: number,
  high: number,
  low: number,
  rest: number,
): void {
  // `dropped` is the uppermost 32 of the bits that go, its bit 31 worth half a unit of the last place kept.
  let dropped = rest;
  let sticky = 0;
  let odd = low & 1;
  let h = high;
  let l = low;
  if (precision === 53) {
    dropped = (low << 21) | (rest >>> 11);
    sticky = rest << 21;
    odd = low & 0x800;
    l &= ~0x7ff;
  } else if (precision === 24) {
    dropped = (high << 24) | (low >>> 8);
    sticky = (low << 24) | rest;
    odd = high & 0x100;
    h &= ~0xff;
    l = 0;
  }
  wide.inexact = (dropped | sticky) !== 0;
  wide.carried = false;
  let up = false;
  if (wide.inexact) {
    if (mode === RoundingMode.nearest) up = dropped < 0 && (dropped << 1 !== 0 || sticky !== 0 || odd !== 0);
    else if (mode === RoundingMode.down) up = sign !== 0;
    else if (mode === RoundingMode.up) up = sign === 0;
  }
  if (up) {
    if (precision === 24) h = (h + 0x100) | 0;
    else {
      l = (l + (precision === 64 ? 1 : 0x800)) | 0;
      if (l === 0) h = (h + 1) | 0;
    }
    if (h === 0 && l === 0) {
      h = 0x80000000 | 0;
      wide.carried = true;
    }
  }
  wide.up = up;
  wide.high = h;
  wide.low = l;
}

/**
 * Rounds a nonzero exact result into a format and raises overflow, underflow and precision.
 *
 * @param precision significand bits kept, at most those of the format (x87 precision control keeps fewer, while the
 *   exponent range stays that of the format)
 * @param result receives a zero, a finite number or an infinity, ready for packing
 */
export function roundResult(
  context: FloatContext,
  format: FloatFormat,
  precision: number,
  sign: number,
  exponent: number,
  high: number,
  low: number,
  rest: number,
  result: Unpacked,
): void {
  const mode = context.rounding;
  roundSignificand(mode, precision, sign, high, low, rest);
  const rounded = wide.carried ? exponent + 1 : exponent;

  // x86 detects tininess after rounding: the result rounded as if the exponent had no bounds lies below the range.
  if (rounded < format.minimumExponent) {
    if ((context.masked & FloatFlag.underflow) === 0) {
      deliverUnbounded(context, format, sign, rounded, FloatFlag.underflow, result);
    } else if (context.flushToZero) {
      context.flags |= FloatFlag.underflow | FloatFlag.precision;
      result.set(FloatKind.zero, sign);
    } else {
      roundDenormal(context, format, precision, sign, exponent, high, low, rest, result);
      if (wide.inexact) context.flags |= FloatFlag.underflow;
    }
  } else if (exponent < format.minimumExponent) {
    // Not tiny, yet the last place of the smallest normal is coarser than that of the unbounded rounding.
    roundDenormal(context, format, precision, sign, exponent, high, low, rest, result);
  } else if (rounded > format.maximumExponent) {
    if ((context.masked & FloatFlag.overflow) === 0) {
      deliverUnbounded(context, format, sign, rounded, FloatFlag.overflow, result);
    } else {
      context.flags |= FloatFlag.overflow | FloatFlag.precision;
      setOverflow(context, format, precision, sign, result);
    }
  } else {
    if (wide.inexact) context.flags |= FloatFlag.precision;
    context.roundedUp = wide.up;
    result.set(FloatKind.finite, sign, rounded, wide.high, wide.low);
  }
}

/**
 * Unmasked overflow and underflow: precision is what rounding without bounds lost. A register receives that result with
 * its exponent moved into the middle of the range (SDM vol. 1, 8.5.4 and 8.5.5); elsewhere nothing will be written.
 */
function deliverUnbounded(
  context: FloatContext,
  format: FloatFormat,
  sign: number,
  exponent: number,
  flag: FloatFlag.overflow | FloatFlag.underflow,
  result: Unpacked,
): void {
  context.flags |= flag;
  if (wide.inexact) context.flags |= FloatFlag.precision;
  context.roundedUp = wide.up;
  const moved = flag === FloatFlag.overflow ? exponent - exponentWrap : exponent + exponentWrap;
  if (!context.wrapsExponent) result.set(FloatKind.zero, sign);
  else if (moved <= format.maximumExponent && moved >= format.minimumExponent) {
    result.set(FloatKind.finite, sign, moved, wide.high, wide.low);
  } else {
    // Only FSCALE goes so far: the result is then an infinity or a zero.
    context.flags |= FloatFlag.precision;
    context.roundedUp = flag === FloatFlag.overflow;
    result.set(context.roundedUp ? FloatKind.infinity : FloatKind.zero, sign);
  }
}

function roundDenormal(
  context: FloatContext,
  format: FloatFormat,
  precision: number,
  sign: number,
  exponent: number,
  high: number,
  low: number,
  rest: number,
  result: Unpacked,
): void {
  shiftRightJam(high, low, rest, format.minimumExponent - exponent);
  roundSignificand(context.rounding, precision, sign, wide.high, wide.low, wide.rest);
  if (wide.inexact) context.flags |= FloatFlag.precision;
  context.roundedUp = wide.up;
  const kind = (wide.high | wide.low) === 0 ? FloatKind.zero : FloatKind.finite;
  result.set(kind, sign, format.minimumExponent, wide.high, wide.low);
}

/** Masked overflow: infinity, or the largest finite number where the rounding mode points towards zero. */
function setOverflow(
  context: FloatContext,
  format: FloatFormat,
  precision: number,
  sign: number,
  result: Unpacked,
): void {
  const mode = context.rounding;
  const toInfinity = mode === RoundingMode.nearest || mode === (sign !== 0 ? RoundingMode.down : RoundingMode.up);
  context.roundedUp = toInfinity;
  if (toInfinity) {
    result.set(FloatKind.infinity, sign);
    return;
  }
  const high = precision === 24 ? -0x100 : -1;
  const low = precision === 24 ? 0 : precision === 53 ? -0x800 : -1;
  result.set(FloatKind.finite, sign, format.maximumExponent, high, low);
}

/**
 * Rounds (−1)^sign · magnitude · 2^scale into a format.
 *
 * @param magnitude positive integer of any length
 * @param inexact the true value lies above `magnitude` by less than one; needs a magnitude of 66 bits or more
 */
export function roundInteger(
  context: FloatContext,
  format: FloatFormat,
  precision: number,
  sign: number,
  magnitude: bigint,
  scale: number,
  inexact: boolean,
  result: Unpacked,
): void {
  const length = bitLength(magnitude);
  const shift = length - 96;
  let rest = 0;
  let word = magnitude;
  if (shift > 0) {
    word >>= BigInt(shift);
    if (inexact || word << BigInt(shift) !== magnitude) rest = 1;
  } else {
    word <<= BigInt(-shift);
    if (inexact) rest = 1;
  }
  rest |= lowWord(BigInt.asUintN(64, word));
  word >>= 32n;
  roundResult(context, format, precision, sign, scale + length - 1, highWord(word), lowWord(word), rest, result);
}
