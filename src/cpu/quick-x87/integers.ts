import {
  add,
  and,
  clz,
  eq,
  eqz,
  extendU,
  gtS,
  type I32,
  type I64,
  i32,
  i64,
  leS,
  ltU,
  ne,
  or,
  select,
  shl,
  shrU,
  storeInteger,
  sub,
  wrap,
} from '../../wasm/expression.ts';
import { RoundingMode } from '../float/softfloat.ts';
import { X87Operation } from '../float/x87-operations.ts';
import type { Way } from './choose.ts';
import {
  BIAS,
  EXPONENT,
  type Extended,
  INTEGER_BIT,
  isOrdinary,
  nearestUp,
  type Rounding,
  readInteger,
  roundingBits,
  SIGN,
} from './numbers.ts';
import { TOP } from './operands.ts';
import { type QuickMachine, roundingOf } from './quick-machine.ts';

/** Integers in memory and in ST(0). They are rounded in every direction: programs change the control word to truncate. */

function load(machine: QuickMachine, bytes: 2 | 4 | 8): void {
  machine.requireEmptyNext();
  const { significand, signExponent } = readInteger(machine, machine.operand, bytes);
  machine.push(significand, signExponent);
}

/** A number rounded to an integer, with the sign apart. */
interface Whole extends Rounding {
  readonly magnitude: I64;
  /** 0 or 1. */
  readonly negative: I32;
}

/**
 * Rounds an ordinary number below 2^63.
 * @param distance places to shift it right until what is left is an integer, at least 1
 */
function round(machine: QuickMachine, { significand, signExponent }: Extended, distance: I32, mode: I32): Whole {
  const { fn } = machine;
  const near = fn.let(ltU(distance, i32(64)));
  const kept = fn.let(select(near, shrU(significand, extendU(distance)), i64(0)));
  // From 64 places on nothing is kept, and from 65 on less than half is lost.
  const far = select(eq(distance, i32(64)), significand, extendU(ne(significand, i64(0))));
  const rest = fn.let(select(near, shl(significand, sub(i64(0), extendU(distance))), far));
  const inexact = fn.let(ne(rest, i64(0)));
  fn.if(inexact, () => machine.requirePrecisionMasked());
  const negative = fn.let(shrU(and(signExponent, i32(SIGN)), i32(15)));
  const up = fn.let(and(inexact, roundsUp(mode, negative, nearestUp(kept, rest))));
  return { magnitude: fn.let(add(kept, extendU(up))), negative, inexact, up };
}

const distanceToInteger = ({ signExponent }: Extended): I32 => sub(i32(BIAS + 63), and(signExponent, i32(EXPONENT)));

function store(machine: QuickMachine, bytes: 2 | 4 | 8, truncates: boolean, pops: boolean): void {
  const { fn, operand, control } = machine;
  const number = machine.readOccupied(TOP);
  machine.require(isOrdinary(number));
  const distance = fn.let(distanceToInteger(number));
  machine.require(gtS(distance, i32(0)));
  const mode = truncates ? i32(RoundingMode.zero) : roundingOf(control);
  const whole = round(machine, number, distance, mode);
  const { magnitude, negative } = whole;
  machine.require(ltU(magnitude, i64(INTEGER_BIT >> BigInt(64 - bytes * 8))));
  fn.store(storeInteger(bytes, operand, select(negative, sub(i64(0), magnitude), magnitude)));
  machine.finish({ set: roundingBits(whole), ...(pops ? { pops: 1 } : {}) });
}

/** FRNDINT, by which programs round down and up. A zero keeps the sign. */
function roundTop(machine: QuickMachine): void {
  const { fn, control } = machine;
  const number = machine.readOccupied(TOP);
  machine.require(isOrdinary(number));
  const distance = fn.let(distanceToInteger(number));
  fn.if(leS(distance, i32(0)), () => machine.finish({}));
  const whole = round(machine, number, distance, roundingOf(control));
  const { magnitude } = whole;
  const zeros = fn.let(clz(magnitude));
  const exponent = select(eqz(magnitude), i32(0), sub(i32(BIAS + 63), wrap(zeros)));
  const signExponent = or(and(number.signExponent, i32(SIGN)), exponent);
  machine.write(machine.slot(TOP), { significand: shl(magnitude, zeros), signExponent });
  machine.finish({ set: roundingBits(whole) });
}

/** Whether something that is lost makes the magnitude larger. */
function roundsUp(mode: I32, negative: I32, nearest: I32): I32 {
  const away = eq(mode, select(negative, i32(RoundingMode.down), i32(RoundingMode.up)));
  return select(mode, away, nearest);
}

export function integerWays(machine: QuickMachine): Record<number, Way> {
  return {
    [X87Operation.fildM16]: () => load(machine, 2),
    [X87Operation.fildM32]: () => load(machine, 4),
    [X87Operation.fildM64]: () => load(machine, 8),
    [X87Operation.frndint]: () => roundTop(machine),
    [X87Operation.fistM16]: () => store(machine, 2, false, false),
    [X87Operation.fistM32]: () => store(machine, 4, false, false),
    [X87Operation.fistpM16]: () => store(machine, 2, false, true),
    [X87Operation.fistpM32]: () => store(machine, 4, false, true),
    [X87Operation.fistpM64]: () => store(machine, 8, false, true),
    [X87Operation.fisttpM16]: () => store(machine, 2, true, true),
    [X87Operation.fisttpM32]: () => store(machine, 4, true, true),
    [X87Operation.fisttpM64]: () => store(machine, 8, true, true),
  };
}
