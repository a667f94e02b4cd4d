import { readFileSync } from 'node:fs';
import { expect, expectTypeOf, test } from 'vitest';
import { documentPath, renderOperations } from '../scripts/generate-operations-doc.ts';
import {
  type ArgumentsOf,
  type GroupOperations,
  operationCount,
  operationIds,
  operations,
  type ResultOf,
} from '../src/ops/catalogue.ts';
import { rules } from '../src/ops/contracts.ts';
import type { LazyMode, TableNumber } from '../src/ops/schema.ts';
import type { GuestVirtual, Mfn, Pfn } from '../src/x86/brand.ts';

/** Names in the released form of the 2007 split (i386 and PAE), in camel case; lazy mode as the one operation of the draft. */
const namesOf2007 = {
  init: 'patch archSetup memorySetup postAllocatorInit banner',
  time: 'timeInit getWallclock setWallclock schedClock getCpuKhz',
  irq: 'initIrq saveFl restoreFl irqDisable irqEnable safeHalt halt',
  cpu:
    'getDebugreg setDebugreg clts readCr0 writeCr0 readCr4Safe readCr4 writeCr4 loadTrDesc loadGdt loadIdt storeGdt ' +
    'storeIdt setLdt storeTr loadTls writeLdtEntry writeGdtEntry writeIdtEntry loadSp0 setIoplMask wbinvd ioDelay cpuid ' +
    'readMsr writeMsr readTsc readPmc irqEnableSysexit iret',
  apic: 'apicWrite apicWriteAtomic apicRead setupBootClock setupSecondaryClock startupIpiHook',
  misc: 'setLazyMode',
  mmu:
    'pagetableSetupStart pagetableSetupDone readCr2 writeCr2 readCr3 writeCr3 activateMm dupMmap exitMmap flushTlbUser ' +
    'flushTlbKernel flushTlbSingle flushTlbOthers allocPt allocPd allocPdClone releasePt releasePd setPte setPteAt setPmd ' +
    'pteUpdate pteUpdateDefer setPteAtomic setPtePresent setPud pteClear pmdClear pteVal pmdVal pgdVal makePte makePmd ' +
    'makePgd kmapAtomicPte',
};

test.each(Object.entries(namesOf2007))('group %s holds every operation of the 2007 split', (group, names) => {
  const present = operations.filter((operation) => operation.group === group).map(({ name }) => name);
  expect(present).toEqual(expect.arrayContaining(names.split(' ')));
  const from2007 = operations.filter((operation) => operation.group === group && operation.row.users.since === '2007');
  expect(from2007.map(({ name }) => name).filter((name) => !names.split(' ').includes(name))).toEqual(
    group === 'misc' ? ['flushLazyMode'] : [],
  );
});

test('every contract says something in each of its parts', () => {
  for (const { fullName, row } of operations) {
    const texts = [
      row.native,
      row.before,
      row.after,
      row.users.by,
      row.xen,
      row.vmi,
      row.lguest,
      row.kvm,
      row.patch.clobbers,
    ];
    expect(
      texts.every((text) => text.trim().length > 0),
      fullName,
    ).toBe(true);
    expect(row.patch.native === 'inline', fullName).toBe(row.patch.template !== undefined);
  }
});

test('ids count the operations in the order of the catalogue', () => {
  expect(operations.map(({ id }) => id)).toEqual(Array.from({ length: operationCount }, (_, id) => id));
  expect(operations[operationIds.mmu.setPteAt]?.fullName).toBe('mmu.setPteAt');
});

test('a 64-bit value takes two parameters, a wide result one for where it goes', () => {
  const parameters = (id: number) => operations[id]?.parameters;
  expect(parameters(operationIds.irq.safeHalt)).toBe(1);
  expect(parameters(operationIds.mmu.setPteAt)).toBe(7);
  expect(parameters(operationIds.cpu.readMsr)).toBe(3);
});

test('every rule belongs to operations of the catalogue', () => {
  const names = new Set<string>(operations.map(({ fullName }) => fullName));
  for (const rule of Object.values(rules)) {
    for (const operation of rule.operations) expect(names).toContain(operation);
  }
});

test('types of operations follow their rows', () => {
  expectTypeOf<ArgumentsOf<'mmu', 'setPteAt'>>().toEqualTypeOf<
    [vcpu: number, Mfn, GuestVirtual, Mfn, number, low: number, high: number]
  >();
  expectTypeOf<ArgumentsOf<'mmu', 'setPte', Pfn>>().toEqualTypeOf<
    [vcpu: number, Pfn, number, low: number, high: number]
  >();
  expectTypeOf<ArgumentsOf<'cpu', 'readMsr'>>().toEqualTypeOf<[vcpu: number, number, out: Uint32Array]>();
  expectTypeOf<ArgumentsOf<'misc', 'setLazyMode'>>().toEqualTypeOf<[vcpu: number, LazyMode]>();
  expectTypeOf<ResultOf<'mmu', 'readCr3'>>().toEqualTypeOf<Mfn>();
  expectTypeOf<ResultOf<'mmu', 'flushTlbUser'>>().toEqualTypeOf<void>();
});

test('an operation with wrong arguments or results does not compile', () => {
  const wrong: Partial<GroupOperations<'mmu'>> = {
    // @ts-expect-error a pseudo-physical number where direct paging has a machine number
    releasePt: (_vcpu: number, _table: Pfn) => 0,
    // @ts-expect-error the address is not a number of a page
    flushTlbSingle: (_vcpu: number, _address: Mfn) => {},
    // @ts-expect-error a status is a number
    setPmd: (_vcpu: number, _table: Mfn, _index: number, _low: number, _high: number) => true,
  };
  // @ts-expect-error the catalogue has no such operation
  const unknown: Partial<GroupOperations<'mmu'>> = { setPte64: () => 0 };
  const call = (mmu: GroupOperations<'mmu', TableNumber>, address: GuestVirtual, table: Mfn) => {
    // @ts-expect-error an entry is two halves
    mmu.setPte(0, table, 1, 0x67);
    // @ts-expect-error address and table exchanged
    mmu.pteUpdate(0, table, table, address, 1);
  };
  expect([typeof wrong, typeof unknown, typeof call]).toEqual(['object', 'object', 'function']);
});

test('docs/operations.md is what the catalogue says', () => {
  expect(readFileSync(documentPath, 'utf8')).toBe(renderOperations());
});
