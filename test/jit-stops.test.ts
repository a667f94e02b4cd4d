/** Where regions end: budgets, single steps, faults and evictions are exact, whatever the code around them became. */
import { describe, expect, test } from 'vitest';
import { Exit } from '../src/cpu/exits.ts';
import { BLOCK_LIMIT } from '../src/cpu/interpreter/record.ts';
import type { JitOptions } from '../src/cpu/jit/jit.ts';
import type { ProcessorGroupOptions } from '../src/cpu/processor.ts';
import { State } from '../src/cpu/state.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import { Cr4, Flag, Pte, Register, Vector } from '../src/x86/registers.ts';
import { listing } from './listing.ts';
import { AGAIN, AT_ONCE, FORMATS, INTERPRETER, RegionMachine, statesOf } from './region-machine.ts';
import { ALL_RIGHTS, CODE, DATA } from './system-machine.ts';

/** Three times: a hundred additions, and a copy of 300 bytes over the end of a page. */
const LONG_WAY = listing(`
  bd 03000000         mov ebp, 3
  be 00508000         mov esi, DATA
  bf 805f8000         mov edi, DATA + 0xf80
  b9 2c010000         mov ecx, 300
  ${'83c001'.repeat(100)}   add eax, 1, a hundred times
  f3 a4               rep movsb
  01 c2               add edx, eax
  83 ed 01            sub ebp, 1
  0f85 b8feffff       jne: to mov esi
  f4                  hlt
`);
const LONG_WAY_COUNT = 1 + 3 * (3 + 100 + 300 + 3);

/** MXCSR. */
const ONLY_PRECISION_MASKED = 0x1000;
/** No page is mapped there. */
const NOWHERE = 0x00d0_0000;
const READ_ONLY = 0x00e0_4000;
/** Two bytes are in the last page that is mapped. */
const OVER_THE_EDGE = DATA + 2 * PAGE_SIZE - 2;

/** Instructions that fault when EBX or ESP is the second address, and do not when it is the first. */
const FAULTS: readonly (readonly [name: string, code: string, good: number, bad: number])[] = [
  ['a load', '8b3b', DATA, NOWHERE],
  ['a load over the edge', '8b3b', DATA, OVER_THE_EDGE],
  ['a store', '893b', DATA, NOWHERE],
  ['a store into a page that cannot be written', '893b', DATA, READ_ONLY + 8],
  ['a store over the edge', '893b', DATA, OVER_THE_EDGE],
  ['a change of memory', '113b', DATA, READ_ONLY],
  ['a locked exchange', 'f00fb13b', DATA, READ_ONLY],
  ['a vector that is not aligned', '0f280b', DATA, DATA + 8],
  ['a vector over the edge', '0f100b', DATA, OVER_THE_EDGE],
  ['a division by zero', 'f733', DATA, DATA + 0x100],
  ['a floating-point exception', 'f20f5e03', DATA + 8, DATA + 0x100],
  ['a push', '87dc 53 87dc', DATA + 0x80, NOWHERE],
  ['a pop', '87dc 5f 87dc', DATA + 0x80, NOWHERE],
  ['a call', '87dc e800000000 87dc', DATA + 0x80, NOWHERE],
  ['a breakpoint', '85db 7501 cc', DATA, 0],
  ['an instruction that does not exist', '85db 7502 0f0b', DATA, 0],
];

