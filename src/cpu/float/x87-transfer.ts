import { roundFinite } from './arithmetic.ts';
import { pack32, pack64, unpack32, unpack64 } from './encoding.ts';
import { fromDecimal, fromInteger, integer, toDecimal, toInteger } from './integers.ts';
import { roundSignificand, wide } from './rounding.ts';
import { binary32, binary64, FloatFlag, FloatKind, RoundingMode, type Unpacked } from './softfloat.ts';
import type { X87Handler, X87Handlers, X87Machine } from './x87-machine.ts';
import { X87Result, X87Status } from './x87-machine.ts';
import { X87Operation } from './x87-operations.ts';

/** x87 loads, stores, constants and moves between registers. */

/** Makes room for a load; returns false when the load is over because the stack is full. */
function canPush(fpu: X87Machine): boolean {
  fpu.status &= ~X87Status.c1;
  if (fpu.isEmpty(7)) return true;
  if (fpu.stackOverflow()) {
    fpu.push();
    fpu.writeIndefinite(0);
  }
  return false;
}

function pushResult(fpu: X87Machine, number: Unpacked): void {
  if (!fpu.settle()) return;
  fpu.push();
  fpu.write(0, number);
}

function loadFloat(unpack: (view: DataView, address: number, number: Unpacked) => void): X87Handler {
  return (fpu, _i, operand) => {
    if (!canPush(fpu)) return;
    unpack(fpu.view, operand, fpu.a);
    if (!fpu.propagate(fpu.a, fpu.a, fpu.r)) fpu.r.copy(fpu.a);
    // A denormal is loaded even when the exception is unmasked, as AMD's processors do.
    if (fpu.a.denormal) fpu.raise(FloatFlag.denormal);
    pushResult(fpu, fpu.r);
  };
}

function loadInteger(bytes: 2 | 4 | 8): X87Handler {
  return (fpu, _i, operand) => {
    if (!canPush(fpu)) return;
    const low = bytes === 2 ? fpu.view.getInt16(operand, true) : fpu.view.getInt32(operand, true);
    fromInteger(bytes === 8 ? fpu.view.getInt32(operand + 4, true) : low >> 31, low, fpu.r);
    pushResult(fpu, fpu.r);
  };
}

/** A constant given to 96 bits, so that it can be rounded in every direction. No flag is raised and C1 is clear. */
function loadConstant(exponent: number, high: number, low: number, rest: number): X87Handler {
  return (fpu) => {
    if (!canPush(fpu)) return;
    roundSignificand(fpu.context.rounding, 64, 0, high | 0, low | 0, rest | 0);
    fpu.r.set(FloatKind.finite, 0, exponent, wide.high, wide.low);
    pushResult(fpu, fpu.r);
  };
}

function afterStore(fpu: X87Machine, pops: boolean): void {
  if (pops && (fpu.result & X87Result.suppressed) === 0) fpu.pop();
}

/** Reads ST(0) for a store. False when it is empty: `indefinite` then writes the masked response. */
function readForStore(fpu: X87Machine, indefinite: () => void): boolean {
  fpu.status &= ~X87Status.c1;
  if (!fpu.isEmpty(0)) {
    fpu.read(0, fpu.a);
    return true;
  }
  if (fpu.stackUnderflow()) indefinite();
  else fpu.result |= X87Result.suppressed;
  return false;
}

function storeFloat(bytes: 4 | 8, pops: boolean): X87Handler {
  const format = bytes === 4 ? binary32 : binary64;
  const pack = bytes === 4 ? pack32 : pack64;
  return (fpu, _i, operand) => {
    const { context, a, r } = fpu;
    const readable = readForStore(fpu, () => {
      r.setIndefinite();
      pack(fpu.view, operand, r);
    });
    if (readable) {
      // Memory has no room for a wrapped exponent, and precision control rules only what stays in registers.
      context.wrapsExponent = false;
      context.precision = 64;
      if (!fpu.propagate(a, a, r)) {
        if (a.kind === FloatKind.finite) roundFinite(context, format, a, r);
        else r.copy(a);
      }
      if (fpu.settleStore()) pack(fpu.view, operand, r);
    }
    afterStore(fpu, pops);
  };
}

