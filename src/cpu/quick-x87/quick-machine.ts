import {
  add,
  and,
  eq,
  eqz,
  type I32,
  type I64,
  i32,
  load8U32,
  load16U32,
  load64,
  or,
  shl,
  shrU,
  store8of32,
  store16of32,
  store64,
  xor,
} from '../../wasm/expression.ts';
import type { FunctionBuilder, Label } from '../../wasm/module.ts';
import { FloatFlag } from '../float/softfloat.ts';
import { X87Control, X87State, X87Status } from '../float/x87-machine.ts';
import type { Extended } from './numbers.ts';

/** What the function was called with. */
interface Parameters {
  /** Address of the unit's state (X87State). */
  readonly unit: I32;
  readonly operation: I32;
  /** ST index. */
  readonly register: I32;
  /** Address of the memory operand. */
  readonly operand: I32;
}

/** How an instruction changes the unit, besides what it writes to registers. */
interface Changes {
  /** Bits of the status word that are cleared before `set` goes in: C1 when nothing is said. */
  readonly clear?: number;
  readonly set?: I32;
  /** Registers pushed or popped. */
  readonly push?: boolean;
  readonly pops?: 1 | 2;
  /** A bit in the byte of registers in use, which becomes set. */
  readonly occupies?: I32;
  /** Bits of X87Result. */
  readonly result?: I32;
}

const TOP_STEP = 1 << X87Status.topShift;
/** Log2 of a slot's size, from the place of TOP in the status word. */
const TOP_TO_SLOT = X87Status.topShift - Math.log2(X87State.registerSize);
const SLOTS = 7 * X87State.registerSize;

/** One instruction on one state. The words of the state are read once; what is written is written at the end of a way. */
export class QuickMachine {
  readonly fn: FunctionBuilder;
  readonly operation: I32;
  readonly register: I32;
  readonly operand: I32;
  readonly control: I32;
  readonly status: I32;
  readonly #unit: I32;
  readonly #occupied: I32;
  /** Where control goes from what is not done here. */
  readonly otherwise: Label;

  constructor(fn: FunctionBuilder, { unit, operation, register, operand }: Parameters, otherwise: Label) {
    this.fn = fn;
    this.#unit = unit;
    this.operation = operation;
    this.register = register;
    this.operand = operand;
    this.otherwise = otherwise;
    this.control = fn.let(load16U32(unit, X87State.control));
    this.status = fn.let(load16U32(unit, X87State.status));
    this.#occupied = fn.let(load8U32(unit, X87State.occupied));
    this.require(eqz(and(this.status, i32(X87Status.errorSummary))));
  }

  /** Leaves the instruction to the exact unit unless the condition holds. */
  require(condition: I32): void {
    this.fn.branchIf(eqz(condition), this.otherwise);
  }

  /** A rounding that loses something is allowed: PE is masked. */
  requirePrecisionMasked(): void {
    this.require(and(this.control, i32(FloatFlag.precision)));
  }

  /** Address of ST(i). */
  slot(i: I32): I32 {
    const offset = and(add(shrU(this.status, i32(TOP_TO_SLOT)), shl(i, i32(4))), i32(SLOTS));
    return this.fn.let(add(this.#unit, offset));
  }

  /** The bit of ST(i) among the registers in use. */
  bit(i: I32): I32 {
    return shl(i32(1), and(add(shrU(this.status, i32(X87Status.topShift)), i), i32(7)));
  }

  isOccupied(i: I32): I32 {
    return and(this.#occupied, this.bit(i));
  }

  requireOccupied(...indices: readonly I32[]): void {
    for (const index of indices) this.require(this.isOccupied(index));
  }

  /** There is room for a push. */
  requireEmptyNext(): void {
    this.require(eqz(this.isOccupied(i32(7))));
  }

  /** The words of the number in a slot, whatever they mean. */
  read(slot: I32): Extended {
    const { fn } = this;
    return {
      significand: fn.let(load64(slot)),
      signExponent: fn.let(load16U32(slot, 8)),
    };
  }

  /** ST(i), which must not be empty. */
  readOccupied(i: I32): Extended {
    this.requireOccupied(i);
    return this.read(this.slot(i));
  }

  write(slot: I32, { significand, signExponent }: Extended): void {
    const { fn } = this;
    fn.store(store64(slot, significand));
    fn.store(store16of32(slot, signExponent, 8));
  }

  /** Pushes a number; the caller has made sure of the room. */
  push(significand: I64, signExponent: I32): void {
    this.write(this.slot(i32(7)), { significand, signExponent });
    this.finish({ push: true, occupies: this.bit(i32(7)) });
  }

  /** Ends the instruction. */
  finish({ clear = X87Status.c1, set, push, pops, occupies, result }: Changes): void {
    const { fn } = this;
    const moved = push ? -TOP_STEP : (pops ?? 0) * TOP_STEP;
    let status = and(this.status, i32(~(clear | (moved === 0 ? 0 : X87Status.top))));
    if (moved !== 0) status = or(status, and(add(this.status, i32(moved)), i32(X87Status.top)));
    if (set) status = or(status, set);
    fn.store(store16of32(this.#unit, status, X87State.status));
    let occupied = this.#occupied;
    if (occupies) occupied = or(occupied, occupies);
    for (let index = 0; index < (pops ?? 0); index++) occupied = and(occupied, xor(this.bit(i32(index)), i32(-1)));
    if (occupied !== this.#occupied) fn.store(store8of32(this.#unit, occupied, X87State.occupied));
    fn.return(result ?? i32(0));
  }

  /** Replaces the control word by one that leaves nothing pending. */
  setControl(control: I32): void {
    this.fn.store(store16of32(this.#unit, control, X87State.control));
  }
}

/** All 64 bits are kept. */
export const fullPrecision = (control: I32): I32 => {
  const bits = i32(3 << X87Control.precisionShift);
  return eq(and(control, bits), bits);
};

/** To nearest is 0. */
export const roundingOf = (control: I32): I32 => and(shrU(control, i32(X87Control.roundingShift)), i32(3));
