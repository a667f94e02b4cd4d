import type { Frame } from '../x86/brand.ts';

/** Where pages go that have no room in memory. Slots hold one page each. */
export interface SwapStore {
  /** Number of slots. */
  readonly slots: number;
  /** Rejects when the slot cannot be read. `target` is one page. */
  read(slot: number, target: Uint8Array): Promise<void>;
  /** Rejects when the page cannot be kept (no space, no device). `source` is one page and does not change meanwhile. */
  write(slot: number, source: Uint8Array): Promise<void>;
  /** Gives the storage back; no slot is used afterwards. */
  close(): Promise<void>;
}

export const NO_SLOT = -1;

/**
 * The slots of a swap store and the swap cache.
 *
 * Each entry of a host page table that names a slot is one reference; the cache is one more. A page is in the cache as
 * long as memory and store hold the same page of some guest: while it is read in or written out, and afterwards until
 * somebody writes to it, so that an unchanged page is not written twice.
 */
export class SwapSpace {
  readonly store: SwapStore | undefined;
  readonly #references: Uint32Array;
  readonly #cached = new Map<number, Frame>();
  readonly #free: number[] = [];
  #fresh = 0;
  /** Pages written and read so far. */
  swappedOut = 0;
  swappedIn = 0;
  /** What the last write that failed said. */
  failure: string | undefined;

  constructor(store: SwapStore | undefined) {
    this.store = store;
    this.#references = new Uint32Array(store?.slots ?? 0);
  }

  get slots(): number {
    return this.#references.length;
  }

  get used(): number {
    return this.#fresh - this.#free.length;
  }

  /** A slot for a page that enters the cache, or −1 when all are in use. */
  allocate(frame: Frame): number {
    const slot = this.#free.pop() ?? (this.#fresh < this.slots ? this.#fresh++ : NO_SLOT);
    if (slot !== NO_SLOT) this.addToCache(slot, frame);
    return slot;
  }

  /** References to a slot, the cache's among them. */
  references(slot: number): number {
    return this.#references[slot] as number;
  }

  reference(slot: number): void {
    this.#references[slot] = this.references(slot) + 1;
  }

  drop(slot: number): void {
    const left = this.references(slot) - 1;
    this.#references[slot] = left;
    if (left === 0) this.#free.push(slot);
  }

  cached(slot: number): Frame | undefined {
    return this.#cached.get(slot);
  }

  addToCache(slot: number, frame: Frame): void {
    this.#cached.set(slot, frame);
    this.reference(slot);
  }

  removeFromCache(slot: number): void {
    this.#cached.delete(slot);
    this.drop(slot);
  }
}
