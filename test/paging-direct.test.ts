import { beforeEach, describe, expect, it } from 'vitest';
import { PageAbsent } from '../src/memory/page-absent.ts';
import { PagingError } from '../src/paging/direct/errors.ts';
import { FrameType } from '../src/paging/direct/frame-types.ts';
import { TABLE_RULES } from '../src/paging/direct/table-rules.ts';
import type { GuestVirtual, Mfn, Pfn } from '../src/x86/brand.ts';
import { TABLE_GEOMETRY, tableIndex } from '../src/x86/page-table.ts';
import { addressOf, D, entry, LIMIT, P, PAGE, PSE, READ_ONLY, RW, TABLE, US, World } from './paging-direct-world.ts';

const KERNEL_SLOT = 511;
const { hostWindow } = TABLE_RULES['four-level'];

/** The world with one live address space: root → level3 → level2 → level1, at level-4 slot 511, rest 0. */
class LiveWorld extends World {
  readonly root = this.page(0);
  readonly level3 = this.page(1);
  readonly level2 = this.page(2);
  readonly level1 = this.page(3);
  readonly data = this.page(4);
  /** Frames without type or content. */
  readonly spare = this.page(8);
  readonly other = this.page(9);

  constructor(workPerCall?: number) {
    super(workPerCall);
    this.poke(this.root, KERNEL_SLOT, entry(this.level3, TABLE));
    this.poke(this.level3, 0, entry(this.level2, TABLE));
    this.poke(this.level2, 0, entry(this.level1, TABLE));
    this.poke(this.level1, 0, entry(this.data, PAGE));
    this.poke(this.level1, 1, entry(this.level1, READ_ONLY));
    expect(this.run(() => this.paging.pin(4, this.root))).toBe(0);
    expect(this.run(() => this.paging.newBasePointer(0, this.root))).toBe(0);
  }

  typeOf(mfn: Mfn): FrameType {
    return this.paging.types.type.get(mfn) as FrameType;
  }
}

let world: LiveWorld;
beforeEach(() => {
  world = new LiveWorld();
});

/** The call is refused with an error, and nothing at all has changed. */
function refused(call: () => number | boolean, error: number | false): void {
  const before = world.snapshot();
  expect(typeof error === 'number' ? world.run(call as () => number) : call()).toBe(error);
  expect(world.snapshot() === before, 'nothing has changed').toBe(true);
  expect(world.paging.recount()).toEqual([]);
}

