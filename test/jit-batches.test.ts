/** Regions whose module is compiled while the guest goes on. */
import { describe, expect, test } from 'vitest';
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

describe.each(FORMATS)('in %s', (format) => {
  const machineOf = () => new RegionMachine(format, { jit: { threshold: 2, regionsPerModule: 2 } }, PROGRAM);

  function sum(machine: RegionMachine): number {
    machine.execute({ rbx: 0 });
    return machine.processor.value(Register.rbx);
  }

  test('the guest goes on without them, and enters them when they are there', async () => {
    const machine = machineOf();
    for (let time = 0; time < 8; time++) expect(sum(machine)).toBe(TURNS);
    expect(machine.group.jit?.counters.compiled).toBeGreaterThanOrEqual(2);
    expect(machine.instructionsInRegions).toBe(0);
    expect(machine.regionAt(FUNCTION)).toBeUndefined();
    for (let time = 0; time < 1000 && machine.instructionsInRegions === 0; time++) {
      await later();
      expect(sum(machine)).toBe(TURNS);
    }
    expect(machine.regionAt(FUNCTION)).toBeDefined();
    expect(machine.instructionsInRegions).toBeGreaterThan(0);
    expect(machine.group.jit?.regions).toBe(machine.group.jit?.counters.compiled);
  });

  test('what the guest writes over meanwhile is left out', async () => {
    const machine = machineOf();
    expect(sum(machine)).toBe(TURNS);
    expect(machine.group.jit?.counters.compiled).toBeGreaterThanOrEqual(2);
    machine.load(FUNCTION, functionThatReturns(3));
    await later();
    for (let time = 0; time < 100; time++) {
      expect(sum(machine)).toBe(3 * TURNS);
      await later();
    }
    // The new code is executed as often, so it has become a region of its own.
    expect(machine.regionAt(FUNCTION)).toBeDefined();
    expect(machine.group.jit?.dropped).toBeGreaterThan(0);
  });

  test('more regions wait for the module that is being compiled', async () => {
    const machine = machineOf();
    expect(sum(machine)).toBe(TURNS);
    machine.load(FUNCTION, functionThatReturns(2));
    // Asked for again and again while the first module is not there.
    for (let time = 0; time < 8; time++) expect(sum(machine)).toBe(2 * TURNS);
    expect(machine.group.jit?.liveModules).toBe(1);
    for (let time = 0; time < 1000 && !machine.regionAt(FUNCTION); time++) {
      await later();
      expect(sum(machine)).toBe(2 * TURNS);
    }
    expect(machine.regionAt(FUNCTION)).toBeDefined();
  });
});
