import type { GuestVirtual } from '../../x86/brand.ts';
import { Flag, Vector } from '../../x86/registers.ts';
import type { Processor } from '../processor.ts';
import { type Event, EventSource } from './event.ts';
import { enterLegacy } from './legacy-entry.ts';
import { enterLong } from './long-entry.ts';
import { enterReal } from './real-entry.ts';
import type { SystemState } from './system-state.ts';

/**
 * How exceptions and interrupts are delivered in every mode, and what comes of a fault in the attempt (SDM vol. 3A, chapter
 * 6). The files long-entry.ts, legacy-entry.ts and real-entry.ts have the entries themselves.
 */
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
    const code = WITH_ERROR.has(vector) && from !== EventSource.software ? error : null;
    try {
      if (deliver(state, vector, code, from, processor.rip)) return true;
    } catch (absent) {
      // The access that met the page may have left it where the exception stood.
      processor.raise(vector, error);
      throw absent;
    }
    if (vector === Vector.doubleFault) return false;
    // Behind INT3 and INTO, which have one byte: what refuses them belongs to the instruction.
    if (from === EventSource.software) processor.rip = (processor.rip - 1) as GuestVirtual;
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
  return deliver(state, vector, null, EventSource.external, state.processor.rip);
}

/** INT n, which stands at RIP. @returns false with an exception in the processor. @throws PageAbsent */
export function deliverSoftwareInterrupt(state: SystemState, vector: number): boolean {
  const { processor } = state;
  if (isForbiddenToCall(processor)) {
    processor.raise(Vector.generalProtection);
    return false;
  }
  const next = (processor.rip + processor.exitLength) as GuestVirtual;
  if (!deliver(state, vector, null, EventSource.software, next)) return false;
  processor.instructions++;
  return true;
}

/** A program in virtual-8086 mode uses INT n as far as its I/O privilege goes (SDM vol. 3B, 21.3.3). */
function isForbiddenToCall({ flags }: Processor): boolean {
  return (flags & Flag.virtual8086) !== 0 && (flags & Flag.iopl) !== Flag.iopl;
}

function isDouble(first: number, second: number): boolean {
  if (CONTRIBUTORY.has(first)) return CONTRIBUTORY.has(second);
  return first === Vector.pageFault && (second === Vector.pageFault || CONTRIBUTORY.has(second));
}

/** @returns false with another exception in the processor. @throws PageAbsent */
function deliver(
  state: SystemState,
  vector: number,
  error: number | null,
  source: EventSource,
  returnTo: GuestVirtual,
): boolean {
  const resumes = source === EventSource.exception && !NOT_FAULTS.has(vector);
  const event: Event = { vector, error, source, resumes, returnTo };
  if (state.longMode) return state.asSupervisor(() => enterLong(state, event));
  if (!state.protectedMode) return enterReal(state, event);
  return state.asSupervisor(() => enterLegacy(state, event));
}