describe.each([1_000_000, 1])('direct paging, looking at %i entries in a call, refuses', (workPerCall) => {
  beforeEach(() => {
    world = new LiveWorld(workPerCall);
  });

  it('a writable mapping of a page table', () => {
    for (const table of [world.root, world.level3, world.level2, world.level1]) {
      refused(() => world.update(world.level1, 5, entry(table, PAGE)), PagingError.busy);
      refused(() => world.paging.updateVaMapping(world.root, addressOf(511, 0, 0, 5), entry(table, PAGE), 0), -16);
    }
  });

  it('a table whose entries map a page table writable', () => {
    world.poke(world.spare, 511, entry(world.root, PAGE));
    refused(() => world.paging.pin(1, world.spare), PagingError.busy);
    refused(() => world.update(world.level2, 1, entry(world.spare, TABLE)), PagingError.busy);
  });

  it('a table that maps itself writable', () => {
    world.poke(world.spare, 3, entry(world.spare, PAGE));
    refused(() => world.paging.pin(1, world.spare), PagingError.busy);
  });

  it('a page that is mapped writable as a table', () => {
    refused(() => world.paging.pin(1, world.data), PagingError.invalid);
    refused(() => world.update(world.level2, 1, entry(world.data, TABLE)), PagingError.invalid);
  });

  it('a page that the host writes as a table', () => {
    expect(world.paging.holdWritable(world.spare)).toBe(0);
    refused(() => world.paging.pin(1, world.spare), PagingError.invalid);
    world.paging.dropWritable(world.spare);
    expect(world.run(() => world.paging.pin(1, world.spare))).toBe(0);
  });

  it('a table as two levels at once', () => {
    refused(() => world.paging.pin(2, world.level1), PagingError.invalid);
    refused(() => world.paging.pin(3, world.root), PagingError.invalid);
    refused(() => world.update(world.level3, 1, entry(world.level1, TABLE)), PagingError.invalid);
    refused(() => world.update(world.level2, 1, entry(world.level3, TABLE)), PagingError.invalid);
  });

  it('a new tree in which a frame is a table of two levels', () => {
    world.poke(world.spare, 0, entry(world.other, TABLE));
    world.poke(world.spare, 1, entry(world.page(10), TABLE));
    world.poke(world.other, 0, entry(world.page(10), TABLE));
    refused(() => world.paging.pin(4, world.spare), PagingError.invalid);
  });

  it('a mapping of a frame of nobody', () => {
    refused(() => world.update(world.level1, 5, entry(world.unowned, READ_ONLY)), PagingError.busy);
    refused(() => world.update(world.level1, 5, entry(world.unowned, PAGE)), PagingError.busy);
  });

  it('a mapping beyond the memory of the machine', () => {
    refused(() => world.update(world.level1, 5, entry(LIMIT, READ_ONLY)), PagingError.notPermitted);
    refused(() => world.update(world.level1, 5, entry(world.data, PAGE), 0xf), PagingError.notPermitted);
    refused(() => world.update(world.level1, 5, entry(world.data, PAGE), 0xf_ffff), PagingError.notPermitted);
  });

  it('a page of the host as a table', () => {
    refused(() => world.paging.pin(1, world.shared), PagingError.invalid);
    refused(() => world.update(world.level2, 1, entry(world.shared, TABLE)), PagingError.invalid);
  });

  it('a table entry that names a frame of nobody', () => {
    for (const table of [world.root, world.level3, world.level2]) {
      refused(() => world.update(table, 1, entry(world.unowned, TABLE)), PagingError.invalid);
      refused(() => world.update(table, 1, entry(LIMIT + 1, TABLE)), PagingError.invalid);
    }
  });

  it('a recursive mapping above one level', () => {
    const [second, third] = [world.page(10), world.page(11)];
    for (const root of [second, third]) expect(world.run(() => world.paging.pin(4, root))).toBe(0);
    expect(world.update(second, 0, entry(third, READ_ONLY))).toBe(0);
    refused(() => world.update(world.root, 0, entry(second, READ_ONLY)), PagingError.invalid);
    refused(() => world.update(third, 0, entry(world.root, READ_ONLY)), PagingError.invalid);
    world.poke(world.spare, 0, entry(second, READ_ONLY));
    refused(() => world.paging.pin(4, world.spare), PagingError.invalid);
  });

  it('a recursive mapping that skips a level', () => {
    refused(() => world.update(world.level2, 1, entry(world.root, READ_ONLY)), PagingError.invalid);
    refused(() => world.update(world.root, 1, entry(world.level2, READ_ONLY)), PagingError.invalid);
  });

  it('a writable recursive entry', () => {
    for (const table of [world.root, world.level3, world.level2]) {
      refused(() => world.update(table, 1, entry(table, P | RW | US)), PagingError.invalid);
    }
  });

  it('a large page', () => {
    refused(() => world.update(world.level2, 1, entry(world.spare, TABLE | PSE)), PagingError.invalid);
    refused(() => world.update(world.level3, 1, entry(world.spare, TABLE | PSE)), PagingError.invalid);
    refused(() => world.update(world.level2, 0, entry(world.level1, TABLE | PSE)), PagingError.invalid);
    world.poke(world.spare, 7, entry(world.other, TABLE | PSE));
    refused(() => world.paging.pin(2, world.spare), PagingError.invalid);
  });

  it('cache attributes', () => {
    for (const bit of [0x8, 0x10, 0x80]) {
      refused(() => world.update(world.level1, 5, entry(world.spare, PAGE | bit)), PagingError.invalid);
      refused(() => world.update(world.level2, 0, entry(world.level1, TABLE | bit)), PagingError.invalid);
    }
  });

  it('a pin of a foreign frame', () => {
    refused(() => world.paging.pin(1, world.unowned), PagingError.invalid);
    refused(() => world.paging.pin(1, (LIMIT + 5) as Mfn), PagingError.invalid);
    refused(() => world.paging.pin(4, -1 as Mfn), PagingError.invalid);
  });

  it('a second pin and a second unpin', () => {
    refused(() => world.paging.pin(4, world.root), PagingError.invalid);
    expect(world.run(() => world.paging.unpin(world.root))).toBe(0);
    refused(() => world.paging.unpin(world.root), PagingError.invalid);
    refused(() => world.paging.unpin(world.unowned), PagingError.invalid);
  });

  it('a base pointer to a frame that does not validate as a root', () => {
    world.poke(world.spare, 9, entry(world.data, TABLE));
    for (const mfn of [world.spare, world.level3, world.data, world.unowned, world.shared, -1 as Mfn]) {
      refused(() => world.paging.newBasePointer(0, mfn), PagingError.invalid);
      refused(() => world.paging.newUserBasePointer(0, mfn), PagingError.invalid);
    }
    refused(() => world.paging.newBasePointer(0, 0 as Mfn), PagingError.invalid);
  });

  it('addresses that are not canonical, not mapped by a level-1 table, or the host’s', () => {
    const value = entry(world.spare, PAGE);
    const mapped = addressOf(511, 0, 0, 0);
    const addresses = [
      2 ** 47,
      -(2 ** 47) - 4096,
      2 ** 63,
      mapped + 2 ** 48,
      mapped - 2 ** 48,
      addressOf(511, 0, 1, 0),
      addressOf(0, 0, 0, 0),
    ];
    for (const address of [...addresses, hostWindow.start, addressOf(271, 511, 511, 511)]) {
      refused(() => world.paging.updateVaMapping(world.root, address as GuestVirtual, value, 0), PagingError.invalid);
    }
    expect(world.paging.entries.frameNumberAt(world.root, (2 ** 47) as GuestVirtual)).toBe(-1);
  });

  it('a change of what stands in the host’s slots', () => {
    world.poke(world.spare, 256, entry(world.level3, TABLE));
    expect(world.run(() => world.paging.pin(4, world.spare))).toBe(0);
    refused(() => world.paging.updateVaMapping(world.spare, addressOf(256, 0, 0, 5), entry(world.other, PAGE), 0), -22);
  });

  it('a change through a recursive entry, where no level-1 table is', () => {
    expect(world.update(world.root, 3, entry(world.root, READ_ONLY))).toBe(0);
    refused(() => world.paging.updateVaMapping(world.root, addressOf(3, 511, 0, 0), entry(world.spare, PAGE), 0), -22);
  });

  it('a store into a live table that mmu_update would refuse', () => {
    const bytes = new Uint8Array(8);
    const store = (low: number) => {
      new DataView(bytes.buffer).setUint32(0, low, true);
      const address = (addressOf(511, 0, 0, 1) + 5 * 8) as GuestVirtual;
      return world.paging.emulateStore(address, world.level1, bytes);
    };
    refused(() => store(entry(world.root, PAGE)), false);
    refused(() => store(entry(world.unowned, READ_ONLY)), false);
    refused(() => store(entry(LIMIT, READ_ONLY)), false);
    refused(() => store(entry(world.spare, PAGE | 0x10)), false);
  });

  it('a store into a table that is not of level 1', () => {
    const { paging } = world;
    const address = addressOf(511, 0, 0, 1);
    for (const mfn of [world.level2, world.level3, world.root, world.data, world.spare]) {
      refused(() => paging.emulateStore(address, mfn, new Uint8Array(8)), false);
    }
  });

  it('stores that are not naturally aligned, or not of 1, 2, 4 or 8 bytes', () => {
    const table = world.level1;
    const cases = [
      [1, 2],
      [2, 4],
      [4, 8],
      [0, 3],
      [0, 16],
      [0, 0],
      [7, 2],
    ] as const;
    for (const [offset, length] of cases) {
      const address = (addressOf(511, 0, 0, 1) + offset) as GuestVirtual;
      refused(() => world.paging.emulateStore(address, table, new Uint8Array(length)), false);
    }
  });

  it('entries in the host’s level-4 slots', () => {
    for (const slot of [256, 271]) {
      refused(() => world.update(world.root, slot, entry(world.level3, TABLE)), PagingError.invalid);
      refused(() => world.update(world.root, slot, 0), PagingError.invalid);
    }
    expect(world.update(world.root, 255, entry(world.level3, TABLE))).toBe(0);
    expect(world.update(world.root, 272, entry(world.level3, TABLE))).toBe(0);
  });

  it('unknown commands and frames that are not the domain’s', () => {
    refused(() => world.update(world.level1, 5, 0, 0, 4), PagingError.notImplemented);
    refused(() => world.update(world.unowned, 5, 0), PagingError.invalid);
    refused(() => world.paging.mmuUpdate((world.level1 << 12) >>> 0, 0x10_0000, 0, 0), PagingError.invalid);
    refused(() => world.update(world.shared, 0, 7, 0, 1), PagingError.invalid);
  });

  it('descriptor pages that are mapped writable, are tables, or hold what the processor would take for a TSS', () => {
    const { paging } = world;
    refused(() => paging.descriptors.setGdt(0, [world.data], 16), PagingError.invalid);
    refused(() => paging.descriptors.setGdt(0, [world.level1], 16), PagingError.invalid);
    refused(() => paging.descriptors.setGdt(0, [world.unowned], 16), PagingError.invalid);
    for (const high of [0x8900, 0x8b00, 0x8200, 0x8e00, 0x8f00, 0x8500, 0xec80]) {
      world.poke(world.spare, 511, 0, high);
      refused(() => paging.descriptors.setGdt(0, [world.other, world.spare], 1024), PagingError.invalid);
      refused(() => paging.descriptors.update(world.other * 4096, 0, 0, high), PagingError.invalid);
    }
    refused(() => paging.descriptors.setGdt(0, [world.other], 513), PagingError.invalid);
    refused(() => paging.descriptors.setGdt(0, world.own.slice(8, 23), 7169), PagingError.invalid);
  });

  it('a writable mapping of a descriptor page', () => {
    expect(world.paging.descriptors.setGdt(0, [world.spare], 16)).toBe(0);
    refused(() => world.update(world.level1, 5, entry(world.spare, PAGE)), PagingError.busy);
    refused(() => world.update(world.spare, 0, 0), PagingError.invalid);
    refused(() => world.paging.pin(1, world.spare), PagingError.invalid);
    refused(() => world.paging.clearPage(world.spare), PagingError.invalid);
  });

  it('to free a frame that something refers to', () => {
    refused(() => world.paging.decreaseReservation(world.data), PagingError.invalid);
    refused(() => world.paging.decreaseReservation(world.level2), PagingError.invalid);
    refused(() => world.paging.decreaseReservation(world.unowned), PagingError.invalid);
    refused(() => world.paging.decreaseReservation(world.shared), PagingError.invalid);
  });

  it('to clear or overwrite a table', () => {
    refused(() => world.paging.clearPage(world.level1), PagingError.invalid);
    refused(() => world.paging.copyPage(world.level1, world.data), PagingError.invalid);
    refused(() => world.paging.copyPage(world.data, world.unowned), PagingError.invalid);
    refused(() => world.paging.clearPage(world.unowned), PagingError.invalid);
  });
});

