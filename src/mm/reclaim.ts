import type { Frame } from '../x86/brand.ts';
import type { AddressSpace, Pause } from './address-space.ts';
import { type MemoryError, messageOf } from './errors.ts';
import { type Asker, OutOfMemory, type Verdict } from './out-of-memory.ts';
import type { PageAllocator } from './page-allocator.ts';
import { PageKind } from './pages.ts';
import { NO_SLOT } from './swap.ts';
import { tryToUnmap } from './unmap.ts';

/** Pages that one pass tries to free beyond what is missing: many at once for the store's sake, but few of all. */
const BATCH = 64;
const BATCHES_OF_POOL = 16;
/** Frames looked at between two pauses. */
const FRAMES_PER_SLICE = 2048;

/**
 * Second-chance reclaim: a hand goes round the frames. A page that was used since the hand last passed is passed over,
 * and counts as unused until it is used again; any other is taken away from those who map it and, unless the store or
 * its file already has what it holds, written out.
 *
 * There is one pass at a time, and all who need frames wait for it. It takes page locks only, and only those that are
 * free; so it waits for nobody who may be waiting for it.
 */
export class Reclaimer {
  readonly #allocator: () => PageAllocator;
  readonly #pause: Pause;
  #hand = 0;
  readonly #outOfMemory = new OutOfMemory();
  #pass: Promise<Verdict | undefined> | undefined;
  /** Frames that were free after a pass that freed none: another one is begun only when there are fewer. */
  #fruitlessAt: number | undefined;
  /** What a pass threw that nobody waited for. */
  #defect: unknown;

  constructor(allocator: () => PageAllocator, pause: Pause) {
    this.#allocator = allocator;
    this.#pause = pause;
  }

  begins(): void {
    const { available } = this.#allocator().pool;
    if (this.#fruitlessAt !== undefined && available > this.#fruitlessAt - BATCH) return;
    this.#currentPass().catch((error: unknown) => {
      this.#defect = error;
    });
  }

  async relieve(asker: Asker | undefined): Promise<MemoryError | undefined> {
    if (this.#defect !== undefined) throw this.#defect;
    if (asker === undefined) {
      await this.#currentPass();
      return undefined;
    }
    this.#outOfMemory.enter(asker);
    const verdict = await this.#currentPass().finally(() => this.#outOfMemory.leave(asker));
    return verdict?.(asker);
  }

  ended(space: AddressSpace): void {
    this.#outOfMemory.ended(space);
  }

  #currentPass(): Promise<Verdict | undefined> {
    this.#pass ??= this.#run().finally(() => {
      this.#pass = undefined;
    });
    return this.#pass;
  }

  async #run(): Promise<Verdict | undefined> {
    const allocator = this.#allocator();
    const { pool, pages } = allocator;
    const wanted = Math.max(0, allocator.deficit) + Math.min(BATCH, Math.ceil(pool.total / BATCHES_OF_POOL));
    const writes: Promise<boolean>[] = [];
    let freed = 0;
    let locked: Frame | undefined;
    // Twice round: the first time every page may have its second chance.
    for (let seen = 0; seen < 2 * pool.total && freed + writes.length < wanted; seen++) {
      if (seen % FRAMES_PER_SLICE === 0) await this.#pause();
      const frame = this.#hand as Frame;
      this.#hand = (this.#hand + 1) % pool.total;
      const kind = pages.kind[frame];
      if ((kind !== PageKind.anonymous && kind !== PageKind.file) || pages.mustStay(frame)) continue;
      if (!pages.tryLock(frame)) {
        locked = frame;
        continue;
      }
      const result = this.#reclaim(frame);
      if (result instanceof Promise) writes.push(result);
      else if (result) freed++;
    }
    freed += (await Promise.all(writes)).filter((written) => written).length;
    this.#fruitlessAt = freed > 0 ? undefined : pool.available;
    if (freed > 0) return undefined;
    if (locked !== undefined) {
      // Somebody reads that page in; then there is one more to choose from.
      if (pages.isLocked(locked)) await pages.whenUnlocked(locked);
      return undefined;
    }
    // Frames may have come from elsewhere: a guest that ended.
    if (allocator.hasFrames) return undefined;
    return this.#outOfMemory.decide(this.#shortage());
  }

  #shortage(): MemoryError {
    const { swap } = this.#allocator();
    const reason = !swap.store
      ? 'there is no swap'
      : swap.failure !== undefined
        ? `swap cannot be written: ${swap.failure}`
        : swap.used === swap.slots
          ? `all ${swap.slots >> 8}M of swap are in use`
          : 'all of it is pinned';
    return { kind: 'out-of-memory', message: `the host's memory is used up and ${reason}` };
  }

  /** Frees a locked page: whether it did, or will when a write has ended. The lock goes with it. */
  #reclaim(frame: Frame): boolean | Promise<boolean> {
    const allocator = this.#allocator();
    const { pages, swap } = allocator;
    const mayGo = pages.kind[frame] === PageKind.file || swap.store !== undefined;
    if (!mayGo || this.#takeChance(frame)) {
      pages.unlock(frame);
      return false;
    }
    if (pages.kind[frame] === PageKind.file) {
      tryToUnmap(allocator, frame);
      pages.unlock(frame);
      allocator.dropFromFile(frame);
      return true;
    }
    if (pages.slot(frame) === NO_SLOT) {
      const slot = swap.allocate(frame);
      if (slot === NO_SLOT) {
        pages.unlock(frame);
        return false;
      }
      pages.private[frame] = slot;
      pages.dirty[frame] = 1;
    }
    tryToUnmap(allocator, frame);
    if (pages.dirty[frame] !== 0) return this.#write(frame);
    this.#free(frame);
    return true;
  }

  /** Writes a page that nobody maps. When that fails, the page stays: the swap cache has it, so nothing is lost. */
  async #write(frame: Frame): Promise<boolean> {
    const allocator = this.#allocator();
    const { pages, swap } = allocator;
    try {
      await swap.store?.write(pages.slot(frame), allocator.bytes(frame));
    } catch (error) {
      swap.failure = messageOf(error);
      pages.unlock(frame);
      allocator.settle(frame);
      return false;
    }
    swap.failure = undefined;
    swap.swappedOut++;
    pages.dirty[frame] = 0;
    this.#free(frame);
    return true;
  }

  #free(frame: Frame): void {
    const allocator = this.#allocator();
    allocator.leaveSwapCache(frame);
    allocator.pages.unlock(frame);
    allocator.free(frame);
  }

  /** Whether the page was used lately. It counts as unused from here on. */
  #takeChance(frame: Frame): boolean {
    const { pages, rmap } = this.#allocator();
    let used = pages.referenced[frame] !== 0;
    pages.referenced[frame] = 0;
    for (const { space, address } of rmap.of(frame)) {
      const vma = space.areas.find(address);
      const pte = space.tables.findPte(address);
      if (pte && space.tables.ptepTestAndClearYoung(pte)) used = true;
      const young =
        vma && space.notify(vma, 'testAndClearYoung', (notifier) => notifier.testAndClearYoung(vma, address));
      if (young?.includes(true)) used = true;
    }
    return used;
  }
}
