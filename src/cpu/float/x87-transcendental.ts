import { compare } from './arithmetic.ts';
import { FloatFlag, FloatKind, Unpacked } from './softfloat.ts';
import {
  angle,
  cosine,
  exponentialMinusOne,
  logarithm,
  logarithmPlusOne,
  roundQuarters,
  sine,
  tangent,
} from './transcendental.ts';
import type { X87Handler, X87Handlers, X87Machine } from './x87-machine.ts';
import { X87Status } from './x87-machine.ts';
import { X87Operation } from './x87-operations.ts';

/** x87 transcendental instructions: stack, special values and flags around transcendental.ts. */

/** Arguments of the circular functions must be less than 2^63; beyond, C2 is set and nothing happens. */
const circularLimit = 63;

const plusOne = new Unpacked();
plusOne.set(FloatKind.finite, 0, 0, 0x80000000 | 0, 0);
const minusHalf = new Unpacked();
minusHalf.set(FloatKind.finite, 1, -1, 0x80000000 | 0, 0);

type Function2 = (fpu: X87Machine, a: Unpacked, b: Unpacked, result: Unpacked) => void;

function invalid(fpu: X87Machine, result: Unpacked): void {
  fpu.context.flags |= FloatFlag.invalid;
  result.setIndefinite();
}

function noteDenormals(fpu: X87Machine, a: Unpacked, b: Unpacked): void {
  if (a.denormal || b.denormal) fpu.context.flags |= FloatFlag.denormal;
}

/** ST(1) ← compute(ST(0), ST(1)), then pop. */
function popping(compute: Function2): X87Handler {
  return (fpu) => {
    fpu.status &= ~X87Status.c1;
    if (fpu.isEmpty(0) || fpu.isEmpty(1)) {
      if (!fpu.stackUnderflow()) return;
      fpu.writeIndefinite(1);
      fpu.pop();
      return;
    }
    fpu.read(0, fpu.a);
    fpu.read(1, fpu.b);
    if (!fpu.propagate(fpu.a, fpu.b, fpu.r)) compute(fpu, fpu.a, fpu.b, fpu.r);
    if (!fpu.settle()) return;
    fpu.write(1, fpu.r);
    fpu.pop();
  };
}

/** F2XM1. Outside −1 … 1 the manual promises nothing; the operand is then returned. */
const exponential: X87Handler = (fpu) => {
  const { a, r, context } = fpu;
  fpu.status &= ~X87Status.c1;
  if (fpu.isEmpty(0)) {
    if (fpu.stackUnderflow()) fpu.writeIndefinite(0);
    return;
  }
  fpu.read(0, a);
  if (!fpu.propagate(a, a, r)) {
    noteDenormals(fpu, a, a);
    if (a.kind === FloatKind.infinity && a.sign !== 0) {
      r.copy(plusOne);
      r.sign = 1;
    } else if (a.kind === FloatKind.finite && a.exponent === 0 && ((a.high << 1) | a.low) === 0) {
      // ±1, exact but called inexact by the processor.
      context.flags |= FloatFlag.precision;
      r.copy(a.sign !== 0 ? minusHalf : plusOne);
    } else if (a.kind !== FloatKind.finite || a.exponent >= 0) {
      r.copy(a);
    } else exponentialMinusOne(context, a, r);
  }
  if (fpu.settle()) fpu.write(0, r);
};

/** FYL2X: a is x, b is y (SDM, table 3-51). */
const yLogX: Function2 = (fpu, x, y, result) => {
  const { context } = fpu;
  if (x.kind === FloatKind.zero) {
    if (y.kind === FloatKind.zero) invalid(fpu, result);
    else {
      if (y.kind === FloatKind.finite) context.flags |= FloatFlag.divideByZero;
      result.set(FloatKind.infinity, y.sign ^ 1);
    }
    return;
  }
  if (x.sign !== 0) {
    invalid(fpu, result);
    return;
  }
  const order = x.kind === FloatKind.infinity ? 1 : compare(x, plusOne);
  const sign = y.sign ^ (order < 0 ? 1 : 0);
  if (y.kind === FloatKind.infinity) {
    if (order === 0) invalid(fpu, result);
    else {
      noteDenormals(fpu, x, y);
      result.set(FloatKind.infinity, sign);
    }
  } else if (y.kind === FloatKind.zero) {
    if (x.kind === FloatKind.infinity) invalid(fpu, result);
    else {
      noteDenormals(fpu, x, y);
      result.set(FloatKind.zero, sign);
    }
  } else {
    noteDenormals(fpu, x, y);
    if (x.kind === FloatKind.infinity) result.set(FloatKind.infinity, sign);
    else if (order === 0) result.set(FloatKind.zero, sign);
    else logarithm(context, x, y, result);
  }
};

