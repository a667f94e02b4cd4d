import { beforeAll, describe, expect, it } from 'vitest';
import { assemble, type Printed, runKernel } from './kernel/program.ts';

/**
 * What kernel/legacy.S prints: a name, then numbers. QEMU's system emulator, which boots the same file with `-kernel`,
 * prints the same but for three things that the manual decides: the resume flag that faults save (vol. 3B, 18.3.1.1), the
 * accessed bit of a segment that IRET loads (vol. 3A, 3.4.5.1), and the limit's bits in what LAR answers.
 */

const RESUME = '10000';
/** Frame on the inner stack: its bytes, the outer stack pointer and segment. */
const FROM_USER = '14 300000 23';

/** Vector, error code (−1 for none), distance from the instruction, CS, flags, SS afterwards. */
const EXCEPTIONS: readonly (readonly [name: string, what: string, printed: string])[] = [
  ['breakpoint', 'INT3, behind it', '3 ffffffff 0 8 0 10'],
  ['bad_selector', 'a selector beyond the table', `d 78 0 8 ${RESUME} 10`],
  ['absent', 'a segment that is not present', `b 58 0 8 ${RESUME} 10`],
  ['read_only_stack', 'a stack segment that cannot be written', `d 60 0 8 ${RESUME} 10`],
  ['absent_gate', 'a gate that is not present', `b 322 0 8 ${RESUME} 10`],
  ['user_call', 'INT n from ring 3', `61 ffffffff 0 1b 0 10 ${FROM_USER}`],
  ['user_privileged', 'a privileged instruction in ring 3', `d 0 0 1b ${RESUME} 10 ${FROM_USER}`],
  ['user_kernel_gate', "INT n to a gate of the kernel's", `d 302 0 1b ${RESUME} 10 ${FROM_USER}`],
  [
    'user_returns',
    'INT n behind a far return from ring 0, its parameters dropped',
    `61 ffffffff 0 1b 0 10 ${FROM_USER}`,
  ],
  ['sysexit', 'INT n behind SYSEXIT', '61 ffffffff 0 1b 0 10 14 2ffff8 23'],
  ['virtual_call', 'INT n from virtual-8086 mode', '61 ffffffff 0 800 23000 10 24 700 800'],
  ['virtual_refused', 'INT n from virtual-8086 mode without I/O privilege', 'd 0 0 800 30000 10 24 700 800'],
  ['virtual_pushf', 'PUSHF in virtual-8086 mode without I/O privilege', 'd 0 0 800 30000 10 24 700 800'],
  ['virtual_iret', 'INT n behind an IRET in virtual-8086 mode', '61 ffffffff 0 800 23000 10 24 700 800'],
];

describe.each(['native', 'kvm'] as const)('a 32-bit kernel on %s', (name) => {
  let printed: Printed;
  beforeAll(async () => {
    printed = await runKernel(assemble('legacy.S', 32), name, 1);
  });

  /** All lines of a name. */
  const linesOf = (test: string): string[] =>
    printed.lines.filter((text) => text.startsWith(`${test} `)).map((text) => text.slice(test.length + 1));

  it.each(EXCEPTIONS)('%s: is entered by %s', (test, _what, expected) => {
    expect(linesOf(test)).toEqual([expected]);
  });

  it('is entered through a gate of 16 bits with a frame of three short words', () => {
    expect(linesOf('gate_16')).toEqual(['6 0 8']);
  });

  it('gets the parameters that a call gate copies, on the stack of its ring', () => {
    expect(linesOf('gate')).toEqual(['5678 1234 1b 18']);
  });

  it('is entered by SYSENTER with an empty stack of its own', () => {
    expect(linesOf('sysenter')).toEqual(['8 10 0']);
  });

  it('enters a task by a gate and by CALL, linked to the one before, and by JMP, not linked', () => {
    expect(linesOf('other')).toEqual(['28 4000 55aa', '28 4000 55aa', '28 0 55aa']);
  });

  it('goes on with the registers that a task has when it is returned to', () => {
    expect([linesOf('task_interrupt'), linesOf('task_call'), linesOf('task_jump')]).toEqual([['71'], ['72'], ['73']]);
  });

  it('has no nested task after that, and the flag of a switched task', () => {
    expect(linesOf('task_flags')).toEqual(['0 8']);
  });

  it('has a double fault handled by a task, which finds the instruction in the task that failed', () => {
    expect(linesOf('double')).toEqual(['0 0']);
  });

  it('finds the data segments of virtual-8086 mode on its stack, and none loaded', () => {
    expect(linesOf('segments')).toEqual(Array.from({ length: 4 }, () => '3333 800 2222 1111 0 0'));
  });

  it('is interrupted in real mode by its table of pointers, with interrupts off meanwhile', () => {
    expect(linesOf('real')).toEqual(['5a5a 0 800']);
  });

  it('is told of descriptors what its ring may know', () => {
    expect(linesOf('lar')).toEqual(['cff300 8b00 0 ffffffff 0']);
  });

  it('powers off', () => {
    expect(printed.outcome).toEqual({ kind: 'poweroff' });
  });
});