describe('direct paging', () => {
  it('gives the frames of a pinned tree their types, and takes them back', () => {
    const { paging } = world;
    expect([world.root, world.level3, world.level2, world.level1].map((mfn) => world.typeOf(mfn))).toEqual([
      4, 3, 2, 1,
    ]);
    expect(paging.statistics()).toMatchObject({ level4: 1, level3: 1, level2: 1, level1: 1, writable: 1 });
    expect(paging.pin(4, world.spare)).toBe(0);
    expect(paging.newBasePointer(0, world.spare)).toBe(0);
    expect(paging.unpin(world.root)).toBe(0);
    expect(paging.statistics()).toMatchObject({ level4: 1, level3: 0, level2: 0, level1: 0, writable: 0 });
    const references = Array.from({ length: LIMIT }, (_none, mfn) => paging.types.references.get(mfn));
    expect(references.reduce((sum, count) => sum + count)).toBe(2);
  });

  it('keeps a root that a processor still has', () => {
    expect(world.paging.unpin(world.root)).toBe(0);
    expect(world.typeOf(world.level1)).toBe(FrameType.level1);
    world.paging.releaseProcessor(0);
    expect(world.typeOf(world.level1)).toBe(FrameType.none);
    expect(world.paging.recount()).toEqual([]);
  });

  it('lets two level-2 tables share a level-1 table', () => {
    world.poke(world.spare, 0, entry(world.level1, TABLE));
    expect(world.update(world.level3, 1, entry(world.spare, TABLE))).toBe(0);
    expect(world.paging.types.typeCount.get(world.level1)).toBe(2);
    expect(world.update(world.level3, 0, 0)).toBe(0);
    expect(world.typeOf(world.level1)).toBe(FrameType.level1);
    expect(world.typeOf(world.level2)).toBe(FrameType.none);
    expect(world.paging.recount()).toEqual([]);
  });

  it('replaces a present entry without its counts passing through zero', () => {
    const generation = world.paging.types.generations.of(world.level1);
    expect(world.update(world.level2, 0, entry(world.level1, READ_ONLY | US))).toBe(0);
    expect(world.paging.types.generations.of(world.level1)).toBe(generation);
    expect(world.typeOf(world.level1)).toBe(FrameType.level1);
  });

  it('turns a writable page into a table once its last writable mapping is gone', () => {
    expect(world.update(world.level1, 0, entry(world.data, READ_ONLY))).toBe(0);
    expect(world.paging.pin(1, world.data)).toBe(0);
    expect(world.update(world.level1, 0, entry(world.data, PAGE))).toBe(PagingError.busy);
    expect(world.paging.unpin(world.data)).toBe(0);
    expect(world.update(world.level1, 0, entry(world.data, PAGE))).toBe(0);
  });

  it('accepts anything in entries that are not present', () => {
    expect(world.update(world.level1, 5, 0xffff_fffe, 0xffff_ffff)).toBe(0);
    expect(world.update(world.level2, 5, 0xffff_fffe, 0xffff_ffff)).toBe(0);
    expect(world.low(world.level2, 5)).toBe(0xffff_fffe);
    expect(world.paging.recount()).toEqual([]);
  });

  it('ignores what stands in the host’s slots of a table that becomes a root', () => {
    world.poke(world.spare, 256, entry(world.data, TABLE | PSE));
    expect(world.paging.pin(4, world.spare)).toBe(0);
    expect(world.paging.unpin(world.spare)).toBe(0);
    expect(world.paging.recount()).toEqual([]);
  });

  it('allows a table to name itself, or a table of its level, read-only', () => {
    expect(world.update(world.root, 7, entry(world.root, READ_ONLY))).toBe(0);
    expect(world.paging.pin(4, world.spare)).toBe(0);
    expect(world.update(world.root, 8, entry(world.spare, READ_ONLY))).toBe(0);
    expect(world.paging.unpin(world.spare)).toBe(0);
    expect(world.typeOf(world.spare)).toBe(FrameType.level4);
    expect(world.update(world.root, 8, 0)).toBe(0);
    expect(world.typeOf(world.spare)).toBe(FrameType.none);
    expect(world.paging.recount()).toEqual([]);
  });

  it('keeps accessed and dirty bits only when asked to', () => {
    world.poke(world.level1, 0, entry(world.data, PAGE | D));
    expect(world.update(world.level1, 0, entry(world.data, P), 0, 2)).toBe(0);
    expect(world.low(world.level1, 0)).toBe(entry(world.data, READ_ONLY | D));
    expect(world.update(world.level1, 0, entry(world.data, P), 0, 0)).toBe(0);
    expect(world.low(world.level1, 0)).toBe(entry(world.data, P));
  });

  it('finds the level-1 entry of an address', () => {
    const address = addressOf(511, 0, 0, 9);
    expect(world.paging.updateVaMapping(world.root, address, entry(world.shared, PAGE), 0x8000_0000)).toBe(0);
    expect(world.low(world.level1, 9)).toBe(entry(world.shared, PAGE));
    expect(world.high(world.level1, 9)).toBe(0x8000_0000);
    expect(world.paging.entries.frameNumberAt(world.root, address)).toBe(world.shared);
  });

  it('merges a short store into the entry', () => {
    world.poke(world.level1, 0, entry(world.data, PAGE), 0x8000_0000);
    const address = addressOf(511, 0, 0, 1);
    const table = world.level1;
    expect(world.paging.emulateStore(address, table, Uint8Array.of(READ_ONLY | D))).toBe(true);
    expect(world.low(world.level1, 0)).toBe(((entry(world.data, 0) & ~0xff) | READ_ONLY | D) >>> 0);
    expect(world.typeOf(world.data)).toBe(FrameType.none);
    expect(world.paging.emulateStore((address + 4) as GuestVirtual, table, new Uint8Array(4))).toBe(true);
    expect(world.high(world.level1, 0)).toBe(0);
    expect(world.paging.recount()).toEqual([]);
  });

  it('stores plainly into a page that is no table', () => {
    expect(world.update(world.spare, 3, 0x1234_5678, 0x9abc_def0)).toBe(0);
    expect([world.low(world.spare, 3), world.high(world.spare, 3)]).toEqual([0x1234_5678, 0x9abc_def0]);
    expect(world.typeOf(world.spare)).toBe(FrameType.none);
  });

  it('raises the privilege of segments to the kernel’s', () => {
    world.poke(world.spare, 1, 0xffff, 0x00af9b00);
    expect(world.paging.descriptors.setGdt(0, [world.spare], 16)).toBe(0);
    expect(world.high(world.spare, 1)).toBe(0x00affb00);
    expect(world.paging.descriptors.update(world.spare * 4096 + 16, 0, 0xffff, 0x00cf9300)).toBe(0);
    expect(world.high(world.spare, 2)).toBe(0x00cff300);
    expect(world.paging.descriptors.gdtFrames(0)).toEqual([world.spare]);
    expect(world.paging.descriptors.setGdt(0, [], 0)).toBe(0);
    expect(world.typeOf(world.spare)).toBe(FrameType.none);
  });

  it('lets go of an LDT page that the guest unmaps', () => {
    expect(world.update(world.level1, 5, entry(world.spare, READ_ONLY))).toBe(0);
    expect(world.paging.descriptors.holdLdtFrame(world.spare)).toBe(0);
    expect(world.typeOf(world.spare)).toBe(FrameType.segmentDescriptors);
    expect(world.update(world.level1, 5, 0)).toBe(0);
    expect(world.typeOf(world.spare)).toBe(FrameType.none);
  });

  it('holds an LDT page once, however often it is asked to', () => {
    expect([
      world.paging.descriptors.holdLdtFrame(world.spare),
      world.paging.descriptors.holdLdtFrame(world.spare),
    ]).toEqual([0, 0]);
    world.paging.descriptors.releaseLdt();
    expect(world.typeOf(world.spare)).toBe(FrameType.none);
  });

  it('lets go of an LDT page when a table that maps it is unpinned, but not when one is refused', () => {
    expect(world.paging.descriptors.holdLdtFrame(world.spare)).toBe(0);
    world.poke(world.other, 0, entry(world.spare, READ_ONLY));
    world.poke(world.other, 1, entry(world.root, PAGE));
    expect(world.paging.pin(1, world.other)).toBe(PagingError.busy);
    expect(world.typeOf(world.spare)).toBe(FrameType.segmentDescriptors);
    world.poke(world.other, 1, 0);
    expect(world.paging.pin(1, world.other)).toBe(0);
    expect(world.paging.unpin(world.other)).toBe(0);
    expect(world.typeOf(world.spare)).toBe(FrameType.none);
  });
});

