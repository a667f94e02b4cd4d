import { beforeEach, expect, test } from 'vitest';
import { ProcessorGroup } from '../src/cpu/processor.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { Generation } from '../src/microvm/generation.ts';
import { Physical } from '../src/microvm/layout.ts';
import { followMemory } from '../src/microvm/paged-memory.ts';
import { AddressSpace } from '../src/mm/address-space.ts';
import { MemoryManager } from '../src/mm/memory-manager.ts';
import { type HostVirtual, type Mfn, PAGE_SHIFT, PAGE_SIZE } from '../src/x86/brand.ts';

const PAGES = 512;
const FRAMES = 64;
const PAGE = (Physical.generation >> PAGE_SHIFT) as Mfn;
const FIRST = Uint8Array.from({ length: 16 }, (_, index) => index + 1);
const SECOND = FIRST.map((byte) => 0xff - byte);

async function createGuest(manager: MemoryManager, group: ProcessorGroup, space: AddressSpace, order: number) {
  const { paging } = await followMemory(space, { group, pages: PAGES, order, shadowed: false });
  const levels: boolean[] = [];
  const generation = new Generation(paging, { set: (level) => levels.push(level) });
  const identifier = async (): Promise<Uint8Array> => {
    expect(await paging.pager?.bringIn(PAGE, false)).toBeUndefined();
    const address = paging.space.addressOf(PAGE) + (Physical.generation % PAGE_SIZE);
    return paging.space.pool.memory.u8.slice(address, address + FIRST.length);
  };
  return { manager, space, generation, levels, identifier };
}

let guest: Awaited<ReturnType<typeof createGuest>>;
let group: ProcessorGroup;
beforeEach(async () => {
  const memory = new HostMemory(24 << 20);
  const pool = new FramePool(memory, FRAMES);
  group = new ProcessorGroup(memory, pool, { tlbEntries: 64, tlbRoots: 1, codeBytes: 1 << 20 });
  const manager = new MemoryManager({ pool, reserve: 0 });
  const space = (await manager.createSpace()) as AddressSpace;
  await space.map(0 as HostVirtual, (PAGES * PAGE_SIZE) as HostVirtual);
  guest = await createGuest(manager, group, space, 1);
});

test('another identifier stands in the memory of the guest, whose page is absent, before the interrupt comes', async () => {
  expect(await guest.generation.change(FIRST)).toBeUndefined();
  expect(guest.levels).toEqual([true, false]);
  expect(await guest.identifier()).toEqual(FIRST);
});

test("a clone's is its own", async () => {
  await guest.generation.change(FIRST);
  const space = await guest.manager.clone(guest.space);
  if (!(space instanceof AddressSpace)) throw new Error(space.message);
  const clone = await createGuest(guest.manager, group, space, 2);
  expect(await clone.identifier()).toEqual(FIRST);
  await clone.generation.change(SECOND);
  expect([await guest.identifier(), await clone.identifier()]).toEqual([FIRST, SECOND]);
  expect(guest.levels).toEqual([true, false]);
});
