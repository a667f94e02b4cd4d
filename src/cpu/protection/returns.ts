import type { GuestVirtual } from '../../x86/brand.ts';
import { Flag, Register, Vector } from '../../x86/registers.ts';
import { type Instruction, SegmentRegister } from '../decode/instruction.ts';
import {
  DescriptorBit,
  isCode,
  isConforming,
  isPresent,
  isWritableData,
  limitOf,
  privilegeOf,
  realDescriptor,
} from '../descriptor.ts';
import { IRET_FLAGS } from '../fast-call-rules.ts';
import { fault, loadStackSlot, moveStackPointer, SystemResult } from '../operands.ts';
import type { Descriptor } from '../processor-api.ts';
import type { SystemState } from './system-state.ts';
import { TASK_LINK } from './task-layout.ts';
import { switchTask, TaskSwitch } from './task-switch.ts';

/** IRET in all modes and far RET to an outer ring (SDM vol. 2A, IRET; 2B, RET). */

/** Bits of an address beyond which it is not canonical. */
const CANONICAL = 2 ** 47;

/** In the order of a frame of virtual-8086 mode, where they stand behind the stack. */
const DATA_SEGMENTS = [SegmentRegister.es, SegmentRegister.ds, SegmentRegister.fs, SegmentRegister.gs] as const;

const code: Descriptor = { low: 0, high: 0 };
const stackSegment: Descriptor = { low: 0, high: 0 };

/** Where a return leads. */
interface Destination {
  readonly rip: number;
  readonly cs: number;
  /** Undefined for a return within the ring outside 64-bit code. */
  readonly stack: { readonly pointer: number; readonly ss: number } | undefined;
  /** Bytes of the frame that a return within the ring drops. */
  readonly bytes: number;
}

/** What returns to another ring need to know; all of it has whoever keeps descriptors. */
export type ReturnState = Pick<SystemState, 'processor' | 'longMode' | 'read' | 'loadSegment'>;

/** Values of the stack from its top on, of the operand size; undefined with the exception left. */
class Slots {
  readonly #state: ReturnState;
  readonly #size: number;
  isReadable = true;

  constructor(state: ReturnState, size: number) {
    this.#state = state;
    this.#size = size;
  }