describe('a table that is shared with a clone', () => {
  const stores: [string, (low: number) => unknown][] = [
    ['level 1, by a call', (low) => world.update(world.level1, 5, low)],
    [
      'level 1, by its address',
      (low) => world.paging.updateVaMapping(world.root, addressOf(KERNEL_SLOT, 0, 0, 5), low, 0),
    ],
    [
      'level 1, by a store',
      (low) =>
        world.paging.emulateStore(
          (5 * 8) as GuestVirtual,
          world.level1,
          new Uint8Array(new Uint32Array([low, 0]).buffer),
        ),
    ],
    ['level 2', () => world.update(world.level2, 1, entry(world.spare, TABLE))],
  ];

  it.each(stores)('is not changed before it is copied: %s', (_how, change) => {
    const low = entry(world.data, PAGE);
    for (const table of [world.level1, world.level2]) world.space.writeProtected[table] = 1;
    const before = world.snapshot();
    expect(() => change(low)).toThrow(PageAbsent);
    expect(world.snapshot()).toBe(before);
    expect(world.paging.recount()).toEqual([]);
    for (const table of [world.level1, world.level2]) world.space.writeProtected[table] = 0;
    change(low);
    expect(world.snapshot()).not.toBe(before);
    expect(world.paging.recount()).toEqual([]);
  });
});

