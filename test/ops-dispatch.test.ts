import { expect, expectTypeOf, test } from 'vitest';
import { type GroupOperations, operationIds } from '../src/ops/catalogue.ts';
import { createCounts, createOperations, type OperationObserver } from '../src/ops/dispatch.ts';
import type { GuestVirtual, Mfn } from '../src/x86/brand.ts';

/** Part of a paging, as a class with state and a member that is no operation. */
class SmallPaging implements Pick<GroupOperations<'mmu'>, 'setPte' | 'flushTlbSingle' | 'pteVal'> {
  readonly #stored: number[] = [];

  setPte(_vcpu: number, _table: Mfn, index: number, low: number, _high: number): number {
    if (index > 511) return -22;
    this.#stored[index] = low;
    return 0;
  }

  flushTlbSingle(): void {}

  pteVal(_vcpu: number, low: number, high: number, out: Uint32Array): void {
    out[0] = low + 0x1000;
    out[1] = high;
  }

  stored(index: number): number | undefined {
    return this.#stored[index];
  }
}

const TABLE = 7 as Mfn;

test('with nobody watching, the operations are the implementation itself', () => {
  const implementation = { mmu: new SmallPaging() };
  const operations = createOperations(implementation);
  expect(operations).toBe(implementation);
  expect(operations.mmu.setPte).toBe(SmallPaging.prototype.setPte);
  expect(createOperations(implementation, { observers: [] })).toBe(implementation);
});

test('counts are kept by operation, refused ones included', () => {
  const counts = createCounts();
  const mmu = new SmallPaging();
  const operations = createOperations({ mmu }, { counts });
  expect(operations.mmu.setPte(0, TABLE, 3, 0x67, 0)).toBe(0);
  expect(operations.mmu.setPte(0, TABLE, 600, 0x67, 0)).toBe(-22);
  operations.mmu.flushTlbSingle(0, 0x1000 as GuestVirtual);
  expect(mmu.stored(3)).toBe(0x67);
  expect(counts[operationIds.mmu.setPte]).toBe(2);
  expect(counts[operationIds.mmu.flushTlbSingle]).toBe(1);
  expect(counts.reduce((sum, count) => sum + count)).toBe(3);
});

test('observers see parameters before and the result after, in the order in which they were given', () => {
  const seen: unknown[] = [];
  const observer = (name: string): OperationObserver => ({
    before: (operation, values) => seen.push([name, 'before', operation.fullName, [...values]]),
    after: (operation, _values, result) => seen.push([name, 'after', operation.fullName, result]),
  });
  const operations = createOperations({ mmu: new SmallPaging() }, { observers: [observer('a'), observer('b')] });
  operations.mmu.setPte(1, TABLE, 600, 0x67, 0);
  expect(seen).toEqual([
    ['a', 'before', 'mmu.setPte', [1, 7, 600, 0x67, 0]],
    ['b', 'before', 'mmu.setPte', [1, 7, 600, 0x67, 0]],
    ['a', 'after', 'mmu.setPte', -22],
    ['b', 'after', 'mmu.setPte', -22],
  ]);
});

test('a wide result reaches the caller through observers', () => {
  const out = new Uint32Array(2);
  createOperations({ mmu: new SmallPaging() }, { observers: [{}], counts: createCounts() }).mmu.pteVal(0, 0x67, 1, out);
  expect([...out]).toEqual([0x1067, 1]);
});

test('operations have no member that the catalogue does not name', () => {
  const operations = createOperations({ mmu: new SmallPaging() }, { counts: createCounts() });
  expectTypeOf(operations.mmu).toEqualTypeOf<
    Readonly<Pick<GroupOperations<'mmu'>, 'setPte' | 'flushTlbSingle' | 'pteVal'>>
  >();
  expect(Object.keys(operations.mmu).sort()).toEqual(['flushTlbSingle', 'pteVal', 'setPte']);
});
