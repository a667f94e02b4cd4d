import { pack80, unpack80 } from './encoding.ts';
import { FloatContext, FloatFlag, FloatKind, isNaNKind, type RoundingMode, Unpacked } from './softfloat.ts';

/**
 * The x87 state in memory, and the register stack with its exceptions on top of it.
 *
 *      0  R0 … R7      eight slots of 16 bytes in physical order; bytes 0–9 the number, 10–15 unused.
 *                      MMi is bytes 0–7 of the slot of Ri.
 *    128  control      u16
 *    130  status       u16, TOP in bits 11–13; ST(i) is R((TOP + i) & 7)
 *    132  occupied     u8, bit i set when Ri is not empty: the abridged tag word of FXSAVE
 *    134  opcode       u16, 11 bits: of the last instruction that was not a control instruction
 *    136  instruction  u64 pointer of that instruction
 *    144  data         u64 pointer of its memory operand
 *    152  cs, 154 ds   u16 selectors of the two pointers
 *    160  end
 *
 * The unit keeps opcode, pointers and selectors only across saves and restores; whoever executes an instruction that
 * is not a control instruction writes them.
 */
export const enum X87State {
  registers = 0,
  registerSize = 16,
  control = 128,
  status = 130,
  occupied = 132,
  opcode = 134,
  instruction = 136,
  data = 144,
  codeSelector = 152,
  dataSelector = 154,
  size = 160,
}

/** Bits of the status word beside the six exception flags (SDM vol. 1, figure 8-4). */
export const enum X87Status {
  stackFault = 1 << 6,
  /** An unmasked exception is pending. */
  errorSummary = 1 << 7,
  c0 = 1 << 8,
  c1 = 1 << 9,
  c2 = 1 << 10,
  c3 = 1 << 14,
  topShift = 11,
  top = 7 << 11,
  /** Follows `errorSummary` since the 387. */
  busy = 1 << 15,
}

/** Bits of the control word (SDM vol. 1, figure 8-6). */
export const enum X87Control {
  masks = 0x3f,
  precisionShift = 8,
  roundingShift = 10,
  /** After FNINIT: all masked, 64 bits, round to nearest. */
  initial = 0x037f,
}

/** What `execute` of the x87 unit returns; 0 when there is nothing to say. */
export const enum X87Result {
  /** FCOMI family: EFLAGS bits at their own places. The three are to be replaced; OF, SF and AF become clear. */
  carry = 1 << 0,
  parity = 1 << 2,
  zero = 1 << 6,
  /** An unmasked exception was pending: raise #MF. The instruction was not executed. */
  pending = 1 << 16,
  /** An unmasked exception: nothing was stored in memory. */
  suppressed = 1 << 17,
}

const precisionOfControl = [24, 64, 53, 64] as const;

/**
 * One instruction at a time on one state. The words of the state are held in fields between `begin` and `end`; the
 * registers stay in memory.
 */
export class X87Machine {
  view: DataView;
  state = 0;
  control = 0;
  status = 0;
  occupied = 0;
  result = 0;
  readonly context = new FloatContext();
  /** Scratch operands and results of the instruction in hand. */
  readonly a = new Unpacked();
  readonly b = new Unpacked();
  readonly r = new Unpacked();
  readonly s = new Unpacked();

  constructor(view: DataView) {
    this.view = view;
    this.context.wrapsExponent = true;
  }

  begin(state: number): void {
    this.state = state;
    this.control = this.view.getUint16(state + X87State.control, true);
    this.status = this.view.getUint16(state + X87State.status, true);
    this.occupied = this.view.getUint8(state + X87State.occupied);
    this.result = 0;
    const context = this.context;
    context.flags = 0;
    context.roundedUp = false;
    context.wrapsExponent = true;
    context.rounding = ((this.control >>> X87Control.roundingShift) & 3) as RoundingMode;
    context.precision = precisionOfControl[(this.control >>> X87Control.precisionShift) & 3] as number;
    context.masked = this.control & X87Control.masks;
  }

  end(): void {
    this.view.setUint16(this.state + X87State.control, this.control, true);
    this.view.setUint16(this.state + X87State.status, this.status, true);
    this.view.setUint8(this.state + X87State.occupied, this.occupied);
  }

  get top(): number {
    return (this.status >>> X87Status.topShift) & 7;
  }

  set top(value: number) {
    this.status = (this.status & ~X87Status.top) | ((value & 7) << X87Status.topShift);
  }

  /** Address of ST(i). */
  addressOf(i: number): number {
    return this.state + X87State.registers + ((this.top + i) & 7) * X87State.registerSize;
  }

  isEmpty(i: number): boolean {
    return (this.occupied & (1 << ((this.top + i) & 7))) === 0;
  }

