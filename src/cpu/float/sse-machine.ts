import { pack32, pack64, unpack32, unpack64 } from './encoding.ts';
import {
  binary32,
  binary64,
  FloatContext,
  FloatFlag,
  type FloatFormat,
  FloatKind,
  isNaNKind,
  type RoundingMode,
  Unpacked,
} from './softfloat.ts';
import { Mxcsr } from './sse-operations.ts';

/** Bytes of a lane: single or double precision. */
export type Width = 4 | 8;

export function formatOf(width: Width): FloatFormat {
  return width === 4 ? binary32 : binary64;
}

/** Size of the result of an instruction that an unmasked exception stopped between two of its steps. */
export const stopped = -1;

/**
 * What carries out an operation, given the addresses and the immediate of `execute`. Returns how many bytes of `lanes`
 * are the result, or `stopped`.
 */
export type SseHandler = (sse: SseMachine, a: number, b: number, immediate: number) => number;

/** Handlers by `SseOperation`. */
export type SseHandlers = { [operation: number]: SseHandler };

/** One instruction at a time: MXCSR taken apart, the result so far, and scratch numbers. */
export class SseMachine {
  memory: DataView;
  readonly context = new FloatContext();
  /** The result. Copied out at the end, because nothing may be written when an exception is unmasked. */
  readonly lanes = new DataView(new ArrayBuffer(16));
  /** Flags of the steps of this instruction that are over. */
  settled = 0;
  /** EFLAGS of a comparison, as in `SseResult`. */
  eflags = 0;
  /** Scratch operands and result of the lane in hand. */
  readonly x = new Unpacked();
  readonly y = new Unpacked();
  readonly z = new Unpacked();

  constructor(memory: DataView) {
    this.memory = memory;
  }

  begin(mxcsr: number): void {
    const { context } = this;
    context.rounding = ((mxcsr >>> Mxcsr.roundingShift) & 3) as RoundingMode;
    context.masked = (mxcsr >>> Mxcsr.maskShift) & FloatFlag.all;
    context.flushToZero = (mxcsr & Mxcsr.flushToZero) !== 0;
    context.denormalsAreZero = (mxcsr & Mxcsr.denormalsAreZero) !== 0;
    context.flags = 0;
    this.settled = 0;
    this.eflags = 0;
  }

  unpack(source: DataView, width: Width, address: number, number: Unpacked): void {
    if (width === 4) unpack32(source, address, number, this.context.denormalsAreZero);
    else unpack64(source, address, number, this.context.denormalsAreZero);
  }

  pack(target: DataView, width: Width, offset: number, number: Unpacked): void {
    if (width === 4) pack32(target, offset, number);
    else pack64(target, offset, number);
  }

  /** Fills bytes of the result from memory, the same offsets of an operand. */
  keep(operand: number, from: number, to: number): void {
    for (let i = from; i < to; i += 4) this.lanes.setInt32(i, this.memory.getInt32(operand + i, true), true);
  }

  clear(from: number): void {
    for (let i = from; i < 16; i += 4) this.lanes.setInt32(i, 0, true);
  }

  /**
   * Deals with NaNs among two operands. Returns true when there was one: `result` is then the first of them, quieted
   * (SDM vol. 1, table 4-7).
   */
  propagate(first: Unpacked, second: Unpacked, result: Unpacked): boolean {
    const firstIsNaN = isNaNKind(first.kind);
    if (!firstIsNaN && !isNaNKind(second.kind)) return false;
    if (first.kind === FloatKind.signalingNaN || second.kind === FloatKind.signalingNaN) {
      this.context.flags |= FloatFlag.invalid;
    }
    result.setQuieted(firstIsNaN ? first : second);
    return true;
  }

  /**
   * Ends a step, in which all lanes compute one operation. An unmasked exception that shows in the operands of any
   * lane keeps the step from computing, so that no lane raises overflow, underflow or precision (SDM vol. 1, 11.5.2).
   * Returns whether an exception is unmasked, which ends the instruction.
   */
  settleStep(): boolean {
    const { flags, masked } = this.context;
    const unmasked = flags & ~masked;
    this.settled |= (unmasked & FloatFlag.beforeComputation) !== 0 ? flags & FloatFlag.beforeComputation : flags;
    this.context.flags = 0;
    return unmasked !== 0;
  }
}
