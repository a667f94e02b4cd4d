import type { FrameWatcher, FrameWatching } from '../../cpu/frame-watchers.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import type { Frame } from '../../x86/brand.ts';
import { Pte } from '../../x86/registers.ts';
import { recountShadows, type ShadowDiscrepancy } from './recount.ts';
import { ENTRY_MASK, ENTRY_SHIFT, NONE, type ShadowPage } from './shadow-page.ts';
import { ShadowPool } from './shadow-pool.ts';

/**
 * Level-1 entries that lead to one page: many times what any kernel has. Each of them has to be looked at when the page
 * becomes a table, so that a guest could make the host busy with more.
 */
const MOST_MAPPINGS = 4096;

/**
 * Which shadow pages there are and what their entries lead to, in both directions; and which pages of the guest are
 * write-protected because they have been shadowed. What belongs into an entry is not decided here.
 */
export class ShadowMap {
  readonly pool: ShadowPool;
  readonly #space: MachineSpace;
  readonly #u32: Uint32Array;
  readonly #frames: FrameWatching;
  readonly #watcher: FrameWatcher;
  /** Shadow pages by the guest's page; the arrays are replaced and never changed. */
  readonly #byPage = new Map<number, readonly ShadowPage[]>();
  /** By page of the guest: the first of the level-1 entries that lead to it, and how many they are. */
  readonly #mappings: Int32Array;
  readonly #mappingCounts: Uint16Array;
  /** Level-1 entries that hold a frame. */
  readonly #uses: Int32Array;
  /** Frames of the guest's tables whose stores are seen, by page. */
  readonly #watched = new Map<number, Frame>();
  /** Tables that the guest has announced: it says what it changes, so that stores need not be seen. */
  readonly #announced = new Set<number>();

  /**
   * @param watcher is shown stores to tables by the table's number
   * @throws OutOfFrames
   */
  constructor(space: MachineSpace, frames: FrameWatching, watcher: FrameWatcher, capacity: number) {
    this.pool = new ShadowPool(space.pool, capacity);
    this.#space = space;
    this.#u32 = space.pool.memory.u32;
    this.#frames = frames;
    this.#watcher = watcher;
    this.#mappings = new Int32Array(space.limit).fill(NONE);
    this.#mappingCounts = new Uint16Array(space.limit);
    this.#uses = new Int32Array(space.pool.total);
  }

  // ─── Pages ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** All shadows of a page of the guest, as a table and in pieces. */
  shadowsOf(page: number): readonly ShadowPage[] {
    return this.#byPage.get(page) ?? [];
  }

