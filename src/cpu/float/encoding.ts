import { FloatKind, isNaNKind, type Unpacked } from './softfloat.ts';

/**
 * Memory ↔ unpacked numbers, little endian.
 *
 *   binary32    sign 31 · exponent 30–23 (bias 127)   · fraction 22–0
 *   binary64    sign 63 · exponent 62–52 (bias 1023)  · fraction 51–0
 *   80-bit      sign 79 · exponent 78–64 (bias 16383) · significand 63–0, integer bit included
 */

/** Shifts the significand left until bit 63 is set; `high:low` must not be zero. */
export function normalise(number: Unpacked): void {
  const { high, low } = number;
  if (high === 0) {
    const shift = Math.clz32(low);
    number.high = low << shift;
    number.low = 0;
    number.exponent -= 32 + shift;
  } else {
    const shift = Math.clz32(high);
    if (shift !== 0) {
      number.high = (high << shift) | (low >>> (32 - shift));
      number.low = low << shift;
      number.exponent -= shift;
    }
  }
}

function setDenormal(
  number: Unpacked,
  sign: number,
  exponent: number,
  high: number,
  low: number,
  denormalsAreZero: boolean,
): void {
  if ((high | low) === 0 || denormalsAreZero) {
    number.set(FloatKind.zero, sign);
    return;
  }
  number.set(FloatKind.finite, sign, exponent, high, low);
  number.denormal = true;
  normalise(number);
}

function setSpecial(number: Unpacked, sign: number, high: number, low: number): void {
  const kind =
    ((high & 0x7fffffff) | low) === 0
      ? FloatKind.infinity
      : (high & 0x40000000) !== 0
        ? FloatKind.quietNaN
        : FloatKind.signalingNaN;
  number.set(kind, sign, 0, high, low);
}

export function unpack32(view: DataView, address: number, number: Unpacked, denormalsAreZero = false): void {
  const bits = view.getInt32(address, true);
  const sign = bits >>> 31;
  const exponent = (bits >>> 23) & 0xff;
  const high = (bits << 8) | 0x80000000;
  if (exponent === 0) setDenormal(number, sign, -126, (bits << 8) & 0x7fffffff, 0, denormalsAreZero);
  else if (exponent === 0xff) setSpecial(number, sign, high, 0);
  else number.set(FloatKind.finite, sign, exponent - 127, high, 0);
}

export function unpack64(view: DataView, address: number, number: Unpacked, denormalsAreZero = false): void {
  const lower = view.getInt32(address, true);
  const upper = view.getInt32(address + 4, true);
  const sign = upper >>> 31;
  const exponent = (upper >>> 20) & 0x7ff;
  const high = (upper << 11) | (lower >>> 21) | 0x80000000;
  const low = lower << 11;
  if (exponent === 0) setDenormal(number, sign, -1022, high & 0x7fffffff, low, denormalsAreZero);
  else if (exponent === 0x7ff) setSpecial(number, sign, high, low);
  else number.set(FloatKind.finite, sign, exponent - 1023, high, low);
}

export function unpack80(view: DataView, address: number, number: Unpacked): void {
  const low = view.getInt32(address, true);
  const high = view.getInt32(address + 4, true);
  const top = view.getUint16(address + 8, true);
  const sign = top >>> 15;
  const exponent = top & 0x7fff;
  if (exponent === 0) setDenormal(number, sign, -16382, high, low, false);
  else if (high >= 0) number.set(FloatKind.unsupported, sign, 0, high, low);
  else if (exponent === 0x7fff) setSpecial(number, sign, high, low);
  else number.set(FloatKind.finite, sign, exponent - 16383, high, low);
}

/** Packs a number whose significand and exponent fit binary32; a NaN loses its low payload bits. */
export function pack32(view: DataView, address: number, number: Unpacked): void {
  const { kind, sign, high } = number;
  let bits = sign << 31;
  if (kind === FloatKind.finite) {
    if (high < 0) bits |= (number.exponent + 127) << 23;
    bits |= (high >>> 8) & 0x7fffff;
  } else if (kind === FloatKind.infinity) bits |= 0x7f800000;
  else if (isNaNKind(kind)) bits |= 0x7f800000 | ((high >>> 8) & 0x7fffff);
  view.setInt32(address, bits, true);
}

/** Packs a number whose significand and exponent fit binary64; a NaN loses its low payload bits. */
export function pack64(view: DataView, address: number, number: Unpacked): void {
  const { kind, sign, high, low } = number;
  let upper = sign << 31;
  let lower = 0;
  if (kind === FloatKind.finite || isNaNKind(kind)) {
    if (kind !== FloatKind.finite) upper |= 0x7ff00000;
    else if (high < 0) upper |= (number.exponent + 1023) << 20;
    upper |= (high >>> 11) & 0xfffff;
    lower = (high << 21) | (low >>> 11);
  } else if (kind === FloatKind.infinity) upper |= 0x7ff00000;
  view.setInt32(address, lower, true);
  view.setInt32(address + 4, upper, true);
}

/** Packs a number into ten bytes. */
export function pack80(view: DataView, address: number, number: Unpacked): void {
  const { kind, sign } = number;
  let { high, low } = number;
  let exponent = 0x7fff;
  if (kind === FloatKind.finite) exponent = high < 0 ? number.exponent + 16383 : 0;
  else if (kind === FloatKind.zero) exponent = high = low = 0;
  else if (kind === FloatKind.infinity) {
    high = 0x80000000 | 0;
    low = 0;
  }
  view.setInt32(address, low, true);
  view.setInt32(address + 4, high, true);
  view.setUint16(address + 8, (sign << 15) | exponent, true);
}

const scratch = new DataView(new ArrayBuffer(8));

/** The 64-bit significand as an integer, 2^63 ≤ n < 2^64 for a normalised number. */
export function significandOf(number: Unpacked): bigint {
  scratch.setInt32(0, number.low, true);
  scratch.setInt32(4, number.high, true);
  return scratch.getBigUint64(0, true);
}

/** The lowest 32 bits of an integer, as a signed number. */
export function lowWord(value: bigint): number {
  scratch.setBigUint64(0, value, true);
  return scratch.getInt32(0, true);
}

/** Bits 32–63 of an integer, as a signed number. */
export function highWord(value: bigint): number {
  scratch.setBigUint64(0, value, true);
  return scratch.getInt32(4, true);
}

/** Number of bits, ⌊log2⌋ + 1, of a positive integer below 2^1000. */
export function bitLength(value: bigint): number {
  scratch.setFloat64(0, Number(value), true);
  const upper = scratch.getInt32(4, true);
  const exponent = (upper >>> 20) - 1023;
  // The conversion may have rounded up to a power of two that the integer does not reach.
  const exactPower = (upper & 0xfffff) === 0 && scratch.getInt32(0, true) === 0;
  return exactPower && value >> BigInt(exponent) === 0n ? exponent : exponent + 1;
}
