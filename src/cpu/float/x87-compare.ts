import { compare } from './arithmetic.ts';
import { FloatFlag, FloatKind, isNaNKind, type Unpacked } from './softfloat.ts';
import { readSource } from './x87-arithmetic.ts';
import type { X87Handler, X87Handlers, X87Machine } from './x87-machine.ts';
import { X87Result, X87Status } from './x87-machine.ts';
import { ArithmeticForm, X87Operation } from './x87-operations.ts';

/** x87 comparison and classification. */

const unordered = 2;

/** −1, 0, 1 or `unordered`, with flags raised in the context. `signals` makes quiet NaNs invalid as well. */
function order(fpu: X87Machine, a: Unpacked, b: Unpacked, signals: boolean): -1 | 0 | 1 | 2 {
  const { context } = fpu;
  if (a.kind === FloatKind.unsupported || b.kind === FloatKind.unsupported) {
    context.flags |= FloatFlag.invalid;
    return unordered;
  }
  if (isNaNKind(a.kind) || isNaNKind(b.kind)) {
    if (signals || a.kind === FloatKind.signalingNaN || b.kind === FloatKind.signalingNaN) {
      context.flags |= FloatFlag.invalid;
    }
    return unordered;
  }
  if (a.denormal || b.denormal) context.flags |= FloatFlag.denormal;
  return compare(a, b);
}

/** C3, C2 and C0 for greater, less, equal and unordered. */
function setConditions(fpu: X87Machine, outcome: -1 | 0 | 1 | 2): void {
  fpu.setCondition(X87Status.c3, outcome === 0 || outcome === unordered);
  fpu.setCondition(X87Status.c2, outcome === unordered);
  fpu.setCondition(X87Status.c0, outcome === -1 || outcome === unordered);
}

/**
 * Compares the machine's a and b; returns whether pops may follow. The conditions are set even when the exception is
 * unmasked, as AMD's processors do.
 */
function compareOperands(fpu: X87Machine, signals: boolean): boolean {
  setConditions(fpu, order(fpu, fpu.a, fpu.b, signals));
  return fpu.settle();
}

function underflow(fpu: X87Machine): boolean {
  setConditions(fpu, unordered);
  return fpu.stackUnderflow();
}

function popTimes(fpu: X87Machine, times: number): void {
  for (let i = 0; i < times; i++) fpu.pop();
}

function withMemory(form: ArithmeticForm, pops: number): X87Handler {
  const read = readSource[form];
  if (read === undefined) throw new RangeError(`Form ${form} has no memory operand.`);
  return (fpu, _i, operand) => {
    fpu.status &= ~X87Status.c1;
    let done: boolean;
    if (fpu.isEmpty(0)) done = underflow(fpu);
    else {
      fpu.read(0, fpu.a);
      read(fpu.view, operand, fpu.b);
      done = compareOperands(fpu, true);
    }
    if (done) popTimes(fpu, pops);
  };
}

function withRegister(signals: boolean, pops: number): X87Handler {
  return (fpu, i) => {
    fpu.status &= ~X87Status.c1;
    let done: boolean;
    if (fpu.isEmpty(0) || fpu.isEmpty(i)) done = underflow(fpu);
    else {
      fpu.read(0, fpu.a);
      fpu.read(i, fpu.b);
      done = compareOperands(fpu, signals);
    }
    if (done) popTimes(fpu, pops);
  };
}

function withNext(signals: boolean): X87Handler {
  const handle = withRegister(signals, 2);
  return (fpu, _i, operand) => handle(fpu, 1, operand);
}

/** The FCOMI family: the outcome goes to EFLAGS, unmasked exceptions or not, and C1 stays as it is. */
function intoEflags(signals: boolean, pops: number): X87Handler {
  return (fpu, i) => {
    let outcome: -1 | 0 | 1 | 2 = unordered;
    let done: boolean;
    if (fpu.isEmpty(0) || fpu.isEmpty(i)) done = fpu.stackUnderflow();
    else {
      fpu.read(0, fpu.a);
      fpu.read(i, fpu.b);
      outcome = order(fpu, fpu.a, fpu.b, signals);
      done = fpu.settle();
    }
    if (outcome === unordered) fpu.result = X87Result.zero | X87Result.parity | X87Result.carry;
    else if (outcome === 0) fpu.result = X87Result.zero;
    else if (outcome === -1) fpu.result = X87Result.carry;
    if (done) popTimes(fpu, pops);
  };
}

const test: X87Handler = (fpu) => {
  fpu.status &= ~X87Status.c1;
  if (fpu.isEmpty(0)) {
    underflow(fpu);
    return;
  }
  fpu.read(0, fpu.a);
  fpu.b.set(FloatKind.zero, 0);
  compareOperands(fpu, true);
};

/** C3, C2, C0 that FXAM gives to each kind (SDM, FXAM); the others are zero. */
const classes: Record<FloatKind, number> = {
  [FloatKind.unsupported]: 0,
  [FloatKind.quietNaN]: X87Status.c0,
  [FloatKind.signalingNaN]: X87Status.c0,
  [FloatKind.finite]: X87Status.c2,
  [FloatKind.infinity]: X87Status.c2 | X87Status.c0,
  [FloatKind.zero]: X87Status.c3,
};

const examine: X87Handler = (fpu) => {
  fpu.status &= ~(X87Status.c0 | X87Status.c1 | X87Status.c2 | X87Status.c3);
  fpu.read(0, fpu.a);
  if (fpu.a.sign !== 0) fpu.status |= X87Status.c1;
  if (fpu.isEmpty(0)) fpu.status |= X87Status.c3 | X87Status.c0;
  else if (fpu.a.denormal) fpu.status |= X87Status.c3 | X87Status.c2;
  else fpu.status |= classes[fpu.a.kind];
};

export const compareHandlers: X87Handlers = {
  [X87Operation.fcomM32]: withMemory(ArithmeticForm.single, 0),
  [X87Operation.fcomM64]: withMemory(ArithmeticForm.double, 0),
  [X87Operation.fcom]: withRegister(true, 0),
  [X87Operation.fcompM32]: withMemory(ArithmeticForm.single, 1),
  [X87Operation.fcompM64]: withMemory(ArithmeticForm.double, 1),
  [X87Operation.fcomp]: withRegister(true, 1),
  [X87Operation.fcompp]: withNext(true),
  [X87Operation.ficomM16]: withMemory(ArithmeticForm.integer16, 0),
  [X87Operation.ficomM32]: withMemory(ArithmeticForm.integer32, 0),
  [X87Operation.ficompM16]: withMemory(ArithmeticForm.integer16, 1),
  [X87Operation.ficompM32]: withMemory(ArithmeticForm.integer32, 1),
  [X87Operation.fucom]: withRegister(false, 0),
  [X87Operation.fucomp]: withRegister(false, 1),
  [X87Operation.fucompp]: withNext(false),
  [X87Operation.fcomi]: intoEflags(true, 0),
  [X87Operation.fcomip]: intoEflags(true, 1),
  [X87Operation.fucomi]: intoEflags(false, 0),
  [X87Operation.fucomip]: intoEflags(false, 1),
  [X87Operation.ftst]: test,
  [X87Operation.fxam]: examine,
};
