import { describe, expect, test } from 'vitest';
import { Exit } from '../src/cpu/exits.ts';
import { chooseExecution, Profiler, type ProfilerOptions } from '../src/inspect/profiler.ts';
import type { Symbolizer } from '../src/inspect/text.ts';
import type { GuestVirtual } from '../src/x86/brand.ts';
import { listing } from './listing.ts';
import { CODE, TestMachine } from './system-machine.ts';

const ENDLESS = listing(`
  83 c0 01      add eax, 1
  eb fb         jmp: to add
`);

/** Fifty additions, then an instruction that the host carries out. */
const ADDITIONS = 50;
const LEAVING = listing(`
  ${'83c001 '.repeat(ADDITIONS)}
  f4            hlt
  e9 64ffffff   jmp: to the first addition
`);

/** A program under a profiler. Its clock stands still but for a microsecond an instruction. */
class ProfiledMachine {
  readonly machine: TestMachine;
  readonly profiler: Profiler;
  seconds = 0;
  compileSeconds = 0;

  constructor(code: string, privilege: 0 | 3, options: Partial<ProfilerOptions> = {}) {
    this.machine = new TestMachine('four-level', privilege, { jit: { isAside: false } });
    this.machine.load(CODE, code);
    this.machine.processor.rip = CODE as GuestVirtual;
    this.profiler = new Profiler({
      symbolize: () => undefined,
      now: () => this.seconds,
      compileSeconds: () => this.compileSeconds,
      interval: 1000,
      ...options,
    });
  }

  run(budget: number, beside: () => void = () => {}): Exit {
    const { processor } = this.machine;
    return this.profiler.run(processor, budget, (executing, slice) => {
      const before = executing.instructions;
      const exit = executing.run(slice);
      this.seconds += (executing.instructions - before) * 1e-6;
      beside();
      return exit;
    });
  }
}

const named: Symbolizer = (address) => ({ name: address < CODE + 3 * ADDITIONS ? 'additions' : 'end', offset: 0 });

describe('a profile', () => {
  test('has the time of kernel code by function', () => {
    const profiled = new ProfiledMachine(ENDLESS, 0, { symbolize: named });
    profiled.run(100_000);
    const { places, samples, guestSeconds, instructions } = profiled.profiler.report();
    expect(places).toEqual([expect.objectContaining({ mode: 'kernel', name: 'additions', samples, instructions })]);
    expect(places[0]?.seconds).toBeCloseTo(guestSeconds);
    // Without those before each sample, and what was executed since the last one.
    expect(instructions).toBeGreaterThan(90_000);
    expect(guestSeconds).toBeCloseTo(instructions * 1e-6);
    expect(samples).toBeGreaterThan(80);
  });

  test('has the time of programs by page, whatever the kernel has there', () => {
    const profiled = new ProfiledMachine(ENDLESS, 3, { symbolize: named });
    profiled.run(10_000);
    expect(profiled.profiler.report().places).toMatchObject([{ mode: 'user', name: '0x400000' }]);
  });

  test('says how much of the code was compiled', () => {
    const profiled = new ProfiledMachine(ENDLESS, 0);
    profiled.run(1_000_000);
    const { instructions, regionInstructions } = profiled.profiler.report();
    expect(regionInstructions).toBeGreaterThan(instructions * 0.9);
    expect(regionInstructions).toBeLessThan(instructions);
  });

  test('does not give the time to the instructions at which guest code ends', () => {
    const profiled = new ProfiledMachine(LEAVING, 0, { symbolize: named });
    const { processor } = profiled.machine;
    while (processor.instructions < 200_000) {
      // Where a sample was due the run goes on; it ends at HLT.
      expect(profiled.run(10_000)).toBe(Exit.system);
      processor.completeInstruction();
    }
    const { places, guestSeconds } = profiled.profiler.report();
    expect(places[0]?.name).toBe('additions');
    expect(places[0]?.seconds).toBeGreaterThan(guestSeconds * 0.9);
  });

  test("has the host's time by what the guest asked it for, and none that passes between turns", () => {
    const profiled = new ProfiledMachine(LEAVING, 0);
    profiled.profiler.enter();
    profiled.seconds += 1;
    expect(profiled.run(10_000)).toBe(Exit.system);
    profiled.seconds += 3;
    profiled.profiler.leave();
    profiled.seconds += 100;
    const { hostWork, hostSeconds } = profiled.profiler.report();
    expect(hostSeconds).toBeCloseTo(4);
    expect(hostWork).toEqual([
      { name: 'instruction hlt', count: 1, seconds: expect.closeTo(3) },
      { name: 'turns', count: 1, seconds: expect.closeTo(1) },
    ]);
  });

  test("counts compiling as the host's time, not the guest's", () => {
    const profiled = new ProfiledMachine(ENDLESS, 0);
    profiled.run(400, () => {
      profiled.seconds += 2;
      profiled.compileSeconds += 2;
    });
    const { hostWork, guestSeconds } = profiled.profiler.report();
    expect(hostWork).toContainEqual({ name: 'compiling', count: 1, seconds: 2 });
    expect(guestSeconds).toBeLessThan(1);
  });

  test('begins anew without what was before', () => {
    const profiled = new ProfiledMachine(LEAVING, 0, { symbolize: named });
    const { profiler, machine } = profiled;
    profiler.enter();
    while (profiler.report().samples === 0) {
      expect(profiled.run(10_000)).toBe(Exit.system);
      machine.processor.completeInstruction();
      profiled.seconds += 5;
    }
    profiler.restart();
    const nothing = { samples: 0, guestSeconds: 0, hostSeconds: 0, instructions: 0, regionInstructions: 0 };
    expect(profiler.report()).toEqual({ ...nothing, places: [], hostWork: [] });
    // The host's work that was going on is not counted either.
    profiled.run(1);
    expect(profiler.report().hostSeconds).toBe(0);
  });

  test('stays bounded when a guest executes everywhere', () => {
    let names = 0;
    const profiled = new ProfiledMachine(ENDLESS, 0, {
      interval: 1,
      symbolize: () => ({ name: `function ${names++}`, offset: 0 }),
    });
    profiled.run(200_000);
    const { places, samples } = profiled.profiler.report();
    expect(names).toBeGreaterThan(60_000);
    expect(places.length).toBe(50_001);
    expect(places.reduce((sum, place) => sum + place.samples, 0)).toBe(samples);
  });
});

test.each([true, false])('a guest executes the same with a profiler as without (exact %s)', (exact) => {
  const plain = new ProfiledMachine(ENDLESS, 0).machine;
  const { machine, profiler } = new ProfiledMachine(ENDLESS, 0);
  const exits = [
    chooseExecution(exact, undefined)(plain.processor, 54_321),
    chooseExecution(exact, profiler)(machine.processor, 54_321),
  ];
  expect(exits).toEqual([Exit.budget, Exit.budget]);
  // A run that need not be exact ends with a block or a region.
  const slack = exact ? 0 : 200;
  for (const { processor } of [plain, machine]) {
    expect(processor.instructions).toBeGreaterThanOrEqual(54_321 - slack);
    expect(processor.instructions).toBeLessThanOrEqual(54_321 + slack);
  }
});

test('a processor that is called back leaves at once', () => {
  const { machine, profiler } = new ProfiledMachine(ENDLESS, 0);
  const calledBack = profiler.run(machine.processor, 10_000, () => Exit.budget);
  expect(calledBack).toBe(Exit.budget);
  expect(machine.processor.instructions).toBe(0);
});
