import { RoundingMode } from '../float/softfloat.ts';
import { X87Operation } from '../float/x87-operations.ts';
import {
  add,
  and,
  eq,
  extendU,
  type I32,
  i32,
  i64,
  ltS,
  ltU,
  ne,
  select,
  shl,
  shrU,
  storeInteger,
  sub,
} from '../wasm/expression.ts';
import type { Way } from './choose.ts';
import { BIAS, EXPONENT, INTEGER_BIT, isOrdinary, nearestUp, readInteger, roundingBits, SIGN } from './numbers.ts';
import { TOP } from './operands.ts';
import { type QuickMachine, roundingOf } from './quick-machine.ts';

/** Integers in memory. Stores round in every direction: programs change the control word to truncate. */

function load(machine: QuickMachine, bytes: 2 | 4 | 8): void {
  machine.requireEmptyNext();
  const { significand, signExponent } = readInteger(machine, machine.operand, bytes);
  machine.push(significand, signExponent);
}

function store(machine: QuickMachine, bytes: 2 | 4 | 8, truncates: boolean, pops: boolean): void {
  const { fn, operand } = machine;
  const number = machine.readOccupied(TOP);
  machine.require(isOrdinary(number));
  const { significand, signExponent } = number;
  /** Places to shift until what is left is an integer; for those that are too large it is not positive. */
  const distance = fn.let(sub(i32(BIAS + 63), and(signExponent, i32(EXPONENT))));
  machine.require(ltS(i32(0), distance));
  const near = fn.let(ltU(distance, i32(64)));
  const kept = fn.let(select(near, shrU(significand, extendU(distance)), i64(0)));
  // From 64 places on nothing is kept, and from 65 on less than half is lost.
  const far = select(eq(distance, i32(64)), significand, extendU(ne(significand, i64(0))));
  const rest = fn.let(select(near, shl(significand, sub(i64(0), extendU(distance))), far));
  const inexact = fn.let(ne(rest, i64(0)));
  fn.if(inexact, () => machine.requirePrecisionMasked());
  const negative = fn.let(shrU(and(signExponent, i32(SIGN)), i32(15)));
  const up = fn.let(
    truncates ? i32(0) : and(inexact, roundsUp(roundingOf(machine.control), negative, nearestUp(kept, rest))),
  );
  const magnitude = fn.let(add(kept, extendU(up)));
  // The negative range reaches one further.
  const limit = i64(INTEGER_BIT >> BigInt(64 - bytes * 8));
  machine.require(ltU(magnitude, add(limit, extendU(negative))));
  fn.store(storeInteger(bytes, operand, select(negative, sub(i64(0), magnitude), magnitude)));
  machine.finish({ set: roundingBits({ inexact, up }), ...(pops ? { pops: 1 } : {}) });
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