describe('direct paging keeps cached translations sound:', () => {
  it('writable ones go before a frame becomes a table or a descriptor page', () => {
    world.invalidator.calls.length = 0;
    expect(world.paging.pin(1, world.spare)).toBe(0);
    expect(world.paging.descriptors.setGdt(0, [world.other], 16)).toBe(0);
    const frames = [world.spare, world.other].map((mfn) => `writable ${world.space.frameOf(mfn)}`);
    expect(world.invalidator.calls).toEqual(frames);
  });

  it('all go before a frame is freed', () => {
    const frame = world.space.frameOf(world.spare);
    world.invalidator.calls.length = 0;
    expect(world.paging.decreaseReservation(world.spare)).toBe(0);
    expect(world.invalidator.calls).toEqual([`frame ${frame}`, `written ${frame} 0 4096`]);
    expect(world.space.frameOf(world.spare)).toBe(-1);
  });

  it('code is told of every store of the host', () => {
    const written = (mfn: Mfn, offset: number, length: number) =>
      `written ${world.space.frameOf(mfn)} ${offset} ${length}`;
    world.invalidator.calls.length = 0;
    world.update(world.level1, 5, entry(world.spare, READ_ONLY));
    world.update(world.other, 2, 1);
    world.paging.clearPage(world.other);
    world.paging.copyPage(world.other, world.level1);
    expect(world.invalidator.calls).toEqual([
      written(world.level1, 40, 8),
      written(world.other, 16, 8),
      written(world.other, 0, 4096),
      written(world.other, 0, 4096),
    ]);
  });

  it('a level-1 table’s generation changes when a present entry of it changes', () => {
    const generation = () => world.paging.types.generations.of(world.level1);
    const first = generation();
    world.update(world.level1, 5, entry(world.spare, READ_ONLY));
    expect(generation()).toBe(first);
    world.update(world.level1, 5, entry(world.spare, READ_ONLY));
    expect(generation()).toBe(first);
    world.update(world.level1, 5, entry(world.spare, P));
    expect(generation()).toBe(first + 1);
    world.paging.emulateStore((addressOf(511, 0, 0, 1) + 40) as GuestVirtual, world.level1, new Uint8Array(8));
    expect(generation()).toBe(first + 2);
    expect(world.paging.takeFlush()).toBe(false);
  });

  it('a change of a present upper entry asks for a flush, and changes its table’s generation', () => {
    const generation = world.paging.types.generations.of(world.level2);
    world.update(world.level2, 1, entry(world.spare, TABLE));
    expect(world.paging.takeFlush()).toBe(false);
    world.update(world.level2, 1, 0);
    expect(world.paging.types.generations.of(world.level2)).toBe(generation + 1);
    expect([world.paging.takeFlush(), world.paging.takeFlush()]).toEqual([true, false]);
  });

  it('a table’s generation changes when it is unpinned and when it loses its type', () => {
    world.paging.pin(1, world.level1);
    const generation = world.paging.types.generations.of(world.level1);
    world.paging.unpin(world.level1);
    expect(world.paging.types.generations.of(world.level1)).toBe(generation + 1);
    world.update(world.level2, 0, 0);
    expect(world.paging.types.generations.of(world.level1)).toBe(generation + 2);
  });
});

