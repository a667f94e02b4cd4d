/** Regions that are translated, and whose module is compiled, while the guest goes on. */
import { describe, expect, test } from 'vitest';
import { CodeMode } from '../src/cpu/code-mode.ts';
import type { JitThread } from '../src/cpu/jit/jit-thread.ts';
import type { RegionSource } from '../src/cpu/jit/region.ts';
import { Translator } from '../src/cpu/jit/translator.ts';
import { meaningOf } from '../src/cpu/semantics/index.ts';
import { type HostAddress, PAGE_SIZE } from '../src/x86/brand.ts';
import { Register } from '../src/x86/registers.ts';
import { listing } from './listing.ts';
import { FORMATS, RegionMachine } from './region-machine.ts';
import { CODE } from './system-machine.ts';

const FUNCTION = CODE + 17;
const TURNS = 20;

/** Calls a function so often, and adds up what it returns. */
const PROGRAM = listing(`
  b9 14000000   mov ecx, 20
  e8 07000000   call: to the function
  01 c3         add ebx, eax
  83 e9 01      sub ecx, 1
  eb 06         jmp: to the end of the loop
  b8 01000000   the function: mov eax, 1
  c3            ret
  75 ec         jne: to the call
  f4            hlt
`);

const functionThatReturns = (value: number): string => listing(`b8 0${value}000000   mov eax, value`);

const later = () => new Promise((resolve) => setTimeout(resolve, 1));

/** What another thread gets and gives are copies. */
const thread: JitThread = {
  translate: async (tlbEntries, sources, tookTime) => {
    const copies = structuredClone(sources);
    await later();
    tookTime(1);
    return structuredClone(new Translator({ tlbEntries, meaningOf }).translateAll(copies));
  },
  compile: async (wasm, tookTime) => {
    const copy = wasm.slice();
    await later();
    tookTime(1000);
    return new WebAssembly.Module(copy);
  },
};

const JIT = { threshold: 2, regionsPerModule: 2 };
const WAYS = FORMATS.flatMap((format) => [
  { format, where: 'on the same thread', jit: JIT },
  { format, where: 'on another thread', jit: { ...JIT, thread } },
]);

describe.each(WAYS)('translated $where, in $format', ({ format, jit }) => {
  const machineOf = () => new RegionMachine(format, { jit }, PROGRAM);

  function sum(machine: RegionMachine): number {
    machine.execute({ rbx: 0 });
    return machine.processor.value(Register.rbx);
  }

  /** Lets the guest go on until something is there. */
  async function until(machine: RegionMachine, expected: number, isThere: () => boolean): Promise<void> {
    for (let time = 0; time < 1000 && !isThere(); time++) {
      await later();
      expect(sum(machine)).toBe(expected);
    }
  }

  test('the guest goes on without them, and enters them when they are there', async () => {
    const machine = machineOf();
    for (let time = 0; time < 8; time++) expect(sum(machine)).toBe(TURNS);
    expect(machine.instructionsInRegions).toBe(0);
    expect(machine.regionAt(FUNCTION)).toBeUndefined();
    await until(machine, TURNS, () => machine.instructionsInRegions > 0);
    expect(machine.regionAt(FUNCTION)).toBeDefined();
    expect(machine.instructionsInRegions).toBeGreaterThan(0);
    await until(machine, TURNS, () => machine.group.jit?.regions === machine.group.jit?.counters.compiled);
    expect(machine.group.jit?.regions).toBe(machine.group.jit?.counters.compiled);
    expect(machine.group.jit?.counters.compiled).toBeGreaterThanOrEqual(2);
    const { millisecondsAside = 0 } = machine.group.jit?.counters ?? {};
    if ('thread' in jit) {
      // Both what it translated and what it compiled.
      expect(millisecondsAside % 1000).toBeGreaterThan(0);
      expect(millisecondsAside).toBeGreaterThan(1000);
    } else expect(millisecondsAside).toBe(0);
  });

  test('what the guest writes over meanwhile is left out', async () => {
    const machine = machineOf();
    expect(sum(machine)).toBe(TURNS);
    machine.load(FUNCTION, functionThatReturns(3));
    await later();
    for (let time = 0; time < 100; time++) {
      expect(sum(machine)).toBe(3 * TURNS);
      await later();
    }
    // The new code is executed as often, so it has become a region of its own.
    expect(machine.regionAt(FUNCTION)).toBeDefined();
  });

  test('more regions wait while modules are made', async () => {
    const machine = machineOf();
    for (let value = 2; value < 8; value++) {
      machine.load(FUNCTION, functionThatReturns(value));
      // Asked for again and again while the first modules are not there.
      for (let time = 0; time < 8; time++) expect(sum(machine)).toBe(value * TURNS);
    }
    expect(machine.group.jit?.liveModules).toBeLessThanOrEqual(3);
    await until(machine, 7 * TURNS, () => machine.regionAt(FUNCTION) !== undefined);
    expect(machine.regionAt(FUNCTION)).toBeDefined();
  });
});

