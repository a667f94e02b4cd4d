import { add, divide, multiply, squareRoot } from './arithmetic.ts';
import { unpack32, unpack64 } from './encoding.ts';
import { fromInteger, roundToIntegral } from './integers.ts';
import { extract, reduction, remainder, scale } from './remainder.ts';
import { extended80, type FloatContext, FloatFlag, FloatKind, Unpacked } from './softfloat.ts';
import type { X87Handler, X87Handlers, X87Machine } from './x87-machine.ts';
import { X87Status } from './x87-machine.ts';
import { ArithmeticForm, X87Operation } from './x87-operations.ts';

/** x87 arithmetic: the four operations in all forms, square root, rounding, remainder, scaling, extraction, sign. */

const positiveZero = new Unpacked();

type Compute = (context: FloatContext, destination: Unpacked, source: Unpacked, result: Unpacked) => void;

/** In the order of the families in `X87Operation`. */
const computations: readonly Compute[] = [
  (context, destination, source, result) => add(context, extended80, destination, source, 0, result),
  (context, destination, source, result) => multiply(context, extended80, destination, source, result),
  (context, destination, source, result) => add(context, extended80, destination, source, 1, result),
  (context, destination, source, result) => add(context, extended80, source, destination, 1, result),
  (context, destination, source, result) => divide(context, extended80, destination, source, result),
  (context, destination, source, result) => divide(context, extended80, source, destination, result),
];

/** ST(target) ← compute(a, b) of the machine. */
function computeInto(fpu: X87Machine, target: number, compute: Compute): boolean {
  if (!fpu.propagate(fpu.a, fpu.b, fpu.r)) compute(fpu.context, fpu.a, fpu.b, fpu.r);
  if (!fpu.settle()) return false;
  fpu.write(target, fpu.r);
  return true;
}

type ReadSource = (view: DataView, address: number, number: Unpacked) => void;

/** Readers of the four memory forms, by `ArithmeticForm`. */
export const readSource: readonly ReadSource[] = [
  (view, address, number) => unpack32(view, address, number),
  (view, address, number) => unpack64(view, address, number),
  (view, address, number) => {
    const value = view.getInt16(address, true);
    fromInteger(value >> 31, value, number);
  },
  (view, address, number) => {
    const value = view.getInt32(address, true);
    fromInteger(value >> 31, value, number);
  },
];

function memoryForm(compute: Compute, read: ReadSource): X87Handler {
  return (fpu, _i, operand) => {
    fpu.status &= ~X87Status.c1;
    if (fpu.isEmpty(0)) {
      if (fpu.stackUnderflow()) fpu.writeIndefinite(0);
      return;
    }
    fpu.read(0, fpu.a);
    read(fpu.view, operand, fpu.b);
    computeInto(fpu, 0, compute);
  };
}

function registerForm(compute: Compute, form: ArithmeticForm): X87Handler {
  return (fpu, i) => {
    const target = form === ArithmeticForm.top ? 0 : i;
    const source = form === ArithmeticForm.top ? i : 0;
    fpu.status &= ~X87Status.c1;
    let done: boolean;
    if (fpu.isEmpty(target) || fpu.isEmpty(source)) {
      done = fpu.stackUnderflow();
      if (done) fpu.writeIndefinite(target);
    } else {
      fpu.read(target, fpu.a);
      fpu.read(source, fpu.b);
      done = computeInto(fpu, target, compute);
    }
    if (done && form === ArithmeticForm.pop) fpu.pop();
  };
}

/** An operation on ST(0) alone; `compute` sees a number that is neither NaN nor unsupported. */
function unary(compute: (fpu: X87Machine, a: Unpacked, result: Unpacked) => void): X87Handler {
  return (fpu) => {
    fpu.status &= ~X87Status.c1;
    if (fpu.isEmpty(0)) {
      if (fpu.stackUnderflow()) fpu.writeIndefinite(0);
      return;
    }
    fpu.read(0, fpu.a);
    if (!fpu.propagate(fpu.a, fpu.a, fpu.r)) compute(fpu, fpu.a, fpu.r);
    if (fpu.settle()) fpu.write(0, fpu.r);
  };
}

/** Changes the sign bit of ST(0), whatever the register holds. */
function changeSign(change: (top: number) => number): X87Handler {
  return (fpu) => {
    fpu.status &= ~X87Status.c1;
    if (fpu.isEmpty(0)) {
      if (fpu.stackUnderflow()) fpu.writeIndefinite(0);
      return;
    }
    const address = fpu.addressOf(0) + 8;
    fpu.view.setUint16(address, change(fpu.view.getUint16(address, true)), true);
  };
}

function invalid(fpu: X87Machine, result: Unpacked): void {
  fpu.context.flags |= FloatFlag.invalid;
  result.setIndefinite();
}

