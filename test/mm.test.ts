import { describe, expect, test } from 'vitest';
import { AddressSpace } from '../src/mm/address-space.ts';
import { bytesFile } from '../src/mm/page-cache.ts';
import { type Frame, PAGE_SIZE } from '../src/x86/brand.ts';
import { createSpace, createWorld, Device, MemoryStore, page, type World } from './mm-world.ts';

async function createGuest(world: World, pages: number): Promise<Device> {
  const space = await createSpace(world, pages);
  const device = new Device(world.pool, space, 1);
  await device.follow(page(0), page(pages));
  return device;
}

/** Pages whose first word is their number plus 1. */
function numberedFile(pages: number) {
  const bytes = new Uint8Array(pages * PAGE_SIZE);
  const words = new Uint32Array(bytes.buffer);
  for (let index = 0; index < pages; index++) words[(index * PAGE_SIZE) / 4] = index + 1;
  return bytesFile('numbers', bytes);
}

describe('host memory', () => {
  test('reads as zero before it is written', async () => {
    const guest = await createGuest(createWorld(16), 2);
    expect(await guest.read(page(1))).toBe(0);
  });

  test('has nothing where nothing is mapped', async () => {
    const guest = await createGuest(createWorld(16), 2);
    expect(await guest.space.fault(page(2), false)).toMatchObject({ kind: 'no-such-address' });
  });

  test('is there at once when frames are free', async () => {
    const { space } = await createGuest(createWorld(16), 2);
    expect(space.fault(page(0), true)).toBeUndefined();
  });

  test('of several guests may be more than the host has', async () => {
    const store = new MemoryStore(256);
    const world = createWorld(40, { store });
    const guests = [await createGuest(world, 30), await createGuest(world, 30), await createGuest(world, 30)];
    for (let index = 0; index < 30; index++) {
      for (const [number, guest] of guests.entries()) await guest.write(page(index), number * 1000 + index + 1);
    }
    for (let index = 0; index < 30; index++) {
      for (const [number, guest] of guests.entries()) {
        expect(await guest.read(page(index))).toBe(number * 1000 + index + 1);
      }
    }
    expect(store.writes).toBeGreaterThan(30);
    expect(store.reads).toBeGreaterThan(30);
  });

  test('is not written to swap again when it was only read since', async () => {
    const store = new MemoryStore(256);
    const world = createWorld(24, { store });
    const guest = await createGuest(world, 30);
    for (let index = 0; index < 30; index++) await guest.write(page(index), index + 1);
    const { writes } = store;
    for (let round = 0; round < 4; round++) {
      for (let index = 0; index < 30; index++) expect(await guest.read(page(index))).toBe(index + 1);
    }
    // All pages are in the store once; those that never left the memory follow.
    expect(store.writes - writes).toBeLessThanOrEqual(30);
    expect(store.reads).toBeGreaterThan(60);
  });

  test('shares the pages of a file until somebody writes', async () => {
    const world = createWorld(64);
    const file = world.memory.openFile(numberedFile(4));
    const guests: Device[] = [];
    for (let number = 0; number < 3; number++) {
      const space = await createSpace(world, 0);
      await space.map(page(0), page(4), { file, index: 0 });
      const guest = new Device(world.pool, space, 1);
      await guest.follow(page(0), page(4));
      guests.push(guest);
    }
    const [first, second, third] = guests as [Device, Device, Device];
    for (const guest of guests) for (let index = 0; index < 4; index++) await guest.read(page(index));
    expect(world.memory.statistics().frames.pageCache).toBe(4);
    expect(first.space.lookup(page(2), false)).toBe(second.space.lookup(page(2), false));
    await second.write(page(2), 99);
    expect(await first.read(page(2))).toBe(3);
    expect(await second.read(page(2))).toBe(99);
    expect(await third.read(page(2))).toBe(3);
  });

  test('drops pages of a file without writing them, and reads them again', async () => {
    const store = new MemoryStore(64);
    const world = createWorld(16, { store });
    const space = await createSpace(world, 0);
    await space.map(page(0), page(40), { file: world.memory.openFile(numberedFile(40)), index: 0 });
    const guest = new Device(world.pool, space, 1);
    await guest.follow(page(0), page(40));
    for (let round = 0; round < 2; round++) {
      for (let index = 0; index < 40; index++) expect(await guest.read(page(index))).toBe(index + 1);
    }
    expect(store.writes).toBe(0);
  });

  test('refuses to close a file that is mapped, and frees its pages when it is not', async () => {
    const world = createWorld(32);
    const file = world.memory.openFile(numberedFile(4));
    const space = await createSpace(world, 0);
    await space.map(page(0), page(4), { file, index: 0 });
    await space.fault(page(1), false);
    expect(() => world.memory.closeFile(file)).toThrow('numbers is mapped');
    await space.exit();
    world.memory.closeFile(file);
    expect(world.pool.available).toBe(world.pool.total);
  });

  test("of a clone is the parent's until one of them writes", async () => {
    const world = createWorld(64, { store: new MemoryStore(64) });
    const parent = await createGuest(world, 4);
    await parent.write(page(0), 1);
    await parent.write(page(1), 2);
    const space = await world.memory.clone(parent.space);
    if (!(space instanceof AddressSpace)) throw new Error(space.message);
    const child = new Device(world.pool, space, 1);
    await child.follow(page(0), page(4));
    expect(space.lookup(page(0), false)).toBe(parent.space.lookup(page(0), false));
    await child.write(page(0), 10);
    await parent.write(page(1), 20);
    expect([await parent.read(page(0)), await parent.read(page(1))]).toEqual([1, 20]);
    expect([await child.read(page(0)), await child.read(page(1))]).toEqual([10, 2]);
  });

  test('that is pinned stays, and a clone gets a copy', async () => {
    const store = new MemoryStore(64);
    const world = createWorld(24, { store });
    const guest = await createGuest(world, 30);
    await guest.write(page(0), 7);
    const frame = guest.space.pin(page(0));
    if (frame === undefined) throw new Error('not there');
    for (let index = 1; index < 30; index++) await guest.write(page(index), 1);
    expect(guest.space.lookup(page(0), true)).toBe(frame);
    const clone = await world.memory.clone(guest.space);
    if (!(clone instanceof AddressSpace)) throw new Error(clone.message);
    expect(guest.space.lookup(page(0), true)).toBe(frame);
    guest.space.unpin(frame);
  });

  test('that is retained stays in memory, and a clone shares it until one of them writes', async () => {
    const world = createWorld(32, { store: new MemoryStore(128) });
    const guest = await createGuest(world, 40);
    await guest.write(page(0), 7);
    expect(guest.space.retain(page(0))).toBe(true);
    const frame = guest.space.lookup(page(0), false);
    const clone = await world.memory.clone(guest.space);
    if (!(clone instanceof AddressSpace)) throw new Error(clone.message);
    expect(clone.lookup(page(0), false)).toBe(frame);
    const isThere = () => guest.space.lookup(page(0), false) !== undefined;
    for (let index = 1; index < 40; index++) {
      await guest.write(page(index), 1);
      expect(isThere()).toBe(true);
    }
    await guest.write(page(0), 8);
    expect(guest.space.lookup(page(0), false)).not.toBe(frame);
    for (let index = 1; index < 40; index++) {
      await guest.write(page(index), 2);
      expect(isThere()).toBe(true);
    }
    guest.space.letGo(page(0));
    for (let index = 1; index < 40 && isThere(); index++) await guest.write(page(index), 3);
    expect(isThere()).toBe(false);
    // What the clone has is nobody's to retain any more.
    expect(clone.lookup(page(0), false)).toBeUndefined();
  });

  test('that is retained stays in memory where its area is moved to', async () => {
    const world = createWorld(24, { store: new MemoryStore(128) });
    const guest = await createGuest(world, 40);
    await guest.write(page(0), 7);
    guest.space.retain(page(0));
    await guest.space.move(page(0), page(1), page(100));
    const moved = page(100);
    await guest.space.fault(moved, true);
    for (let index = 1; index < 40; index++) await guest.write(page(index), 1);
    expect(guest.space.lookup(moved, false)).not.toBeUndefined();
    guest.space.letGo(moved);
    for (let index = 1; index < 40; index++) await guest.write(page(index), 2);
    expect(guest.space.lookup(moved, false)).toBeUndefined();
  });

  test('is zero again after it was given back', async () => {
    const guest = await createGuest(createWorld(16), 2);
    await guest.write(page(0), 1);
    await guest.space.discard(page(0), page(2));
    expect(await guest.read(page(0))).toBe(0);
  });

  test('leaves nothing behind when its guests end', async () => {
    const world = createWorld(24, { store: new MemoryStore(64) });
    const guests = [await createGuest(world, 20), await createGuest(world, 20)];
    for (const guest of guests) for (let index = 0; index < 20; index++) await guest.write(page(index), 1);
    for (const guest of guests) await guest.space.exit();
    await Promise.resolve();
    expect(world.pool.available).toBe(world.pool.total);
    expect(world.memory.statistics().swap.used).toBe(0);
  });
});