describe('the machine-to-physical table', () => {
  it('follows populate, decrease and the guest’s own updates', () => {
    const { paging } = world;
    expect(world.update(world.spare, 0, 0x77, 0, 1)).toBe(0);
    expect(paging.machineToPhysical.get(world.spare)).toBe(0x77);
    expect(paging.decreaseReservation(world.spare)).toBe(0);
    expect(paging.machineToPhysical.get(world.spare)).toBe(-1);
    expect(paging.populatePhysmap(0x123 as Pfn)).toBe(world.spare);
    expect(paging.machineToPhysical.get(world.spare)).toBe(0x123);
    expect(paging.populatePhysmap(0x124 as Pfn)).toBe(PagingError.noMemory);
  });

  it('changes with the page or not at all, when the host must bring its own page in first', () => {
    const { paging, space } = world;
    expect(paging.decreaseReservation(world.spare)).toBe(0);
    space.writeProtected[LIMIT] = 1;
    for (const call of [
      () => paging.populatePhysmap(0x123 as Pfn),
      () => paging.decreaseReservation(world.other),
      () => world.update(world.other, 0, 0x77, 0, 1),
    ]) {
      const before = world.snapshot();
      expect(call).toThrow(PageAbsent);
      expect(world.snapshot()).toBe(before);
    }
    space.writeProtected[LIMIT] = 0;
    expect(paging.populatePhysmap(0x123 as Pfn)).toBe(world.spare);
  });

  it('is read-only for the kernel at its address, and for nobody else', () => {
    world.update(world.spare, 0, 0x77, 0, 1);
    const address = (hostWindow.start + world.spare * 8) as GuestVirtual;
    const base = world.space.addressOf(world.paging.hostWindow(address, false)!);
    expect(world.pool.memory.u32[(base + ((world.spare * 8) % 4096)) >>> 2]).toBe(0x77);
    expect(world.paging.hostWindow(address, true)).toBeNull();
    expect(world.paging.hostWindow(addressOf(256, 1, 0, 0), false)).toBeNull();
    expect(world.paging.hostWindow(addressOf(271, 511, 511, 511), false)).toBeNull();
    expect(world.paging.hostWindow(addressOf(272, 0, 0, 0), false)).toBeUndefined();
    expect(world.paging.hostWindow(addressOf(255, 511, 511, 511), false)).toBeUndefined();
  });

  it('gives all frames back when the domain ends', () => {
    const { available } = world.pool;
    world.paging.destroy();
    expect(world.pool.available).toBe(available + 25 + 1);
    expect(world.invalidator.calls.filter((call) => call.startsWith('frame '))).toHaveLength(26);
  });
});

