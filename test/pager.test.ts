import { expect, test } from 'vitest';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { FrameMark, FrameMarks } from '../src/cpu/frame-marks.ts';
import { MachineSpace } from '../src/memory/machine-space.ts';
import { AddressSpace } from '../src/mm/address-space.ts';
import { Pager } from '../src/paging/pager.ts';
import type { Frame, Mfn } from '../src/x86/brand.ts';
import { createSpace, createWorld, MemoryStore, page, type World } from './mm-world.ts';

const PAGES = 6;

interface Setting {
  readonly world: World;
  readonly space: AddressSpace;
  readonly pager: Pager;
  readonly invalidated: Frame[];
  frameOf(number: number): Frame;
  /** A processor has a translation of the page from here on. */
  use(number: number): Promise<void>;
}

/** Page n of the host's memory has number PAGES − 1 − n. */
async function createSetting(): Promise<Setting> {
  const world = createWorld(32, { store: new MemoryStore(64) });
  return follow(world, await createSpace(world, PAGES));
}

async function follow(world: World, space: AddressSpace): Promise<Setting> {
  const machine = new MachineSpace(world.pool, PAGES);
  const marks = new FrameMarks(world.pool.total);
  const invalidated: Frame[] = [];
  const invalidator = {
    invalidateFrame: (frame: Frame) => {
      invalidated.push(frame);
      marks.invalidated(frame, false);
    },
    invalidateWritable: (frame: Frame) => marks.invalidated(frame, true),
    frameWritten: () => {},
  };
  const numbers = {
    pages: PAGES,
    numberOf: (index: number) => (PAGES - 1 - index) as Mfn,
    pageOf: (number: number) => (number < PAGES ? PAGES - 1 - number : -1),
  };
  const pager = new Pager({ machine, memory: space, invalidator, marks, numbers, populated: PAGES, order: 1 });
  await pager.start();
  const frameOf = (number: number): Frame => machine.frames[number] as Frame;
  const use = async (number: number): Promise<void> => {
    expect(await pager.bringIn(number as Mfn, true)).toBeUndefined();
    marks.set(frameOf(number), FrameMark.cached);
  };
  return { world, space, pager, invalidated, frameOf, use };
}

test('a page is young while a processor has a translation of it, and asking takes none away', async () => {
  const { world, space, invalidated, frameOf, use } = await createSetting();
  for (let number = 0; number < PAGES; number++) await use(number);
  // The host's own bits go; then only translations say that a page is in use.
  for (let index = 0; index < PAGES; index++) {
    const pte = space.tables.findPte(page(index));
    if (pte) space.tables.ptepTestAndClearYoung(pte);
  }
  const { addressSpaces } = world.memory.statistics();
  expect(addressSpaces).toEqual([{ resident: PAGES, young: PAGES }]);
  expect(invalidated).toEqual([]);
  const [first] = space.areas.all;
  if (!first) throw new Error('nothing is mapped');
  const told = space.notify(first, 'testAndClearYoung', (notifier) => notifier.testAndClearYoung(first, page(0)));
  expect(told).toEqual([true]);
  expect(invalidated).toEqual([frameOf(PAGES - 1)]);
  expect(world.memory.statistics().addressSpaces).toEqual([{ resident: PAGES, young: PAGES - 1 }]);
});

test('a page that is retained has a frame at any time, also when a write ends that it is shared', async () => {
  const { world, space, pager, invalidated, frameOf } = await createSetting();
  const number = (PAGES - 2) as Mfn;
  expect(await pager.bringIn(number, true)).toBeUndefined();
  expect(pager.retain(number)).toBe(true);
  const shared = frameOf(number);
  expect(await world.memory.clone(space)).toMatchObject({});
  // Somebody else than the pager writes to it: a device, say.
  expect(await space.fault(page(1), true)).toBeUndefined();
  expect(frameOf(number)).toBe(space.lookup(page(1), true));
  expect(frameOf(number)).not.toBe(shared);
  expect(invalidated).toEqual([shared]);
});

test('pages that were retained are brought in, shared, where a copy goes on', async () => {
  const { world, space, pager, frameOf } = await createSetting();
  const number = (PAGES - 2) as Mfn;
  await pager.bringIn(number, true);
  pager.retain(number);
  const clone = await world.memory.clone(space);
  if (!(clone instanceof AddressSpace)) throw new Error(clone.message);
  const copy = await follow(world, clone);
  restore(copy.pager, save(pager));
  expect(copy.frameOf(number)).toBeLessThan(0);
  expect(await copy.pager.restorePins()).toBeUndefined();
  expect(copy.frameOf(number)).toBe(frameOf(number));
});

test('when the address space ends, no number has a frame and no processor a translation', async () => {
  const { space, pager, invalidated, frameOf, use } = await createSetting();
  for (let number = 0; number < PAGES; number++) await use(number);
  const frames = Array.from({ length: PAGES }, (_, number) => frameOf(number));
  await space.exit();
  expect([...invalidated].sort()).toEqual([...frames].sort());
  for (const [number, frame] of frames.entries()) {
    expect(frameOf(number)).toBeLessThan(0);
    expect(pager.refersTo(frame)).toBe(false);
  }
});
