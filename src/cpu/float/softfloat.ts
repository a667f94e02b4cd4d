/**
 * Exact binary floating point, in software: the vocabulary of this folder.
 *
 * WASM computes the common case (round to nearest, all exceptions masked, ordinary operands) by itself. Everything else
 * comes here: directed rounding, exception flags, denormals, NaN payloads, and of x87 what ../quick-x87 leaves.
 *
 * Reading order
 *   softfloat.ts       formats, the unpacked number, the context (this file)
 *   encoding.ts        memory ↔ unpacked number
 *   rounding.ts        an exact result → a number of a format: the only place where bits are lost
 *   arithmetic.ts      add, multiply, divide, square root, compare
 *   integers.ts        rounding to integers, integers ↔ floating point, packed decimal
 *   remainder.ts       partial remainder, scaling, extraction
 *   transcendental.ts  sines, logarithms and the like in fixed point
 *   sse-operations.ts, sse-machine.ts, …  the SSE unit, opened by sse.ts
 *   x87-operations.ts, x87-machine.ts, …  the x87 unit, opened by x87.ts
 *
 * A number on its way through an operation is an `Unpacked`: a kind, a sign, and for finite numbers
 *
 *        value = (−1)^sign · (high:low / 2^63) · 2^exponent        high:low is 64 bits, bit 63 set
 *
 * that is, the significand of the 80-bit format whatever format the number came from. Denormals are normalised on the
 * way in. A result that has been rounded but not packed may be denormal again: `exponent` is then the least of its
 * format and bit 63 is clear. The halves are signed 32-bit integers, which engines keep unboxed.
 */

/** Exception flags. The positions are those of MXCSR bits 0–5 and of the x87 status word (SDM vol. 1, 8.1.3 and 10.2.3). */
export const enum FloatFlag {
  invalid = 1 << 0,
  denormal = 1 << 1,
  divideByZero = 1 << 2,
  overflow = 1 << 3,
  underflow = 1 << 4,
  precision = 1 << 5,

  /** Found by looking at the operands. When one of these is unmasked nothing is computed, so no later flag arises. */
  beforeComputation = invalid | denormal | divideByZero,
  all = 0x3f,
}

/** The encoding of MXCSR.RC, of the x87 control word's RC and of the ROUNDxx immediate. */
export const enum RoundingMode {
  nearest = 0,
  down = 1,
  up = 2,
  zero = 3,
}

export const enum FloatKind {
  zero,
  finite,
  infinity,
  quietNaN,
  signalingNaN,
  /** 80-bit patterns that the 8087 knew and the 387 rejects: unnormals, pseudo-NaNs, pseudo-infinities. */
  unsupported,
}

/** Range of a format. `precision` counts the integer bit; exponents are unbiased, as in `Unpacked`. */
export interface FloatFormat {
  readonly precision: number;
  readonly minimumExponent: number;
  readonly maximumExponent: number;
}

export const binary32: FloatFormat = { precision: 24, minimumExponent: -126, maximumExponent: 127 };
export const binary64: FloatFormat = { precision: 53, minimumExponent: -1022, maximumExponent: 1023 };
export const extended80: FloatFormat = { precision: 64, minimumExponent: -16382, maximumExponent: 16383 };

export class Unpacked {
  kind: FloatKind = FloatKind.zero;
  sign = 0;
  exponent = 0;
  high = 0;
  low = 0;
  /** The operand was encoded as a denormal (or pseudo-denormal), and denormals are not read as zeros. */
  denormal = false;

  set(kind: FloatKind, sign: number, exponent = 0, high = 0, low = 0): void {
    this.kind = kind;
    this.sign = sign;
    this.exponent = exponent;
    this.high = high;
    this.low = low;
    this.denormal = false;
  }

  copy(other: Unpacked): void {
    this.set(other.kind, other.sign, other.exponent, other.high, other.low);
    this.denormal = other.denormal;
  }

  /** "Real indefinite", the NaN that answers an invalid operation: negative, quiet, no payload. */
  setIndefinite(): void {
    this.set(FloatKind.quietNaN, 1, 0, 0xc0000000 | 0, 0);
  }

  /** Copies a NaN with its quiet bit set. */
  setQuieted(other: Unpacked): void {
    this.set(FloatKind.quietNaN, other.sign, 0, other.high | 0x40000000, other.low);
  }
}

/** True for quiet and signalling NaNs; unsupported encodings are not NaNs. */
export function isNaNKind(kind: FloatKind): boolean {
  return kind === FloatKind.quietNaN || kind === FloatKind.signalingNaN;
}

/** What surrounds an operation: the modes that go in, and the flags that come out. One object serves a whole unit. */
export class FloatContext {
  rounding: RoundingMode = RoundingMode.nearest;
  /** Significand bits that add, subtract, multiply, divide and square root keep: x87 precision control. */
  precision = 64;
  /** `FloatFlag`s whose exception is masked. */
  masked: number = FloatFlag.all;
  /** MXCSR.FZ: a tiny result becomes zero while underflow is masked. */
  flushToZero = false;
  /** MXCSR.DAZ: denormal operands are read as zeros. */
  denormalsAreZero = false;
  /** x87 registers: an unmasked overflow or underflow delivers the result with 24576 taken from or added to its exponent. */
  wrapsExponent = false;

  /** Flags detected; operations add to them and never clear them. */
  flags = 0;
  /** The last rounding increased the magnitude (x87 C1). */
  roundedUp = false;
}
