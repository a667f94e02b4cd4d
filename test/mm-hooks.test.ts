import { describe, expect, test } from 'vitest';
import type { AddressSpace } from '../src/mm/address-space.ts';
import { RuleViolation } from '../src/mm/errors.ts';
import type { PteNotifier } from '../src/mm/notifier.ts';
import { createSpace, createWorld, Device, MemoryStore, page, type World } from './mm-world.ts';

/** Each hook has one scenario in which only that hook keeps memory right: it throws when the hook does nothing. */
type Hook = Exclude<keyof PteNotifier, 'order' | 'refersTo'>;

interface Setting {
  readonly world: World;
  readonly space: AddressSpace;
  readonly device: Device;
}

const PAGES = 8;

/** A promise that the test settles. */
function gate(): { readonly passed: Promise<void>; open(): void } {
  let open = () => {};
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { passed, open: () => open() };
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve();
}

async function createSetting(
  disabled: Hook | undefined,
  delay?: () => Promise<void>,
  frames = 64,
  pause?: () => Promise<void>,
): Promise<Setting> {
  const world = createWorld(frames, { store: new MemoryStore(64), ...(pause ? { pause } : {}) });
  const space = await createSpace(world, PAGES);
  const device = new Device(world.pool, space, 1, delay);
  if (disabled) Object.defineProperty(device, disabled, { value: () => {} });
  await device.follow(page(0), page(PAGES));
  return { world, space, device };
}

async function clone({ world, space }: Setting): Promise<AddressSpace> {
  const child = await world.memory.clone(space);
  if ('kind' in child) throw new Error(child.message);
  return child;
}

const SCENARIOS: Record<Hook, (disabled: Hook | undefined) => Promise<void>> = {
  clear: async (disabled) => {
    const { space, device } = await createSetting(disabled);
    await device.write(page(1), 1);
    await space.discard(page(0), page(PAGES));
  },

  writeProtect: async (disabled) => {
    const setting = await createSetting(disabled);
    await setting.device.write(page(1), 1);
    const child = await clone(setting);
    await setting.device.write(page(1), 2);
    const other = new Device(setting.world.pool, child, 1);
    await other.follow(page(0), page(PAGES));
    expect(await other.read(page(1))).toBe(1);
  },

  change: async (disabled) => {
    const setting = await createSetting(disabled);
    await setting.device.write(page(1), 1);
    await clone(setting);
    // Somebody else of the same guest writes; the device has an entry for reading.
    const processor = new Device(setting.world.pool, setting.space, 2);
    await processor.follow(page(0), page(PAGES));
    await processor.write(page(1), 2);
    expect(await setting.device.read(page(1))).toBe(2);
  },

  testYoung: async (disabled) => {
    const { space, device } = await createSetting(disabled);
    await device.write(page(1), 1);
    // The host's entry forgets that the page was used, as after a round of reclaim; the device uses it again.
    const pte = space.tables.findPte(page(1));
    if (pte) space.tables.ptepTestAndClearYoung(pte);
    expect(space.workingSet()).toEqual({ resident: 1, young: 1 });
  },

  testAndClearYoung: async (disabled) => {
    const { world, space, device } = await createSetting(disabled, undefined, 4 + 3 + PAGES);
    for (let index = 0; index < 4; index++) await device.write(page(index), index + 1);
    // The host's entries forget that the pages were used; the device has used only one of them since.
    for (const { entry } of [...device.entries.values()].map((entry) => ({ entry }))) entry.young = false;
    for (let index = 0; index < 4; index++) {
      const pte = space.tables.findPte(page(index));
      if (pte) space.tables.ptepTestAndClearYoung(pte);
    }
    await device.read(page(0));
    const hog = await createSpace(world, PAGES);
    for (let index = 0; index < 5; index++) expect(await hog.fault(page(index), true)).toBeUndefined();
    await settle();
    expect(device.entries.has(page(0))).toBe(true);
  },

  close: async (disabled) => {
    const { space, device } = await createSetting(disabled);
    await space.unmap(page(0), page(PAGES));
    await space.map(page(0), page(PAGES));
    // What stands there is another area, that the device knows nothing of.
    expect(await device.write(page(1), 1)).toBe('unregistered');
  },

  lock: async (disabled) => {
    const found = gate();
    const relief = gate();
    let delayed = false;
    // Three frames for tables, one for the page, none for the tables of the move's target.
    const { space, device } = await createSetting(
      disabled,
      () => {
        delayed = true;
        return found.passed;
      },
      5,
      () => relief.passed,
    );
    const transfer = device.write(page(1), 1, 1);
    await settle();
    expect(delayed).toBe(true);
    const move = space.move(page(0), page(PAGES), page(0x1_0000));
    await settle();
    found.open();
    expect(await transfer).toBe('busy');
    relief.open();
    await move;
  },

  unlock: async (disabled) => {
    const { space, device } = await createSetting(disabled);
    await space.map(page(100), page(101));
    expect(await device.write(page(1), 1, 3)).toBeUndefined();
  },

  release: async (disabled) => {
    const { space, device } = await createSetting(disabled);
    await device.write(page(1), 1);
    await space.exit();
  },

  rangeStart: async (disabled) => {
    const found = gate();
    const { space, device } = await createSetting(disabled, () => found.passed);
    const transfer = device.write(page(1), 1, 1);
    await settle();
    space.rangeStart(page(0), page(2));
    found.open();
    expect(await transfer).toBe('busy');
    space.rangeEnd(page(0), page(2));
  },

  rangeEnd: async (disabled) => {
    const { space, device } = await createSetting(disabled);
    space.rangeStart(page(0), page(2));
    space.rangeEnd(page(0), page(2));
    expect(await device.write(page(1), 1, 3)).toBeUndefined();
  },
};

