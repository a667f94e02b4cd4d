import {
  add,
  and,
  eqz,
  extendU,
  type I32,
  i32,
  i64,
  load16U32,
  load64,
  ltS,
  ltU,
  or,
  shl,
  shrU,
  store16of32,
  store64,
  storeInteger,
  sub,
  xor,
} from '../../wasm/expression.ts';
import { FloatFlag } from '../float/softfloat.ts';
import { controlFixed, controlWritable } from '../float/x87-environment.ts';
import { X87Operation } from '../float/x87-operations.ts';
import type { Way } from './choose.ts';
import { BIAS, DOUBLE, EXPONENT, INTEGER_BIT, nearestUp, readFloat, roundingBits, SIGN, SINGLE } from './numbers.ts';
import { TOP } from './operands.ts';
import { type QuickMachine, roundingOf } from './quick-machine.ts';

/** Loads, stores and moves between registers, and the control and status words. */

type Format = typeof SINGLE;

function loadFloat(machine: QuickMachine, format: Format): void {
  machine.requireEmptyNext();
  const { significand, signExponent } = readFloat(machine, machine.operand, format);
  machine.push(significand, signExponent);
}

/** Numbers too large or too small for the format are the exact unit's, also when rounding could make them so. */
function storeFloat(machine: QuickMachine, format: Format, pops: boolean): void {
  const { fn } = machine;
  const { bytes, fractionBits, largestExponent, biasDifference } = format;
  const { significand, signExponent } = machine.readOccupied(TOP);
  const sign = shl(extendU(and(signExponent, i32(SIGN))), i64(bytes * 8 - 16));
  const exponent = fn.let(sub(and(signExponent, i32(EXPONENT)), i32(biasDifference)));
  const store = (set: I32, value: typeof significand): void => {
    fn.store(storeInteger(bytes, machine.operand, or(sign, value)));
    machine.finish({ set, ...(pops ? { pops: 1 } : {}) });
  };
  fn.if(eqz(or(significand, extendU(and(signExponent, i32(EXPONENT))))), () => store(i32(0), i64(0)));
  machine.require(and(ltU(sub(exponent, i32(1)), i32(largestExponent - 1)), ltS(significand, i64(0))));
  const kept = fn.let(shrU(significand, i64(63 - fractionBits)));
  const rest = fn.let(shl(significand, i64(fractionBits + 1)));
  // The integer bit counts one into the exponent's field, and so does a fraction that is rounded up beyond its field.
  const exact = fn.let(add(shl(extendU(sub(exponent, i32(1))), i64(fractionBits)), kept));
  fn.if(eqz(rest), () => store(i32(0), exact));
  machine.requirePrecisionMasked();
  machine.require(eqz(roundingOf(machine.control)));
  machine.require(ltU(exponent, i32(largestExponent - 1)));
  const up = fn.let(nearestUp(kept, rest));
  store(roundingBits({ inexact: i32(1), up }), add(exact, extendU(up)));
}

function loadExtended(machine: QuickMachine): void {
  const { operand } = machine;
  machine.requireEmptyNext();
  machine.push(load64(operand), load16U32(operand, 8));
}

function storeExtended(machine: QuickMachine): void {
  const { fn, operand } = machine;
  const { significand, signExponent } = machine.readOccupied(TOP);
  fn.store(store64(operand, significand));
  fn.store(store16of32(operand, signExponent, 8));
  machine.finish({ pops: 1 });
}

function loadConstant(machine: QuickMachine, significand: bigint, signExponent: number): void {
  machine.requireEmptyNext();
  machine.push(i64(significand), i32(signExponent));
}

function loadRegister(machine: QuickMachine): void {
  const { register } = machine;
  const { significand, signExponent } = machine.readOccupied(register);
  machine.requireEmptyNext();
  machine.push(significand, signExponent);
}

function storeRegister(machine: QuickMachine, pops: boolean): void {
  const { register } = machine;
  machine.requireOccupied(TOP);
  machine.write(machine.slot(register), machine.read(machine.slot(TOP)));
  machine.finish({ occupies: machine.bit(register), ...(pops ? { pops: 1 } : {}) });
}

function exchange(machine: QuickMachine): void {
  const { register } = machine;
  machine.requireOccupied(TOP, register);
  const [top, other] = [machine.slot(TOP), machine.slot(register)];
  const [ofTop, ofOther] = [machine.read(top), machine.read(other)];
  machine.write(top, ofOther);
  machine.write(other, ofTop);
  machine.finish({});
}

function moveConditionally(machine: QuickMachine): void {
  const { fn, register, operand } = machine;
  machine.requireOccupied(TOP, register);
  fn.if(operand, () => machine.write(machine.slot(TOP), machine.read(machine.slot(register))));
  machine.finish({ clear: 0 });
}

function changeSign(machine: QuickMachine, change: (signExponent: I32) => I32): void {
  const { fn } = machine;
  machine.requireOccupied(TOP);
  const slot = machine.slot(TOP);
  fn.store(store16of32(slot, change(load16U32(slot, 8)), 8));
  machine.finish({});
}

function storeWord({ fn, operand }: QuickMachine, word: I32): void {
  fn.store(store16of32(operand, word));
  fn.return(i32(0));
}

/** Only flags that are masked may be set: others would become pending. */
function loadControl(machine: QuickMachine): void {
  const { fn, operand, status } = machine;
  const control = fn.let(or(and(load16U32(operand), i32(controlWritable)), i32(controlFixed)));
  machine.require(eqz(and(and(status, xor(control, i32(-1))), i32(FloatFlag.all))));
  machine.setControl(control);
  fn.return(i32(0));
}

export function moveWays(machine: QuickMachine): Record<number, Way> {
  return {
    [X87Operation.fldM32]: () => loadFloat(machine, SINGLE),
    [X87Operation.fldM64]: () => loadFloat(machine, DOUBLE),
    [X87Operation.fldM80]: () => loadExtended(machine),
    [X87Operation.fld]: () => loadRegister(machine),
    [X87Operation.fld1]: () => loadConstant(machine, INTEGER_BIT, BIAS),
    [X87Operation.fldz]: () => loadConstant(machine, 0n, 0),
    [X87Operation.fstM32]: () => storeFloat(machine, SINGLE, false),
    [X87Operation.fstM64]: () => storeFloat(machine, DOUBLE, false),
    [X87Operation.fst]: () => storeRegister(machine, false),
    [X87Operation.fstpM32]: () => storeFloat(machine, SINGLE, true),
    [X87Operation.fstpM64]: () => storeFloat(machine, DOUBLE, true),
    [X87Operation.fstpM80]: () => storeExtended(machine),
    [X87Operation.fstp]: () => storeRegister(machine, true),
    [X87Operation.fxch]: () => exchange(machine),
    [X87Operation.fcmov]: () => moveConditionally(machine),
    [X87Operation.fchs]: () => changeSign(machine, (word) => xor(word, i32(SIGN))),
    [X87Operation.fabs]: () => changeSign(machine, (word) => and(word, i32(EXPONENT))),
    [X87Operation.fldcw]: () => loadControl(machine),
    [X87Operation.fnstcw]: () => storeWord(machine, machine.control),
    [X87Operation.fnstsw]: () => storeWord(machine, machine.status),
  };
}