describe('preempted work', () => {
  it('is remembered: every call makes progress, and another call finishes what one began', () => {
    world = new LiveWorld(100);
    const { paging } = world;
    expect(paging.pin(1, world.spare)).toBe(PagingError.preempted);
    expect(world.typeOf(world.spare)).toBe(FrameType.level1);
    expect(paging.recount()).toEqual([]);
    expect(world.run(() => world.update(world.level1, 5, entry(world.spare, PAGE)))).toBe(PagingError.busy);
    expect(paging.types.typeCount.get(world.spare)).toBe(1);
    const { work } = paging;
    expect(paging.pin(1, world.spare)).toBe(0);
    expect(paging.work).toBe(work);
    expect(paging.types.typeCount.get(world.spare)).toBe(1);
    expect(paging.recount()).toEqual([]);
  });

  it('keeps its counts at every step of a promotion that is refused at its end', () => {
    world = new LiveWorld(1);
    const before = world.snapshot();
    world.poke(world.spare, 0, entry(world.other, TABLE));
    world.poke(world.other, 0, entry(world.level2, TABLE));
    world.poke(world.other, 1, entry(world.page(10), TABLE));
    world.poke(world.page(10), 511, entry(world.root, TABLE));
    const result = world.run(
      () => world.paging.pin(4, world.spare),
      () => expect(world.paging.recount()).toEqual([]),
    );
    expect(result).toBe(PagingError.invalid);
    world.paging.finish();
    for (const [mfn, index] of [
      [world.spare, 0],
      [world.other, 0],
      [world.other, 1],
      [world.page(10), 511],
    ] as const) {
      world.poke(mfn, index, 0);
    }
    expect(world.snapshot() === before, 'nothing has changed').toBe(true);
  });

  it('of a table that is unpinned does not let stores into it be emulated', () => {
    world = new LiveWorld(10);
    expect(world.run(() => world.paging.pin(1, world.spare))).toBe(0);
    expect(world.run(() => world.paging.unpin(world.spare))).toBe(0);
    const bytes = new Uint8Array(Uint32Array.of(entry(world.other, READ_ONLY), 0).buffer);
    const table = world.spare;
    expect(world.paging.emulateStore(addressOf(511, 0, 0, 1), table, bytes)).toBe(false);
    expect(world.paging.recount()).toEqual([]);
  });

  it('of a table that is unpinned does not keep its frames from the next call', () => {
    world = new LiveWorld(10);
    expect(world.run(() => world.paging.pin(1, world.spare))).toBe(0);
    expect(world.run(() => world.paging.unpin(world.spare))).toBe(0);
    expect(world.typeOf(world.spare)).toBe(FrameType.level1);
    expect(world.run(() => world.update(world.level1, 5, entry(world.spare, PAGE)))).toBe(0);
    expect(world.typeOf(world.spare)).toBe(FrameType.writable);
    expect(world.paging.recount()).toEqual([]);
  });
});