describe('what a region before covers is no region of its own', () => {
  const LOOP = 5;
  const RETURN = 10;

  /** The program's page, as control has been everywhere. */
  function sourceAt(entry: number, page: number): RegionSource {
    const bytes = new Uint8Array(PAGE_SIZE);
    bytes.set(Buffer.from(PROGRAM.replaceAll(' ', ''), 'hex'));
    const reached = Uint16Array.of(0, LOOP, RETURN, 17, 23);
    return { page: page as HostAddress, bytes, behind: new Uint8Array(0), mode: CodeMode.bits64, entry, reached };
  }

  function outcomesOf(...sources: RegionSource[]): string[] {
    const outcomes = new Translator({ tlbEntries: 1024, meaningOf }).translateAll(sources);
    return outcomes.map((outcome) => (typeof outcome === 'object' ? 'region' : String(outcome)));
  }

  test('of the same page', () => {
    const page = 0x1000;
    expect(outcomesOf(...[0, LOOP, RETURN, 17].map((entry) => sourceAt(entry, page)))).toEqual([
      'region',
      'covered',
      'covered',
      'region',
    ]);
    expect(outcomesOf(sourceAt(RETURN, page), sourceAt(0, page))).toEqual(['region', 'region']);
  });

  test('but not of another page, or for another mode', () => {
    expect(outcomesOf(sourceAt(0, 0x1000), sourceAt(LOOP, 0x2000))).toEqual(['region', 'region']);
    const narrow = { ...sourceAt(LOOP, 0x1000), mode: CodeMode.bits32 };
    expect(outcomesOf(sourceAt(0, 0x1000), narrow)).toEqual(['region', 'region']);
  });

  test('until it is as hot once more', () => {
    const jit = { threshold: 4, regionsPerModule: 3, isAside: false };
    const machine = new RegionMachine('four-level', { jit }, PROGRAM);
    machine.execute();
    expect(machine.regionAt(CODE + LOOP)).toBeDefined();
    expect(machine.regionAt(FUNCTION)).toBeDefined();
    expect(machine.regionAt(CODE + RETURN)).toBeUndefined();
    for (let time = 0; time < 16; time++) machine.execute({ rcx: 1 }, CODE + RETURN);
    expect(machine.regionAt(CODE + RETURN)).toBeDefined();
  });

  test('also when its own request was the last that was waited for', () => {
    const program = listing(`
      90        nop
      83 e9 01  sub ecx, 1
      75 fb     jne: to the subtraction
      f4        hlt
    `);
    const loop = CODE + 1;
    const jit = { threshold: 4, regionsPerModule: 2, isAside: false };
    const machine = new RegionMachine('four-level', { jit }, program);
    for (let time = 0; time < 5; time++) machine.execute({ rcx: 1 });
    expect(machine.regionAt(CODE)).toBeUndefined();
    machine.execute({ rcx: 20 });
    expect(machine.regionAt(CODE)).toBeDefined();
    for (let time = 0; time < 20; time++) machine.execute({ rcx: 1 }, loop);
    expect(machine.regionAt(loop)).toBeDefined();
  });
});

test.each(FORMATS)(
  'calls inside a page stay in it when one module has code of two pages for the same address, in %s',
  (format) => {
    const jit = { threshold: 11, regionsPerModule: 6, isAside: false };
    const machine = new RegionMachine(format, { jit }, PROGRAM);
    const pages = [machine.numberAt(CODE), machine.allocate()] as const;
    const sumIn = (page: number): number => {
      machine.map(CODE, page);
      machine.loadRoot();
      machine.execute({ rbx: 0 });
      return machine.processor.value(Register.rbx);
    };
    machine.map(CODE, pages[1]);
    machine.load(CODE, PROGRAM);
    machine.load(FUNCTION, functionThatReturns(5));
    for (let time = 0; time < 4; time++) {
      expect(sumIn(pages[0])).toBe(TURNS);
      expect(sumIn(pages[1])).toBe(5 * TURNS);
    }
    expect(machine.group.jit?.counters.modules).toBe(1);
    expect(machine.regionAt(FUNCTION)).toBeDefined();
  },
);

test('guests wait for their regions when the thread is gone', async () => {
  const gone = () => Promise.reject(new Error('gone'));
  const machine = new RegionMachine('pae', { jit: { ...JIT, thread: { translate: gone, compile: gone } } }, PROGRAM);
  for (let time = 0; time < 1000 && machine.instructionsInRegions === 0; time++) {
    machine.execute({ rbx: 0 });
    expect(machine.processor.value(Register.rbx)).toBe(TURNS);
    await later();
  }
  expect(machine.instructionsInRegions).toBeGreaterThan(0);
});

test('what could not be compiled is asked for again', async () => {
  let refused = 0;
  const compile: JitThread['compile'] = (wasm, tookTime) =>
    refused++ === 0 ? Promise.reject(new Error('no memory')) : thread.compile(wasm, tookTime);
  const machine = new RegionMachine('pae', { jit: { ...JIT, thread: { ...thread, compile } } }, PROGRAM);
  for (let time = 0; time < 1000 && machine.instructionsInRegions === 0; time++) {
    machine.execute({ rbx: 0 });
    expect(machine.processor.value(Register.rbx)).toBe(TURNS);
    await later();
  }
  expect(refused).toBeGreaterThan(1);
  expect(machine.instructionsInRegions).toBeGreaterThan(0);
  // The module that was refused is none of those that there are.
  expect(machine.group.jit?.liveModules).toBeLessThan(refused);
});
