import { beforeAll, describe, expect, it } from 'vitest';
import { assemble, type Printed, runKernel } from './kernel/program.ts';

/** What kernel/ring0.S prints; the manual's chapters 6 (vol. 3A) and 5.8 say what it must be. */

const FLAG_RESUME = 0x1_0000;
const FLAG_INTERRUPT = 0x200;
const FLAG_TRAP = 0x100;

const KERNEL_CODE = 0x08;
const KERNEL_DATA = 0x10;
const USER_CODE_32 = 0x1b;
const USER_CODE = 0x2b;

/** Bytes of a frame without an error code. */
const FRAME = 0x28;

interface Seen {
  readonly vector: number;
  readonly error?: number;
  readonly place: string;
  readonly code?: number;
  readonly flags: number;
  readonly stack?: 'same' | 'kernel' | 'gate';
  readonly stackSegment?: number;
  readonly cr2?: number;
  readonly dr6?: number;
}

function line({ vector, error, place, code, flags, stack, stackSegment, cr2, dr6 }: Seen): string {
  const where = stack ?? 'same';
  const numbers = (...values: number[]) => values.map((value) => value.toString(16));
  return [
    'exception',
    vector.toString(16),
    error === undefined ? 'ffffffffffffffff' : error.toString(16),
    place,
    ...numbers(code ?? KERNEL_CODE, flags),
    where,
    ...(where === 'same' ? [] : numbers(FRAME)),
    ...numbers(stackSegment ?? KERNEL_DATA, cr2 ?? 0, dr6 ?? 0),
  ].join(' ');
}

const fault = (vector: number, error: number | undefined, place: string, cr2 = 0): Seen => ({
  vector,
  place,
  flags: FLAG_RESUME,
  cr2,
  ...(error === undefined ? {} : { error }),
});

const fromUser = (seen: Omit<Seen, 'stack' | 'flags'> & { flags?: number }): Seen => ({
  flags: FLAG_RESUME | FLAG_INTERRUPT,
  code: USER_CODE,
  ...seen,
  stack: 'kernel',
  stackSegment: 0,
});

/** In the order of the program. */
const EXCEPTIONS: readonly (readonly [string, Seen])[] = [
  ['an undefined instruction', fault(6, undefined, 'undefined')],
  ['a selector beyond the table', fault(13, 0x78, 'bad_selector')],
  ['a write to a read-only page', fault(14, 3, 'write_protected', 0x40_0000)],
  ['a read of a page that is not there', fault(14, 0, 'not_mapped', 0x50_0123)],
  ['an address that is not canonical', fault(13, 0, 'not_canonical')],
  ['a register that does not exist', fault(13, 0, 'no_register')],
  ['a reserved bit of CR4', fault(13, 0, 'bad_control_write')],
  ['INT3, behind it', { vector: 3, place: 'breakpoint', flags: 0 }],
  ['a single step, behind the instruction', { vector: 1, place: 'single_step', flags: FLAG_TRAP, dr6: 0x4000 }],
  ["an interrupt on its gate's own stack", { vector: 0x60, place: 'gate_stack', flags: 0, stack: 'gate' }],
  [
    'a double fault on a stack of its own',
    { vector: 8, error: 0, place: 'double_fault', flags: 0, stack: 'gate', cr2: 0x50_0123 },
  ],
  ['INT n from ring 3', fromUser({ vector: 0x61, place: 'user_64_call', flags: FLAG_INTERRUPT })],
  ['a privileged instruction in ring 3', fromUser({ vector: 13, error: 0, place: 'user_64_call' })],
  ["INT n to a gate of the kernel's", fromUser({ vector: 13, error: 0x62 * 8 + 2, place: 'user_kernel_gate' })],
  ["a page of the kernel's", fromUser({ vector: 14, error: 5, place: 'user_kernel_page_access', cr2: 0x11_8000 })],
  [
    'INT n behind a read of a port that its task may use',
    fromUser({ vector: 0x61, place: 'user_port_done', flags: FLAG_INTERRUPT }),
  ],
  ['a port that the task may not use', fromUser({ vector: 13, error: 0, place: 'user_port_refused_access' })],
  [
    'INT n from 32-bit code',
    fromUser({ vector: 0x61, place: 'user_32_call', code: USER_CODE_32, flags: FLAG_INTERRUPT }),
  ],
];

describe.each(['native', 'kvm'] as const)('a kernel in ring 0 on %s', (name) => {
  let printed: Printed;
  beforeAll(async () => {
    printed = await runKernel(assemble('ring0.S'), name, 2);
  });

  const printedBy = (test: string): string | undefined =>
    printed.lines.find((text) => text.startsWith(`${test} `))?.slice(test.length + 1);

  it.each(EXCEPTIONS)('is entered by %s', (_what, seen) => {
    const index = EXCEPTIONS.findIndex(([, other]) => other === seen);
    expect(printed.lines[index]).toBe(line(seen));
  });

  it('is called by SYSCALL, with flags and address of the program saved and interrupts off', () => {
    expect(printedBy('syscall')).toBe('202 0 10');
  });

  it('is called by SYSENTER from 32-bit code, on its own stack with interrupts off', () => {
    expect(printedBy('sysenter')).toBe('0 0 10');
  });

  it('executes one instruction behind STI before an interrupt that waits', () => {
    expect(printedBy('shadow')).toBe('2');
  });

  it('is interrupted right behind a POPF that switches interrupts on', () => {
    expect(printedBy('popf')).toBe('1');
  });

  it('is woken from HLT by its timer', () => {
    expect(printedBy('halt')).toBe('0');
  });

  it('is not interrupted below its task priority, and right behind a store that lowers it', () => {
    expect(printedBy('priority')).toBe('2');
  });

  it('exchanges the bases of GS', () => {
    expect(printedBy('swapgs')).toBe('2222 1111');
  });

  it('starts another processor in real mode at the page that it names', () => {
    expect(printedBy('second')).toBe('800');
  });

  it('powers off', () => {
    expect(printed.outcome).toEqual({ kind: 'poweroff' });
  });
});
