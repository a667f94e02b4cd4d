import {
  add,
  and,
  clz,
  eqz,
  extendU,
  gtU,
  type I32,
  type I64,
  i32,
  i64,
  loadInteger,
  ltS,
  ltU,
  or,
  select,
  shl,
  shrU,
  sub,
  wrap,
} from '../../wasm/expression.ts';
import { FloatFlag } from '../float/softfloat.ts';
import { X87Status } from '../float/x87-machine.ts';
import type { QuickMachine } from './quick-machine.ts';

/** An 80-bit number: 64 bits with the integer bit, and 16 with sign and biased exponent. Both are evaluated. */
export interface Extended {
  readonly significand: I64;
  readonly signExponent: I32;
}

export const SIGN = 0x8000;
export const EXPONENT = 0x7fff;
export const BIAS = 16383;
export const INTEGER_BIT = 1n << 63n;

/** Zero or normal: no infinity, no NaN, no denormal, and none of the encodings that the 387 rejects. */
export function isOrdinary({ significand, signExponent }: Extended): I32 {
  const exponent = and(signExponent, i32(EXPONENT));
  const isNormal = and(ltU(sub(exponent, i32(1)), i32(EXPONENT - 1)), ltS(significand, i64(0)));
  return or(isNormal, eqz(or(significand, extendU(exponent))));
}

/** A format of numbers in memory. */
interface MemoryFormat {
  readonly bytes: 4 | 8;
  readonly fractionBits: number;
  readonly largestExponent: number;
  /** What its bias lacks to that of 80-bit numbers. */
  readonly biasDifference: number;
}

export const SINGLE: MemoryFormat = {
  bytes: 4,
  fractionBits: 23,
  largestExponent: 0xff,
  biasDifference: BIAS - 127,
};
export const DOUBLE: MemoryFormat = {
  bytes: 8,
  fractionBits: 52,
  largestExponent: 0x7ff,
  biasDifference: BIAS - 1023,
};

/** The number of a format at an address. Leaves when it is not ordinary. */
export function readFloat(machine: QuickMachine, address: I32, format: MemoryFormat): Extended {
  const { fn } = machine;
  const { bytes, fractionBits, largestExponent, biasDifference } = format;
  const bits = fn.let(loadInteger(bytes, false, address));
  const exponent = fn.let(and(wrap(shrU(bits, i64(fractionBits))), i32(largestExponent)));
  const isNormal = ltU(sub(exponent, i32(1)), i32(largestExponent - 1));
  const magnitude = shl(bits, i64(65 - bytes * 8));
  const isZero = fn.let(eqz(magnitude));
  machine.require(or(isNormal, isZero));
  const fraction = shl(bits, i64(63 - fractionBits));
  const sign = wrap(and(shrU(bits, i64(bytes * 8 - 16)), i64(SIGN)));
  return {
    significand: fn.let(select(isZero, i64(0), or(fraction, i64(INTEGER_BIT)))),
    signExponent: fn.let(or(sign, select(isZero, i32(0), add(exponent, i32(biasDifference))))),
  };
}

/** A signed integer of 2, 4 or 8 bytes at an address; never rounded. */
export function readInteger({ fn }: QuickMachine, address: I32, bytes: 2 | 4 | 8): Extended {
  const value = fn.let(loadInteger(bytes, true, address));
  const negative = fn.let(ltS(value, i64(0)));
  const magnitude = fn.let(select(negative, sub(i64(0), value), value));
  const zeros = fn.let(clz(magnitude));
  const signExponent = or(shl(negative, i32(15)), sub(i32(BIAS + 63), wrap(zeros)));
  return {
    significand: fn.let(shl(magnitude, zeros)),
    signExponent: fn.let(select(eqz(magnitude), i32(0), signExponent)),
  };
}

/** What a rounding did: whether it lost something, and whether it went away from zero. */
export interface Rounding {
  readonly inexact: I32;
  readonly up: I32;
}

/** PE and C1 as a rounding sets them. */
export const roundingBits = ({ inexact, up }: Rounding): I32 =>
  or(select(inexact, i32(FloatFlag.precision), i32(0)), select(up, i32(X87Status.c1), i32(0)));

/** Whether nearest rounds up: `rest` is what is lost, its bit 63 worth half of the last place of `kept`. */
export const nearestUp = (kept: I64, rest: I64): I32 => gtU(rest, sub(i64(INTEGER_BIT), and(kept, i64(1))));
