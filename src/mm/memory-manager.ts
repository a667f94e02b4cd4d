import type { FramePool } from '../memory/frame-pool.ts';
import { AddressSpace, type Pause } from './address-space.ts';
import type { MemoryError } from './errors.ts';
import { FaultHandler } from './fault.ts';
import { CallbackGuard } from './notifier.ts';
import { PageAllocator } from './page-allocator.ts';
import { type BackingFile, CachedFile } from './page-cache.ts';
import { PageTables } from './page-tables.ts';
import { PageKind } from './pages.ts';
import { Reclaimer } from './reclaim.ts';
import { SwapSpace, type SwapStore } from './swap.ts';

/**
 * Host memory. A guest's memory is an address space of the host: areas (`vma.ts`) of anonymous pages or of private pages
 * of a file, page tables of its own (`page-tables.ts`), pages that come when they are touched (`fault.ts`) and go to a
 * swap store when frames run short (`reclaim.ts`). Kernel and initrd come from a page cache, so guests that load the same
 * file share its pages until they write to them; so do a guest and its clone (`clone.ts`).
 *
 * A guest does not walk these tables. What it walks is an *external* page table that refers to the same frames: the
 * machine space of a direct guest, a nested table, the DMA table of a device. Nothing is locked in memory for such a
 * table. Instead it follows the host's entries through a PTE notifier (`notifier.ts`). To be an external table:
 *
 *   1. `space.attach(notifier)`, then `space.register(notifier, start, end)` for the areas it refers to.
 *   2. An entry is needed: `space.fault(address, write)`. When that has settled without an error, look with
 *      `space.lookup(address, write)` and, in the same synchronous step, set the external entry; no frame, and step 2
 *      begins again. The external entry may allow writing only if `space.mayWrite(address)`. One that sets the entry in
 *      a later step notes `space.sequence` before it looks, and looks again if it has changed.
 *   3. `clear`, `writeProtect`, `change`, `rangeStart` … say when the entry must go, and when none may be made.
 *   4. Pages that must stay (rings the host writes) are kept by `space.pin(address)`; those that only have to be there
 *      (tables that a processor walks) by `space.retain(address)`, and are shared like any other.
 *
 * For a table from guest-physical pages to frames, let host address = guest-physical address, or add a constant.
 *
 * Locks, in the order in which they are taken: the lock of one address space, then page locks. Reclaim takes only page
 * locks that are free. All of it is asynchronous where it waits for frames or for the store, and synchronous otherwise.
 */
export interface MemoryManagerOptions {
  readonly pool: FramePool;
  /** Without one, only pages of files can be reclaimed. */
  readonly store?: SwapStore;
  /** Checks the rules of PTE notifiers, at a cost. */
  readonly checked?: boolean;
  /** Frames that are never given to address spaces. */
  readonly reserve?: number;
  readonly pause?: Pause;
}

/** Room for the tables and rings of some guests: 2 MiB. */
const DEFAULT_RESERVE = 512;
/** Pages that one level-1 table maps, and tables above it that a guest needs besides. */
const PAGES_PER_TABLE = 512;
const UPPER_TABLES = 8;

/** Frames that a host needs beyond those of its guests, so that it does not begin to reclaim before they are used up. */
export function overheadOf(pages: number): number {
  return Math.ceil(pages / PAGES_PER_TABLE) + UPPER_TABLES + 4 * DEFAULT_RESERVE;
}

export class MemoryManager {
  readonly #allocator: PageAllocator;
  readonly #faults: FaultHandler;
  readonly #pause: Pause;
  readonly #files = new Set<CachedFile>();

  constructor(options: MemoryManagerOptions) {
    const { pool, store } = options;
    this.#pause = options.pause ?? nextTask;
    const reclaimer = new Reclaimer(() => this.#allocator, this.#pause);
    const guard = new CallbackGuard(options.checked ?? false, () => pool.available);
    const reserve = options.reserve ?? DEFAULT_RESERVE;
    this.#allocator = new PageAllocator(pool, new SwapSpace(store), guard, reclaimer, reserve);
    this.#faults = new FaultHandler(this.#allocator);
  }

  /** An address space without areas, or the reason why there is no frame for its top table. */
  async createSpace(): Promise<AddressSpace | MemoryError> {
    const allocator = this.#allocator;
    allocator.guard.enter('createSpace');
    for (;;) {
      const root = allocator.take(PageKind.table);
      if (root !== undefined) {
        return new AddressSpace(allocator, this.#faults, new PageTables(allocator.pool, root), this.#pause);
      }
      const failed = await allocator.relieve({ space: undefined, isNew: true });
      if (failed) return failed;
    }
  }

  /** A copy of an address space; the two share all pages until one of them writes. */
  async clone(parent: AddressSpace): Promise<AddressSpace | MemoryError> {
    const child = await this.createSpace();
    if (!(child instanceof AddressSpace)) return child;
    let complete = false;
    try {
      const failed = await parent.clone(child);
      complete = !failed;
      return failed ?? child;
    } finally {
      if (!complete) await child.exit();
    }
  }

  /** The page cache of a file. Pages stay in it until they are reclaimed or the file is closed. */
  openFile(file: BackingFile): CachedFile {
    const cached = new CachedFile(file);
    this.#files.add(cached);
    return cached;
  }

  /** Begins to bring in the pages of a file, in order, while that takes no page from anybody. */
  readAhead(file: CachedFile): void {
    this.#allocator.guard.enter('readAhead');
    this.#faults.readAhead(file);
  }

  /** Frees the pages of a file that no area maps any more. @throws Error when one does */
  closeFile(file: CachedFile): void {
    const { spaces, pages } = this.#allocator;
    for (const space of spaces) {
      if (space.areas.all.some((vma) => vma.backing?.file === file)) throw new Error(`${file.file.name} is mapped`);
    }
    this.#files.delete(file);
    for (const frame of file.frames()) {
      // A page that is still being read stays, unreachable, until reclaim meets it.
      if (!pages.isLocked(frame)) this.#allocator.dropFromFile(frame);
    }
  }

  /** Makes room ahead of need: waits for the pass of reclaim that is under way, or begins one. */
  async relieve(): Promise<void> {
    this.#allocator.guard.enter('relieve');
    await this.#allocator.relieve(undefined);
  }

  statistics(): MemoryStatistics {
    const { pool, swap, spaces } = this.#allocator;
    let shared = 0;
    for (const file of this.#files) shared += file.frames().length;
    return {
      frames: { total: pool.total, available: pool.available, pageCache: shared },
      swap: { slots: swap.slots, used: swap.used, swappedOut: swap.swappedOut, swappedIn: swap.swappedIn },
      addressSpaces: [...spaces].map((space) => space.workingSet()),
    };
  }
}

/** Figures in pages. */
export interface MemoryStatistics {
  readonly frames: { readonly total: number; readonly available: number; readonly pageCache: number };
  readonly swap: {
    readonly slots: number;
    readonly used: number;
    readonly swappedOut: number;
    readonly swappedIn: number;
  };
  readonly addressSpaces: readonly { readonly resident: number; readonly young: number }[];
}

function nextTask(): Promise<void> {
  return new Promise((resume) => {
    setTimeout(resume, 0);
  });
}
