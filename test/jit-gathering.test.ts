/** Regions that were put side by side: where one leads directly to another is still where the guest's code leads. */
import { describe, expect, test } from 'vitest';
import { type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { Register } from '../src/x86/registers.ts';
import { ALL_THE_TIME } from './gathering.ts';
import { listing } from './listing.ts';
import { FORMATS, type RegionFormat, RegionMachine } from './region-machine.ts';
import { CODE } from './system-machine.ts';

const OTHER_PAGE = CODE + PAGE_SIZE;
/** TLBs have 16,384 entries. */
const ALIAS = OTHER_PAGE + 16_384 * PAGE_SIZE;
/** Where there is room for other code. */
const LOADING = CODE + 48;
const TURNS = 50;

/**
 * Calls a function of the next page, which goes on in the first one by a jump and returns from there; one that returns
 * from the next page; and one of its own page.
 */
const PROGRAM = listing(`
  b9 32000000   mov ecx, 50
  e8 f60f0000   call: to the next page
  e8 01100000   call: to ret in the next page
  e8 06000000   call: to call
  83 e9 01      sub ecx, 1
  75 ec         jne: to the first call
  f4            hlt
  e8 01000000   call: to add
  c3            ret
  83 c0 01      add eax, 1
  c3            ret
`);

const functionsOfNextPage = (amount: number): string =>
  listing(`
    83 c3 0${amount}      add ebx, amount
    e9 18f0ffff   jmp: to add eax
    0f1f8400 00000000   nop
    c3            ret
  `);

/** A machine whose code has become regions that were gathered. */
function gatheredMachine(format: RegionFormat): RegionMachine {
  const machine = new RegionMachine(
    format,
    { jit: { threshold: 2, regionsPerModule: 1, isAside: false, gathering: ALL_THE_TIME } },
    PROGRAM,
  );
  machine.load(OTHER_PAGE, functionsOfNextPage(1));
  for (let time = 0; time < 8; time++) machine.execute();
  expect(machine.group.jit?.counters.gathered).toBeGreaterThanOrEqual(3);
  return machine;
}

/** EAX and EBX after the program. */
function results(machine: RegionMachine): [number, number] {
  machine.execute();
  return [machine.processor.value(Register.rax), machine.processor.value(Register.rbx)];
}

describe.each(FORMATS)('with %s page tables', (format) => {
  test('regions lead to each other across pages, by calls, jumps and returns', () => {
    const machine = gatheredMachine(format);
    const before = machine.instructionsInRegions;
    expect(results(machine)).toEqual([2 * TURNS, TURNS]);
    expect(machine.instructionsInRegions - before).toBeGreaterThan(12 * TURNS);
  });

  test('a page that is another one from here on is executed', () => {
    const machine = gatheredMachine(format);
    machine.map(OTHER_PAGE, machine.allocate());
    machine.processor.memory.flushPage(OTHER_PAGE as GuestVirtual);
    machine.load(OTHER_PAGE, functionsOfNextPage(2));
    for (let time = 0; time < 3; time++) expect(results(machine)).toEqual([2 * TURNS, 2 * TURNS]);
  });

  test('a page that is no longer mapped faults', () => {
    const machine = gatheredMachine(format);
    machine.map(OTHER_PAGE, 0, 0);
    machine.processor.memory.flushPage(OTHER_PAGE as GuestVirtual);
    expect(machine.execute()).toMatchObject({ vector: 14, cr2: OTHER_PAGE });
  });

  test('a page that is not mapped faults where another one has its frame and its place among the translations', () => {
    const machine = gatheredMachine(format);
    machine.load(LOADING, '8b03 f4'); // mov eax, [ebx]; hlt
    machine.map(ALIAS, machine.numberAt(OTHER_PAGE));
    machine.map(OTHER_PAGE, 0, 0);
    machine.processor.memory.flushPage(OTHER_PAGE as GuestVirtual);
    machine.execute({ rbx: ALIAS }, LOADING);
    expect(machine.execute()).toMatchObject({ vector: 14, cr2: OTHER_PAGE });
  });

  test('code that was written to is executed as it is then', () => {
    const machine = gatheredMachine(format);
    machine.load(OTHER_PAGE, functionsOfNextPage(3));
    for (let time = 0; time < 3; time++) expect(results(machine)).toEqual([2 * TURNS, 3 * TURNS]);
  });

  test('regions that are made again behind a gathering are gathered as well', () => {
    const machine = gatheredMachine(format);
    machine.load(OTHER_PAGE, functionsOfNextPage(3));
    const { gathered = 0 } = machine.group.jit?.counters ?? {};
    for (let time = 0; time < 8; time++) expect(results(machine)).toEqual([2 * TURNS, 3 * TURNS]);
    expect(machine.group.jit?.counters.gathered).toBeGreaterThan(gathered);
  });
});

test('a module that is compiled aside takes the place of others when it is there', async () => {
  const machine = new RegionMachine(
    'four-level',
    { jit: { threshold: 2, regionsPerModule: 1, gathering: ALL_THE_TIME } },
    PROGRAM,
  );
  machine.load(OTHER_PAGE, functionsOfNextPage(1));
  for (let time = 0; time < 8; time++) expect(results(machine)).toEqual([2 * TURNS, TURNS]);
  const { jit } = machine.group;
  expect(jit?.counters.gathered).toBe(0);
  for (let time = 0; time < 1000 && jit?.counters.gathered === 0; time++) {
    await new Promise((later) => setTimeout(later, 1));
    expect(results(machine)).toEqual([2 * TURNS, TURNS]);
  }
  expect(jit?.counters.gathered).toBeGreaterThanOrEqual(3);
});