/** ST(0) ← f(ST(0), ST(1)) without a pop; `compute` sees no NaN and nothing unsupported. */
function topWithNext(compute: (fpu: X87Machine, a: Unpacked, b: Unpacked, result: Unpacked) => void): X87Handler {
  return (fpu) => {
    fpu.status &= ~X87Status.c1;
    if (fpu.isEmpty(0) || fpu.isEmpty(1)) {
      if (fpu.stackUnderflow()) fpu.writeIndefinite(0);
      return;
    }
    fpu.read(0, fpu.a);
    fpu.read(1, fpu.b);
    if (!fpu.propagate(fpu.a, fpu.b, fpu.r)) compute(fpu, fpu.a, fpu.b, fpu.r);
    if (fpu.settle()) fpu.write(0, fpu.r);
  };
}

/** FSCALE (SDM, table 3-35). */
function scaleBy(fpu: X87Machine, a: Unpacked, b: Unpacked, result: Unpacked): void {
  if (a.denormal || b.denormal) fpu.context.flags |= FloatFlag.denormal;
  if (b.kind === FloatKind.infinity) {
    const invalidKind = b.sign === 0 ? FloatKind.zero : FloatKind.infinity;
    if (a.kind === invalidKind) invalid(fpu, result);
    else result.set(b.sign === 0 ? FloatKind.infinity : FloatKind.zero, a.sign);
  } else if (a.kind !== FloatKind.finite) result.copy(a);
  else scale(fpu.context, a, b, result);
}

/**
 * FPREM and FPREM1. C2 tells that the reduction goes on; C0, C3, C1 are bits 2, 1, 0 of the quotient. Without a
 * quotient, because operands are invalid or NaNs or their exception is unmasked, C0 and C3 stay as they are.
 */
function remainderHandler(nearest: boolean): X87Handler {
  let reduces = false;
  const handle = topWithNext((fpu, a, b, result) => {
    if (a.kind === FloatKind.infinity || b.kind === FloatKind.zero) {
      invalid(fpu, result);
      return;
    }
    reduces = true;
    reduction.incomplete = false;
    reduction.quotient = 0;
    if (a.denormal || b.denormal) fpu.context.flags |= FloatFlag.denormal;
    if (a.kind === FloatKind.zero) result.copy(a);
    else if (b.kind === FloatKind.infinity) scale(fpu.context, a, positiveZero, result);
    else remainder(fpu.context, a, b, nearest, result);
    fpu.context.roundedUp = (reduction.quotient & 1) !== 0;
  });
  return (fpu, i, operand) => {
    fpu.status &= ~X87Status.c2;
    reduces = false;
    handle(fpu, i, operand);
    if (!reduces || (fpu.context.flags & ~fpu.context.masked & FloatFlag.beforeComputation) !== 0) return;
    fpu.setCondition(X87Status.c2, reduction.incomplete);
    fpu.setCondition(X87Status.c0, (reduction.quotient & 4) !== 0);
    fpu.setCondition(X87Status.c3, (reduction.quotient & 2) !== 0);
  };
}

/** FXTRACT: ST(0) becomes the exponent, and the significand is pushed. */
const extractHandler: X87Handler = (fpu) => {
  const { context, a, r, s } = fpu;
  fpu.status &= ~X87Status.c1;
  if (fpu.isEmpty(0) || !fpu.isEmpty(7)) {
    const masked = fpu.isEmpty(0) ? fpu.stackUnderflow() : fpu.stackOverflow();
    if (!masked) return;
    fpu.writeIndefinite(0);
    fpu.push();
    fpu.writeIndefinite(0);
    return;
  }
  fpu.read(0, a);
  if (fpu.propagate(a, a, r)) s.copy(r);
  else if (a.kind === FloatKind.zero) {
    context.flags |= FloatFlag.divideByZero;
    r.set(FloatKind.infinity, 1);
    s.copy(a);
  } else if (a.kind === FloatKind.infinity) {
    r.set(FloatKind.infinity, 0);
    s.copy(a);
  } else {
    if (a.denormal) context.flags |= FloatFlag.denormal;
    extract(a, r, s);
  }
  if (!fpu.settle()) return;
  fpu.write(0, r);
  fpu.push();
  fpu.write(0, s);
};

export const arithmeticHandlers: X87Handlers = {
  [X87Operation.fchs]: changeSign((top) => top ^ 0x8000),
  [X87Operation.fabs]: changeSign((top) => top & 0x7fff),
  [X87Operation.fsqrt]: unary((fpu, a, result) => squareRoot(fpu.context, extended80, a, result)),
  [X87Operation.frndint]: unary((fpu, a, result) => {
    if (a.denormal) fpu.context.flags |= FloatFlag.denormal;
    roundToIntegral(fpu.context, fpu.context.rounding, a, result);
  }),
  [X87Operation.fscale]: topWithNext(scaleBy),
  [X87Operation.fprem]: remainderHandler(false),
  [X87Operation.fprem1]: remainderHandler(true),
  [X87Operation.fxtract]: extractHandler,
};

for (const [family, compute] of computations.entries()) {
  const base = family * ArithmeticForm.count;
  for (const [form, read] of readSource.entries()) arithmeticHandlers[base + form] = memoryForm(compute, read);
  for (const form of [ArithmeticForm.top, ArithmeticForm.register, ArithmeticForm.pop]) {
    arithmeticHandlers[base + form] = registerForm(compute, form);
  }
}
