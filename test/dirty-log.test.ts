import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Access } from '../src/cpu/exits.ts';
import type { Processor } from '../src/cpu/processor.ts';
import { DmaTable } from '../src/devices/dma/table.ts';
import { DirtyLog } from '../src/memory/dirty-log.ts';
import { DirtyPages } from '../src/paging/dirty-pages.ts';
import type { GuestPhysical, GuestVirtual } from '../src/x86/brand.ts';
import { SwappedMemory } from './dma-machine.ts';
import { ShadowWorld } from './shadow-world.ts';
import { group } from './small-host.ts';

/** Where address 0 leads, and the tables on the way. */
const PAGE = 8;
const TABLES = [0, 2, 4, 6];
const ADDRESS = 0 as GuestVirtual;

describe('the log of written pages', () => {
  let world: ShadowWorld;
  let processor: Processor;
  let log: DirtyPages;

  beforeEach(async () => {
    world = await ShadowWorld.create('four-level', 32);
    processor = world.processors[0] as Processor;
    for (let number = 0; number < PAGE + 4; number++) await world.present(number, true);
    log = new DirtyPages(world.paging.space, group);
  });

  afterEach(() => world.end());

  const store = () => world.attempt(() => processor.memory.storeAt(ADDRESS, 4));

  it('lists nothing until it begins, and nothing when it has ended', async () => {
    await store();
    expect(log.read()).toEqual([]);
    log.start();
    log.stop();
    await store();
    expect(log.read()).toEqual([]);
  });

  it('lists a page and the tables that a store marked, once', async () => {
    log.start();
    await store();
    await store();
    expect(log.read()).toEqual([...TABLES, PAGE]);
    expect(log.read()).toEqual([]);
  });

  it('lists a page again at the next store, which a cached translation would have let pass', async () => {
    await store();
    log.start();
    await store();
    expect(log.read()).toEqual([PAGE]);
    await store();
    expect(log.read()).toEqual([PAGE]);
  });

  it('lists a page that was only read before', async () => {
    await store();
    log.start();
    await world.access(processor, ADDRESS, Access.read, false);
    expect(log.read()).toEqual([]);
    await store();
    expect(log.read()).toEqual([PAGE]);
  });

  it('lists what the host writes', () => {
    log.start();
    world.paging.addressOf((PAGE * 4096) as GuestPhysical);
    expect(log.read()).toEqual([PAGE]);
  });

  it('lists what a device writes, and not what it reads', () => {
    const memory = new SwappedMemory();
    const dirty = new DirtyLog();
    const table = new DmaTable(memory.pool, memory, dirty);
    dirty.start(memory.pages);
    const [first, second] = [0x1ffe as GuestPhysical, 0x3000 as GuestPhysical];
    table.prepare(first, 4, true);
    table.write(first, new Uint8Array(4));
    table.prepare(second, 4, false);
    table.read(second, new Uint8Array(4));
    expect(dirty.take()).toEqual([1, 2]);
    table.prepare(second, 2, true);
    table.writeU16(second, 1);
    expect(dirty.take()).toEqual([3]);
  });
});
