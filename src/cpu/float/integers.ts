import { normalise, significandOf } from './encoding.ts';
import { roundSignificand, shiftRightJam, wide } from './rounding.ts';
import { type FloatContext, FloatFlag, FloatKind, type RoundingMode, type Unpacked } from './softfloat.ts';

/** Floating point ↔ integers and packed decimal, and rounding to an integral value. */

/** The integer made by `toInteger`, as two signed halves. Scratch, valid until the next call. */
export const integer = { high: 0, low: 0 };

/** Rounds a zero or finite number to an integral one and raises precision. A result of zero keeps the sign. */
export function roundToIntegral(context: FloatContext, mode: RoundingMode, a: Unpacked, result: Unpacked): void {
  context.roundedUp = false;
  if (a.kind !== FloatKind.finite || a.exponent >= 63) {
    result.copy(a);
    return;
  }
  shiftRightJam(a.high, a.low, 0, 63 - a.exponent);
  roundSignificand(mode, 64, a.sign, wide.high, wide.low, wide.rest);
  if (wide.inexact) context.flags |= FloatFlag.precision;
  context.roundedUp = wide.up;
  if ((wide.high | wide.low) === 0) {
    result.set(FloatKind.zero, a.sign);
    return;
  }
  result.set(FloatKind.finite, a.sign, 63, wide.high, wide.low);
  normalise(result);
}

/**
 * Converts any number to a signed integer of `bits` (16, 32 or 64) in `integer`, raising precision. NaNs, infinities
 * and what does not fit raise invalid instead and give the "integer indefinite" 100…0.
 */
export function toInteger(context: FloatContext, mode: RoundingMode, a: Unpacked, bits: 16 | 32 | 64): void {
  context.roundedUp = false;
  if (a.kind === FloatKind.zero) {
    integer.high = integer.low = 0;
    return;
  }
  if (a.kind === FloatKind.finite && a.exponent <= 63) {
    shiftRightJam(a.high, a.low, 0, 63 - a.exponent);
    roundSignificand(mode, 64, a.sign, wide.high, wide.low, wide.rest);
    const { high, low } = wide;
    if (!wide.carried && fits(a.sign, high, low, bits)) {
      if (wide.inexact) context.flags |= FloatFlag.precision;
      context.roundedUp = wide.up;
      integer.low = a.sign !== 0 ? -low | 0 : low;
      integer.high = a.sign !== 0 ? (~high + (low === 0 ? 1 : 0)) | 0 : high;
      return;
    }
  }
  context.flags |= FloatFlag.invalid;
  integer.low = bits === 64 ? 0 : bits === 32 ? 0x80000000 | 0 : -0x8000;
  integer.high = bits === 64 ? 0x80000000 | 0 : -1;
}

/** Whether ±high:low is an integer of so many bits; the negative range reaches one further. */
function fits(sign: number, high: number, low: number, bits: number): boolean {
  if (bits === 64) return high >= 0 || (sign !== 0 && high === -0x80000000 && low === 0);
  return high === 0 && low >>> 0 < 2 ** (bits - 1) + sign;
}

/** The exact value of a signed 64-bit integer. Only formats of less precision need to round it. */
export function fromInteger(high: number, low: number, result: Unpacked): void {
  if ((high | low) === 0) {
    result.set(FloatKind.zero, 0);
    return;
  }
  if (high < 0) result.set(FloatKind.finite, 1, 63, (~high + (low === 0 ? 1 : 0)) | 0, -low | 0);
  else result.set(FloatKind.finite, 0, 63, high, low);
  normalise(result);
}

/**
 * Packed decimal (SDM vol. 1, 4.7): 18 digits, two to a byte, the least significant first; bit 7 of byte 9 is the sign.
 */
const decimalBytes = 9;
const decimalLimit = 10n ** 18n;

/** Reads ten bytes. Digits above nine, which the manual leaves undefined, count as what they are. */
export function fromDecimal(view: DataView, address: number, result: Unpacked): void {
  let value = 0n;
  for (let i = decimalBytes - 1; i >= 0; i--) {
    const pair = view.getUint8(address + i);
    value = value * 100n + BigInt((pair >>> 4) * 10 + (pair & 15));
  }
  fromInteger(Number(value >> 32n), Number(value & 0xffffffffn), result);
  result.sign = view.getUint8(address + decimalBytes) >>> 7;
}

/**
 * Writes ten bytes at an address of `view`, or raises invalid and writes "packed decimal indefinite".
 */
export function toDecimal(
  context: FloatContext,
  a: Unpacked,
  rounded: Unpacked,
  view: DataView,
  address: number,
): void {
  context.roundedUp = false;
  if (a.kind === FloatKind.zero || a.kind === FloatKind.finite) {
    const before = context.flags;
    roundToIntegral(context, context.rounding, a, rounded);
    const zero = rounded.kind === FloatKind.zero;
    let value = zero || rounded.exponent > 63 ? 0n : significandOf(rounded) >> BigInt(63 - rounded.exponent);
    if (zero || (rounded.exponent <= 63 && value < decimalLimit)) {
      for (let i = 0; i < decimalBytes; i++) {
        const pair = Number(value % 100n);
        value /= 100n;
        view.setUint8(address + i, (Math.floor(pair / 10) << 4) | (pair % 10));
      }
      view.setUint8(address + decimalBytes, a.sign << 7);
      return;
    }
    context.flags = before;
    context.roundedUp = false;
  }
  context.flags |= FloatFlag.invalid;
  view.setUint32(address, 0, true);
  view.setUint32(address + 4, 0xc0000000, true);
  view.setUint16(address + 8, 0xffff, true);
}
