import { type GuestVirtual, isCanonical, joinSigned } from '../../x86/brand.ts';
import { Efer, Flag, Register, Vector } from '../../x86/registers.ts';
import { type Instruction, SegmentRegister } from '../decode/instruction.ts';
import { CALL_SEGMENTS, SYSRET_FLAGS } from '../fast-call-rules.ts';
import { fault, SystemResult } from '../operands.ts';
import type { SystemState } from './system-state.ts';

/** SYSCALL, SYSENTER and the ways back: entries without a table (SDM vol. 2B; vol. 3A, 5.8.7 and 5.8.8). */

const { kernel, user } = CALL_SEGMENTS;

function enterRing0(state: SystemState, code: number, stack: number): void {
  const { processor } = state;
  processor.loadSegment(SegmentRegister.cs, code & ~3, state.longMode ? kernel.code64 : kernel.code32);
  processor.loadSegment(SegmentRegister.ss, stack & ~3, kernel.data);
  processor.userMode = false;
}

function enterRing3(state: SystemState, code: number, stack: number, long: boolean): void {
  const { processor } = state;
  processor.loadSegment(SegmentRegister.cs, code | 3, long ? user.code64 : user.code32);
  processor.loadSegment(SegmentRegister.ss, stack | 3, user.data);
  processor.userMode = true;
}

export function systemCall(state: SystemState): SystemResult {
  const { processor } = state;
  if ((processor.efer & Efer.syscall) === 0 || processor.codeSize !== 64) return fault(processor, Vector.invalidOpcode);
  const { flags } = processor;
  processor.setValue(Register.rcx, processor.rip + processor.exitLength);
  processor.set(Register.r11, (flags & ~Flag.resume) >>> 0, 0);
  const selector = (state.star[1] as number) & 0xffff;
  enterRing0(state, selector, selector + 8);
  processor.flags = flags & ~(state.syscallMask | Flag.resume);
  processor.rip = state.syscallEntry;
  processor.instructions++;
  return SystemResult.done;
}

/** In ring 0. */
export function systemReturn(state: SystemState, instruction: Instruction): SystemResult {
  const { processor } = state;
  if ((processor.efer & Efer.syscall) === 0 || processor.codeSize !== 64) return fault(processor, Vector.invalidOpcode);
  const long = instruction.operandSize === 8;
  if (long && !isCanonical(processor.high(Register.rcx))) return fault(processor, Vector.generalProtection);
  const selector = (state.star[1] as number) >>> 16;
  const rip = long ? processor.value(Register.rcx) : processor.low(Register.rcx);
  const flags = (processor.low(Register.r11) & SYSRET_FLAGS) | Flag.reserved;
  enterRing3(state, long ? selector + 16 : selector, selector + 8, long);
  processor.flags = flags;
  processor.rip = rip as GuestVirtual;
  processor.instructions++;
  return SystemResult.done;
}

export function systemEnter(state: SystemState): SystemResult {
  const { processor } = state;
  const selector = state.sysenterSelector & 0xfffc;
  if (selector === 0 || !state.protectedMode) return fault(processor, Vector.generalProtection);
  // Virtual-8086 mode ends before CS is loaded, which says the privilege.
  processor.flags = processor.flags & ~(Flag.interrupt | Flag.virtual8086);
  enterRing0(state, selector, selector + 8);
  const address = (value: GuestVirtual): GuestVirtual => (state.longMode ? value : value >>> 0) as GuestVirtual;
  processor.setValue(Register.rsp, address(state.sysenterStack));
  processor.rip = address(state.sysenterEntry);
  processor.instructions++;
  return SystemResult.done;
}

/** In ring 0. */
export function systemExit(state: SystemState, instruction: Instruction): SystemResult {
  const { processor } = state;
  const selector = state.sysenterSelector & 0xfffc;
  if (selector === 0 || !state.protectedMode) return fault(processor, Vector.generalProtection);
  const long = instruction.operandSize === 8;
  const canonical = isCanonical(processor.high(Register.rcx)) && isCanonical(processor.high(Register.rdx));
  if (long && !canonical) return fault(processor, Vector.generalProtection);
  const at = (register: Register): number =>
    long ? joinSigned(processor.low(register), processor.high(register)) : processor.low(register);
  const rip = at(Register.rdx);
  const rsp = at(Register.rcx);
  enterRing3(state, selector + (long ? 32 : 16), selector + (long ? 40 : 24), long);
  processor.setValue(Register.rsp, rsp);
  processor.rip = rip as GuestVirtual;
  processor.instructions++;
  return SystemResult.done;
}
