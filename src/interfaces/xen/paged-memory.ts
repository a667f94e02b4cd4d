import type { ProcessorGroup } from '../../cpu/processor.ts';
import { SpaceMemory } from '../../devices/dma/space-memory.ts';
import type { DeviceMemoryEvents } from '../../domain/host-waits.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import { AddressSpace } from '../../mm/address-space.ts';
import type { MemoryError } from '../../mm/errors.ts';
import type { MemoryManager } from '../../mm/memory-manager.ts';
import type { CachedFile } from '../../mm/page-cache.ts';
import type { FileBacking } from '../../mm/vma.ts';
import { TABLE_RULES } from '../../paging/direct/table-rules.ts';
import type { PageNumbers } from '../../paging/page-numbers.ts';
import { Pager } from '../../paging/pager.ts';
import { followWithShadows } from '../../paging/shadow/shadow-follower.ts';
import type { ShadowTables } from '../../paging/shadow/shadow-tables.ts';
import { type HostVirtual, type Mfn, PAGE_SIZE } from '../../x86/brand.ts';
import { createMachineSpace, type DomainSize, guestPages, pageNumbers } from './domain-frames.ts';
import { builtPages, type DomainPlan } from './domain-plan.ts';

/**
 * The memory of a domain whose pages come and go. In its address space a page has its pseudo-physical address; behind
 * the last of them stand the pages that a balloon can bring, and the machine-to-physical table. Two external tables follow it, the machine space for
 * processors and one for devices.
 */
export interface PagedMemory {
  readonly machine: MachineSpace;
  readonly pager: Pager;
  /** Shadows of the domain's tables, if processors are to walk these. */
  readonly shadow: ShadowTables | undefined;
  readonly devices: SpaceMemory;
  /** What devices tell; set by the domain. */
  readonly events: DeviceMemoryEvents;
  /** Pages that are kept in place while the domain is built. */
  readonly pinned: readonly Mfn[];
}

export interface PagedMemoryOptions {
  readonly manager: MemoryManager;
  readonly group: ProcessorGroup;
  readonly plan: DomainPlan;
  /** The pages of `plan.kernelPages`. */
  readonly kernel: CachedFile;
  /** The pages of the initrd; not used when there is none. */
  readonly initrd: CachedFile;
  /** Whether processors walk shadows of the guest's tables. */
  readonly shadowed?: boolean;
  /** Unique among the guests of the host. */
  readonly order: number;
  readonly permutation?: (pfn: number) => number;
}

/** External tables that may follow the memory of one guest. */
const TABLES = 3;

function addressOf(page: number): HostVirtual {
  return (page * PAGE_SIZE) as HostVirtual;
}

/** Gives a domain that is to be built its memory; what the builder writes is there, and stays until it is unpinned. */
export async function createPagedMemory(options: PagedMemoryOptions): Promise<PagedMemory | MemoryError> {
  const { manager, plan } = options;
  const memory = await manager.createSpace();
  if (!(memory instanceof AddressSpace)) return memory;
  const size = sizeOf(plan);
  const numbers = pageNumbers(size, options.permutation);
  await mapAreas(memory, options, numbers.pages);
  const paged = await followMemory(memory, numbers, { ...options, ...size });
  const { pager } = paged;
  const pinned: Mfn[] = [];
  for (const page of [...builtPages(plan), ...machineToPhysicalPages(size, numbers)]) {
    const mfn = numbers.numberOf(page);
    const failed = await pager.bringInPinned(mfn);
    if (failed) {
      for (const kept of pinned) pager.unpin(kept);
      paged.shadow?.end();
      await pager.end();
      return failed;
    }
    pinned.push(mfn);
  }
  return { ...paged, pinned };
}

/** With the pages that the domain began with. */
type FollowOptions = Pick<PagedMemoryOptions, 'group' | 'order' | 'shadowed'> & DomainSize;

function sizeOf({ pages, isTranslated, abi }: DomainPlan): DomainSize {
  return { pages, isTranslated, rules: TABLE_RULES[abi.tables] };
}

/** The memory of a domain that goes on, in an address space that has it. @throws OutOfFrames */
export function resumePagedMemory(memory: AddressSpace, options: FollowOptions): Promise<PagedMemory> {
  return followMemory(memory, pageNumbers(options), options);
}

async function followMemory(
  memory: AddressSpace,
  numbers: PageNumbers,
  { group, order, shadowed, ...size }: FollowOptions,
): Promise<PagedMemory> {
  const { pool, marks } = group.parts;
  const { pages, isTranslated = false } = size;
  const machine = createMachineSpace(pool, size);
  const first = order * TABLES;
  const pager = new Pager({ machine, memory, invalidator: group, marks, numbers, populated: pages, order: first });
  for (const page of machineToPhysicalPages(size, numbers)) pager.populate(numbers.numberOf(page));
  await pager.start();
  try {
    const events: DeviceMemoryEvents = { onArrival: () => {}, onFailure: () => {} };
    const devices = await SpaceMemory.follow({
      space: memory,
      pool,
      invalidator: group,
      // Devices count the pages of the address space.
      log: { note: (page) => machine.log.note(numbers.numberOf(page)) },
      pages: guestPages(size),
      order: first + 2,
      onArrival: () => events.onArrival(),
      onFailure: (error) => events.onFailure(error),
    });
    // What an examined entry no longer allows is not to be used any more, flushed or not: its page can be a table by then.
    const following = { space: machine, frames: group, pager, order: first + 1, mayUnsync: isTranslated };
    const shadow = shadowed || isTranslated ? await followWithShadows(following) : undefined;
    return { machine, pager, shadow, devices, events, pinned: [] };
  } catch (error) {
    await pager.end();
    throw error;
  }
}

/** Pages of the memory that the machine-to-physical table is in. */
function machineToPhysicalPages(size: DomainSize, numbers: PageNumbers): number[] {
  const first = guestPages(size);
  return Array.from({ length: numbers.pages - first }, (_none, page) => first + page);
}

/** Kernel and initrd are pages of their files, everything else is anonymous. */
async function mapAreas(memory: AddressSpace, options: PagedMemoryOptions, pages: number): Promise<void> {
  const { plan, kernel, initrd } = options;
  const { startPfn } = plan.kernelPages;
  const map = async (start: number, end: number, file?: CachedFile) => {
    const backing: FileBacking | undefined = file && { file, index: 0 };
    if (start < end) await memory.map(addressOf(start), addressOf(end), backing);
  };
  const kernelEnd = startPfn + kernel.pages;
  const initrdEnd = plan.initrdPfn + plan.initrdPages;
  await map(0, startPfn);
  await map(startPfn, kernelEnd, kernel);
  await map(kernelEnd, plan.initrdPfn);
  await map(plan.initrdPfn, initrdEnd, initrd);
  await map(initrdEnd, pages);
}
