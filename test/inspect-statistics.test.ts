import { expect, test } from 'vitest';
import { Exit } from '../src/cpu/exits.ts';
import { Statistics, type StatisticsSource } from '../src/inspect/statistics.ts';
import { createOperations } from '../src/ops/dispatch.ts';

const source: StatisticsSource = {
  wallSeconds: () => 2.5,
  guestSeconds: () => 2,
  instructions: () => ({ total: 1_000_000, interpreter: 400_000, regions: 600_000 }),
  tlb: () => ({ misses: 12, fills: 10, flushes: 2, switches: 9, returns: 8, pageFlushes: 3 }),
  framesByType: () => ({ none: 5, level1: 2 }),
  memoryInUse: () => 1 << 20,
};

test('a report holds every figure, and names for those that are counted', () => {
  const statistics = new Statistics(source, ['set_trap_table', 'mmu_update']);
  const { irq } = createOperations({ irq: { safeHalt: () => {} } }, { counts: statistics.operations });
  irq.safeHalt(0);
  statistics.exits[Exit.syscall]! += 3; // every Exit is in range
  statistics.hypercall(1);
  statistics.hypercall(1);
  statistics.hypercall(40);
  expect(statistics.report()).toEqual({
    wallSeconds: 2.5,
    guestSeconds: 2,
    instructions: 1_000_000,
    instructionsByTier: { interpreter: 400_000, regions: 600_000 },
    exits: { syscall: 3 },
    hypercalls: { mmu_update: 2, 'unknown 40': 1 },
    operations: { 'irq.safeHalt': 1 },
    tlb: { misses: 12, fills: 10, flushes: 2, switches: 9, returns: 8, pageFlushes: 3 },
    frames: { none: 5, level1: 2 },
    memoryInUse: 1 << 20,
  });
});

test.each([-1, 64, 2 ** 40, Number.NaN])('hypercall number %d is counted without a slot of its own', (number) => {
  const statistics = new Statistics(source, []);
  statistics.hypercall(number);
  expect(statistics.report().hypercalls).toEqual({ 'unknown 63': 1 });
});