describe('PTE notifiers', () => {
  for (const [hook, scenario] of Object.entries(SCENARIOS)) {
    test(`${hook} keeps an external table right`, async () => {
      await scenario(undefined);
    });
    test(`${hook} is missed when it does nothing`, async () => {
      await expect(scenario(hook as Hook)).rejects.toThrow();
    });
  }

  test('are called in one order, and unlocked in the opposite one', async () => {
    const world = createWorld(16);
    const space = await createSpace(world, 2);
    const calls: string[] = [];
    for (const order of [3, 1, 2]) {
      const device = new Device(world.pool, space, order);
      await space.attach(device);
      device.lock = () => calls.push(`lock ${order}`);
      device.unlock = () => calls.push(`unlock ${order}`);
    }
    await space.fault(page(0), true);
    expect(calls).toEqual(['lock 1', 'lock 2', 'lock 3', 'unlock 3', 'unlock 2', 'unlock 1']);
  });

  test('cannot have the same place in the order', async () => {
    const world = createWorld(16);
    const space = await createSpace(world, 2);
    await space.attach(new Device(world.pool, space, 1));
    await expect(space.attach(new Device(world.pool, space, 1))).rejects.toThrow(RuleViolation);
  });

  test('release, close and free in this order when an address space ends', async () => {
    const { world, space, device } = await createSetting(undefined);
    await device.write(page(1), 1);
    const { available } = world.pool;
    const calls: [string, number][] = [];
    const { release, close } = device;
    device.release = (ended) => {
      calls.push(['release', world.pool.available - available]);
      release.call(device, ended);
    };
    device.close = (vma, successor) => {
      calls.push(['close', world.pool.available - available]);
      close.call(device, vma, successor);
    };
    await space.exit();
    expect(calls).toEqual([
      ['release', 0],
      ['close', 0],
    ]);
    expect(world.pool.available).toBe(world.pool.total);
  });

  test('may not call back', async () => {
    const { space, device } = await createSetting(undefined);
    await device.write(page(1), 1);
    device.clear = () => void space.fault(page(2), true);
    await expect(space.discard(page(0), page(PAGES))).rejects.toThrow('may not re-enter');
  });

  test('may not allocate', async () => {
    const { world, space, device } = await createSetting(undefined);
    await device.write(page(1), 1);
    device.clear = () => void world.pool.allocate();
    await expect(space.discard(page(0), page(PAGES))).rejects.toThrow('allocated or freed');
  });

  test('may not await', async () => {
    const { space, device } = await createSetting(undefined);
    await device.write(page(1), 1);
    device.clear = async (vma, address) => Device.prototype.clear.call(device, vma, address);
    await expect(space.discard(page(0), page(PAGES))).rejects.toThrow('awaits');
  });

  test('go with both parts of a split area, and let equal neighbours merge', async () => {
    const world = createWorld(32);
    const space = await createSpace(world, PAGES);
    const device = new Device(world.pool, space, 1);
    await device.follow(page(2), page(4));
    expect(space.areas.all.map(({ notifiers }) => notifiers.length)).toEqual([0, 1, 0]);
    await space.unmap(page(3), page(4));
    await space.map(page(3), page(4));
    expect(space.areas.all.map(({ start, end }) => [start, end])).toEqual([
      [page(0), page(2)],
      [page(2), page(3)],
      [page(3), page(PAGES)],
    ]);
    await space.unregister(device, page(2), page(3));
    expect(space.areas.all).toHaveLength(1);
  });

  test('go on for an area that is moved', async () => {
    const { space, device } = await createSetting(undefined);
    await device.write(page(1), 5);
    await space.move(page(0), page(PAGES), page(100));
    expect(device.entries.size).toBe(0);
    expect(await device.read(page(1))).toBe('unregistered');
    expect(await device.read(page(101))).toBe(5);
  });

  test('find an entry that the host does not allow', async () => {
    const { space, device } = await createSetting(undefined);
    await device.write(page(1), 1);
    const frame = space.lookup(page(1), true);
    expect(() => space.checkExternalEntry(device, page(2), frame ?? (0 as never), true)).toThrow(RuleViolation);
  });
});
