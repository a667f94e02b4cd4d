import { bench, describe } from 'vitest';
import { type GroupOperations, operationIds } from '../src/ops/catalogue.ts';
import { createCounts, createOperations } from '../src/ops/dispatch.ts';
import type { Mfn } from '../src/x86/brand.ts';

/** What an observed operation costs over an unobserved one. `npx vitest bench test/ops-dispatch.bench.ts` */
const CALLS = 1_000_000;
const TABLE = 1 as Mfn;

class Paging implements Pick<GroupOperations<'mmu'>, 'setPte'> {
  readonly #memory = new Uint32Array(1024);
  setPte(_vcpu: number, table: Mfn, index: number, low: number, high: number): number {
    this.#memory[(table + index) & 1023] = low ^ high;
    return 0;
  }
}

const insideCounts = createCounts();
/** Out of the loop: looking it up in `operationIds` costs more than the count. */
const SET_PTE = operationIds.mmu.setPte;

class CountingPaging implements Pick<GroupOperations<'mmu'>, 'setPte'> {
  readonly #memory = new Uint32Array(1024);
  setPte(_vcpu: number, table: Mfn, index: number, low: number, high: number): number {
    insideCounts[SET_PTE]! += 1; // every id is in range
    this.#memory[(table + index) & 1023] = low ^ high;
    return 0;
  }
}

// Each case has a loop of its own, so that no call site has seen the functions of another.
describe('a million setPte', () => {
  const plain = createOperations({ mmu: new Paging() });
  bench('unobserved', () => {
    for (let call = 0; call < CALLS; call++) plain.mmu.setPte(0, TABLE, call & 511, call, 0);
  });
  const inside = createOperations({ mmu: new CountingPaging() });
  bench('counted inside the implementation', () => {
    for (let call = 0; call < CALLS; call++) inside.mmu.setPte(0, TABLE, call & 511, call, 0);
  });
  const counted = createOperations({ mmu: new Paging() }, { counts: createCounts() });
  bench('counted by the wrapper', () => {
    for (let call = 0; call < CALLS; call++) counted.mmu.setPte(0, TABLE, call & 511, call, 0);
  });
  const observed = createOperations({ mmu: new Paging() }, { observers: [{ after: () => {} }] });
  bench('observed by one that does nothing', () => {
    for (let call = 0; call < CALLS; call++) observed.mmu.setPte(0, TABLE, call & 511, call, 0);
  });
});
