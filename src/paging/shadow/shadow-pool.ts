import { type FramePool, OutOfFrames } from '../../memory/frame-pool.ts';
import { ENTRY_MASK, ENTRY_SHIFT, NONE, ShadowPage } from './shadow-page.ts';

/** Shadow pages that a domain has from its start, so that a walk always ends: several times the levels of a walk. */
const LEAST_PAGES = 32;
/** One page in 50, as KVM has it, unless that is too few for the tables of a small guest. */
const GUEST_PAGES_PER_SHADOW = 50;
const LEAST_CAPACITY = 256;
/** Frames of the pool that shadows leave alone: they can be made again, and others cannot wait. */
const LEFT_IN_POOL = 128;

/** Shadow pages that a guest of a size can have at most. */
export function shadowCapacity(guestPages: number): number {
  return Math.max(LEAST_CAPACITY, Math.ceil(guestPages / GUEST_PAGES_PER_SHADOW));
}

/**
 * The shadow pages of a domain: never more than its capacity, however many tables the guest makes. The frame of a page
 * that is given up is kept for the next one, because the host's memory may not be asked for frames, nor given any, in the
 * middle of what leads to that.
 */
export class ShadowPool {
  readonly capacity: number;
  readonly #pool: FramePool;
  readonly #slots: ShadowPage[] = [];
  readonly #free: ShadowPage[] = [];
  #hand = 0;

  /**
   * @param capacity more than the levels of a walk
   * @throws OutOfFrames
   */
  constructor(pool: FramePool, capacity: number) {
    this.#pool = pool;
    this.capacity = capacity;
    const least = Math.min(LEAST_PAGES, capacity);
    if (pool.available < least) throw new OutOfFrames(pool.total);
    for (let page = 0; page < least; page++) this.#free.push(this.#add());
  }

  #add(): ShadowPage {
    const frame = this.#pool.allocate();
    const page = new ShadowPage(this.#slots.length, frame, this.#pool.addressOf(frame) >>> 2);
    this.#slots.push(page);
    return page;
  }

  /** Pages that stand for something. */
  get used(): number {
    return this.#slots.length - this.#free.length;
  }

  /** The page of a slot, or of an entry's number without its index. */
  at(slot: number): ShadowPage {
    return this.#slots[slot] as ShadowPage; // slots are never taken away
  }

  get all(): readonly ShadowPage[] {
    return this.#slots;
  }

  /** A free page, or undefined when one must be given up first. */
  take(): ShadowPage | undefined {
    const free = this.#free.pop();
    if (free) return free;
    const mayGrow = this.#slots.length < this.capacity && this.#pool.available > LEFT_IN_POOL;
    return mayGrow ? this.#add() : undefined;
  }

  /** Takes a page back that has no entries and that no entry leads to. */
  giveBack(page: ShadowPage): void {
    page.page = NONE;
    this.#free.push(page);
  }

  /** A page that was not walked through for long (second chance), and that is none of those. */
  chooseVictim(kept: readonly ShadowPage[]): ShadowPage {
    for (;;) {
      const page = this.at(this.#hand);
      this.#hand = (this.#hand + 1) % this.#slots.length;
      if (page.page === NONE || kept.includes(page)) continue;
      if (!page.used) return page;
      page.used = false;
    }
  }

  /** Gives all frames back to the host's pool. */
  release(): void {
    for (const { frame } of this.#slots) this.#pool.release(frame);
    this.#slots.length = 0;
    this.#free.length = 0;
  }

  // Chains of entries

  /** Puts an entry in front of a chain; its number is the chain's first from then on. */
  prepend(first: number, page: ShadowPage, index: number): number {
    const entry = (page.slot << ENTRY_SHIFT) | index;
    page.next[index] = first;
    page.previous[index] = NONE;
    if (first !== NONE) this.at(first >> ENTRY_SHIFT).previous[first & ENTRY_MASK] = entry;
    return entry;
  }

  /** Takes an entry out of a chain. @returns the chain's first */
  remove(first: number, page: ShadowPage, index: number): number {
    const next = page.next[index] as number;
    const previous = page.previous[index] as number;
    if (next !== NONE) this.at(next >> ENTRY_SHIFT).previous[next & ENTRY_MASK] = previous;
    if (previous === NONE) return next;
    this.at(previous >> ENTRY_SHIFT).next[previous & ENTRY_MASK] = next;
    return first;
  }
}
