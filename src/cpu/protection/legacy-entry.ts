import type { GuestVirtual } from '../../x86/brand.ts';
import { Flag, Register, Vector } from '../../x86/registers.ts';
import { SegmentRegister } from '../decode/instruction.ts';
import { isCode, isConforming, isPresent, limitOf, privilegeOf, SystemType } from '../descriptor.ts';
import type { Descriptor } from '../processor-api.ts';
import { type Event, EventSource, externalBit } from './event.ts';
import { type InnerStack, innerStack } from './inner-stack.ts';
import { StackFrame } from './stack-frame.ts';
import type { SystemState } from './system-state.ts';
import { switchTask, TaskSwitch } from './task-switch.ts';

/** Entries through the IDT of protected mode outside long mode, from virtual-8086 mode too (SDM vol. 3A, 6.11 and 6.12). */

const GATE_BYTES = 8;

/** Bytes of each value of a frame, by the gate's type. */
const WIDTHS: Readonly<Partial<Record<SystemType, 2 | 4>>> = {
  [SystemType.interruptGate16]: 2,
  [SystemType.trapGate16]: 2,
  [SystemType.interruptGate]: 4,
  [SystemType.trapGate]: 4,
};

/** In the order in which virtual-8086 mode's are pushed; the entry loads null selectors. */
const DATA_SEGMENTS = [SegmentRegister.gs, SegmentRegister.fs, SegmentRegister.ds, SegmentRegister.es] as const;

const pair = new Uint32Array(2);
const gate: Descriptor = { low: 0, high: 0 };
const code: Descriptor = { low: 0, high: 0 };

/** @returns false with another exception in the processor. @throws PageAbsent before anything has changed */
export function enterLegacy(state: SystemState, event: Event): boolean {
  const { processor, idt } = state;
  const { vector, source } = event;
  const refuse = (exception: Vector, error: number): false => {
    processor.raise(exception, error);
    return false;
  };
  const gateError = vector * 8 + 2 + externalBit(event);
  if (vector * GATE_BYTES + GATE_BYTES - 1 > idt.limit) return refuse(Vector.generalProtection, gateError);
  if (!state.load((idt.base + vector * GATE_BYTES) as GuestVirtual, pair)) return false;
  gate.low = pair[0] as number;
  gate.high = pair[1] as number;
  const type = (gate.high >>> 8) & 0x1f;
  const width = WIDTHS[type as SystemType];
  if (width === undefined && type !== SystemType.taskGate) return refuse(Vector.generalProtection, gateError);
  if (source === EventSource.software && privilegeOf(gate) < processor.privilege) {
    return refuse(Vector.generalProtection, gateError);
  }
  if (!isPresent(gate)) return refuse(Vector.segmentNotPresent, gateError);
  return width === undefined ? enterTask(state, event) : enterCode(state, event, type, width);
}

function enterTask(state: SystemState, event: Event): boolean {
  const { processor } = state;
  const external = externalBit(event);
  const { returnTo, resumes } = event;
  const selector = gate.low >>> 16;
  if (!switchTask(state, selector, { kind: TaskSwitch.interrupt, returnTo, resumes, external })) return false;
  if (event.error === null) return true;
  const frame = StackFrame.current(state);
  if (!frame.push(event.error, state.task.type === SystemType.busyTask ? 4 : 2)) return false;
  processor.set(Register.rsp, frame.pointer, 0);
  return true;
}

function enterCode(state: SystemState, event: Event, type: SystemType, width: 2 | 4): boolean {
  const { processor } = state;
  const external = externalBit(event);
  const refuse = (exception: Vector, error: number): false => {
    processor.raise(exception, error);
    return false;
  };
  const selector = gate.low >>> 16;
  const selectorError = (selector & 0xfffc) + external;
  if ((selector & ~3) === 0) return refuse(Vector.generalProtection, external);
  const cpl = processor.privilege;
  const { flags } = processor;
  const virtual8086 = (flags & Flag.virtual8086) !== 0;
  if (!state.read(selector, code) || !isCode(code) || privilegeOf(code) > cpl) {
    return refuse(Vector.generalProtection, selectorError);
  }
  if (!isPresent(code)) return refuse(Vector.segmentNotPresent, selectorError);
  const ring = isConforming(code) ? cpl : privilegeOf(code);
  if (virtual8086 && ring !== 0) return refuse(Vector.generalProtection, selectorError);
  const inner = ring < cpl;
  let stack: InnerStack | undefined;
  if (inner) {
    stack = innerStack(state, ring, external);
    if (!stack) return false;
  }
  const frame = stack
    ? StackFrame.on(state, stack.descriptor, stack.pointer, (stack.selector & 0xfffc) + external)
    : StackFrame.current(state);
  const push = (value: number): boolean => frame.push(value, width);
  const saved = (event.resumes ? flags | Flag.resume : flags) >>> 0;
  const written =
    (!virtual8086 || DATA_SEGMENTS.every((segment) => push(processor.selector(segment)))) &&
    (!inner || (push(processor.selector(SegmentRegister.ss)) && push(processor.low(Register.rsp)))) &&
    push(saved) &&
    push(processor.selector(SegmentRegister.cs)) &&
    push(event.returnTo) &&
    (event.error === null || push(event.error));
  if (!written) return false;
  const offset = width === 4 ? ((gate.low & 0xffff) | (gate.high & 0xffff_0000)) >>> 0 : gate.low & 0xffff;
  if (offset > limitOf(code)) return refuse(Vector.generalProtection, external);

  const isInterrupt = type === SystemType.interruptGate || type === SystemType.interruptGate16;
  const cleared = Flag.trap | Flag.nestedTask | Flag.resume | Flag.virtual8086 | (isInterrupt ? Flag.interrupt : 0);
  processor.flags = flags & ~cleared;
  state.loadSegment(SegmentRegister.cs, (selector & ~3) | ring, code);
  if (stack) state.loadSegment(SegmentRegister.ss, stack.selector, stack.descriptor);
  processor.set(Register.rsp, frame.pointer, 0);
  if (virtual8086) for (const segment of DATA_SEGMENTS) processor.loadSegment(segment, 0, null);
  processor.rip = offset as GuestVirtual;
  return true;
}
