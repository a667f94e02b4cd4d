/** Code whose page goes while it is executed: its own store has the host take the page away. */
import { expect, test } from 'vitest';
import { Exit } from '../src/cpu/exits.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import { Vector } from '../src/x86/registers.ts';
import { AGAIN, INTERPRETER, RegionMachine } from './region-machine.ts';
import { CODE, DATA } from './system-machine.ts';

test.each([
  ['the interpreter', INTERPRETER],
  ['regions', AGAIN],
])('an instruction for the host is not taken for another one, and faults, in %s', (_name, options) => {
  // mov [rbx], ecx; cpuid
  const machine = new RegionMachine('four-level', options, '890b 0fa2');
  const { processor, group } = machine;
  const page = machine.numberAt(CODE);
  const watcher = {
    written: () => {
      machine.map(CODE, page, 0);
      group.invalidateFrame(machine.frameOf(page));
    },
  };
  group.watch(machine.frameOf(machine.numberAt(DATA)), watcher, 0);
  // The code is known, and another one was decoded since.
  machine.load(CODE + PAGE_SIZE, 'f4');
  for (const address of [CODE, CODE + PAGE_SIZE]) {
    machine.restart({ rbx: DATA + PAGE_SIZE }, address);
    expect(processor.run(100)).toBe(Exit.system);
  }
  machine.restart({ rbx: DATA });
  expect(processor.run(100)).toBe(Exit.system);
  expect(processor.rip).toBe(CODE + 2);
  expect(processor.currentInstruction().operation).toBe('ud2');

  machine.map(CODE, page);
  const outcome = machine.execute({ rbx: DATA });
  expect(outcome).toMatchObject({ vector: Vector.pageFault, rip: CODE + 2, cr2: CODE + 2 });
});
