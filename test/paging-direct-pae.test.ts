import { beforeEach, describe, expect, it } from 'vitest';
import { PagingError } from '../src/paging/direct/errors.ts';
import { TABLE_RULES } from '../src/paging/direct/table-rules.ts';
import type { GuestVirtual, Pfn } from '../src/x86/brand.ts';
import { entry, P, PAGE, paeAddressOf, READ_ONLY, TABLE, World } from './paging-direct-world.ts';

/** One live PAE address space: a top table with tables of level 2 in slots 0 and 3, and a page below the first. */
class PaeWorld extends World {
  readonly root = this.page(0);
  readonly lower = this.page(1);
  readonly upper = this.page(2);
  readonly level1 = this.page(3);
  readonly data = this.page(4);
  readonly spare = this.page(8);

  constructor() {
    super(undefined, 'pae');
    this.poke(this.root, 0, entry(this.lower, P));
    this.poke(this.root, 3, entry(this.upper, P));
    this.poke(this.lower, 0, entry(this.level1, TABLE));
    this.poke(this.level1, 0, entry(this.data, PAGE));
    this.poke(this.level1, 1, entry(this.level1, READ_ONLY));
    expect(this.paging.pin(3, this.root)).toBe(0);
    expect(this.paging.newBasePointer(0, this.root)).toBe(0);
  }
}

let world: PaeWorld;
beforeEach(() => {
  world = new PaeWorld();
});

const WITHOUT_EXECUTION = 0x8000_0000;

describe('the top table of PAE', () => {
  it('has a table where the addresses of the host are', () => {
    world.poke(world.spare, 0, entry(world.lower, P));
    expect(world.paging.pin(3, world.spare)).toBe(PagingError.invalid);
    world.poke(world.spare, 3, entry(world.upper, P));
    expect(world.paging.pin(3, world.spare)).toBe(0);
  });

  it('keeps that table while it is live', () => {
    expect(world.update(world.root, 3, 0)).toBe(PagingError.invalid);
    expect(world.update(world.root, 3, entry(world.lower, P))).toBe(PagingError.invalid);
    expect(world.update(world.root, 1, entry(world.lower, P))).toBe(0);
  });

  it('ends behind its fourth entry', () => {
    world.poke(world.spare, 3, entry(world.upper, P));
    world.poke(world.spare, 4, entry(world.data, P));
    expect(world.paging.pin(3, world.spare)).toBe(0);
    expect(world.update(world.root, 4, entry(world.lower, P))).toBe(PagingError.invalid);
    expect(world.paging.recount()).toEqual([]);
  });

  it('is never walked as a table of level 2', () => {
    expect(world.update(world.root, 1, entry(world.root, P))).toBe(PagingError.invalid);
  });

  it('has no bits above the frame number', () => {
    expect(world.update(world.root, 1, entry(world.lower, P), WITHOUT_EXECUTION)).toBe(PagingError.invalid);
    expect(world.update(world.root, 0, entry(world.lower, P), WITHOUT_EXECUTION)).toBe(PagingError.invalid);
    expect(world.update(world.lower, 1, entry(world.level1, TABLE), WITHOUT_EXECUTION)).toBe(0);
  });

  it('is the highest there is', () => {
    expect(world.paging.pin(4, world.spare)).toBe(PagingError.invalid);
  });
});

describe('direct paging of PAE tables', () => {
  it('finds level-1 entries below the addresses of the host only', () => {
    const { start } = TABLE_RULES.pae.hostWindow;
    expect(world.paging.updateVaMapping(world.root, paeAddressOf(0, 0, 5), entry(world.data, PAGE), 0)).toBe(0);
    expect(world.low(world.level1, 5)).toBe(entry(world.data, PAGE));
    expect(world.update(world.upper, 428, entry(world.level1, TABLE))).toBe(0);
    expect(world.paging.updateVaMapping(world.root, start, entry(world.data, PAGE), 0)).toBe(PagingError.invalid);
  });

  it('takes away the present bit when the upper half of an entry comes first', () => {
    world.poke(world.level1, 6, entry(world.data, PAGE));
    const upper = new Uint8Array([0xff, 0xff, 0x0f, 0]);
    expect(world.paging.emulateStore((6 * 8 + 4) as GuestVirtual, world.level1, upper)).toBe(true);
    expect([world.low(world.level1, 6), world.high(world.level1, 6)]).toEqual([entry(world.data, PAGE & ~P), 0xf_ffff]);
  });

  it('shows the machine-to-physical table, in words of 4 bytes, to the kernel', () => {
    const mfn = world.spare;
    world.paging.machineToPhysical.set(mfn, 77 as Pfn, 0);
    const address = (TABLE_RULES.pae.hostWindow.start + mfn * 4) as GuestVirtual;
    const page = world.space.addressOf(world.paging.hostWindow(address, false)!);
    expect(world.pool.memory.u32[(page + (address % 4096)) >>> 2]).toBe(77);
    expect(world.paging.machineToPhysical.get(mfn)).toBe(77);
    expect(world.paging.hostWindow(address, true)).toBeNull();
    expect(world.paging.hostWindow(0xffff_f000 as GuestVirtual, false)).toBeNull();
    expect(world.paging.hostWindow(paeAddressOf(3, 427, 511), false)).toBeUndefined();
  });

  it('raises descriptors to ring 1, and takes none of 64-bit code', () => {
    const { descriptors } = world.paging;
    expect(descriptors.update(world.spare * 4096, 0, 0xffff, 0xcf9b00)).toBe(0);
    expect(world.high(world.spare, 0)).toBe(0xcfbb00);
    expect(descriptors.update(world.spare * 4096, 0, 0xffff, 0xaf9b00)).toBe(PagingError.invalid);
  });
});