  /** `skipped` bytes lie between the top and the first slot that counts. */
  at(slot: number, skipped = 0): number {
    const value = this.isReadable
      ? loadStackSlot(this.#state.processor, slot * this.#size + skipped, this.#size)
      : undefined;
    if (value === undefined) this.isReadable = false;
    return value ?? 0;
  }
}

export function interruptReturn(state: SystemState, instruction: Instruction): SystemResult {
  const { processor } = state;
  const before = processor.flags;
  if (!state.protectedMode) return returnInRealSegments(state, instruction);
  if ((before & Flag.virtual8086) !== 0) {
    const allowed = (before & Flag.iopl) === Flag.iopl;
    return allowed ? returnInRealSegments(state, instruction) : fault(processor, Vector.generalProtection);
  }
  if ((before & Flag.nestedTask) !== 0) {
    return state.longMode ? fault(processor, Vector.generalProtection) : returnToTask(state);
  }
  if (processor.privilege === 0 && !state.longMode && instruction.operandSize === 4) {
    const slots = new Slots(state, 4);
    const [rip, cs, flags] = [slots.at(0), slots.at(1) & 0xffff, slots.at(2)];
    if (!slots.isReadable) return SystemResult.fault;
    if ((flags & Flag.virtual8086) !== 0) return returnToVirtual8086(state, slots, rip, cs, flags);
  }
  return returnFromInterrupt(state, instruction);
}

/** Between rings, or within one, by segments that have descriptors. No task ends. */
export function returnFromInterrupt(state: ReturnState, instruction: Instruction): SystemResult {
  const { processor } = state;
  const before = processor.flags;
  const size = instruction.operandSize;
  const slots = new Slots(state, size);
  const [rip, cs, flags] = [slots.at(0), slots.at(1) & 0xffff, slots.at(2)];
  if (!slots.isReadable) return SystemResult.fault;
  const cpl = processor.privilege;
  const hasStack = processor.codeSize === 64 || (cs & 3) > cpl;
  const stack = hasStack ? { pointer: slots.at(3), ss: slots.at(4) & 0xffff } : undefined;
  if (!slots.isReadable) return SystemResult.fault;
  const result = go(state, { rip, cs, stack, bytes: 3 * size });
  if (result === SystemResult.done) processor.flags = returnedFlags(before, flags, cpl, size);
  return result;
}

/** To an outer ring. */
export function farReturn(state: ReturnState, instruction: Instruction): SystemResult {
  const size = instruction.operandSize;
  const release = instruction.operandCount > 0 ? instruction.immediateLow & 0xffff : 0;
  const slots = new Slots(state, size);
  const [rip, cs] = [slots.at(0), slots.at(1) & 0xffff];
  const stack = { pointer: slots.at(2, release) + release, ss: slots.at(3, release) & 0xffff };
  if (!slots.isReadable) return SystemResult.fault;
  return go(state, { rip, cs, stack, bytes: 0 });
}

/** Changes to the code and the stack of a return. */
function go(state: ReturnState, { rip, cs, stack, bytes }: Destination): SystemResult {
  const { processor } = state;
  const cpl = processor.privilege;
  const ring = cs & 3;
  const error = cs & 0xfffc;
  if (error === 0) return fault(processor, Vector.generalProtection);
  if (!state.read(cs, code) || ring < cpl || !isCode(code)) return fault(processor, Vector.generalProtection, error);
  const dpl = privilegeOf(code);
  const long = state.longMode && (code.high & DescriptorBit.longCode) !== 0;
  const contradicts = long && (code.high & DescriptorBit.default32) !== 0;
  if (contradicts || (isConforming(code) ? dpl > ring : dpl !== ring)) {
    return fault(processor, Vector.generalProtection, error);
  }
  if (!isPresent(code)) return fault(processor, Vector.segmentNotPresent, error);
  if (long ? rip < -CANONICAL || rip >= CANONICAL : rip < 0 || rip > limitOf(code)) {
    return fault(processor, Vector.generalProtection);
  }
  const ss = stack?.ss ?? 0;
  const hasSegment = (ss & ~3) !== 0;
  if (stack && !hasSegment && (!long || ring === 3 || (ss & 3) !== ring)) {
    return fault(processor, Vector.generalProtection);
  }
  if (hasSegment) {
    const readable = state.read(ss, stackSegment);
    const right = isWritableData(stackSegment) && privilegeOf(stackSegment) === ring;
    if (!readable || !right || (ss & 3) !== ring) return fault(processor, Vector.generalProtection, ss & 0xfffc);
    if (!isPresent(stackSegment)) return fault(processor, Vector.stackFault, ss & 0xfffc);
  }
  if (!stack) moveStackPointer(processor, bytes);
  state.loadSegment(SegmentRegister.cs, cs, code);
  if (stack) {
    state.loadSegment(SegmentRegister.ss, ss, hasSegment ? stackSegment : null);
    setStackPointer(state, stack.pointer);
  }
  processor.rip = rip as GuestVirtual;
  processor.instructions++;
  if (ring > cpl) dropInnerSegments(state, ring);
  processor.userMode = ring === 3;
  return SystemResult.done;
}

/** A stack of 64 KiB leaves the upper half of the pointer as it was. */
function setStackPointer({ processor }: ReturnState, pointer: number): void {
  if (processor.stackSize === 8) processor.setValue(Register.rsp, pointer);
  else if (processor.stackSize === 4) processor.set(Register.rsp, pointer >>> 0, 0);
  else processor.set(Register.rsp, ((processor.low(Register.rsp) & ~0xffff) | (pointer & 0xffff)) >>> 0, 0);
}

/** Data segments of the inner ring do not stay loaded in the outer one. */
function dropInnerSegments({ processor }: ReturnState, ring: number): void {
  for (const segment of DATA_SEGMENTS) {
    const attributes = processor.segmentAttributes(segment);
    const isLoaded = (attributes & 0x80) !== 0;
    const conforming = (attributes & 0x0c) === 0x0c;
    if (isLoaded && !conforming && ((attributes >>> 5) & 3) < ring) processor.loadSegment(segment, 0, null);
  }
}

/** In real mode, and in virtual-8086 mode where the program has the I/O privilege. */
function returnInRealSegments(state: SystemState, instruction: Instruction): SystemResult {
  const { processor } = state;
  const size = instruction.operandSize;
  const slots = new Slots(state, size);
  const [ip, cs, flags] = [slots.at(0), slots.at(1) & 0xffff, slots.at(2)];
  if (!slots.isReadable) return SystemResult.fault;
  if (ip > 0xffff) return fault(processor, Vector.generalProtection);
  const before = processor.flags;
  const privilege = state.protectedMode ? 3 : 0;
  moveStackPointer(processor, 3 * size);
  processor.loadSegment(SegmentRegister.cs, cs, realDescriptor(cs, 'code'));
  processor.flags = returnedFlags(before, flags, privilege, size);
  processor.rip = ip as GuestVirtual;
  processor.instructions++;
  return SystemResult.done;
}

/** To the task that called the one that runs. */
function returnToTask(state: SystemState): SystemResult {
  const { processor, task } = state;
  const link = state.loadWord((task.base + TASK_LINK) as GuestVirtual, 2);
  if (link === undefined) return SystemResult.fault;
  const next = (processor.rip + processor.exitLength) as GuestVirtual;
  if (!switchTask(state, link, { kind: TaskSwitch.return, returnTo: next, resumes: false, external: 0 })) {
    return SystemResult.fault;
  }
  processor.instructions++;
  return SystemResult.done;
}

/** The frame goes on with the stack and the data segments, which are loaded without questions. */
function returnToVirtual8086(state: SystemState, slots: Slots, ip: number, cs: number, flags: number): SystemResult {
  const { processor } = state;
  const [pointer, ss] = [slots.at(3), slots.at(4) & 0xffff];
  const data = DATA_SEGMENTS.map((segment, index) => [segment, slots.at(5 + index) & 0xffff] as const);
  if (!slots.isReadable) return SystemResult.fault;
  if (ip > 0xffff) return fault(processor, Vector.generalProtection);
  const restored = IRET_FLAGS | Flag.iopl | Flag.interrupt | Flag.virtual8086;
  processor.flags = (processor.flags & ~restored) | (flags & restored);
  processor.loadSegment(SegmentRegister.cs, cs, realDescriptor(cs, 'code'));
  for (const [segment, selector] of [[SegmentRegister.ss, ss] as const, ...data]) {
    processor.loadSegment(segment, selector, realDescriptor(selector, 'data'));
  }
  processor.set(Register.rsp, pointer, 0);
  processor.rip = ip as GuestVirtual;
  processor.instructions++;
  processor.userMode = true;
  return SystemResult.done;
}

function returnedFlags(before: number, image: number, cpl: number, size: number): number {
  let mask = IRET_FLAGS;
  if (cpl === 0) mask |= Flag.iopl;
  if (cpl <= (before & Flag.iopl) >>> Flag.ioplShift) mask |= Flag.interrupt;
  if (size === 2) mask &= 0xffff;
  return (before & ~mask) | (image & mask);
}
