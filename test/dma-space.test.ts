import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DmaMiss } from '../src/devices/dma/memory.ts';
import { cursorAt, gather, type Segment, scatter } from '../src/devices/dma/segments.ts';
import { SpaceMemory } from '../src/devices/dma/space-memory.ts';
import { DmaStatus } from '../src/devices/dma/table.ts';
import type { AddressSpace } from '../src/mm/address-space.ts';
import { type MemoryError, RuleViolation } from '../src/mm/errors.ts';
import type { PteNotifier } from '../src/mm/notifier.ts';
import { type Frame, type Gfn, type GuestPhysical, PAGE_SIZE } from '../src/x86/brand.ts';
import { createSpace, createWorld, Device, MemoryStore, page, type World } from './mm-world.ts';

const PAGES = 48;
const gfn = (number: number): Gfn => number as Gfn;

class Setting {
  readonly world: World;
  readonly space: AddressSpace;
  readonly errors: MemoryError[] = [];
  arrivals = 0;
  memory!: SpaceMemory; // set by create
  #waiting: (() => void)[] = [];

  private constructor(world: World, space: AddressSpace) {
    this.world = world;
    this.space = space;
  }

  static async create(frames: number, store = new MemoryStore(512), disabled?: keyof PteNotifier): Promise<Setting> {
    const world = createWorld(frames, { store });
    const setting = new Setting(world, await createSpace(world, PAGES));
    const { space, errors } = setting;
    const memory = SpaceMemory.follow({
      space,
      pool: world.pool,
      invalidator: { frameWritten: () => {} },
      pages: PAGES,
      order: 7,
      onArrival: () => {
        setting.arrivals++;
        for (const wake of setting.#waiting.splice(0)) wake();
      },
      onFailure: (error) => errors.push(error),
    });
    setting.memory = await memory;
    if (disabled !== undefined) Object.defineProperty(setting.memory, disabled, { value: () => {} });
    return setting;
  }

  get table() {
    return this.memory.table;
  }

  /** Repeats a step until its pages were there, as a device does that is polled at each arrival. */
  async complete(step: () => DmaStatus): Promise<void> {
    for (;;) {
      const arrived = new Promise<void>((resolve) => this.#waiting.push(resolve));
      const status = step();
      if (status === DmaStatus.ready) return;
      if (status === DmaStatus.refused) throw new Error('RAM is refused');
      await arrived;
    }
  }

  async write(address: number, bytes: Uint8Array): Promise<void> {
    const cursor = cursorAt([{ address: address as GuestPhysical, length: bytes.length }]);
    await this.complete(() => scatter(this.table, cursor, bytes.subarray(cursor.position)));
  }

  async read(address: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    const cursor = cursorAt([{ address: address as GuestPhysical, length }]);
    await this.complete(() => gather(this.table, cursor, bytes.subarray(cursor.position)));
    return bytes;
  }

  /** Another user of the same memory: a processor. */
  async processor(order = 1): Promise<Device> {
    const device = new Device(this.world.pool, this.space, order);
    await device.follow(page(0), page(PAGES));
    return device;
  }
}

describe('the DMA table of paged memory', () => {
  it('brings pages in when a device needs them', async () => {
    const setting = await Setting.create(64);
    await setting.write(
      0x1ff0,
      Uint8Array.from({ length: 32 }, (_, index) => index),
    );
    expect([...(await setting.read(0x1ffe, 4))]).toEqual([14, 15, 16, 17]);
  });

  it('refuses what is beyond the memory', async () => {
    const { table } = await Setting.create(64);
    expect(table.prepare((PAGES * PAGE_SIZE) as GuestPhysical, 1, false)).toBe(DmaStatus.refused);
  });

  it('has pages written to disk under a transfer that does not use them at the moment', async () => {
    const setting = await Setting.create(40);
    const bytes = Uint8Array.from({ length: PAGES * PAGE_SIZE }, (_, index) => index * 3 + (index >> 12));
    await setting.write(0, bytes);
    const { swap } = setting.world.memory.statistics();
    expect(swap.swappedOut).toBeGreaterThan(0);
    expect(Buffer.compare(await setting.read(0, bytes.length), bytes)).toBe(0);
    expect(setting.world.memory.statistics().swap.swappedIn).toBeGreaterThan(0);
  });

  it('says that it waits for a page until that is there', async () => {
    const setting = await Setting.create(40);
    await setting.write(0, new Uint8Array(PAGES * PAGE_SIZE).fill(1));
    expect(setting.memory.isWaiting).toBe(false);
    const read = setting.read(0, PAGES * PAGE_SIZE);
    expect(setting.memory.isWaiting).toBe(true);
    await read;
    expect(setting.memory.isWaiting).toBe(false);
  });

  it('tells its owner when a page cannot be had', async () => {
    const store = new MemoryStore(512);
    const setting = await Setting.create(40, store);
    await setting.write(0, new Uint8Array(PAGES * PAGE_SIZE).fill(1));
    store.failure = new Error('unplugged');
    const absent = Array.from({ length: PAGES }, (_, number) => gfn(number)).filter((one) => !setting.table.maps(one));
    expect(setting.memory.map(absent[0] as Gfn, false)).toBe(DmaMiss.absent);
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
    expect(setting.errors[0]?.message).toMatch(/unplugged/);
  });
});

it('a DMA table passes on that a rule was broken under it', async () => {
  const setting = await Setting.create(40, new MemoryStore(512), 'clear');
  await expect(setting.write(0, new Uint8Array(PAGES * PAGE_SIZE))).rejects.toThrow(RuleViolation);
});

/** Each hook that does something has one scenario that fails when it does nothing. */
type Hook = Exclude<keyof PteNotifier, 'order' | 'refersTo' | 'lock' | 'rangeStart'>;

const SCENARIOS: Record<Hook, (disabled: Hook | undefined) => Promise<void>> = {
  clear: async (disabled) => {
    const { space, table } = await settingOfPages(disabled);
    await space.discard(page(0), page(1));
    expect([table.maps(gfn(0)), table.maps(gfn(1))]).toEqual([false, true]);
  },

  writeProtect: async (disabled) => {
    const setting = await settingOfPages(disabled);
    const child = await setting.world.memory.clone(setting.space);
    if ('kind' in child) throw new Error(child.message);
    await setting.write(0, Uint8Array.of(9));
    const other = new Device(setting.world.pool, child, 1);
    await other.follow(page(0), page(PAGES));
    expect(await other.read(page(0))).toBe(0x0101_0101);
  },

  change: async (disabled) => {
    const setting = await settingOfPages(disabled);
    const child = await setting.world.memory.clone(setting.space);
    expect(child).not.toHaveProperty('kind');
    const processor = await setting.processor();
    await processor.write(page(0), 77);
    expect((await setting.read(0, 4))[0]).toBe(77);
  },

  testYoung: async (disabled) => {
    const { space } = await settingOfPages(disabled);
    expect(space.workingSet().young).toBe(PAGES);
    const { table, memory } = await settingOfPages(disabled);
    const vma = { start: page(0), end: page(1), backing: undefined, notifiers: [] };
    expect([table.isYoung(gfn(0)), memory.testYoung(vma, page(0))]).toEqual([true, true]);
  },

  testAndClearYoung: async (disabled) => {
    const { memory, table } = await settingOfPages(disabled);
    const vma = { start: page(0), end: page(1), backing: undefined, notifiers: [] };
    expect(memory.testAndClearYoung(vma, page(0))).toBe(true);
    expect(memory.testAndClearYoung(vma, page(0))).toBe(false);
    table.prepare(0 as GuestPhysical, 1, false);
    expect(memory.testAndClearYoung(vma, page(0))).toBe(true);
  },

  close: async (disabled) => {
    const setting = await settingOfPages(disabled);
    const vma = { start: page(0), end: page(2), backing: undefined, notifiers: [] };
    setting.memory.close(vma);
    expect(setting.table.maps(gfn(1))).toBe(false);
  },

  unlock: async (disabled) => {
    const setting = await settingOfPages(disabled);
    const { arrivals } = setting;
    await setting.space.map(page(PAGES), page(PAGES + 1));
    expect(setting.arrivals).toBeGreaterThan(arrivals);
  },

  release: async (disabled) => {
    const setting = await settingOfPages(disabled, 'close');
    await setting.space.exit();
  },

  rangeEnd: async (disabled) => {
    const setting = await settingOfPages(disabled);
    const { arrivals } = setting;
    setting.space.rangeStart(page(0), page(1));
    const read = setting.read(0, 1);
    setting.space.rangeEnd(page(0), page(1));
    expect(setting.arrivals).toBeGreaterThan(arrivals);
    await read;
  },
};

/** All pages written through the table, so that it has an entry of each. */
async function settingOfPages(disabled: Hook | undefined, alsoDisabled?: Hook): Promise<Setting> {
  const setting = await Setting.create(160, new MemoryStore(512), disabled);
  if (disabled !== undefined && alsoDisabled !== undefined) {
    Object.defineProperty(setting.memory, alsoDisabled, { value: () => {} });
  }
  await setting.write(0, new Uint8Array(PAGES * PAGE_SIZE).fill(1));
  return setting;
}

describe.each(Object.entries(SCENARIOS))('the hook %s of a DMA table', (hook, scenario) => {
  it('keeps the table right', () => scenario(undefined));

  it('is missed when it does nothing', async () => {
    await expect(scenario(hook as Hook)).rejects.toThrow();
  });
});

it('devices and processors of a guest see one memory, whatever is reclaimed or cloned meanwhile', async () => {
  const segment = fc.record({ start: fc.nat(15 * PAGE_SIZE), length: fc.integer({ min: 1, max: 3 * PAGE_SIZE }) });
  const transfer = fc.record({ write: fc.boolean(), segments: fc.array(segment, { minLength: 1, maxLength: 4 }) });
  const transfers = fc.array(transfer, { maxLength: 12 });
  const words = fc.array(fc.tuple(fc.nat(15), fc.boolean()), { maxLength: 25 });
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      transfers,
      transfers,
      words,
      fc.nat(3),
      async (scheduler, first, second, cpu, clones) => {
        const store = new MemoryStore(512, () => scheduler.schedule(Promise.resolve(), 'transfer of a page'));
        const setting = await Setting.create(34, store);
        const processor = await setting.processor();

        /** A device with 16 pages of its own. */
        const device = async (base: number, work: typeof first): Promise<void> => {
          const model = new Uint8Array(16 * PAGE_SIZE);
          for (const [index, { write, segments }] of work.entries()) {
            const own: Segment[] = segments.map(({ start, length }) => ({
              address: (base + start) as GuestPhysical,
              length: Math.min(length, model.length - start),
            }));
            for (const { address, length } of own) {
              const place = address - base;
              if (write) {
                const bytes = Uint8Array.from({ length }, (_, byte) => byte * 7 + index + 1);
                model.set(bytes, place);
                await setting.write(address, bytes);
              } else {
                const bytes = await setting.read(address, length);
                expect(Buffer.compare(bytes, model.subarray(place, place + length))).toBe(0);
              }
            }
          }
        };
        const compute = async (): Promise<void> => {
          const model = new Map<number, number>();
          for (const [index, [number, write]] of cpu.entries()) {
            const address = page(32 + number);
            if (write) {
              model.set(number, index + 1);
              expect(await processor.write(address, index + 1)).toBeUndefined();
            } else expect(await processor.read(address)).toBe(model.get(number) ?? 0);
          }
        };
        const cloneAndEnd = async (): Promise<void> => {
          for (let count = 0; count < clones; count++) {
            const child = await setting.world.memory.clone(setting.space);
            if (!('kind' in child)) await child.exit();
          }
        };
        const all = Promise.all([device(0, first), device(16 * PAGE_SIZE, second), compute(), cloneAndEnd()]);
        await scheduler.waitFor(all);
        expect(setting.errors).toEqual([]);
        await setting.space.exit();
        const frames = Array.from({ length: setting.world.pool.total }, (_, frame) => frame as Frame);
        expect(frames.filter((frame) => setting.memory.refersTo(frame))).toEqual([]);
      },
    ),
    { numRuns: 100 },
  );
});
