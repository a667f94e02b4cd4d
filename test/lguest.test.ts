import { beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../src/boot/input-error.ts';
import { loadKernel } from '../src/boot/kernel.ts';
import { recogniseKernel } from '../src/interfaces/lguest/recognise.ts';
import { assemble, type Printed, runKernel } from './kernel/program.ts';

/** Kernels of each era; those of the first never had wide tables. */
const KERNELS = [
  { era: 'L1', format: 'two-level' },
  { era: 'L2', format: 'two-level' },
  { era: 'L2', format: 'pae' },
  { era: 'L3', format: 'two-level' },
  { era: 'L3', format: 'pae' },
] as const;

function assembled({ era, format }: (typeof KERNELS)[number]): Uint8Array {
  return assemble('lguest.S', 32, [`ERA=${era.slice(1)}`, ...(format === 'pae' ? ['PAE'] : [])]);
}

/** Vector, error code (−1 for none), distance from the instruction, CS, the frame's interrupt flag, the word's within. */
const TRAPS = [
  ['invalid', 'an invalid instruction', '6 ffffffff 0 61 200 0'],
  ['breakpoint', 'INT3, behind it, by a trap gate, with interrupts off', '3 ffffffff 1 61 0 0'],
  ['privileged', 'an instruction of ring 0', 'd 0 0 61 200 0'],
  ['missing', 'a page that its tables do not have, whose address stands in the shared data', 'e 0 0 61 200 0 40000123'],
  ['switched', 'a floating-point instruction when it has asked for that', '7 ffffffff 0 61 200 0'],
  ['user_privileged', 'an instruction of ring 0 in a program', 'd 0 0 73 200 0'],
  ['user_hypercall', 'a hypercall that a program tries', 'd fa 0 73 200 0'],
  ['user_vmcall', 'a VMCALL in a program', '6 ffffffff 0 73 200 0'],
  ['user_page', 'a page that a program misses', 'e 4 0 73 200 0 40000000'],
  ['timer', 'its timer while it halts', '20 ffffffff 0 61 200 0'],
  ['halted_off', 'its timer while it halts with interrupts off', '20 ffffffff 0 61 200 0'],
] as const;

describe.each(KERNELS)('a kernel of era $era with $format tables', (which) => {
  let printed: Printed;
  beforeAll(async () => {
    printed = await runKernel(assembled(which), 'lguest', 1);
  });

  /** The line of a name. */
  const line = (name: string): string | undefined =>
    printed.lines.find((text) => text.startsWith(`${name} `))?.slice(name.length + 1);

  it('begins in ring 1, with interrupts on for the processor and ESI 0 for the parameters that name lguest', () => {
    expect(line('entry')).toBe('61 69 0 202 1');
  });

  it('is told what to keep clear, the frequency of its counter, and the date', () => {
    expect(line('shared')).toBe(`${which.format === 'pae' ? '200000' : '400000'} f4240 1`);
  });

  it.each(TRAPS)('%s: is entered for %s', (name, _what, expected) => {
    expect(line(name)).toBe(expected);
  });

  it('is entered for a system call on the stack that it has named, with the stack of the program', () => {
    expect(line('user_call')).toMatch(/^80 ffffffff 2 73 200 200 7b 11[0-9a-f]000 0$/);
  });

  it('reads ones from all ports', () => {
    expect(line('ports')).toBe('123456ff ffffffff');
  });

  it('sees what its tables say after each call that tells of a change', () => {
    expect(line('window')).toBe('11111111 22222222 11111111 22222222 11111111');
  });

  it('has calls that wait carried out, in order, with the next one', () => {
    expect(line('ring')).toBe('ff000000 ffffffff 1111');
  });

  it('is told of an interrupt that waits, and gets it as soon as it switches interrupts on, without a call', () => {
    expect([line('waits'), line('on')]).toEqual(['200', '20 0']);
  });

  it('gets an interrupt that it has blocked when it unblocks it', () => {
    expect([line('blocked'), line('unblocked')]).toEqual(['0', '20']);
  });

  it('gets none where it has said that none may come', () => {
    expect(line('quiet')).toBe('20 0');
  });

  it('ends as it says', () => {
    expect(printed.outcome).toEqual({ kind: 'poweroff' });
  });

  it('is recognised by its file', () => {
    const { era, format, kernelAddress } = recogniseKernel(loadKernel(assembled(which)));
    expect({ era: era.name, format, kernelAddress }).toEqual({ ...which, kernelAddress: 0xc000_0000 });
  });
});

/** In the order of the kernel's table. */
const BAD_CALLS = [
  ['a call that there is not', /hypercall 12/],
  ['its shared data a second time', /twice/],
  ['a stack of ring 0', /segment 0x68/],
  ['a stack of three pages', /3 pages/],
  ['a gate beyond the table', /vector 256/],
  ['a gate that is a task', /gate of type 5/],
  ['a descriptor beyond the table', /descriptor 32/],
  ['descriptors beyond its memory', /no memory/],
  ['a notification of nothing', /notifies of 0x7ffff000/],
  ['a root beyond its memory', /no handler|cannot be written|not its own/],
  ['a panic', /reported a crash \(nothing goes\)/],
  ['a restart', undefined],
  ['a trap without a handler', /no handler for trap 0/],
  ['a stack that is not there', /stack at 0x40000000 cannot be written/],
  ['a page that is not its own', /not its own/],
  ['a call that there is not, in the ring', /hypercall 12/],
] as const;

const L3 = { era: 'L3', format: 'two-level' } as const;

describe('a hostile kernel', () => {
  const end = async (which: (typeof KERNELS)[number], index: number) => {
    const { outcome } = await runKernel(assembled(which), 'lguest', 1, {
      commandLine: `bad=${String.fromCharCode(97 + index)}`,
    });
    return outcome;
  };

  it.each(BAD_CALLS.map(([what, reason], index) => ({ what, reason, index })))(
    'ends alone: $what',
    async ({ reason, index }) => {
      const outcome = await end(L3, index);
      if (reason === undefined) expect(outcome).toEqual({ kind: 'reboot' });
      else
        expect(outcome).toEqual({ kind: 'crash', reason: expect.stringMatching(reason), report: expect.any(String) });
    },
  );

  it('ends alone: a whole table of too many descriptors, in the first era', async () => {
    const outcome = await end({ era: 'L1', format: 'two-level' }, 6);
    expect(outcome).toMatchObject({ kind: 'crash', reason: 'the guest loads a table of 33 descriptors' });
  });
});

describe('recognition of a kernel for lguest', () => {
  it('refuses a 64-bit kernel in one line', () => {
    expect(() => recogniseKernel(loadKernel(assemble('halt.S')))).toThrow(InputError);
  });

  it('refuses a 32-bit kernel without the entry', () => {
    expect(() => recogniseKernel(loadKernel(assemble('legacy.S', 32)))).toThrow(/no entry for lguest/);
  });

  it('takes the era that the user names, unless the kernel cannot be of it', () => {
    const kernel = loadKernel(assembled(L3));
    expect(recogniseKernel(kernel, 'L3').era.name).toBe('L3');
    expect(() => recogniseKernel(kernel, 'L2')).toThrow(/not speak to lguest as kernels of era L2 do/);
  });
});
