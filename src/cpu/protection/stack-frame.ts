import type { GuestVirtual } from '../../x86/brand.ts';
import { Register, Vector } from '../../x86/registers.ts';
import { SegmentRegister } from '../decode/instruction.ts';
import { baseOf, DescriptorBit, limitOf } from '../descriptor.ts';
import type { Descriptor } from '../processor-api.ts';
import type { SystemState } from './system-state.ts';

/** Of a data segment, as `Processor.segmentAttributes` has it. */
const EXPANDS_DOWN = 0x04;

/** A segment as the processor holds it. */
interface StackSegment {
  readonly base: number;
  readonly limit: number;
  /** 0xffff_ffff or 0xffff: which bits of the stack pointer count. */
  readonly mask: number;
  readonly expandsDown: boolean;
}

/**
 * A frame that an entry outside 64-bit code pushes before anything of the processor changes. The stack pointer wraps and is
 * checked as the segment says.
 */
export class StackFrame {
  /** The stack pointer below what has been pushed, its upper half as it was for a stack of 64 KiB. */
  pointer: number;
  readonly #state: SystemState;
  readonly #segment: StackSegment;
  /** Error code when there is no room. */
  readonly #error: number;

  private constructor(state: SystemState, segment: StackSegment, pointer: number, error: number) {
    this.#state = state;
    this.#segment = segment;
    this.pointer = pointer;
    this.#error = error;
  }

  /** On the stack that is in use. */
  static current(state: SystemState): StackFrame {
    const { processor } = state;
    const segment = {
      base: processor.segmentBase(SegmentRegister.ss),
      limit: processor.segmentLimit(SegmentRegister.ss),
      mask: processor.stackSize === 2 ? 0xffff : 0xffff_ffff,
      expandsDown: (processor.segmentAttributes(SegmentRegister.ss) & EXPANDS_DOWN) !== 0,
    };
    return new StackFrame(state, segment, processor.low(Register.rsp), 0);
  }

  /** On another one; `error` is the error code of #SS when it has no room. */
  static on(state: SystemState, descriptor: Descriptor, pointer: number, error: number): StackFrame {
    const segment = {
      base: baseOf(descriptor),
      limit: limitOf(descriptor),
      mask: (descriptor.high & DescriptorBit.default32) !== 0 ? 0xffff_ffff : 0xffff,
      expandsDown: (descriptor.high & DescriptorBit.conforming) !== 0,
    };
    return new StackFrame(state, segment, pointer, error);
  }

  /** Pushes 2 or 4 bytes; otherwise the exception is left. @throws PageAbsent */
  push(value: number, bytes: number): boolean {
    const { base, limit, mask, expandsDown } = this.#segment;
    const { processor } = this.#state;
    const offset = ((this.pointer & mask) - bytes) & mask;
    const first = offset >>> 0;
    const last = first + bytes - 1;
    if (expandsDown ? first <= limit || last > mask >>> 0 : last > limit) {
      processor.raise(Vector.stackFault, this.#error);
      return false;
    }
    processor.setStoredValue(value >>> 0, 0);
    if (!processor.memory.storeAt(((base + first) >>> 0) as GuestVirtual, bytes)) return false;
    this.pointer = ((this.pointer & ~mask) | offset) >>> 0;
    return true;
  }
}
