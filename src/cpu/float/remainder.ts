import { significandOf } from './encoding.ts';
import { fromInteger } from './integers.ts';
import { roundInteger, roundResult } from './rounding.ts';
import { extended80, type FloatContext, FloatKind, type Unpacked } from './softfloat.ts';

/** Partial remainder, scaling and extraction: x87 operations that work on exponents and lose no significant bits. */

/** Outcome of `remainder`. Scratch, valid until the next call. */
export const reduction = {
  /** The reduction is not finished (C2). */
  incomplete: false,
  /** Lowest three bits of the quotient of a finished reduction. */
  quotient: 0,
};

/**
 * Remainder of two nonzero finite numbers.
 *
 * @param nearest the quotient is rounded to nearest even (FPREM1) instead of towards zero (FPREM)
 */
export function remainder(context: FloatContext, a: Unpacked, b: Unpacked, nearest: boolean, result: Unpacked): void {
  const distance = a.exponent - b.exponent;
  reduction.incomplete = false;
  reduction.quotient = 0;
  context.roundedUp = false;
  if (distance < (nearest ? -1 : 0)) {
    roundResult(context, extended80, 64, a.sign, a.exponent, a.high, a.low, 0, result);
    return;
  }
  let dividend = significandOf(a);
  let divisor = significandOf(b);
  let scale = b.exponent - 63;
  let sign = a.sign;
  if (distance >= 64) {
    // SDM, FPREM: one execution takes an implementation-dependent 32 to 63 off the distance.
    const step = 32 + (distance & 31);
    dividend <<= BigInt(step);
    scale = a.exponent - 63 - step;
    dividend %= divisor;
    reduction.incomplete = true;
  } else {
    if (distance >= 0) dividend <<= BigInt(distance);
    else {
      divisor <<= 1n;
      scale = a.exponent - 63;
    }
    let quotient = dividend / divisor;
    dividend -= quotient * divisor;
    if (nearest) {
      const twice = dividend << 1n;
      if (twice > divisor || (twice === divisor && (quotient & 1n) !== 0n)) {
        quotient += 1n;
        dividend = divisor - dividend;
        sign ^= 1;
      }
    }
    reduction.quotient = Number(quotient & 7n);
  }
  if (dividend === 0n) result.set(FloatKind.zero, a.sign);
  else roundInteger(context, extended80, 64, sign, dividend, scale, false, result);
}

/** a · 2^trunc(b) for finite, nonzero a and finite b. */
export function scale(context: FloatContext, a: Unpacked, b: Unpacked, result: Unpacked): void {
  // 2^17 exceeds what any exponent can absorb, wrapped ones included.
  let steps = 0;
  if (b.kind === FloatKind.finite && b.exponent >= 0) {
    steps = b.exponent >= 17 ? 1 << 17 : b.high >>> (31 - b.exponent);
    if (b.sign !== 0) steps = -steps;
  }
  roundResult(context, extended80, 64, a.sign, a.exponent + steps, a.high, a.low, 0, result);
}

/** Splits a finite, nonzero number into its exponent, as a number, and a significand in [1, 2) with its sign. */
export function extract(a: Unpacked, exponent: Unpacked, significand: Unpacked): void {
  fromInteger(a.exponent < 0 ? -1 : 0, a.exponent, exponent);
  significand.set(FloatKind.finite, a.sign, 0, a.high, a.low);
}
