import type { FramePool } from '../memory/frame-pool.ts';
import { type Frame, type HostVirtual, PAGE_SIZE } from '../x86/brand.ts';
import type { AddressSpace } from './address-space.ts';
import { type MemoryError, RuleViolation } from './errors.ts';
import type { CallbackGuard } from './notifier.ts';
import type { Asker } from './out-of-memory.ts';
import type { CachedFile } from './page-cache.ts';
import { PageKind, Pages } from './pages.ts';
import { ReverseMap } from './reverse-map.ts';
import { NO_SLOT, type SwapSpace } from './swap.ts';

/** Told when frames run short. */
export interface Shortage {
  /** Frames are getting few. */
  begins(): void;
  /**
   * Settles when frames were freed; or with the reason why none can be, when the asker is the one to be told. Nobody is
   * told who does not ask for a frame.
   */
  relieve(asker: Asker | undefined): Promise<MemoryError | undefined>;
  /** An address space is no more. */
  ended(space: AddressSpace): void;
}

/**
 * The pages of a host that address spaces use: where their frames come from, who maps them, and when they are freed.
 * A page is freed when no entry maps it, nothing pins it, nobody has it locked, and no cache wants it.
 */
export class PageAllocator {
  readonly pool: FramePool;
  readonly pages: Pages;
  readonly rmap: ReverseMap;
  readonly swap: SwapSpace;
  readonly guard: CallbackGuard;
  readonly spaces = new Set<AddressSpace>();
  readonly #files = new Map<Frame, CachedFile>();
  readonly #shortage: Shortage;
  readonly #low: number;
  readonly #reserve: number;

  /** @param reserve frames that are left to those who cannot wait: the host's own tables and rings */
  constructor(pool: FramePool, swap: SwapSpace, guard: CallbackGuard, shortage: Shortage, reserve: number) {
    this.pool = pool;
    this.swap = swap;
    this.guard = guard;
    this.pages = new Pages(pool.total);
    this.rmap = new ReverseMap(pool.total);
    this.#shortage = shortage;
    this.#reserve = reserve;
    this.#low = reserve * 2;
  }

  /** A zeroed page that nobody maps, or undefined when the shortage must be relieved first. */
  take(kind: PageKind): Frame | undefined {
    if (this.pool.available <= this.#low) this.#shortage.begins();
    if (!this.hasFrames) return undefined;
    const frame = this.pool.allocate();
    this.pages.adopt(frame, kind);
    return frame;
  }

  get hasFrames(): boolean {
    return this.pool.available > this.#reserve;
  }

  /** Frames that are missing to what is kept free. */
  get deficit(): number {
    return this.#low - this.pool.available;
  }

  relieve(asker: Asker | undefined): Promise<MemoryError | undefined> {
    return this.#shortage.relieve(asker);
  }

  /** An address space has given back all that it had. */
  remove(space: AddressSpace): void {
    this.spaces.delete(space);
    this.#shortage.ended(space);
  }

  bytes(frame: Frame): Uint8Array {
    const address = this.pool.addressOf(frame);
    return this.pool.memory.u8.subarray(address, address + PAGE_SIZE);
  }

  copy(from: Frame, to: Frame): void {
    this.bytes(to).set(this.bytes(from));
  }

  attach(frame: Frame, space: AddressSpace, address: HostVirtual): void {
    this.pages.mapCount[frame] = (this.pages.mapCount[frame] as number) + 1;
    this.rmap.add(frame, space, address);
  }

  /** Ends what `attach` began. The page may be gone afterwards. */
  detach(frame: Frame, space: AddressSpace, address: HostVirtual): void {
    this.pages.mapCount[frame] = (this.pages.mapCount[frame] as number) - 1;
    this.rmap.remove(frame, space, address);
    this.settle(frame);
  }

  /** Frees a page that nobody has a use for any more. */
  settle(frame: Frame): void {
    const { pages, swap } = this;
    if (pages.mapCount[frame] !== 0 || pages.pins[frame] !== 0 || pages.isLocked(frame)) return;
    if (pages.kind[frame] !== PageKind.anonymous) return;
    const slot = pages.slot(frame);
    if (slot !== NO_SLOT && swap.references(slot) > 1) return;
    this.leaveSwapCache(frame);
    this.free(frame);
  }

  /** The page no longer stands for a swap slot. */
  leaveSwapCache(frame: Frame): void {
    const slot = this.pages.slot(frame);
    if (slot === NO_SLOT) return;
    this.pages.clearSlot(frame);
    this.swap.removeFromCache(slot);
  }

  /** An entry that named a slot is gone. */
  dropSlot(slot: number): void {
    this.swap.drop(slot);
    const frame = this.swap.cached(slot);
    if (frame !== undefined) this.settle(frame);
  }

  /** Puts a page into the cache of a file, locked, to be read. */
  enterFile(file: CachedFile, index: number, frame: Frame): void {
    this.pages.private[frame] = index;
    this.pages.tryLock(frame);
    file.insert(index, frame);
    this.#files.set(frame, file);
  }

  /** Takes a page that nobody maps out of its file's cache, and frees it. */
  dropFromFile(frame: Frame): void {
    this.#files.get(frame)?.remove(this.pages.private[frame] as number);
    this.#files.delete(frame);
    this.free(frame);
  }

  /**
   * An address space has a copy of a file's page, of its own, from here on. The page goes where no other space maps the
   * file: else a guest would fill more memory than it has, and reclaim would take what it does use.
   */
  dropUnneeded(file: CachedFile, frame: Frame): void {
    const { pages } = this;
    if (pages.kind[frame] !== PageKind.file || pages.mapCount[frame] !== 0 || pages.pins[frame] !== 0) return;
    if (pages.isLocked(frame)) return;
    let users = 0;
    for (const { areas } of this.spaces) if (areas.all.some(({ backing }) => backing?.file === file)) users++;
    if (users === 1) this.dropFromFile(frame);
  }

  /** Frees a page. @throws RuleViolation when an external table still leads to it, if that is checked */
  free(frame: Frame): void {
    if (this.guard.checked) this.#checkUnused(frame);
    this.pages.disown(frame);
    this.pool.release(frame);
  }

  #checkUnused(frame: Frame): void {
    if (this.pages.mapCount[frame] !== 0) throw new RuleViolation(`frame ${frame} is freed while it is mapped`);
    for (const space of this.spaces) {
      for (const notifier of space.notifiers) {
        if (notifier.refersTo(frame)) {
          throw new RuleViolation(`frame ${frame} is freed while the external table ${notifier.order} refers to it`);
        }
      }
    }
  }
}
