import { arithmeticHandlers } from './sse-arithmetic.ts';
import { convertHandlers } from './sse-convert.ts';
import { type SseHandler, SseMachine, stopped } from './sse-machine.ts';
import { Mxcsr, type SseOperation, SseResult } from './sse-operations.ts';

/**
 * The SSE unit: every floating-point instruction of SSE to SSE4.2, exact in results and flags. The handlers are in the
 * sse-*.ts files by subject.
 */
export interface SseUnit {
  /**
   * Executes one instruction.
   *
   * @param operation which
   * @param mxcsr MXCSR as it is before
   * @param destination address that receives the result: 16 bytes, or 8 where the result is an integer or MMX register
   *   (integers of 32 bits are zero-extended), or none for comparisons that set EFLAGS; may be one of the operands
   * @param a address of the destination operand's 16 bytes as they are before; lanes that keep their value come from
   *   here even where the instruction has one source
   * @param b address of the source operand: as many bytes as the instruction reads
   * @param immediate the immediate byte, where there is one
   * @returns MXCSR's six flags, old ones included, and the bits of `SseResult`
   */
  execute(operation: SseOperation, mxcsr: number, destination: number, a: number, b: number, immediate: number): number;
  /** Replaces the view; a memory that grows gets a new buffer. */
  attach(view: DataView): void;
}

const handlers: SseHandler[] = [];
for (const table of [arithmeticHandlers, convertHandlers]) {
  for (const [operation, handler] of Object.entries(table)) handlers[Number(operation)] = handler;
}

/** A unit that works on the memory behind `view`, until another is attached. */
export function createSseUnit(view: DataView): SseUnit {
  const machine = new SseMachine(view);
  return {
    attach(next) {
      machine.memory = next;
    },
    execute(operation, mxcsr, destination, a, b, immediate) {
      const handler = handlers[operation];
      if (handler === undefined) {
        throw new RangeError(`The SSE unit has no operation ${operation}; use a value of SseOperation.`);
      }
      machine.begin(mxcsr);
      const size = handler(machine, a, b, immediate);
      const exception = size === stopped || machine.settleStep();
      const flags = (mxcsr & Mxcsr.flags) | machine.settled;
      if (exception) return flags | SseResult.exception;
      const { lanes, memory } = machine;
      for (let i = 0; i < size; i += 4) memory.setInt32(destination + i, lanes.getInt32(i, true), true);
      return flags | machine.eflags;
    },
  };
}
