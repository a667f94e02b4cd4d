import { Register } from '../../x86/registers.ts';
import { SegmentRegister } from '../decode/instruction.ts';
import { SystemType } from '../descriptor.ts';

/** Where things stand in the two kinds of task-state segment outside long mode (SDM vol. 3A, 7.2.1 and 7.6). */
export interface TaskLayout {
  /** Bytes of registers and stack pointers. */
  readonly word: 2 | 4;
  /** The last offset that it must have. */
  readonly limit: number;
  /** Pointer and selector of ring 0's stack, then those of ring 1 and 2. */
  readonly innerStacks: number;
  /** Undefined where a task has none of its own. */
  readonly cr3: number | undefined;
  readonly instruction: number;
  readonly flags: number;
  /** The first register; the others follow in the order of their numbers. */
  readonly registers: number;
  readonly segments: readonly (readonly [SegmentRegister, number])[];
  readonly localTable: number;
}

/** Selector of the task to return to. */
export const TASK_LINK = 0;

export const TASK_REGISTERS = [
  Register.rax,
  Register.rcx,
  Register.rdx,
  Register.rbx,
  Register.rsp,
  Register.rbp,
  Register.rsi,
  Register.rdi,
] as const;

const TASK: TaskLayout = {
  word: 4,
  limit: 0x67,
  innerStacks: 0x04,
  cr3: 0x1c,
  instruction: 0x20,
  flags: 0x24,
  registers: 0x28,
  segments: [
    [SegmentRegister.es, 0x48],
    [SegmentRegister.cs, 0x4c],
    [SegmentRegister.ss, 0x50],
    [SegmentRegister.ds, 0x54],
    [SegmentRegister.fs, 0x58],
    [SegmentRegister.gs, 0x5c],
  ],
  localTable: 0x60,
};

const TASK_16: TaskLayout = {
  word: 2,
  limit: 0x2b,
  innerStacks: 0x02,
  cr3: undefined,
  instruction: 0x0e,
  flags: 0x10,
  registers: 0x12,
  segments: [
    [SegmentRegister.es, 0x22],
    [SegmentRegister.cs, 0x24],
    [SegmentRegister.ss, 0x26],
    [SegmentRegister.ds, 0x28],
  ],
  localTable: 0x2a,
};

export function layoutOfTask(type: SystemType): TaskLayout {
  return type === SystemType.task16 || type === SystemType.busyTask16 ? TASK_16 : TASK;
}
