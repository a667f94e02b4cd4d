import { beforeEach, describe, expect, it } from 'vitest';
import { ProcessorGroup } from '../src/cpu/processor.ts';
import { HypercallError } from '../src/interfaces/kvm/abi.ts';
import { carryOutRecords, type TableOwner } from '../src/interfaces/kvm/mmu-operations.ts';
import { ABSENT_FRAME, FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MachineSpace } from '../src/memory/machine-space.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';
import { NestedPaging } from '../src/paging/nested/nested-paging.ts';
import type { GuestPhysical, Mfn } from '../src/x86/brand.ts';
import { Cr4 } from '../src/x86/registers.ts';

/** KVM_HC_MMU_OP: page tables changed by records in memory. */
const PAGES = 4;
const PAGE = 0x1000;
const BUFFER = 0x1ff0;
const TABLE = 0x3000;
const WRITE = 1;
const FLUSH = 2;
const RELEASE = 3;
const WIDE = { index: 0, processor: { cr4: Cr4.physicalAddressExtension } };

let owner: TableOwner;
let memory: HostMemory;
let performed: string[];

beforeEach(() => {
  memory = new HostMemory(48 << 20);
  const pool = new FramePool(memory, 16);
  const group = new ProcessorGroup(memory, pool);
  const space = new MachineSpace(pool, PAGES);
  for (let number = 0; number < PAGES; number++) space.attach(number as Mfn, pool.allocate());
  performed = [];
  const note = (what: string): number => {
    performed.push(what);
    return 0;
  };
  owner = {
    paging: new NestedPaging(space, group),
    group,
    operations: {
      mmu: {
        setPte: (_vcpu, table, index, low, high) => note(`set ${table} ${index} ${high} ${low}`),
        flushTlbUser: () => void note('flush'),
        releasePt: (_vcpu, table) => note(`release ${table}`),
      },
    },
  };
});

/** Puts 64-bit numbers, by halves, into guest-physical memory. */
function put(...values: readonly (readonly [low: number, high: number])[]): void {
  for (const [index, word] of values.flat().entries()) {
    memory.view.setUint32(owner.paging.addressOf((BUFFER + index * 4) as GuestPhysical), word, true);
  }
}

const write = (address: number, low: number, high = 0) =>
  [
    [WRITE, 0],
    [address, 0],
    [low, high],
  ] as const;

describe('changes of page tables by records', () => {
  it('are carried out in order, across a page, and all consumed', () => {
    put(...write(TABLE + 16, 0x25, 7), [FLUSH, 0], [RELEASE, 0], [TABLE, 0]);
    expect(carryOutRecords(owner, WIDE, BUFFER, 48)).toBe(48);
    expect(performed).toEqual(['set 3 2 7 37', 'flush', 'release 3']);
  });

  it('are of 4 bytes where tables have two levels', () => {
    put(...write(TABLE + 20, 0x25));
    expect(carryOutRecords(owner, { index: 0, processor: { cr4: 0 } }, BUFFER, 24)).toBe(24);
    expect(performed).toEqual(['set 3 5 0 37']);
  });

  it('stop in front of a record that is none, and fail when it is the first', () => {
    put([FLUSH, 0], [9, 0]);
    expect(carryOutRecords(owner, WIDE, BUFFER, 16)).toBe(8);
    expect(carryOutRecords(owner, WIDE, BUFFER + 8, 8)).toBe(HypercallError.invalid);
  });

  it.each([
    ['is cut short', BUFFER, 16, write(TABLE, 1), HypercallError.invalid],
    ['has no room for its head', BUFFER, 4, write(TABLE, 1), HypercallError.fault],
    ['lies behind RAM', PAGES * PAGE, 24, write(TABLE, 1), HypercallError.fault],
    ['names an entry behind RAM', BUFFER, 24, write(PAGES * PAGE, 1), HypercallError.fault],
    ['names no entry', BUFFER, 24, write(TABLE + 4, 1), HypercallError.invalid],
  ])('are refused where one %s', (_what, address, bytes, record, expected) => {
    put(...record);
    expect(carryOutRecords(owner, WIDE, address, bytes)).toBe(expected);
    expect(performed).toEqual([]);
  });

  it('are at most 32 in one call', () => {
    const flushes = Array.from({ length: 64 }, () => [FLUSH, 0] as const);
    put(...flushes);
    expect(carryOutRecords(owner, WIDE, BUFFER, 512)).toBe(256);
    expect(performed).toHaveLength(32);
  });

  it('wait for a page of records that is absent, and not before what could be done was', () => {
    put([FLUSH, 0], [FLUSH, 0], [FLUSH, 0]);
    owner.paging.space.frames[2] = ABSENT_FRAME;
    expect(carryOutRecords(owner, WIDE, BUFFER, 24)).toBe(16);
    expect(() => carryOutRecords(owner, WIDE, BUFFER + 16, 8)).toThrow(PageAbsent);
  });
});
