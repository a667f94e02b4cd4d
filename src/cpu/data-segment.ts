import { PageAbsent } from '../memory/page-absent.ts';
import { Vector } from '../x86/registers.ts';
import { CodeMode } from './code-mode.ts';
import { SegmentRegister } from './decode/instruction.ts';
import {
  DescriptorBit,
  isCode,
  isConforming,
  isPlainData,
  isPresent,
  isSystem,
  isWritableData,
  privilegeOf,
  realDescriptor,
} from './descriptor.ts';
import type { Processor } from './processor.ts';
import type { Descriptor } from './processor-api.ts';

/** Loads of data and stack segments (SDM vol. 3A, 5.5 and 5.7). */

const isNull = (selector: number): boolean => (selector & ~3) === 0;

/** The exception that the load of a segment with this descriptor meets. */
function refusal(
  processor: Processor,
  segment: SegmentRegister,
  selector: number,
  descriptor: Descriptor,
): Vector | undefined {
  const cpl = processor.privilege;
  const dpl = privilegeOf(descriptor);
  const rpl = selector & 3;
  let allowed: boolean;
  if (segment === SegmentRegister.ss) {
    allowed = isWritableData(descriptor) && rpl === cpl && dpl === cpl;
  } else {
    const readable = !isCode(descriptor) || (descriptor.high & DescriptorBit.readableOrWritable) !== 0;
    allowed = !isSystem(descriptor) && readable && (isConforming(descriptor) || (rpl <= dpl && cpl <= dpl));
  }
  if (!allowed) return Vector.generalProtection;
  if (isPresent(descriptor)) return undefined;
  return segment === SegmentRegister.ss ? Vector.stackFault : Vector.segmentNotPresent;
}

/** False when the load faults; the exception is left in the mailbox. */
export function loadDataSegment(processor: Processor, segment: SegmentRegister, selector: number): boolean {
  if (processor.realSegments) {
    processor.loadSegment(segment, selector, realDescriptor(selector, 'data'));
    return true;
  }
  if (isNull(selector)) {
    const cpl = processor.privilege;
    if (segment === SegmentRegister.ss && (processor.codeSize !== 64 || cpl === 3 || (selector & 3) !== cpl)) {
      processor.raise(Vector.generalProtection, 0);
      return false;
    }
    processor.loadSegment(segment, selector, null);
    return true;
  }
  const descriptor: Descriptor = { low: 0, high: 0 };
  const error = selector & 0xfffc;
  if (!processor.descriptors.read(selector, descriptor)) {
    processor.raise(Vector.generalProtection, error);
    return false;
  }
  const vector = refusal(processor, segment, selector, descriptor);
  if (vector !== undefined) {
    processor.raise(vector, error);
    return false;
  }
  processor.loadSegment(segment, selector, descriptor);
  return true;
}

const scratch: Descriptor = { low: 0, high: 0 };

/**
 * Loads a segment without leaving generated code, where that is all there is to do. Otherwise nothing has changed and the
 * answer is false: the load faults, or waits for a page, or the descriptor has to be marked as accessed; the stack's
 * segment holds interrupts back; or it would change the mode that code was generated for.
 */
export function loadSegmentInPlace(processor: Processor, segment: SegmentRegister, selector: number): boolean {
  if (segment === SegmentRegister.ss || processor.realSegments) return false;
  const mode = segment < SegmentRegister.fs ? processor.codeMode : CodeMode.bits64;
  if (isNull(selector)) {
    if (mode === CodeMode.flat32) return false;
    processor.loadSegment(segment, selector, null);
    return true;
  }
  if (!readDescriptor(processor, selector)) return false;
  if ((scratch.high & DescriptorBit.accessed) === 0) return false;
  if (mode === (isPlainData(scratch) ? CodeMode.bits32 : CodeMode.flat32)) return false;
  if (refusal(processor, segment, selector, scratch) !== undefined) return false;
  processor.loadSegment(segment, selector, scratch);
  return true;
}

function readDescriptor(processor: Processor, selector: number): boolean {
  try {
    return processor.descriptors.read(selector, scratch);
  } catch (absent) {
    if (absent instanceof PageAbsent) return false;
    throw absent;
  }
}