function writeInteger(view: DataView, address: number, bytes: 2 | 4 | 8): void {
  if (bytes === 2) view.setInt16(address, integer.low, true);
  else view.setInt32(address, integer.low, true);
  if (bytes === 8) view.setInt32(address + 4, integer.high, true);
}

function storeInteger(bytes: 2 | 4 | 8, truncates: boolean, pops: boolean): X87Handler {
  const bits = bytes === 2 ? 16 : bytes === 4 ? 32 : 64;
  return (fpu, _i, operand) => {
    const { context, a } = fpu;
    const readable = readForStore(fpu, () => {
      fpu.r.setIndefinite();
      toInteger(context, RoundingMode.nearest, fpu.r, bits);
      writeInteger(fpu.view, operand, bytes);
    });
    if (readable) {
      toInteger(context, truncates ? RoundingMode.zero : context.rounding, a, bits);
      if (fpu.settleStore()) writeInteger(fpu.view, operand, bytes);
    }
    afterStore(fpu, pops);
  };
}

const decimal = new DataView(new ArrayBuffer(10));

const storeDecimal: X87Handler = (fpu, _i, operand) => {
  const write = () => {
    for (let i = 0; i < 10; i += 2) fpu.view.setUint16(operand + i, decimal.getUint16(i, true), true);
  };
  const readable = readForStore(fpu, () => {
    fpu.a.setIndefinite();
    toDecimal(fpu.context, fpu.a, fpu.r, decimal, 0);
    write();
  });
  if (readable) {
    toDecimal(fpu.context, fpu.a, fpu.r, decimal, 0);
    if (fpu.settleStore()) write();
  }
  afterStore(fpu, true);
};

/** FSTP m80 copies any pattern as it is. */
const storeExtended: X87Handler = (fpu, _i, operand) => {
  const readable = readForStore(fpu, () => {
    fpu.view.setInt32(operand, 0, true);
    fpu.view.setUint32(operand + 4, 0xc0000000, true);
    fpu.view.setUint16(operand + 8, 0xffff, true);
  });
  if (readable) fpu.copyNumber(fpu.addressOf(0), operand);
  afterStore(fpu, true);
};

function storeRegister(pops: boolean): X87Handler {
  return (fpu, i) => {
    fpu.status &= ~X87Status.c1;
    if (fpu.isEmpty(0)) {
      if (!fpu.stackUnderflow()) return;
      fpu.writeIndefinite(i);
    } else {
      fpu.copyNumber(fpu.addressOf(0), fpu.addressOf(i));
      fpu.occupied |= 1 << ((fpu.top + i) & 7);
    }
    if (pops) fpu.pop();
  };
}

const exchange: X87Handler = (fpu, i) => {
  fpu.status &= ~X87Status.c1;
  if (fpu.isEmpty(0) || fpu.isEmpty(i)) {
    if (!fpu.stackUnderflow()) return;
    if (fpu.isEmpty(0)) fpu.writeIndefinite(0);
    if (fpu.isEmpty(i)) fpu.writeIndefinite(i);
  }
  const { view } = fpu;
  const top = fpu.addressOf(0);
  const other = fpu.addressOf(i);
  const low = view.getInt32(top, true);
  const high = view.getInt32(top + 4, true);
  const signExponent = view.getUint16(top + 8, true);
  fpu.copyNumber(other, top);
  view.setInt32(other, low, true);
  view.setInt32(other + 4, high, true);
  view.setUint16(other + 8, signExponent, true);
};

