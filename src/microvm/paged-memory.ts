import type { ProcessorGroup } from '../cpu/processor.ts';
import { SpaceMemory } from '../devices/dma/space-memory.ts';
import type { DeviceMemoryEvents } from '../domain/host-waits.ts';
import type { KernelPages } from '../domain/kernel-pages.ts';
import { MachineSpace } from '../memory/machine-space.ts';
import { AddressSpace } from '../mm/address-space.ts';
import type { MemoryError } from '../mm/errors.ts';
import type { MemoryManager } from '../mm/memory-manager.ts';
import type { CachedFile } from '../mm/page-cache.ts';
import { NestedPaging } from '../paging/nested/nested-paging.ts';
import { NumberRuns } from '../paging/page-numbers.ts';
import { Pager } from '../paging/pager.ts';
import { ShadowPaging } from '../paging/shadow/shadow-paging.ts';
import { type HostVirtual, type Mfn, PAGE_SIZE } from '../x86/brand.ts';
import { initrdPage } from './layout.ts';

/**
 * The memory of a machine whose pages come and go: an address space of the host in which each page has its
 * guest-physical address. External tables follow it: the nested one for processors, shadows made out of that and of the
 * guest's tables if they are wanted, and the one for devices.
 */
export interface PagedMemory {
  readonly paging: NestedPaging;
  readonly pager: Pager;
  readonly devices: SpaceMemory;
  /** What devices tell; set by the domain. */
  readonly events: DeviceMemoryEvents;
}

export interface PagedMemoryOptions {
  readonly manager: MemoryManager;
  readonly group: ProcessorGroup;
  readonly pages: number;
  /** The initrd's pages end where these do; what is behind belongs to devices. */
  readonly ramPages: number;
  /** Pages that the loader writes. */
  readonly loaded: readonly number[];
  readonly layout: KernelPages;
  /** The pages of `layout`. */
  readonly kernel: CachedFile;
  /** The pages of the initrd; without any when there is none. */
  readonly initrd: CachedFile;
  /** Whether processors walk shadows of the guest's tables. */
  readonly shadowed?: boolean;
  /** Unique among the guests of the host. */
  readonly order: number;
}

/** External tables that may follow the memory of one guest. */
const TABLES = 3;

function addressOf(page: number): HostVirtual {
  return (page * PAGE_SIZE) as HostVirtual;
}

/** Makes the memory of a guest that is to be built; the pages that its loader writes are there, and pinned. */
export async function createPagedMachine(options: PagedMemoryOptions): Promise<PagedMemory | MemoryError> {
  const memory = await options.manager.createSpace();
  if (!(memory instanceof AddressSpace)) return memory;
  await mapAreas(memory, options);
  const paged = await followMemory(memory, options);
  for (const number of options.loaded) {
    const failed = await paged.pager.bringInPinned(number as Mfn);
    if (failed) {
      await paged.pager.end();
      return failed;
    }
  }
  return paged;
}

/** Lets the nested table and that of devices follow an address space whose areas are there. */
export async function followMemory(
  memory: AddressSpace,
  { group, pages, order, shadowed }: Pick<PagedMemoryOptions, 'group' | 'pages' | 'order' | 'shadowed'>,
): Promise<PagedMemory> {
  const { pool, marks } = group.parts;
  const space = new MachineSpace(pool, pages);
  const pager = new Pager({
    machine: space,
    memory,
    invalidator: group,
    marks,
    numbers: new NumberRuns([{ firstNumber: 0, pages }]),
    populated: pages,
    order: order * TABLES,
  });
  await pager.start();
  const events: DeviceMemoryEvents = { onArrival: () => {}, onFailure: () => {} };
  const devices = await SpaceMemory.follow({
    space: memory,
    pool,
    invalidator: group,
    log: space.log,
    pages,
    order: order * TABLES + 1,
    onArrival: () => events.onArrival(),
    onFailure: (error) => events.onFailure(error),
  });
  try {
    const paging = shadowed
      ? await ShadowPaging.create(space, group, pager, order * TABLES + 2)
      : new NestedPaging(space, group, pager);
    return { paging, pager, devices, events };
  } catch (error) {
    await pager.end();
    throw error;
  }
}

/** Lets the pages go that the loader has written. */
export function unpinLoadedPages({ paging }: PagedMemory, loaded: readonly number[]): void {
  for (const number of loaded) paging.space.unpin(number as Mfn);
}

/** Kernel and initrd are pages of their files, everything else is anonymous. */
async function mapAreas(memory: AddressSpace, options: PagedMemoryOptions): Promise<void> {
  const { pages, ramPages, layout, kernel, initrd } = options;
  const map = async (start: number, end: number, file?: CachedFile) => {
    if (start < end) await memory.map(addressOf(start), addressOf(end), file && { file, index: 0 });
  };
  const kernelEnd = layout.startPfn + kernel.pages;
  const initrdStart = initrdPage(ramPages, initrd.file.size);
  const initrdEnd = initrdStart + initrd.pages;
  await map(0, layout.startPfn);
  await map(layout.startPfn, kernelEnd, kernel);
  await map(kernelEnd, initrdStart);
  await map(initrdStart, initrdEnd, initrd);
  await map(initrdEnd, pages);
}
