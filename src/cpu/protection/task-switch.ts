import { PageAbsent } from '../../memory/page-absent.ts';
import type { GuestVirtual } from '../../x86/brand.ts';
import { Cr0, Flag, Vector } from '../../x86/registers.ts';
import { SegmentRegister } from '../decode/instruction.ts';
import {
  DescriptorBit,
  isCode,
  isConforming,
  isPresent,
  isSystem,
  isWritableData,
  limitOf,
  privilegeOf,
  realDescriptor,
  SystemType,
  systemTypeOf,
} from '../descriptor.ts';
import type { Descriptor } from '../processor-api.ts';
import type { SystemState } from './system-state.ts';
import { loadLocalTable } from './table-registers.ts';
import { layoutOfTask, TASK_LINK, TASK_REGISTERS, type TaskLayout } from './task-layout.ts';

/** Switches between tasks, outside long mode (SDM vol. 3A, 7.3). */
export const enum TaskSwitch {
  /** JMP: the task that is left can be entered again. */
  jump = 0,
  /** CALL: the task that is left waits for a return. */
  call = 1,
  /** By a task gate in the IDT: as a call. */
  interrupt = 2,
  /** IRET to the task that called. */
  return = 3,
}

/** What makes an available task's descriptor a busy one's. */
const BUSY = 0x200;
const BUSY_TYPE = 2;
const PAGING = (Cr0.protection | Cr0.paging) >>> 0;

/** A task as its segment has it. */
interface Image {
  readonly cr3: number;
  readonly instruction: number;
  readonly flags: number;
  readonly registers: readonly number[];
  readonly selectors: ReadonlyMap<SegmentRegister, number>;
  readonly localTable: number;
}

/** A selector with what its table said; undefined when it said nothing. */
interface FoundSegment {
  readonly selector: number;
  readonly descriptor: Descriptor | undefined;
}

export interface TaskSwitchOptions {
  readonly kind: TaskSwitch;
  /** Where the task that is left goes on. */
  readonly returnTo: GuestVirtual;
  /** Whether its resume flag is set then. */
  readonly resumes: boolean;
  /** Added to the error codes of what is refused. */
  readonly external: 0 | 1;
}

/**
 * @returns false with an exception in the processor, of the new task when it has begun
 * @throws PageAbsent before anything of the processor has changed
 */
export function switchTask(state: SystemState, selector: number, options: TaskSwitchOptions): boolean {
  const { kind, returnTo, resumes, external } = options;
  const { processor, task } = state;
  const descriptor: Descriptor = { low: 0, high: 0 };
  const found = (selector & 4) === 0 && (selector & ~3) !== 0 ? state.readSystem(selector, descriptor) : undefined;
  const error = (selector & 0xfffc) + external;
  const returns = kind === TaskSwitch.return;
  const refuse = (exception: Vector): false => {
    processor.raise(exception, error);
    return false;
  };
  const type = systemTypeOf(descriptor);
  const wanted = returns
    ? type === SystemType.busyTask || type === SystemType.busyTask16
    : type === SystemType.task || type === SystemType.task16;
  if (!found || !isSystem(descriptor) || !wanted) return refuse(returns ? Vector.invalidTss : Vector.generalProtection);
  if (!isPresent(descriptor)) return refuse(Vector.segmentNotPresent);
  const layout = layoutOfTask(type);
  if (limitOf(descriptor) < layout.limit) return refuse(Vector.invalidTss);
  const image = loadImage(state, found.base, layout);
  if (!image) return false;
  const nests = kind === TaskSwitch.call || kind === TaskSwitch.interrupt;
  const left = (resumes ? processor.flags | Flag.resume : processor.flags) & (returns ? ~Flag.nestedTask : ~0);
  if (!saveImage(state, left >>> 0, returnTo)) return false;
  if (nests && !state.storeWord((found.base + TASK_LINK) as GuestVirtual, 2, task.selector)) return false;
  const segments = enterAddressSpace(state, image);

  if (!nests) state.changeDescriptor(task.selector, 0, BUSY);
  if (!returns) state.changeDescriptor(selector, BUSY, 0);
  Object.assign(task, { selector, ...found, type: type | BUSY_TYPE });
  processor.cr0 = (processor.cr0 | Cr0.taskSwitched) >>> 0;
  TASK_REGISTERS.forEach((register, index) => {
    processor.set(register, image.registers[index] as number, 0);
  });
  processor.flags = (image.flags | (nests ? Flag.nestedTask : 0)) >>> 0;
  const loaded = loadSegments(state, image, segments);
  processor.userMode = processor.privilege === 3;
  return loaded;
}

function loadImage(state: SystemState, base: GuestVirtual, layout: TaskLayout): Image | undefined {
  let readable = true;
  const at = (offset: number, bytes: 2 | 4): number => {
    const value = readable ? state.loadWord((base + offset) as GuestVirtual, bytes) : undefined;
    readable &&= value !== undefined;
    return value ?? 0;
  };
  const { word } = layout;
  const image: Image = {
    cr3: layout.cr3 === undefined ? state.cr3 : at(layout.cr3, 4),
    instruction: at(layout.instruction, word),
    flags: at(layout.flags, word),
    // A task of 16 bits has nothing for the upper halves.
    registers: TASK_REGISTERS.map((_, index) => at(layout.registers + index * word, word)),
    selectors: new Map(layout.segments.map(([segment, offset]) => [segment, at(offset, 2)])),
    localTable: at(layout.localTable, 2),
  };
  return readable ? image : undefined;
}

