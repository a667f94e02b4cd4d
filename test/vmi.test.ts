import { beforeAll, describe, expect, it } from 'vitest';
import type { PagingName } from '../src/api.ts';
import { assemble, type Printed, runKernel } from './kernel/program.ts';

/** What kernel/vmi.S prints: a name, then numbers in hexadecimal. */
const ADOPTED =
  // Numbers that are no call's: 49–60, 72, and one beyond the last.
  '1 1 1 1 1 1 1 1 1 1 1 1 1 1 3 1 1 1 1 1 1 1 1 3 1 1 1 1 1 1 1 1 1 2 2 1 1 1 1 1 1 1 1 1 1 1 1 1 1' +
  ' 0 0 0 0 0 0 0 0 0 0 0 0 1 1 1 1 3 1 1 1 1 1 1 0 1 0';
const PAGE_A = 'aaaa';
const PAGE_B = 'bbbb';

/** Vectors of exceptions, and of the gate by which a program calls the kernel. */
const INVALID_OPCODE = '6';
const PAGE_FAULT = 'e';
const PROGRAM_CALL = '61';

const CALLS: readonly (readonly [name: string, what: string, printed: string])[] = [
  ['init', 'says that it can begin', '0'],
  ['msr', 'writes and reads an MSR', '8'],
  ['tables', 'loads tables of descriptors and writes into them', '0 0 30 28 14'],
  ['cr0', 'reads CR0', '80010031'],
  ['cr2', 'writes and reads CR2', '12345678'],
  ['cr3', 'reads CR3', '0'],
  ['clts', 'clears the flag of a switched task', '80010031'],
  ['debug', 'writes and reads a debug register', '1234'],
  ['cpuid', 'says what processor it is', '756e6547 49656e69'],
  ['time_stamp', 'reads the time-stamp counter', '1'],
  ['flags', 'switches interrupts, and leaves the I/O privilege alone', '1000 1200 1000 1200 1000'],
  ['machine_to_physical', 'has machine pages that are physical ones', '77'],
  ['physical_to_machine', 'has physical pages that are machine ones', '78'],
  ['set', 'sets an entry', PAGE_A],
  ['invalidated', 'is told of an entry by the invalidation of its page', PAGE_B],
  ['flushed', 'is told of an entry by a flush', PAGE_A],
  ['flushed_global', 'is told of an entry by a flush of global pages', PAGE_B],
  ['root_loaded', 'is told of an entry by a load of CR3', PAGE_A],
  ['updated', 'is told of an entry that the kernel stored by itself', PAGE_B],
  ['lazy', 'carries out a lazy section with more changes than the queue holds', `${PAGE_A} ${PAGE_A}`],
  ['fault', 'has a page fault where an entry is gone', PAGE_FAULT],
  ['released', 'sees stores to a page that is a table no more', PAGE_B],
  ['user_window', 'keeps its window from programs', PAGE_FAULT],
  ['sysexit', 'leaves to ring 3', PROGRAM_CALL],
  ['user_host_call', 'is not called by programs', INVALID_OPCODE],
  ['iret', 'returns from an interrupt', ''],
  ['unknown_host_call', 'has no other calls', INVALID_OPCODE],
  ['frequency', 'counts a thousand million cycles a second', '3b9aca00'],
  ['wallclock', 'tells the time', '6553f100'],
  ['wallclock_updated', 'is not told that the time was set', '0'],
  ['apic_version', 'reads a register of the local APIC', '50014'],
  ['alarm', 'interrupts once at an alarm', '1'],
  ['periodic', 'interrupts again and again until the alarm is cancelled', '3'],
  ['line_0', "interrupts by the first line of a PC's controllers", '1'],
  ['ap', 'starts a second processor in the state that was named for it', '1234 8 10 0'],
  ['ap_sees', 'lets the second processor change an entry by its own queue', PAGE_A],
  ['boot_processor_sees', 'lets the first processor see what the second changed', PAGE_A],
];

async function run(paging: PagingName, words: readonly string[]): Promise<Printed> {
  return runKernel(assemble('vmi.S', 32, words), 'vmi', 2, { paging });
}

function printedBy({ lines }: Printed, name: string): string | undefined {
  return lines.find((line) => line.split(' ')[0] === name)?.slice(name.length + 1);
}

describe.each([
  ['two levels', [], '10'],
  ['three levels', ['PAE'], '20'],
] as const)('the VMI interface for a kernel with tables of %s', (_name, words, cr4) => {
  let printed: Printed;
  beforeAll(async () => {
    printed = await run('shadow', words);
  });

  it('is found by its ROM, whose bytes sum up to 0, and reserves the last 4 MiB', () => {
    expect(printedBy(printed, 'rom')).toBe('c0000 0 3 ffc00000');
  });

  it('has code for all calls but those that are nothing to do', () => {
    expect(printedBy(printed, 'relocations')).toBe(ADOPTED);
  });

  it('writes and reads CR4', () => {
    expect(printedBy(printed, 'cr4')).toBe(cr4);
  });

  it.each(CALLS)('%s: %s', (name, _what, expected) => {
    expect(printedBy(printed, name)).toBe(expected);
  });

  it('shuts down when it is asked to', () => {
    expect(printed.outcome).toEqual({ kind: 'poweroff' });
  });
});

describe('the VMI interface without shadows', () => {
  it('takes on nothing but the two calls whose native code a kernel has given up', async () => {
    const printed = await run('native', []);
    expect(printedBy(printed, 'rom')).toBe('c0000 0 3 0');
    const relocations = printedBy(printed, 'relocations')?.split(' ') ?? [];
    const taken = [...relocations.entries()].filter(([, relocation]) => relocation !== '0');
    expect(taken).toEqual([
      [33, '2'],
      [34, '2'],
    ]);
  });
});