describe.each(FORMATS)('with %s page tables', (format) => {
  test('an exact run stops at its count, wherever in a region or a repeated instruction that is', () => {
    const states = statesOf(new RegionMachine(format, INTERPRETER, LONG_WAY));
    expect(states.length).toBe(1 + LONG_WAY_COUNT);
    const machine = new RegionMachine(format, AGAIN, LONG_WAY);
    const { processor } = machine;
    for (let count = 1; count < states.length; count++) {
      machine.restart();
      const before = processor.instructions;
      expect(processor.runExactly(count)).toBe(Exit.budget);
      expect({ count: processor.instructions - before, ...machine.stateNow() }).toEqual({ count, ...states[count] });
    }
    expect(machine.instructionsInRegions).toBeGreaterThan(processor.instructions / 2);
  });

  test('a run of any length stops at an instruction that is due, not far behind its budget', () => {
    const states = statesOf(new RegionMachine(format, INTERPRETER, LONG_WAY));
    const machine = new RegionMachine(format, AGAIN, LONG_WAY);
    const { processor } = machine;
    for (let budget = 1; budget < LONG_WAY_COUNT - BLOCK_LIMIT; budget++) {
      machine.restart();
      const before = processor.instructions;
      expect(processor.run(budget)).toBe(Exit.budget);
      const count = processor.instructions - before;
      expect(count).toBeGreaterThanOrEqual(budget);
      expect(count).toBeLessThan(budget + BLOCK_LIMIT);
      expect(machine.stateNow()).toEqual(states[count]);
    }
  });

  test('a single step through code that became regions traps behind each instruction', () => {
    const states = statesOf(new RegionMachine(format, INTERPRETER, LONG_WAY));
    const machine = new RegionMachine(format, AT_ONCE, LONG_WAY);
    const { processor } = machine;
    machine.execute();
    expect(machine.instructionsInRegions).toBeGreaterThan(0);
    machine.restart();
    for (const state of states.slice(1)) {
      processor.flags |= Flag.trap;
      expect(processor.run(1000)).toBe(Exit.exception);
      expect(processor.exitDetail).toBe(Vector.debug);
      processor.flags &= ~Flag.trap;
      expect(machine.stateNow()).toEqual(state);
    }
  });

  test.each(FAULTS)(
    '%s that faults in the middle of a region leaves everything as it was before',
    (_name, code, good, bad) => {
      const program = listing(`
      83 c0 07    add eax, 7
      83 d2 11    adc edx, 17
      ${code}     what faults
      83 c6 03    add esi, 3
      83 f8 46    cmp eax, 70
      72 ${(-(code.replaceAll(' ', '').length / 2 + 14) & 0xff).toString(16)}   jb: to the start
      f4          hlt
    `);
      const run = (options: ProcessorGroupOptions) => {
        const machine = new RegionMachine(format, options, program);
        machine.map(READ_ONLY, machine.allocate(), ALL_RIGHTS & ~Pte.writable);
        machine.processor.cr4 |= Cr4.simdExceptions;
        machine.memory.view.setUint32(machine.processor.state + State.mxcsr, ONLY_PRECISION_MASKED, true);
        const data = machine.bytesOf(machine.numberAt(DATA));
        data.fill(0x41, 0, 16);
        for (let round = 0; round < 3; round++) {
          machine.execute({ rbx: good });
          data.fill(0x41, 0, 16);
        }
        const inRegions = machine.instructionsInRegions;
        const outcome = machine.execute({ rbx: bad });
        return { inRegions, left: { outcome, state: machine.stateNow(), data: [...data] } };
      };
      const { inRegions, left } = run(AGAIN);
      expect(left).toEqual(run(INTERPRETER).left);
      expect(left.outcome.vector).not.toBeNull();
      expect(inRegions).toBeGreaterThan(0);
    },
  );

  test.each<[string, Partial<JitOptions>]>([
    ['one module is alive', { maximumModules: 1 }],
    ['there is room for two regions', { regionSlots: 2 }],
    ['modules of a few bytes are alive', { maximumBytes: 1 }],
    ['one module of two regions is alive', { maximumModules: 1, regionsPerModule: 2, isAside: false }],
  ])('programs go on when %s at a time and others are evicted', (_what, limits) => {
    const machine = new RegionMachine(
      format,
      { jit: { threshold: 1, regionsPerModule: 1, ...limits } },
      listing(`
        01 c8      add eax, ecx
        ff d7      call edi
        ff d6      call esi
        83 e9 01   sub ecx, 1
        75 f5      jne: to the start
        f4         hlt
      `),
    );
    machine.load(CODE + PAGE_SIZE, '83c201 83f900 7401 90 c3'); // add edx, 1; cmp ecx, 0; je over nop; ret
    machine.load(CODE + 0x800, '83ea03 85d2 7801 90 c3'); // sub edx, 3; test edx, edx; js over nop; ret
    const { processor, group } = machine;
    expect(machine.execute({ rcx: 50, rdi: CODE + PAGE_SIZE, rsi: CODE + 0x800 })).toMatchObject({ vector: null });
    expect(processor.value(Register.rax)).toBe((50 * 51) / 2);
    expect(processor.low(Register.rdx) | 0).toBe(-2 * 50);
    expect(group.jit?.counters.evicted).toBeGreaterThan(0);
    expect(group.jit?.liveModules).toBeLessThanOrEqual(limits.maximumModules ?? 2);
    expect(machine.instructionsInRegions).toBeGreaterThan(0);
  });

  test('regions outlive decoded code that had no room any more', () => {
    const machine = new RegionMachine(format, { ...AGAIN, codeBytes: 8192 }, LONG_WAY);
    const { code } = machine.group.parts;
    const { generation } = code;
    for (let round = 0; round < 5; round++) {
      expect(machine.execute()).toMatchObject({ vector: null });
      expect(machine.processor.value(Register.rax)).toBe(300);
    }
    expect(code.generation).toBeGreaterThan(generation);
    expect(machine.instructionsInRegions).toBeGreaterThan(0);
  });

  test('a jump on the counter goes to its own target when a conditional jump follows it', () => {
    const machine = new RegionMachine(
      format,
      AGAIN,
      listing(`
        83 c0 01   add eax, 1
        83 e9 01   sub ecx, 1
        e3 05      jecxz: to hlt
        83 f8 0a   cmp eax, 10
        75 f3      jne: to the start
        f4         hlt
      `),
    );
    machine.execute({ rcx: 7 });
    expect(machine.processor.value(Register.rax)).toBe(7);
  });
});