/** FYL2XP1: a is x, b is y (SDM, table 3-52). The manual promises nothing for x beyond ±(1 − √½). */
const yLogXPlusOne: Function2 = (fpu, x, y, result) => {
  const { context } = fpu;
  const sign = x.sign ^ y.sign;
  if (x.kind === FloatKind.finite && x.sign !== 0 && x.exponent >= 0) {
    invalid(fpu, result);
  } else if (x.kind === FloatKind.infinity) {
    if (x.sign !== 0 || y.kind === FloatKind.zero) invalid(fpu, result);
    else {
      noteDenormals(fpu, x, y);
      result.set(FloatKind.infinity, sign);
    }
  } else if (y.kind === FloatKind.infinity) {
    if (x.kind === FloatKind.zero) invalid(fpu, result);
    else {
      noteDenormals(fpu, x, y);
      result.set(FloatKind.infinity, sign);
    }
  } else {
    noteDenormals(fpu, x, y);
    if (x.kind === FloatKind.zero || y.kind === FloatKind.zero) result.set(FloatKind.zero, sign);
    else logarithmPlusOne(context, x, y, result);
  }
};

/** FPATAN: a is x, b is y (SDM, table 3-30). */
const arcTangent: Function2 = (fpu, x, y, result) => {
  const { context } = fpu;
  noteDenormals(fpu, x, y);
  const xInfinite = x.kind === FloatKind.infinity;
  const yInfinite = y.kind === FloatKind.infinity;
  if (yInfinite) {
    roundQuarters(context, y.sign, !xInfinite ? 2 : x.sign !== 0 ? 3 : 1, result);
  } else if (xInfinite || y.kind === FloatKind.zero) {
    if (x.sign !== 0) roundQuarters(context, y.sign, 4, result);
    else result.set(FloatKind.zero, y.sign);
  } else if (x.kind === FloatKind.zero) roundQuarters(context, y.sign, 2, result);
  else angle(context, y, x, result);
};

/** Sine (zero stays zero) or cosine (one at zero) of anything that is in range. */
function circular(fpu: X87Machine, a: Unpacked, ofCosine: boolean, result: Unpacked): void {
  if (a.kind === FloatKind.zero) result.copy(ofCosine ? plusOne : a);
  else if (ofCosine) cosine(fpu.context, a, result);
  else sine(fpu.context, a, result);
}

/** Reads ST(0) for a circular function. False when there is nothing to compute and C2 says so. */
function readAngle(fpu: X87Machine): boolean {
  fpu.read(0, fpu.a);
  const outOfRange = fpu.a.kind === FloatKind.finite && fpu.a.exponent >= circularLimit;
  fpu.setCondition(X87Status.c2, outOfRange);
  return !outOfRange;
}

function singleCircular(ofCosine: boolean): X87Handler {
  return (fpu) => {
    const { a, r } = fpu;
    fpu.status &= ~(X87Status.c1 | X87Status.c2);
    if (fpu.isEmpty(0)) {
      if (fpu.stackUnderflow()) fpu.writeIndefinite(0);
      return;
    }
    if (!readAngle(fpu)) return;
    if (!fpu.propagate(a, a, r)) {
      noteDenormals(fpu, a, a);
      if (a.kind === FloatKind.infinity) invalid(fpu, r);
      else circular(fpu, a, ofCosine, r);
    }
    if (fpu.settle()) fpu.write(0, r);
  };
}

/** FSINCOS and FPTAN: ST(0) is replaced, then a second result pushed. */
function doubleCircular(
  compute: (fpu: X87Machine, a: Unpacked, first: Unpacked, second: Unpacked) => void,
): X87Handler {
  return (fpu) => {
    const { a, r, s } = fpu;
    fpu.status &= ~(X87Status.c1 | X87Status.c2);
    if (fpu.isEmpty(0) || !fpu.isEmpty(7)) {
      const masked = fpu.isEmpty(0) ? fpu.stackUnderflow() : fpu.stackOverflow();
      if (!masked) return;
      fpu.writeIndefinite(0);
      fpu.push();
      fpu.writeIndefinite(0);
      return;
    }
    if (!readAngle(fpu)) return;
    if (fpu.propagate(a, a, r)) s.copy(r);
    else {
      noteDenormals(fpu, a, a);
      if (a.kind === FloatKind.infinity) {
        invalid(fpu, r);
        s.copy(r);
      } else compute(fpu, a, r, s);
    }
    if (!fpu.settle()) return;
    fpu.write(0, r);
    fpu.push();
    fpu.write(0, s);
  };
}

export const transcendentalHandlers: X87Handlers = {
  [X87Operation.f2xm1]: exponential,
  [X87Operation.fyl2x]: popping(yLogX),
  [X87Operation.fyl2xp1]: popping(yLogXPlusOne),
  [X87Operation.fpatan]: popping(arcTangent),
  [X87Operation.fsin]: singleCircular(false),
  [X87Operation.fcos]: singleCircular(true),
  [X87Operation.fsincos]: doubleCircular((fpu, a, first, second) => {
    circular(fpu, a, false, first);
    circular(fpu, a, true, second);
  }),
  [X87Operation.fptan]: doubleCircular((fpu, a, first, second) => {
    if (a.kind === FloatKind.zero) first.copy(a);
    else tangent(fpu.context, a, first);
    second.copy(plusOne);
  }),
};