describe('a store that fails', () => {
  test('when it is full, is told to the guest that wants more', async () => {
    const world = createWorld(16, { store: new MemoryStore(4) });
    const guest = await createGuest(world, 40);
    const outcomes: unknown[] = [];
    for (let index = 0; index < 40; index++) outcomes.push(await guest.write(page(index), 1));
    expect(outcomes.find((outcome) => outcome !== undefined)).toMatchObject({
      kind: 'out-of-memory',
      message: expect.stringContaining('of swap are in use'),
    });
  });

  test('when the disk is full, says so and loses nothing', async () => {
    const store = new MemoryStore(64);
    const world = createWorld(16, { store });
    const guest = await createGuest(world, 40);
    store.failure = new Error('no space left on device');
    let written = 0;
    let outcome: unknown;
    for (; written < 40 && outcome === undefined; written++) outcome = await guest.write(page(written), written + 1);
    expect(outcome).toMatchObject({
      kind: 'out-of-memory',
      message: expect.stringContaining('swap cannot be written: no space left on device'),
    });
    for (let index = 0; index < written - 1; index++) expect(await guest.read(page(index))).toBe(index + 1);
  });

  test('when it is gone, is told to the guest whose page is lost, and others go on', async () => {
    const store = new MemoryStore(64);
    const world = createWorld(24, { store });
    const small = await createGuest(world, 2);
    const guest = await createGuest(world, 30);
    for (let index = 0; index < 30; index++) await guest.write(page(index), index + 1);
    await small.write(page(0), 5);
    store.failure = new Error('no such file');
    const results = await Promise.all(Array.from({ length: 30 }, (_page, index) => guest.read(page(index))));
    expect(results).toContainEqual({ kind: 'swap-read', message: expect.stringContaining('no such file') });
    expect(await small.read(page(0))).toBe(5);
    await guest.space.exit();
    expect(await small.write(page(1), 6)).toBeUndefined();
  });

  test('when it is full, is told to the guest with most pages, and the others wait for what that leaves', async () => {
    const store = new MemoryStore(64);
    const world = createWorld(40, { store });
    const [small, large] = [await createGuest(world, 30), await createGuest(world, 30)];
    for (let index = 0; index < 4; index++) await small.write(page(index), index + 1);
    for (let index = 0; index < 16; index++) await large.write(page(index), 1);
    store.failure = new Error('no space left on device');
    const ended = { small: false, large: false };
    const run = async (guest: typeof small, name: keyof typeof ended): Promise<unknown> => {
      for (let index = 0; index < 30; index++) {
        const failed = await guest.write(page(index), index + 1);
        if (failed === undefined) continue;
        ended[name] = true;
        await guest.space.exit();
        return failed;
      }
      return undefined;
    };
    // The one with less asks first.
    const outcomes = await Promise.all([run(small, 'small'), run(large, 'large')]);
    expect(outcomes).toEqual([undefined, expect.objectContaining({ kind: 'out-of-memory' })]);
    for (let index = 0; index < 30; index++) expect(await small.read(page(index))).toBe(index + 1);
  });

  test('when it is full, is told to whoever makes another address space rather than to a guest that waits too', async () => {
    const store = new MemoryStore(64);
    const world = createWorld(24, { store });
    const [guest, other] = [await createGuest(world, 40), await createGuest(world, 2)];
    store.failure = new Error('no space left on device');
    let written = 0;
    while (world.memory.statistics().frames.available > 0) await guest.write(page(written++), 1);
    const waits = guest.write(page(written), 1);
    const refused = await world.memory.createSpace();
    expect(refused).toMatchObject({ kind: 'out-of-memory' });
    await other.space.exit();
    expect(await waits).toBeUndefined();
  });

  test('when it is full, is told to those who clone the guest that was told, so that it can end', async () => {
    const store = new MemoryStore(64);
    const world = createWorld(24, { store });
    const [guest, other] = [await createGuest(world, 40), await createGuest(world, 2)];
    // What is pinned is copied while the parent's lock is held.
    const pinned: Frame[] = [];
    for (let index = 0; index < 10; index++) {
      await guest.write(page(index), 1);
      pinned.push(guest.space.pin(page(index)) as Frame);
    }
    store.failure = new Error('no space left on device');
    let failed: unknown;
    for (let index = 10; failed === undefined; index++) failed = await guest.write(page(index), 1);
    // Room for the clone to begin.
    await other.space.exit();
    expect(await world.memory.clone(guest.space)).toMatchObject({ kind: 'out-of-memory' });
    await guest.space.exit();
    for (const frame of pinned) guest.space.unpin(frame);
    expect(world.pool.available).toBe(world.pool.total);
  });

  test('without any store, only pages of files make room', async () => {
    const world = createWorld(16);
    const guest = await createGuest(world, 40);
    let outcome: unknown;
    for (let index = 0; index < 40 && outcome === undefined; index++) outcome = await guest.write(page(index), 1);
    expect(outcome).toMatchObject({ message: expect.stringContaining('there is no swap') });
  });
});