/** Into the segment of the task that is left. */
function saveImage(state: SystemState, flags: number, returnTo: GuestVirtual): boolean {
  const { processor, task } = state;
  const layout = layoutOfTask(task.type);
  const { word } = layout;
  if (task.type === 0 || task.limit < layout.limit) {
    processor.raise(Vector.invalidTss, task.selector & 0xfffc);
    return false;
  }
  const put = (offset: number, bytes: 2 | 4, value: number): boolean =>
    state.storeWord((task.base + offset) as GuestVirtual, bytes, value);
  return (
    put(layout.instruction, word, returnTo) &&
    put(layout.flags, word, flags) &&
    TASK_REGISTERS.every((register, index) => put(layout.registers + index * word, word, processor.low(register))) &&
    layout.segments.every(([segment, offset]) => put(offset, 2, processor.selector(segment)))
  );
}

/**
 * The new task's tables, and what they say of its segments: all that can be absent is met here.
 * @throws PageAbsent with the old ones in force
 */
function enterAddressSpace(state: SystemState, image: Image): ReadonlyMap<SegmentRegister, FoundSegment> {
  const { cr3, ldt } = state;
  const oldTable = { ...ldt };
  try {
    if ((state.processor.cr0 & PAGING) >>> 0 === PAGING && image.cr3 !== cr3) {
      state.cr3 = image.cr3;
      state.usePaging();
    }
    Object.assign(ldt, { selector: image.localTable, base: 0, limit: 0, type: 0 });
    // What is wrong with it is asked again, when the task has begun.
    if ((image.localTable & 4) === 0) loadLocalTable(state, image.localTable);
    const found = new Map<SegmentRegister, FoundSegment>();
    for (const [segment, selector] of image.selectors) {
      const descriptor: Descriptor = { low: 0, high: 0 };
      const present = (selector & ~3) !== 0 && state.read(selector, descriptor);
      found.set(segment, { selector, descriptor: present ? descriptor : undefined });
    }
    return found;
  } catch (absent) {
    if (!(absent instanceof PageAbsent)) throw absent;
    Object.assign(ldt, oldTable);
    if (state.cr3 !== cr3) {
      state.cr3 = cr3;
      state.usePaging();
    }
    throw absent;
  }
}

/** Loads the segments of a task that has begun; false with the exception that the first bad one raises. */
function loadSegments(state: SystemState, image: Image, segments: ReadonlyMap<SegmentRegister, FoundSegment>): boolean {
  const { processor, ldt } = state;
  for (const [segment, { selector }] of segments) processor.loadSegment(segment, selector, null);
  if ((image.flags & Flag.virtual8086) !== 0) {
    for (const [segment, { selector }] of segments) {
      processor.loadSegment(
        segment,
        selector,
        realDescriptor(selector, segment === SegmentRegister.cs ? 'code' : 'data'),
      );
    }
    processor.rip = image.instruction as GuestVirtual;
    return true;
  }
  const code = segments.get(SegmentRegister.cs) as FoundSegment; // every layout has one
  const codeFault = taskSegmentFault(SegmentRegister.cs, code, code.selector & 3);
  if (codeFault === undefined) state.loadSegment(SegmentRegister.cs, code.selector, code.descriptor ?? null);
  processor.rip = image.instruction as GuestVirtual;
  if ((image.localTable & ~3) !== 0 && ldt.type === 0) {
    processor.raise(Vector.invalidTss, image.localTable & 0xfffc);
    return false;
  }
  if (codeFault !== undefined) {
    processor.raise(codeFault, code.selector & 0xfffc);
    return false;
  }
  for (const segment of [
    SegmentRegister.ss,
    SegmentRegister.ds,
    SegmentRegister.es,
    SegmentRegister.fs,
    SegmentRegister.gs,
  ]) {
    const found = segments.get(segment);
    if (!found) continue;
    const exception = taskSegmentFault(segment, found, processor.privilege);
    if (exception !== undefined) {
      processor.raise(exception, found.selector & 0xfffc);
      return false;
    }
    state.loadSegment(segment, found.selector, found.descriptor ?? null);
  }
  if (code.descriptor && image.instruction > limitOf(code.descriptor)) {
    processor.raise(Vector.generalProtection);
    return false;
  }
  return true;
}

/** The exception that a segment of a new task raises, if any; its error code is the selector (SDM vol. 3A, table 7-1). */
function taskSegmentFault(
  segment: SegmentRegister,
  { selector, descriptor }: FoundSegment,
  privilege: number,
): Vector | undefined {
  const rpl = selector & 3;
  const needed = segment === SegmentRegister.cs || segment === SegmentRegister.ss;
  if (descriptor === undefined) return needed || (selector & ~3) !== 0 ? Vector.invalidTss : undefined;
  const dpl = privilegeOf(descriptor);
  const conforming = isConforming(descriptor);
  let right: boolean;
  if (segment === SegmentRegister.cs) {
    right = isCode(descriptor) && (conforming ? dpl <= rpl : dpl === rpl);
  } else if (segment === SegmentRegister.ss) {
    right = isWritableData(descriptor) && dpl === privilege && rpl === privilege;
  } else {
    const readable = !isCode(descriptor) || (descriptor.high & DescriptorBit.readableOrWritable) !== 0;
    right = !isSystem(descriptor) && readable && (conforming || (dpl >= privilege && dpl >= rpl));
  }
  if (!right) return Vector.invalidTss;
  if (isPresent(descriptor)) return undefined;
  return segment === SegmentRegister.ss ? Vector.stackFault : Vector.segmentNotPresent;
}