  read(i: number, number: Unpacked): void {
    unpack80(this.view, this.addressOf(i), number);
  }

  write(i: number, number: Unpacked): void {
    pack80(this.view, this.addressOf(i), number);
    this.occupied |= 1 << ((this.top + i) & 7);
  }

  /** Copies ten bytes unseen. */
  copyNumber(from: number, to: number): void {
    const low = this.view.getInt32(from, true);
    const high = this.view.getInt32(from + 4, true);
    const top = this.view.getUint16(from + 8, true);
    this.view.setInt32(to, low, true);
    this.view.setInt32(to + 4, high, true);
    this.view.setUint16(to + 8, top, true);
  }

  push(): void {
    this.top = this.top - 1;
  }

  pop(): void {
    this.free(0);
    this.top = this.top + 1;
  }

  free(i: number): void {
    this.occupied &= ~(1 << ((this.top + i) & 7));
  }

  setCondition(bit: X87Status, on: boolean): void {
    if (on) this.status |= bit;
    else this.status &= ~bit;
  }

  /** Sets ES and B from the flags and the masks. */
  summarise(): void {
    const unmasked = this.status & ~this.control & FloatFlag.all;
    const bits = X87Status.errorSummary | X87Status.busy;
    if (unmasked !== 0) this.status |= bits;
    else this.status &= ~bits;
  }

  raise(flags: number): void {
    if (flags === 0) return;
    this.status |= flags;
    this.summarise();
  }

  private stackFault(overflow: boolean): boolean {
    this.setCondition(X87Status.c1, overflow);
    this.raise(FloatFlag.invalid | X87Status.stackFault);
    return (this.control & FloatFlag.invalid) !== 0;
  }

  /** An operand is an empty register. Returns whether the masked response is wanted. */
  stackUnderflow(): boolean {
    return this.stackFault(false);
  }

  /** A push meets a register in use. Returns whether the masked response is wanted. */
  stackOverflow(): boolean {
    return this.stackFault(true);
  }

  /** ST(i) ← real indefinite. */
  writeIndefinite(i: number): void {
    this.r.setIndefinite();
    this.write(i, this.r);
  }

  /**
   * Raises what the operation has found and sets C1. Returns whether the result is to be written to a register: not
   * when an unmasked exception showed in the operands.
   */
  settle(): boolean {
    const context = this.context;
    const unmasked = context.flags & ~context.masked;
    if ((unmasked & FloatFlag.beforeComputation) !== 0) {
      this.raise(context.flags & FloatFlag.beforeComputation);
      return false;
    }
    if (context.roundedUp) this.status |= X87Status.c1;
    this.raise(context.flags);
    return true;
  }

  /**
   * As `settle`, for a result in memory: unmasked overflow and underflow leave memory alone as well, and then tell
   * nothing about precision.
   */
  settleStore(): boolean {
    const { context } = this;
    const stopped = (context.flags & ~context.masked & (FloatFlag.overflow | FloatFlag.underflow)) !== 0;
    if (stopped) {
      context.flags &= ~FloatFlag.precision;
      context.roundedUp = false;
    }
    if (this.settle() && !stopped) return true;
    this.result |= X87Result.suppressed;
    return false;
  }

  /**
   * Deals with NaNs and unsupported encodings among two operands. Returns true when there was one: `result` is then
   * the NaN that the operation delivers.
   *
   * Of two NaNs a quiet one wins over a signalling one, else the larger significand, else the positive one (SDM vol. 1,
   * table 4-7).
   */
  propagate(a: Unpacked, b: Unpacked, result: Unpacked): boolean {
    const context = this.context;
    if (a.kind === FloatKind.unsupported || b.kind === FloatKind.unsupported) {
      context.flags |= FloatFlag.invalid;
      result.setIndefinite();
      return true;
    }
    const aIsNaN = isNaNKind(a.kind);
    const bIsNaN = isNaNKind(b.kind);
    if (!aIsNaN && !bIsNaN) return false;
    if (a.kind === FloatKind.signalingNaN || b.kind === FloatKind.signalingNaN) context.flags |= FloatFlag.invalid;
    let chosen = aIsNaN ? a : b;
    if (aIsNaN && bIsNaN) {
      if (a.kind !== b.kind) chosen = a.kind === FloatKind.quietNaN ? a : b;
      else {
        const order = (a.high >>> 0) - (b.high >>> 0) || (a.low >>> 0) - (b.low >>> 0) || b.sign - a.sign;
        chosen = order >= 0 ? a : b;
      }
    }
    result.setQuieted(chosen);
    return true;
  }
}

/** What carries out an operation: `i` and `operand` are those of `execute`. */
export type X87Handler = (fpu: X87Machine, i: number, operand: number) => void;

/** Handlers by `X87Operation`. */
export type X87Handlers = { [operation: number]: X87Handler };
