import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Access } from '../src/cpu/exits.ts';
import type { Processor } from '../src/cpu/processor.ts';
import type { GuestVirtual } from '../src/x86/brand.ts';
import { PTE_NO_EXECUTE_HIGH, Pte } from '../src/x86/registers.ts';
import { ShadowWorld } from './shadow-world.ts';

const CAPACITY = 16;
const ALL = Pte.present | Pte.writable | Pte.user;
/** Tables that translate address 0 at first, and the page there. */
const LEVEL_4 = 0;
const LEVEL_2 = 4;
const LEVEL_1 = 6;
const PAGE = 8;
const ADDRESS = 0 as GuestVirtual;

describe('a shadow', () => {
  let world: ShadowWorld;
  let processor: Processor;

  beforeEach(async () => {
    world = await ShadowWorld.create('four-level', CAPACITY);
    processor = world.processors[0] as Processor;
    for (let number = 0; number < PAGE + 4; number++) await world.present(number, true);
  });

  afterEach(() => world.end());

  const read = () => world.access(processor, ADDRESS, Access.read, false);
  const permits = (access: Access) => world.shadowed(processor, LEVEL_4, ADDRESS, access, false) !== undefined;
  const frameOf = (page: number) => world.paging.space.frames[page];

  it('is made of what somebody used, and of no more', async () => {
    expect(permits(Access.read)).toBe(false);
    expect(await read()).toBe(frameOf(PAGE));
    expect(permits(Access.read)).toBe(true);
    expect(world.shadowed(processor, LEVEL_4, 0x1000 as GuestVirtual, Access.read, false)).toBeUndefined();
  });

  it('permits stores when the guest has its dirty bit', async () => {
    await read();
    expect(permits(Access.write)).toBe(false);
    await world.access(processor, ADDRESS, Access.write, false);
    expect(permits(Access.write)).toBe(true);
  });

  it('loses what a store to the table takes back, before any flush', async () => {
    await read();
    await world.store(processor, LEVEL_1, 0, 0);
    expect(permits(Access.read)).toBe(false);
  });

  it.each([
    ['level 1', LEVEL_1],
    ['level 2', LEVEL_2],
  ])('permits no fetch once NX alone is stored at %s', async (_level, table) => {
    await world.access(processor, ADDRESS, Access.write, false);
    expect(permits(Access.fetch)).toBe(true);
    await world.store(processor, table, 4, PTE_NO_EXECUTE_HIGH);
    expect(permits(Access.fetch)).toBe(false);
  });

  it('is out of step after several stores to a level-1 table, until a flush', async () => {
    await read();
    for (let index = 1; index < 4; index++) await world.store(processor, LEVEL_1, index * 8, 0);
    expect(world.paging.shadow.statistics().unsyncs).toBe(1);
    await world.store(processor, LEVEL_1, 0, 0);
    expect(permits(Access.read)).toBe(true);
    processor.flushTlb();
    expect(permits(Access.read)).toBe(false);
  });

  it('is shown stores again once a flush has brought it into step', async () => {
    await read();
    for (let index = 1; index < 4; index++) await world.store(processor, LEVEL_1, index * 8, 0);
    processor.flushTlb();
    await world.store(processor, LEVEL_1, 0, 0);
    expect(permits(Access.read)).toBe(false);
  });

  it('is in step for a page that is flushed alone', async () => {
    await read();
    for (let index = 1; index < 4; index++) await world.store(processor, LEVEL_1, index * 8, 0);
    await world.store(processor, LEVEL_1, 0, 0);
    processor.invalidatePage(ADDRESS);
    expect(permits(Access.read)).toBe(false);
  });

  it('goes when its table is written like any other page', async () => {
    await read();
    for (let index = 1; index < 8; index++) await world.store(processor, LEVEL_2, index * 8, index);
    expect(world.paging.shadow.statistics().floods).toBe(1);
    expect(permits(Access.read)).toBe(false);
    expect(await read()).toBe(frameOf(PAGE));
  });

  it('goes for an entry that gets a bit which is reserved where it stands', async () => {
    await read();
    await world.store(processor, LEVEL_4, 0, (2 << 12) | ALL | Pte.accessed | Pte.large);
    processor.flushTlb();
    expect(await read()).toBe(-1);
  });

  it('has a large page in pieces, which are flushed together', async () => {
    await world.store(processor, LEVEL_2, 0, ALL | Pte.large);
    processor.flushTlb();
    const second = 0x1000 as GuestVirtual;
    expect(await read()).toBe(frameOf(0));
    expect(await world.access(processor, second, Access.read, false)).toBe(frameOf(1));
    await world.store(processor, LEVEL_2, 0, 0);
    processor.invalidatePage(ADDRESS);
    expect(await world.access(processor, second, Access.read, false)).toBe(-1);
  });

  it('leaves a table that is mapped writable to be written by seen stores only', async () => {
    await world.store(processor, LEVEL_1, 0, (LEVEL_2 << 12) | ALL);
    processor.flushTlb();
    await world.access(processor, ADDRESS, Access.write, false);
    const cached = (access: Access) => processor.memory.kernelTlb.find(ADDRESS, 0, access) >= 0;
    expect([cached(Access.read), cached(Access.write)]).toEqual([true, false]);
  });

  it('goes when the host takes a page, and so does that of a table in it', async () => {
    await read();
    const { pages } = world.paging.shadow.statistics();
    await world.takeAway(LEVEL_1);
    expect(permits(Access.read)).toBe(false);
    expect(world.paging.shadow.statistics().pages).toBeLessThan(pages);
  });

  it('is not shown stores to a table that the guest has announced, and follows when it is told', async () => {
    const { shadow } = world.paging;
    shadow.announce(LEVEL_1);
    await read();
    const { storesSeen } = shadow.statistics();
    await world.store(processor, LEVEL_1, 0, 0);
    processor.flushTlb();
    expect(shadow.statistics().storesSeen).toBe(storesSeen);
    expect(permits(Access.read)).toBe(true);
    shadow.told(LEVEL_1, 0, 8);
    expect(permits(Access.read)).toBe(false);
  });

  it('finds what the guest has stored above level 1 of an announced table and not told of', async () => {
    const { shadow } = world.paging;
    for (const page of [LEVEL_1, LEVEL_2]) shadow.announce(page);
    await read();
    await world.store(processor, LEVEL_1, 0, 0);
    expect(shadow.findUntold()).toBeUndefined();
    await world.store(processor, LEVEL_2, 0, 0);
    expect(shadow.findUntold()).toEqual({ page: LEVEL_2, level: 2, index: 0 });
    shadow.told(LEVEL_2, 0, 8);
    expect(shadow.findUntold()).toBeUndefined();
  });

  it('may have had stores seen before its table is announced', async () => {
    const { shadow } = world.paging;
    await read();
    for (let index = 1; index < 4; index++) await world.store(processor, LEVEL_1, index * 8, 0);
    shadow.announce(LEVEL_1);
    processor.flushTlb();
    await world.store(processor, LEVEL_1, 0, 0);
    expect(permits(Access.read)).toBe(true);
    shadow.told(LEVEL_1, 0, 8);
    expect(permits(Access.read)).toBe(false);
  });

  it('is shown stores again when the guest takes back that the page is a table', async () => {
    const { shadow } = world.paging;
    shadow.announce(LEVEL_1);
    await read();
    await world.store(processor, LEVEL_1, 0, 0);
    shadow.retract(LEVEL_1);
    processor.flushTlb();
    expect(await read()).toBe(-1);
    await world.store(processor, LEVEL_1, 0, (PAGE << 12) | ALL);
    expect(await read()).toBe(frameOf(PAGE));
    await world.store(processor, LEVEL_1, 0, 0);
    expect(permits(Access.read)).toBe(false);
  });

  it('stays within its bound, however many tables there are', async () => {
    for (let table = PAGE + 1; table < 20; table++) {
      const address = (table * 2 ** 21) as GuestVirtual;
      await world.store(processor, LEVEL_2, table * 8, (table << 12) | ALL);
      await world.store(processor, table, 0, (PAGE << 12) | ALL);
      expect(await world.access(processor, address, Access.read, false)).toBe(frameOf(PAGE));
    }
    const { pages, evictions } = world.paging.shadow.statistics();
    expect(pages).toBeLessThanOrEqual(CAPACITY);
    expect(evictions).toBeGreaterThan(0);
  });
});
