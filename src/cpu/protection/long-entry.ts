import { type GuestVirtual, highWord, isCanonical, joinSigned, lowWord } from '../../x86/brand.ts';
import { Flag, Register, Vector } from '../../x86/registers.ts';
import { SegmentRegister } from '../decode/instruction.ts';
import type { Descriptor } from '../processor-api.ts';
import { type Event, EventSource, externalBit } from './event.ts';
import type { SystemState } from './system-state.ts';

/** Entries into ring 0 through the IDT of long mode (SDM vol. 3A, 6.14). */

const GATE_BYTES = 16;
const INTERRUPT_GATE = 0xe;
const TRAP_GATE = 0xf;
const PRESENT = 0x8000;
/** Offsets in a 64-bit TSS. */
const TSS_STACK = 0x04;
const TSS_INTERRUPT_STACK = 0x24;

const pair = new Uint32Array(2);
const gate = new Uint32Array(4);
/** What an entry pushes, the last first: two words each of error code, RIP, CS, flags, RSP and SS. */
const frameWithError = new Uint32Array(12);
const plainFrame = frameWithError.subarray(2);
const target: Descriptor = { low: 0, high: 0 };

/** @returns false with another exception in the processor, and nothing of its registers changed. @throws PageAbsent */
export function enterLong(state: SystemState, event: Event): boolean {
  const { processor, idt } = state;
  const { vector, error, source, resumes, returnTo } = event;
  const external = externalBit(event);
  const refuse = (exception: Vector, code: number): false => {
    processor.raise(exception, code);
    return false;
  };
  const gateError = vector * 8 + 2 + external;
  if (vector * GATE_BYTES + GATE_BYTES - 1 > idt.limit) return refuse(Vector.generalProtection, gateError);
  const address = idt.base + vector * GATE_BYTES;
  if (!loadGate(state, address)) return false;
  const attributes = gate[1] as number;
  const type = (attributes >>> 8) & 0x1f;
  if (type !== INTERRUPT_GATE && type !== TRAP_GATE) return refuse(Vector.generalProtection, gateError);
  const cpl = processor.privilege;
  if (source === EventSource.software && ((attributes >>> 13) & 3) < cpl) {
    return refuse(Vector.generalProtection, gateError);
  }
  if ((attributes & PRESENT) === 0) return refuse(Vector.segmentNotPresent, gateError);

  const selector = (gate[0] as number) >>> 16;
  const selectorError = (selector & 0xfffc) + external;
  if ((selector & ~3) === 0) return refuse(Vector.generalProtection, external);
  if (!state.read(selector, target)) return refuse(Vector.generalProtection, selectorError);
  const dpl = (target.high >>> 13) & 3;
  const isCode64 = (target.high & 0x60_1800) === 0x20_1800;
  if (!isCode64 || dpl > cpl) return refuse(Vector.generalProtection, selectorError);
  if ((target.high & PRESENT) === 0) return refuse(Vector.segmentNotPresent, selectorError);
  const ring = (target.high & 0x400) !== 0 ? cpl : dpl;

  const oldStack = processor.value(Register.rsp);
  let stack = stackFor(state, attributes & 7, ring, cpl);
  if (stack === undefined) return false;
  stack -= ((stack % 16) + 16) % 16;
  const { flags } = processor;
  frameWithError[0] = error ?? 0;
  frameWithError[2] = lowWord(returnTo);
  frameWithError[3] = highWord(returnTo);
  frameWithError[4] = processor.selector(SegmentRegister.cs);
  frameWithError[6] = resumes ? flags | Flag.resume : flags;
  frameWithError[8] = lowWord(oldStack);
  frameWithError[9] = highWord(oldStack);
  frameWithError[10] = processor.selector(SegmentRegister.ss);
  const frame = error === null ? plainFrame : frameWithError;
  const top = stack - frame.length * 4;
  if (!push(state, top, frame)) return false;

  processor.setValue(Register.rsp, top);
  processor.loadSegment(SegmentRegister.cs, (selector & ~3) | ring, target);
  if (ring !== cpl) processor.loadSegment(SegmentRegister.ss, ring, null);
  const masks = type === INTERRUPT_GATE ? Flag.interrupt : 0;
  processor.flags = flags & ~(Flag.trap | Flag.nestedTask | Flag.resume | Flag.virtual8086 | masks);
  const offset = ((gate[0] as number) & 0xffff) | (attributes & 0xffff_0000);
  processor.rip = joinSigned(offset, gate[2] as number) as GuestVirtual;
  return true;
}

function loadGate(state: SystemState, address: number): boolean {
  if (state.processor.memory.readInPage(address as GuestVirtual, gate)) return true;
  for (const half of [0, 2]) {
    if (!state.load((address + half * 4) as GuestVirtual, pair)) return false;
    gate.set(pair, half);
  }
  return true;
}

function push(state: SystemState, address: number, frame: Uint32Array): boolean {
  if (state.processor.memory.writeInPage(address as GuestVirtual, frame)) return true;
  for (let word = 0; word < frame.length; word += 2) {
    const place = (address + word * 4) as GuestVirtual;
    if (!state.push(place, frame[word] as number, frame[word + 1] as number)) return false;
  }
  return true;
}

/** The stack that an entry begins with: the gate's own, the ring's, or the current one; otherwise the exception is left. */
function stackFor(state: SystemState, gateStack: number, ring: number, cpl: number): number | undefined {
  const { processor, task } = state;
  if (gateStack === 0 && ring === cpl) return processor.value(Register.rsp);
  const offset = gateStack === 0 ? TSS_STACK + ring * 8 : TSS_INTERRUPT_STACK + (gateStack - 1) * 8;
  if (task.type === 0 || offset + 7 > task.limit) {
    processor.raise(Vector.invalidTss, task.selector & 0xfffc);
    return undefined;
  }
  if (!state.load((task.base + offset) as GuestVirtual, pair)) return undefined;
  if (!isCanonical(pair[1] as number)) {
    processor.raise(Vector.stackFault);
    return undefined;
  }
  return joinSigned(pair[0] as number, pair[1] as number);
}
