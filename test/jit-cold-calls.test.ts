/** Calls in regions of code that has none: it is interpreted in between, and may change what waits for it to return. */
import { describe, expect, test } from 'vitest';
import type { ProcessorGroupOptions } from '../src/cpu/processor.ts';
import { type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { Register, Vector } from '../src/x86/registers.ts';
import { listing } from './listing.ts';
import { AGAIN, FORMATS, INTERPRETER, type RegionFormat, RegionMachine } from './region-machine.ts';
import { ALL_RIGHTS, CODE, DATA } from './system-machine.ts';

const TIERS = [
  ['the interpreter', INTERPRETER],
  ['regions', AGAIN],
] as const;

/** Where functions stand, on a page of their own: one that soon has a region, and another one. */
const HOT = CODE + PAGE_SIZE;
const COLD = HOT + 0x800;
/** Where the page table of CODE is seen as data, and in it the entry of CODE. */
const TABLE = 0x00a0_5000;
const ENTRY = TABLE + ((CODE >>> 12) & 511) * 8;
/** Has the same place in a TLB as CODE. */
const RIVAL = CODE + 16384 * PAGE_SIZE;

/** Calls what RAX says, and tells by its mark what it went on with. */
const calling = (mark: string) =>
  listing(`
    ff d0            call rax
    b9 ${mark}000000  mov ecx, mark
    f4               hlt
  `);
/** Of the mark. */
const MARK = CODE + 3;

/** A machine with such code at CODE that has called often, a function that it has not called, and another frame for it. */
function withCaller(format: RegionFormat, options: ProcessorGroupOptions, cold: string) {
  const machine = new RegionMachine(format, options, calling('01'));
  const first = machine.numberAt(CODE);
  const other = machine.allocate();
  machine.map(CODE, other);
  machine.load(CODE, calling('63'));
  machine.map(CODE, first);
  machine.map(TABLE, (machine.memory.u32[machine.entryWord(CODE, 2)] as number) >>> 12);
  machine.map(RIVAL, machine.allocate());
  machine.load(HOT, 'c3');
  machine.load(COLD, listing(cold));
  machine.loadRoot();
  for (let round = 0; round < 4; round++) machine.execute({ rax: HOT });
  expect(machine.regionAt(CODE) !== undefined).toBe(options !== INTERPRETER);
  return { machine, first, other };
}

describe.each(FORMATS)('with %s page tables', (format) => {
  describe.each(TIERS)('in %s', (_name, options) => {
    const mark = (machine: RegionMachine) => machine.processor.value(Register.rcx);

    test('a function that returns', () => {
      const { machine } = withCaller(format, options, 'c3  ret');
      machine.execute({ rax: COLD });
      expect(mark(machine)).toBe(1);
    });

    test('a function that stores into its caller', () => {
      const { machine } = withCaller(
        format,
        options,
        `
          c6 03 63       mov byte [rbx], 99
          c3             ret
        `,
      );
      machine.execute({ rax: COLD, rbx: MARK });
      expect(mark(machine)).toBe(0x63);
    });

    test('a function whose store has the host exchange the page of its caller', () => {
      const { machine, first, other } = withCaller(
        format,
        options,
        `
          89 0b          mov [rbx], ecx
          c3             ret
        `,
      );
      const { group } = machine;
      const watcher = {
        written: () => {
          machine.map(CODE, other);
          group.invalidateFrame(machine.frameOf(first));
        },
      };
      group.watch(machine.frameOf(machine.numberAt(DATA)), watcher, 0);
      machine.execute({ rax: COLD, rbx: DATA });
      expect(mark(machine)).toBe(0x63);
    });

    // What a TLB has of the old page counts until the guest flushes it.
    test.each([
      ['by a store', '89 13  mov [rbx], edx', 'c6 06 90  mov byte [rsi], 0x90', CODE + 0x100],
      ['when it was lost before', '8b 3e  mov edi, [rsi]', '89 13  mov [rbx], edx', RIVAL],
    ])('a function that exchanges the page of its caller, which is met %s', (_how, first, second, rsi) => {
      const { machine, other } = withCaller(format, options, `${first}\n${second}\n c3  ret`);
      machine.execute({ rax: COLD, rbx: ENTRY, rdx: other * PAGE_SIZE + ALL_RIGHTS, rsi });
      expect(mark(machine)).toBe(0x63);
    });

    test('a function that loses the page of its caller, which the host then takes away', () => {
      const { machine, first } = withCaller(
        format,
        options,
        `
          8b 3e          mov edi, [rsi]
          89 0b          mov [rbx], ecx
          c3             ret
        `,
      );
      const { group } = machine;
      const watcher = {
        written: () => {
          machine.map(CODE, first, 0);
          group.invalidateFrame(machine.frameOf(first));
        },
      };
      group.watch(machine.frameOf(machine.numberAt(DATA)), watcher, 0);
      const outcome = machine.execute({ rax: COLD, rbx: DATA, rsi: RIVAL });
      expect(outcome).toMatchObject({ vector: Vector.pageFault, rip: CODE + 2 });
    });

    test('a function that makes the page of its caller not executable, which is then met', () => {
      const { machine } = withCaller(
        format,
        options,
        `
          89 13          mov [rbx], edx
          c6 06 90       mov byte [rsi], 0x90
          c3             ret
        `,
      );
      const outcome = machine.execute({ rax: COLD, rbx: ENTRY + 4, rdx: 0x8000_0000, rsi: CODE + 0x100 });
      expect(outcome).toMatchObject({ vector: Vector.pageFault, rip: CODE + 2 });
    });

    test('a caller that has lost its own page before', () => {
      const next = CODE + 5;
      const code = (mark: string) =>
        listing(`
          8b 3e            mov edi, [rsi]
          eb 01            jmp to the call
          cc               int3
          ff d0            call rax
          b9 ${mark}000000  mov ecx, mark
          f4               hlt
        `);
      const { machine, first, other } = withCaller(
        format,
        options,
        `
          89 13          mov [rbx], edx
          c3             ret
        `,
      );
      machine.load(CODE, code('01'));
      machine.map(CODE, other);
      machine.load(CODE, code('63'));
      machine.map(CODE, first);
      machine.loadRoot();
      for (let round = 0; round < 4; round++) machine.execute({ rax: HOT }, next);
      for (let round = 0; round < 4; round++) machine.execute({ rax: HOT, rsi: RIVAL });
      machine.execute({ rax: COLD, rbx: ENTRY, rdx: other * PAGE_SIZE + ALL_RIGHTS, rsi: RIVAL });
      expect(mark(machine)).toBe(0x63);
    });
  });

  test('hundreds of calls deep, each other one of code that is met for the first time', () => {
    const depth = 200;
    const run = (options: ProcessorGroupOptions) => {
      const machine = new RegionMachine(format, options, '');
      // A hot function that calls the next of those that are called once, …
      machine.load(
        HOT,
        listing(`
          83 e9 01       sub ecx, 1
          74 08          jz: to ret
          83 c2 10       add edx, 16
          ff d2          call rdx
          83 c6 03       add esi, 3
          c3             ret
        `),
      );
      // … each of which calls it.
      for (let index = 0; index <= depth; index++) {
        const at = CODE + 16 * index;
        const distance = (HOT - (at + 5)) >>> 0;
        const bytes = [0xe8, ...[0, 8, 16, 24].map((shift) => (distance >>> shift) & 0xff)];
        const hex = bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('');
        machine.load(at, `${hex} 83c301 ${index === 0 ? 'f4' : 'c3'}`);
      }
      for (let round = 0; round < 5; round++) machine.execute({ rcx: depth, rdx: CODE });
      return machine;
    };
    const machine = run({ jit: { threshold: 50, regionsPerModule: 1 } });
    expect(machine.stateNow()).toEqual(run(INTERPRETER).stateNow());
    expect(machine.regionAt(HOT)).toBeDefined();
    expect(machine.regionAt(CODE + 16)).toBeUndefined();
  });
});

test.each(TIERS)('an address that no code has, in %s', (_name, options) => {
  const leap = `
    48 b8 0000000000000040  mov rax, 1 << 62
    ff e0                   jmp rax
  `;
  const { machine } = withCaller('four-level', options, leap);
  expect(machine.execute({ rax: COLD })).toMatchObject({ vector: Vector.generalProtection });
  expect(machine.execute({}, COLD as GuestVirtual)).toMatchObject({ vector: Vector.generalProtection });
  expect(machine.execute({}, 2 ** 62)).toMatchObject({ vector: Vector.generalProtection });
});