describe('recount', () => {
  it('finds a count that is not what the tables say', () => {
    world.paging.types.references.add(world.data, 1);
    world.paging.types.typeCount.add(world.level1, 1);
    world.poke(world.level1, 6, entry(world.root, PAGE));
    expect(world.paging.recount().map(({ mfn, what }) => [mfn, what])).toEqual(
      expect.arrayContaining([
        [world.data, 'references'],
        [world.level1, 'typeCount'],
        [world.root, 'type'],
      ]),
    );
  });
});

describe('table indexes', () => {
  it.each([
    ['four-level', [511, 510, 3, 5, 0]],
    ['pae', [3, 3, 5, 0]],
  ] as const)('of a %s table come from the address', (format, expected) => {
    const geometry = TABLE_GEOMETRY[format];
    const low =
      format === 'pae' ? (3 * 2 ** 30 + 3 * 2 ** 21 + 5 * 4096) >>> 0 : (2 * 2 ** 30 + 3 * 2 ** 21 + 5 * 4096) >>> 0;
    const high = format === 'pae' ? 0 : 0xffff_ffff;
    const indexes = Array.from({ length: geometry.levels }, (_, i) =>
      tableIndex(geometry, geometry.levels - i, low, high),
    );
    expect([...indexes, low & 0xfff]).toEqual(expected);
  });
});
