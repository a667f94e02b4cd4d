import { beforeEach, expect, test } from 'vitest';
import { Exit } from '../src/cpu/exits.ts';
import { codeStatistics } from '../src/inspect/code-statistics.ts';
import { countInstructions, sumTlbCounters } from '../src/inspect/statistics.ts';
import type { GuestVirtual } from '../src/x86/brand.ts';
import { listing } from './listing.ts';
import { CODE, DATA, TestMachine } from './system-machine.ts';

/** A thousand turns; then one store. */
const LOOP = listing(`
  b9 e8030000   mov ecx, 1000
  83 e9 01      sub ecx, 1
  75 fb         jne: to sub
  a3 00508000   mov [DATA], eax
  f4            hlt
`);
const INSTRUCTIONS = 1 + 2 * 1000 + 1;

function run(threshold: number): TestMachine {
  const machine = new TestMachine('pae', 3, { jit: { threshold, regionsPerModule: 1 } });
  machine.map(DATA, machine.allocate());
  machine.load(CODE, LOOP);
  machine.processor.rip = CODE as GuestVirtual;
  expect(machine.processor.run(1_000_000)).toBe(Exit.system);
  return machine;
}

let compiled: TestMachine;
beforeEach(() => {
  compiled = run(10);
});

test('instructions are counted by what executed them', () => {
  const { total, interpreter, regions } = countInstructions([compiled]);
  expect(total).toBe(INSTRUCTIONS);
  expect(interpreter + regions).toBe(total);
  expect(regions).toBeGreaterThan(total / 2);
});

test('without regions the interpreter executed all', () => {
  const machine = run(0);
  const counts = { total: INSTRUCTIONS, interpreter: INSTRUCTIONS, regions: 0 };
  expect(countInstructions([machine])).toEqual(counts);
  expect(codeStatistics(machine.group).jit).toBeNull();
});

test('what was compiled is counted, with its cost', () => {
  const { jit } = codeStatistics(compiled.group);
  expect(jit).toMatchObject({ regionsDropped: 0, regionsEvicted: 0 });
  expect(jit?.regions).toBe(jit?.regionsCompiled);
  expect(jit?.regionsCompiled).toBeGreaterThan(0);
  expect(jit?.modules).toBe(jit?.modulesCompiled);
  expect(jit?.moduleBytes).toBe(jit?.moduleBytesCompiled);
  expect(jit?.moduleBytes).toBeGreaterThan(0);
  expect(jit?.instructionsCompiled).toBeGreaterThanOrEqual(2);
  expect(jit?.compileSeconds).toBeGreaterThan(0);
});

test('a region whose code is written to counts as dropped', () => {
  const before = codeStatistics(compiled.group).jit;
  compiled.load(CODE, LOOP);
  const after = codeStatistics(compiled.group).jit;
  expect(after?.regions).toBe(0);
  expect(after?.regionsDropped).toBe(before?.regions);
  expect(after?.moduleBytes).toBe(0);
});

test('a store to a page that no TLB entry answers for is a miss', () => {
  expect(sumTlbCounters([compiled])).toMatchObject({ misses: 1 });
});
