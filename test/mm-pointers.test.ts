import { describe, expect, test } from 'vitest';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { PageTables, type PtePointer } from '../src/mm/page-tables.ts';
import { isPresent, isWritable, isYoung, NO_PTE, presentPte, swapPte } from '../src/mm/pte.ts';
import { type Frame, type HostVirtual, PAGE_SIZE } from '../src/x86/brand.ts';

function createTables() {
  const pool = new FramePool(new HostMemory(64 * PAGE_SIZE), 32);
  const tables = new PageTables(pool, pool.allocate());
  const allocatePte = (address: number): PtePointer => {
    const pte = tables.allocatePte(address as HostVirtual, () => pool.allocate());
    if (!pte) throw new Error('no frame');
    return pte;
  };
  return { pool, tables, allocatePte };
}

describe('host page tables', () => {
  test('find nothing where no table was put in', () => {
    const { tables } = createTables();
    expect(tables.findPte(0x1234_5000 as HostVirtual)).toBeUndefined();
  });

  test('keep what was set, at the end of the address space too', () => {
    const { tables, allocatePte } = createTables();
    const address = 0xffff_ffff_f000;
    tables.setPteAt(allocatePte(address), presentPte(0x12_3456 as Frame, true));
    const pte = tables.findPte(address as HostVirtual);
    expect(pte && tables.readPte(pte)).toBe(presentPte(0x12_3456 as Frame, true));
  });

  test('leave what was put in when frames run out half way', () => {
    const { pool, tables } = createTables();
    let left = 2;
    const address = 0x40_0000_0000 as HostVirtual;
    expect(tables.allocatePte(address, () => (left-- > 0 ? pool.allocate() : undefined))).toBeUndefined();
    expect(tables.allocatePte(address, () => pool.allocate())).toBeDefined();
    expect(tables.dismantle()).toHaveLength(4);
  });

  test('give an entry back when it is cleared', () => {
    const { tables, allocatePte } = createTables();
    const pte = allocatePte(0x5000);
    tables.setPteAt(pte, swapPte(77));
    expect(tables.ptepGetAndClear(pte)).toBe(swapPte(77));
    expect(tables.readPte(pte)).toBe(NO_PTE);
  });

  test('forget that a page was used, once', () => {
    const { tables, allocatePte } = createTables();
    const pte = allocatePte(0x5000);
    tables.setPteAt(pte, presentPte(3 as Frame, true));
    expect(tables.ptepTestAndClearYoung(pte)).toBe(true);
    expect(tables.ptepTestAndClearYoung(pte)).toBe(false);
    expect(isYoung(tables.readPte(pte))).toBe(false);
    expect(isWritable(tables.readPte(pte))).toBe(true);
  });

  test('take only the permission to write when a page is write-protected', () => {
    const { tables, allocatePte } = createTables();
    const pte = allocatePte(0x5000);
    tables.setPteAt(pte, presentPte(3 as Frame, true));
    tables.ptepSetWriteProtect(pte);
    expect(isPresent(tables.readPte(pte))).toBe(true);
    expect(isWritable(tables.readPte(pte))).toBe(false);
  });

  test('visit the entries of a range in order, across tables', () => {
    const { tables, allocatePte } = createTables();
    const addresses = [0x1f_f000, 0x20_0000, 0x4000_0000, 0x4020_1000];
    for (const address of addresses) tables.setPteAt(allocatePte(address), swapPte(1));
    const seen: number[] = [];
    tables.visit(0x1f_f000 as HostVirtual, 0x4020_1000 as HostVirtual, (address) => seen.push(address));
    expect(seen).toEqual(addresses.slice(0, 3));
  });
});