/** FCMOVcc leaves C1 alone unless the stack underflows. */
const conditionalMove: X87Handler = (fpu, i, operand) => {
  if (fpu.isEmpty(0) || fpu.isEmpty(i)) {
    if (fpu.stackUnderflow()) fpu.writeIndefinite(0);
  } else if (operand !== 0) fpu.copyNumber(fpu.addressOf(i), fpu.addressOf(0));
};

const loadRegister: X87Handler = (fpu, i) => {
  fpu.status &= ~X87Status.c1;
  if (fpu.isEmpty(i)) {
    if (!fpu.stackUnderflow()) return;
    fpu.push();
    fpu.writeIndefinite(0);
    return;
  }
  if (!canPush(fpu)) return;
  const from = fpu.addressOf(i);
  fpu.push();
  fpu.copyNumber(from, fpu.addressOf(0));
  fpu.occupied |= 1 << fpu.top;
};

/** FLD m80 raises nothing but stack overflow, whatever the pattern. */
const loadExtended: X87Handler = (fpu, _i, operand) => {
  if (!canPush(fpu)) return;
  fpu.push();
  fpu.copyNumber(operand, fpu.addressOf(0));
  fpu.occupied |= 1 << fpu.top;
};

export const transferHandlers: X87Handlers = {
  [X87Operation.fldM32]: loadFloat((view, address, number) => unpack32(view, address, number)),
  [X87Operation.fldM64]: loadFloat((view, address, number) => unpack64(view, address, number)),
  [X87Operation.fldM80]: loadExtended,
  [X87Operation.fld]: loadRegister,
  [X87Operation.fildM16]: loadInteger(2),
  [X87Operation.fildM32]: loadInteger(4),
  [X87Operation.fildM64]: loadInteger(8),
  [X87Operation.fbld]: (fpu, _i, operand) => {
    if (!canPush(fpu)) return;
    fromDecimal(fpu.view, operand, fpu.r);
    pushResult(fpu, fpu.r);
  },
  [X87Operation.fld1]: loadConstant(0, 0x80000000, 0, 0),
  [X87Operation.fldl2t]: loadConstant(1, 0xd49a784b, 0xcd1b8afe, 0x492bf6ff),
  [X87Operation.fldl2e]: loadConstant(0, 0xb8aa3b29, 0x5c17f0bb, 0xbe87fed0),
  [X87Operation.fldpi]: loadConstant(1, 0xc90fdaa2, 0x2168c234, 0xc4c6628b),
  [X87Operation.fldlg2]: loadConstant(-2, 0x9a209a84, 0xfbcff798, 0x8f8959ac),
  [X87Operation.fldln2]: loadConstant(-1, 0xb17217f7, 0xd1cf79ab, 0xc9e3b398),
  [X87Operation.fldz]: (fpu) => {
    if (!canPush(fpu)) return;
    fpu.r.set(FloatKind.zero, 0);
    pushResult(fpu, fpu.r);
  },
  [X87Operation.fstM32]: storeFloat(4, false),
  [X87Operation.fstM64]: storeFloat(8, false),
  [X87Operation.fst]: storeRegister(false),
  [X87Operation.fstpM32]: storeFloat(4, true),
  [X87Operation.fstpM64]: storeFloat(8, true),
  [X87Operation.fstpM80]: storeExtended,
  [X87Operation.fstp]: storeRegister(true),
  [X87Operation.fistM16]: storeInteger(2, false, false),
  [X87Operation.fistM32]: storeInteger(4, false, false),
  [X87Operation.fistpM16]: storeInteger(2, false, true),
  [X87Operation.fistpM32]: storeInteger(4, false, true),
  [X87Operation.fistpM64]: storeInteger(8, false, true),
  [X87Operation.fisttpM16]: storeInteger(2, true, true),
  [X87Operation.fisttpM32]: storeInteger(4, true, true),
  [X87Operation.fisttpM64]: storeInteger(8, true, true),
  [X87Operation.fbstp]: storeDecimal,
  [X87Operation.fxch]: exchange,
  [X87Operation.fcmov]: conditionalMove,
};
