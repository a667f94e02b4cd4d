import { type GuestVirtual, isCanonical, joinSigned } from '../../x86/brand.ts';
import { Flag, Register, Vector } from '../../x86/registers.ts';
import { SegmentRegister } from '../decode/instruction.ts';
import type { Descriptor } from '../processor-api.ts';
import type { SystemState } from './system-state.ts';

/** How events enter ring 0 through the IDT of 64-bit mode (SDM vol. 3A, 6.14). */
export const enum EventSource {
  /** From an interrupt controller, or an NMI. */
  external = 0,
  /** A fault or trap of the processor. */
  exception = 1,
  /** INT n, INT3, INTO: the gate must be for the program's ring. */
  software = 2,
}

const GATE_BYTES = 16;
const INTERRUPT_GATE = 0xe;
const TRAP_GATE = 0xf;
const PRESENT = 0x8000;
/** Offsets in a 64-bit TSS. */
const TSS_STACK = 0x04;
const TSS_INTERRUPT_STACK = 0x24;

/** Exceptions whose frame has an error code. */
const WITH_ERROR: ReadonlySet<number> = new Set([8, 10, 11, 12, 13, 14, 17]);
/** Exceptions that are no faults: their frame has the resume flag as it was (SDM vol. 3B, 18.3.1.1). */
const NOT_FAULTS: ReadonlySet<number> = new Set([
  Vector.debug,
  Vector.nonMaskable,
  Vector.breakpoint,
  Vector.overflow,
  Vector.doubleFault,
  Vector.machineCheck,
]);
/** Exceptions of which two in a row are a double fault (SDM vol. 3A, table 6-4). */
const CONTRIBUTORY: ReadonlySet<number> = new Set([
  Vector.divideError,
  Vector.invalidTss,
  Vector.segmentNotPresent,
  Vector.stackFault,
  Vector.generalProtection,
]);

const pair = new Uint32Array(2);
const gate = new Uint32Array(4);
const target: Descriptor = { low: 0, high: 0 };

/**
 * Delivers an exception that stands in the processor, and those that come of the attempt.
 * @returns false when the processor shuts down: a fault while a double fault was being delivered
 * @throws PageAbsent with the exception that is to be delivered still in the processor
 */
export function deliverException(state: SystemState, source = EventSource.exception): boolean {
  const { processor } = state;
  let vector = processor.exitDetail;
  let error = processor.exitError;
  if (vector === Vector.debug) {
    state.debug[12] = ((state.debug[12] as number) | error) >>> 0;
    error = 0;
  }
  for (let from = source; ; from = EventSource.exception) {
    // Where it can be found again if a page must be brought in first.
    processor.raise(vector, error);
    if (deliver(state, vector, WITH_ERROR.has(vector) && from !== EventSource.software ? error : null, from))
      return true;
    if (vector === Vector.doubleFault) return false;
    const second = processor.exitDetail;
    if (isDouble(vector, second)) {
      vector = Vector.doubleFault;
      error = 0;
    } else {
      vector = second;
      error = processor.exitError;
    }
  }
}

/** Delivers an interrupt or an NMI. @returns false with an exception in the processor. @throws PageAbsent */
export function deliverInterrupt(state: SystemState, vector: number): boolean {
  return deliver(state, vector, null, EventSource.external);
}

/** INT n, which stands at RIP. @returns false with an exception in the processor. @throws PageAbsent */
export function deliverSoftwareInterrupt(state: SystemState, vector: number): boolean {
  const { processor } = state;
  const { rip } = processor;
  processor.completeInstruction();
  if (deliver(state, vector, null, EventSource.software)) return true;
  processor.rip = rip;
  return false;
}

function isDouble(first: number, second: number): boolean {
  if (CONTRIBUTORY.has(first)) return CONTRIBUTORY.has(second);
  return first === Vector.pageFault && (second === Vector.pageFault || CONTRIBUTORY.has(second));
}

/** @returns false with another exception in the processor, and nothing of its registers changed */
function deliver(state: SystemState, vector: number, error: number | null, source: EventSource): boolean {
  const { processor } = state;
  if (!state.longMode) {
    // Nothing stands in an IDT before the kernel is in long mode.
    processor.raise(Vector.generalProtection, vector * 8 + 2);
    return false;
  }
  return state.asSupervisor(() => enter(state, vector, error, source));
}

function enter(state: SystemState, vector: number, error: number | null, source: EventSource): boolean {
  const { processor, idt } = state;
  const external = source === EventSource.software ? 0 : 1;
  const refuse = (exception: Vector, code: number): false => {
    processor.raise(exception, code);
    return false;
  };
  const gateError = vector * 8 + 2 + external;
  if (vector * GATE_BYTES + GATE_BYTES - 1 > idt.limit) return refuse(Vector.generalProtection, gateError);
  const address = idt.base + vector * GATE_BYTES;
  if (!state.load(address as GuestVirtual, gate)) return false;
  if (!state.load((address + 8) as GuestVirtual, pair)) return false;
  gate[2] = pair[0] as number;
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
  const isFault = source === EventSource.exception && !NOT_FAULTS.has(vector);
  const words = error === null ? 5 : 6;
  const frame = stack - words * 8;
  let at = frame;
  const push = (low: number, high: number): boolean => {
    const stored = state.push(at as GuestVirtual, low, high);
    at += 8;
    return stored;
  };
  const rip = processor.rip;
  const written =
    (error === null || push(error, 0)) &&
    push(rip >>> 0, Math.floor(rip / 0x1_0000_0000) >>> 0) &&
    push(processor.selector(SegmentRegister.cs), 0) &&
    push((isFault ? flags | Flag.resume : flags) >>> 0, 0) &&
    push(oldStack >>> 0, Math.floor(oldStack / 0x1_0000_0000) >>> 0) &&
    push(processor.selector(SegmentRegister.ss), 0);
  if (!written) return false;

  processor.setValue(Register.rsp, frame);
  processor.loadSegment(SegmentRegister.cs, (selector & ~3) | ring, target);
  if (ring !== cpl) processor.loadSegment(SegmentRegister.ss, ring, null);
  const masks = type === INTERRUPT_GATE ? Flag.interrupt : 0;
  processor.flags = flags & ~(Flag.trap | Flag.nestedTask | Flag.resume | Flag.virtual8086 | masks);
  const offset = ((gate[0] as number) & 0xffff) | (attributes & 0xffff_0000);
  processor.rip = joinSigned(offset, gate[2] as number) as GuestVirtual;
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
