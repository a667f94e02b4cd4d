import { type GuestVirtual, joinSigned } from '../../x86/brand.ts';
import { ARITHMETIC_FLAGS, Flag, Register, Vector } from '../../x86/registers.ts';
import { type Instruction, SegmentRegister } from '../decode/instruction.ts';
import type { Descriptor } from '../processor-api.ts';
import { fault, SystemResult } from '../system.ts';
import type { SystemState } from './system-state.ts';

/** IRET and far RET in 64-bit code of an inner ring: to the same ring or an outer one (SDM vol. 2A, IRET; 2B, RET). */

const PRESENT = 0x8000;
const LONG_CODE = 0x20_0000;
const DEFAULT_32 = 0x40_0000;
/** Bits of an address beyond which it is not canonical. */
const CANONICAL = 2 ** 47;

const DATA_SEGMENTS = [SegmentRegister.es, SegmentRegister.ds, SegmentRegister.fs, SegmentRegister.gs] as const;

const pair = new Uint32Array(2);
const code: Descriptor = { low: 0, high: 0 };
const stackSegment: Descriptor = { low: 0, high: 0 };

/** Where a return leads. */
interface Destination {
  readonly rip: number;
  readonly cs: number;
  readonly rsp: number;
  readonly ss: number;
}

export function interruptReturn(state: SystemState, instruction: Instruction): SystemResult {
  const { processor } = state;
  if (processor.codeSize !== 64 || (processor.flags & Flag.nestedTask) !== 0) {
    return fault(processor, Vector.generalProtection);
  }
  const size = instruction.operandSize;
  const frame: number[] = [];
  const top = processor.value(Register.rsp);
  for (let slot = 0; slot < 5; slot++) {
    const value = loadSlot(state, top + slot * size, size);
    if (value === undefined) return SystemResult.fault;
    frame.push(value);
  }
  const [rip = 0, cs = 0, flags = 0, rsp = 0, ss = 0] = frame;
  const cpl = processor.privilege;
  const before = processor.flags;
  const result = go(state, { rip, cs: cs & 0xffff, rsp, ss: ss & 0xffff });
  if (result === SystemResult.done) processor.flags = returnedFlags(before, flags, cpl, size);
  return result;
}

export function farReturn(state: SystemState, instruction: Instruction): SystemResult {
  const { processor } = state;
  const size = instruction.operandSize;
  const release = instruction.operandCount > 0 ? instruction.immediateLow & 0xffff : 0;
  const top = processor.value(Register.rsp);
  const rip = loadSlot(state, top, size);
  const cs = rip === undefined ? undefined : loadSlot(state, top + size, size);
  const rsp = cs === undefined ? undefined : loadSlot(state, top + 2 * size + release, size);
  const ss = rsp === undefined ? undefined : loadSlot(state, top + 3 * size + release, size);
  if (rip === undefined || cs === undefined || rsp === undefined || ss === undefined) return SystemResult.fault;
  return go(state, { rip, cs: cs & 0xffff, rsp: rsp + release, ss: ss & 0xffff });
}

function loadSlot(state: SystemState, address: number, size: number): number | undefined {
  const { processor } = state;
  if (size === 8) {
    if (!state.load(address as GuestVirtual, pair)) return undefined;
    return joinSigned(pair[0] as number, pair[1] as number);
  }
  if (!processor.memory.loadAt(address as GuestVirtual, size)) return undefined;
  processor.loadedValue(pair);
  return size === 4 ? (pair[0] as number) : (pair[0] as number) & 0xffff;
}

/** Changes to the code and the stack of a return. */
function go(state: SystemState, { rip, cs, rsp, ss }: Destination): SystemResult {
  const { processor } = state;
  const cpl = processor.privilege;
  const ring = cs & 3;
  const error = cs & 0xfffc;
  if (error === 0) return fault(processor, Vector.generalProtection);
  if (!state.read(cs, code) || ring < cpl) return fault(processor, Vector.generalProtection, error);
  const { high } = code;
  const dpl = (high >>> 13) & 3;
  const conforming = (high & 0x400) !== 0;
  const isCode = (high & 0x1800) === 0x1800;
  const long = (high & LONG_CODE) !== 0;
  if (!isCode || (long && (high & DEFAULT_32) !== 0) || (conforming ? dpl > ring : dpl !== ring)) {
    return fault(processor, Vector.generalProtection, error);
  }
  if ((high & PRESENT) === 0) return fault(processor, Vector.segmentNotPresent, error);
  if (long ? rip < -CANONICAL || rip >= CANONICAL : rip < 0 || rip > limitOf(code)) {
    return fault(processor, Vector.generalProtection);
  }
  const hasStack = (ss & ~3) !== 0;
  if (!hasStack && (!long || ring === 3 || (ss & 3) !== ring)) return fault(processor, Vector.generalProtection);
  if (hasStack) {
    const readable = state.read(ss, stackSegment);
    const right = (stackSegment.high & 0x1a00) === 0x1200 && ((stackSegment.high >>> 13) & 3) === ring;
    if (!readable || !right || (ss & 3) !== ring) return fault(processor, Vector.generalProtection, ss & 0xfffc);
    if ((stackSegment.high & PRESENT) === 0) return fault(processor, Vector.stackFault, ss & 0xfffc);
  }
  processor.loadSegment(SegmentRegister.cs, cs, code);
  processor.loadSegment(SegmentRegister.ss, ss, hasStack ? stackSegment : null);
  processor.setValue(Register.rsp, long ? rsp : rsp >>> 0);
  processor.rip = rip as GuestVirtual;
  processor.instructions++;
  if (ring > cpl) dropInnerSegments(state, ring);
  processor.userMode = ring === 3;
  return SystemResult.done;
}

function limitOf({ low, high }: Descriptor): number {
  const raw = (high & 0xf_0000) | (low & 0xffff);
  return (high & 0x80_0000) !== 0 ? ((raw << 12) | 0xfff) >>> 0 : raw;
}

/** Data segments of the inner ring do not stay loaded in the outer one. */
function dropInnerSegments({ processor }: SystemState, ring: number): void {
  for (const segment of DATA_SEGMENTS) {
    const attributes = processor.segmentAttributes(segment);
    const isLoaded = (attributes & 0x80) !== 0;
    const conforming = (attributes & 0x0c) === 0x0c;
    if (isLoaded && !conforming && ((attributes >>> 5) & 3) < ring) processor.loadSegment(segment, 0, null);
  }
}

const RETURNED =
  ARITHMETIC_FLAGS |
  Flag.trap |
  Flag.direction |
  Flag.nestedTask |
  Flag.resume |
  Flag.alignmentCheck |
  Flag.identification;

function returnedFlags(before: number, image: number, cpl: number, size: number): number {
  let mask = RETURNED;
  if (cpl === 0) mask |= Flag.iopl;
  if (cpl <= (before & Flag.iopl) >>> Flag.ioplShift) mask |= Flag.interrupt;
  if (size === 2) mask &= 0xffff;
  return (before & ~mask) | (image & mask);
}