  find(page: number, role: number): ShadowPage | undefined {
    for (const shadow of this.#byPage.get(page) ?? []) if (shadow.role === role) return shadow;
    return undefined;
  }

  /** A shadow without entries, for a page that has none in that role. Undefined when one must be released first. */
  create(page: number, role: number): ShadowPage | undefined {
    const shadow = this.pool.take();
    if (!shadow) return undefined;
    shadow.begin(page, role);
    this.#byPage.set(page, [...this.shadowsOf(page), shadow]);
    if (shadow.protects) this.protect(page);
    return shadow;
  }

  /** Gives a shadow up, with all that only it leads to. */
  release(shadow: ShadowPage): void {
    const { page } = shadow;
    if (page === NONE) return;
    while (shadow.parents !== NONE) this.dropEntry(...this.#entry(shadow.parents));
    // Without a parent, dropping that entry may have released it already.
    if (shadow.page === NONE) return;
    for (let index = 0; shadow.count > 0; index++) this.dropEntry(shadow, index);
    const left = this.shadowsOf(page).filter((other) => other !== shadow);
    if (left.length > 0) this.#byPage.set(page, left);
    else this.#byPage.delete(page);
    this.pool.giveBack(shadow);
    this.unprotect(page);
  }

  #entry(number: number): [shadow: ShadowPage, index: number] {
    return [this.pool.at(number >> ENTRY_SHIFT), number & ENTRY_MASK];
  }

  // ─── Entries ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Low word of an entry, 0 when it is empty. */
  low(shadow: ShadowPage, index: number): number {
    return this.#u32[shadow.word + index * shadow.stride] as number;
  }

  /** High word of an entry; 0 in tables whose entries have none. */
  high(shadow: ShadowPage, index: number): number {
    return shadow.stride === 1 ? 0 : (this.#u32[shadow.word + index * shadow.stride + 1] as number);
  }

  /** The shadow page that an entry above level 1 leads to. */
  child(shadow: ShadowPage, index: number): ShadowPage {
    return this.pool.at(shadow.targets[index] as number);
  }

  /** Makes an entry above level 1. */
  link(shadow: ShadowPage, index: number, child: ShadowPage, flags: number, high: number): void {
    const isSame = this.low(shadow, index) !== 0 && shadow.targets[index] === child.slot;
    if (!isSame) {
      this.dropEntry(shadow, index);
      shadow.targets[index] = child.slot;
      child.parents = this.pool.prepend(child.parents, shadow, index);
      shadow.count++;
    }
    this.#write(shadow, index, (child.frame << 12) | flags, high);
  }

  /** Makes an entry of level 1. @param page of the guest, behind which is the frame */
  map(shadow: ShadowPage, index: number, page: number, frame: Frame, flags: number, high: number): void {
    this.dropEntry(shadow, index);
    if ((this.#mappingCounts[page] as number) >= MOST_MAPPINGS) {
      this.dropEntry(...this.#entry(this.#mappings[page] as number));
    }
    shadow.targets[index] = page;
    this.#mappings[page] = this.pool.prepend(this.#mappings[page] as number, shadow, index);
    this.#mappingCounts[page]! += 1; // the walk found a frame behind the number, so it is below the limit
    this.#uses[frame]! += 1; // a frame of the pool
    shadow.count++;
    this.#write(shadow, index, (frame << 12) | flags, high);
  }

  #write(shadow: ShadowPage, index: number, low: number, high: number): void {
    const word = shadow.word + index * shadow.stride;
    this.#u32[word] = low;
    if (shadow.stride === 2) this.#u32[word + 1] = high;
  }

  /** Empties an entry. A shadow page that nothing leads to any more goes with it. */
  dropEntry(shadow: ShadowPage, index: number): void {
    const low = this.low(shadow, index);
    if (low === 0) return;
    this.#write(shadow, index, 0, 0);
    shadow.count--;
    const target = shadow.targets[index] as number;
    if (shadow.level === 1) {
      this.#mappings[target] = this.pool.remove(this.#mappings[target] as number, shadow, index);
      this.#mappingCounts[target]! -= 1; // as in `map`
      this.#uses[low >>> 12]! -= 1;
      return;
    }
    const child = this.pool.at(target);
    child.parents = this.pool.remove(child.parents, shadow, index);
    if (child.parents === NONE && !child.isTop) this.release(child);
  }

  // ─── Pages of the guest ────────────────────────────────────────────────────────────────────────────────────────────

  /** Empties all entries that lead to a page. */
  unmap(page: number): void {
    for (let first = this.#mappings[page] ?? NONE; first !== NONE; first = this.#mappings[page] as number) {
      this.dropEntry(...this.#entry(first));
    }
  }

  /** The host lets nobody write a page. */
  makeReadOnly(page: number): void {
    for (let entry = this.#mappings[page] ?? NONE; entry !== NONE; ) {
      const [shadow, index] = this.#entry(entry);
      const word = shadow.word + index * shadow.stride;
      this.#u32[word] = (this.#u32[word] as number) & ~Pte.writable;
      entry = shadow.next[index] as number;
    }
  }

  /** Whether stores to a page are seen, because it is a table that has been shadowed. */
  isProtected(page: number): boolean {
    return this.#watched.has(page);
  }

  /** Begins to see stores to a table. */
  protect(page: number): void {
    if (this.#watched.has(page) || this.#announced.has(page)) return;
    const frame = this.#space.frames[page] as Frame; // a walk has just come through the table
    this.#watched.set(page, frame);
    this.#frames.watch(frame, this.#watcher, page);
  }

  /** Ends that, unless a shadow still depends on it. */
  unprotect(page: number): void {
    if (!this.shadowsOf(page).some((shadow) => shadow.protects)) this.#endProtection(page);
  }

  #endProtection(page: number): void {
    const frame = this.#watched.get(page);
    if (frame === undefined) return;
    this.#watched.delete(page);
    this.#frames.unwatch(frame, this.#watcher, page);
  }

  /** Stores to a table need not be seen from here on, whatever shadows it has. */
  announce(page: number): void {
    this.#announced.add(page);
    this.#endProtection(page);
  }

  isAnnounced(page: number): boolean {
    return this.#announced.has(page);
  }

  /** Ends that. The page has no shadows then: they may be out of step. */
  retract(page: number): void {
    if (!this.#announced.delete(page)) return;
    for (const shadow of this.shadowsOf(page)) if (!shadow.isPieces) this.release(shadow);
  }

  /** Whether a level-1 entry holds a frame. */
  refersTo(frame: Frame): boolean {
    return this.#uses[frame] !== 0;
  }

  /** Adds up from scratch what is kept; empty when all is well. */
  recount(): ShadowDiscrepancy[] {
    return recountShadows({
      pool: this.pool,
      space: this.#space,
      mappings: this.#mappings,
      mappingCounts: this.#mappingCounts,
      uses: this.#uses,
      shadowsOf: (page) => this.shadowsOf(page),
      low: (shadow, index) => this.low(shadow, index),
      isProtected: (page) => this.isProtected(page),
      isAnnounced: (page) => this.isAnnounced(page),
    });
  }
}
