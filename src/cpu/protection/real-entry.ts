import type { GuestVirtual } from '../../x86/brand.ts';
import { Flag, Register, Vector } from '../../x86/registers.ts';
import { SegmentRegister } from '../decode/instruction.ts';
import { realDescriptor } from '../descriptor.ts';
import type { Event } from './event.ts';
import { StackFrame } from './stack-frame.ts';
import type { SystemState } from './system-state.ts';

/** Entries through the table of real mode: far pointers, no privilege, no error codes (SDM vol. 3B, 21.1.4). */

const POINTER_BYTES = 4;

const pair = new Uint32Array(2);

/** @returns false with another exception in the processor, and nothing of its registers changed. @throws PageAbsent */
export function enterReal(state: SystemState, { vector, returnTo }: Event): boolean {
  const { processor, idt } = state;
  const offset = vector * POINTER_BYTES;
  if (offset + POINTER_BYTES - 1 > idt.limit) {
    processor.raise(Vector.generalProtection, vector * 8 + 2);
    return false;
  }
  if (!processor.memory.loadAt((idt.base + offset) as GuestVirtual, POINTER_BYTES)) return false;
  processor.loadedValue(pair);
  const pointer = pair[0] as number;
  const { flags } = processor;
  const frame = StackFrame.current(state);
  if (!frame.push(flags, 2) || !frame.push(processor.selector(SegmentRegister.cs), 2) || !frame.push(returnTo, 2)) {
    return false;
  }
  processor.set(Register.rsp, frame.pointer, 0);
  const selector = pointer >>> 16;
  processor.loadSegment(SegmentRegister.cs, selector, realDescriptor(selector, 'code'));
  processor.flags = flags & ~(Flag.interrupt | Flag.trap | Flag.resume | Flag.alignmentCheck);
  processor.rip = (pointer & 0xffff) as GuestVirtual;
  return true;
}
