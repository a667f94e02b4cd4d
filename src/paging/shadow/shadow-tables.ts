import { Access } from '../../cpu/exits.ts';
import type { FrameWatcher, FrameWatching } from '../../cpu/frame-watchers.ts';
import { PageKind } from '../../cpu/tlb.ts';
import type { FoundPage, ShadowWalks } from '../../cpu/translation.ts';
import { LARGE_4M_RESERVED, type WalkControls } from '../../cpu/walk.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import type { Frame } from '../../x86/brand.ts';
import { frameOfEntry, TABLE_GEOMETRY, tableIndex } from '../../x86/page-table.ts';
import { Cr4, Efer, Pte } from '../../x86/registers.ts';
import type { ShadowDiscrepancy } from './recount.ts';
import { ShadowMap } from './shadow-map.ts';
import {
  firstEntryOfRoot,
  leafFlags,
  NONE,
  noExecuteOf,
  roleOf,
  type ShadowedFormat,
  type ShadowPage,
  tableFlags,
  tableOfRoot,
} from './shadow-page.ts';
import { shadowCapacity } from './shadow-pool.ts';

/** An entry of a guest's table, which stands in a page. */
export interface UntoldEntry {
  readonly page: number;
  readonly level: number;
  readonly index: number;
}

/** Stores to a level-1 table, with no walk through it between, after which further ones need not be seen. */
const STORES_TO_UNSYNC = 3;
/** Tables that are out of step at a time: each flush looks at all their entries. */
const MOST_UNSYNCED = 32;
/** Stores to a table above level 1, with no walk through it between, after which it is taken for one no more. */
const STORES_TO_RELEASE = 4;

/** What shadows did so far; `pages` is how many there are. */
export interface ShadowStatistics {
  readonly pages: number;
  /** Most pages that there can be. */
  readonly capacity: number;
  /** Walks that made entries out of the guest's. */
  readonly fills: number;
  /** Stores to tables that were seen. */
  readonly storesSeen: number;
  /** Tables that were let out of step, and that were brought into step again. */
  readonly unsyncs: number;
  readonly syncs: number;
  /** Pages given up because there were too many, and because their tables were no tables any more. */
  readonly evictions: number;
  readonly floods: number;
  /** Page faults that the guest's own tables ask for. */
  readonly faultsPassedOn: number;
}

/** Bits 13–20 of an entry of a 2 MiB page (SDM vol. 3A, table 4-18). */
const LARGE_RESERVED = 0x1f_e000;

export interface ShadowTablesOptions {
  readonly space: MachineSpace;
  readonly frames: FrameWatching;
  /**
   * Whether stores to level-1 tables may go unseen until the next flush. Not for a guest whose tables were examined:
   * what an entry no longer allows may not be used any more then, flush or not.
   */
  readonly mayUnsync: boolean;
  /** Most shadow pages that there are at a time; unless it is given, what suits a guest of that size. */
  readonly capacity?: number;
}

/**
 * Shadow paging. Processors walk tables that the host has made out of the guest's: each shadow stands for one table in
 * one role, with the same entries in the same places, but with frames of the host in them, and only as far as somebody
 * needed them. What a shadow permits, the guest's tables and the host's permit together, or did before a change that
 * the guest has not flushed.
 *
 *   walk finds nothing     the guest's tables are walked. A fault is the guest's; else the entries are made (`fill`).
 *   guest writes a table   the page's frame is watched, so the store is seen (`written`): entries that the guest's no
 *                          longer justify go, and come back when they are needed.
 *   often, at level 1      the page may be written, and the shadow is out of step until a processor flushes (`flush`).
 *   often, above           it is no table any more, so it has no shadow any more.
 *   host takes a page      the chain of entries that lead to it is emptied (`pageGone`, `pageProtected`); a shadow of a
 *                          table in that page goes too.
 *   guest announces one    the page may be written, and the guest tells of each change before it flushes (`told`).
 *   too many shadows       one that no walk came by lately goes.
 *
 * All of it is derived: nothing is lost when everything is dropped, at any time.
 */
export class ShadowTables implements ShadowWalks, FrameWatcher {
  readonly #map: ShadowMap;
  readonly #space: MachineSpace;
  readonly #u32: Uint32Array;
  readonly #mayUnsync: boolean;
  /** Shadows that are out of step, the oldest first; some of them may have been released since. */
  readonly #unsynced: ShadowPage[] = [];
  /** The pages that entries are being made in: they stay. */
  readonly #path: ShadowPage[] = [];
  /** The guest's entry that was read last, by halves. */
  #guestLow = 0;
  #guestHigh = 0;
  readonly #counters = { fills: 0, storesSeen: 0, unsyncs: 0, syncs: 0, evictions: 0, floods: 0, faultsPassedOn: 0 };

  /** @throws OutOfFrames */
  constructor(options: ShadowTablesOptions) {
    this.#space = options.space;
    this.#u32 = options.space.pool.memory.u32;
    this.#mayUnsync = options.mayUnsync;
    const { space, capacity = shadowCapacity(space.limit) } = options;
    this.#map = new ShadowMap(space, options.frames, this, capacity);
  }

  // ─── What a processor asks ─────────────────────────────────────────────────────────────────────────────────────────

  walk(
    format: ShadowedFormat,
    root: number,
    low: number,
    high: number,
    access: Access,
    user: boolean,
    controls: WalkControls,
    found: FoundPage,
  ): boolean {
    const geometry = TABLE_GEOMETRY[format];
    let shadow = this.#map.find(
      tableOfRoot(format, root),
      roleOf(format, geometry.levels, hasOption(format, controls), false),
    );
    if (!shadow) return false;
    let rights: number = Pte.writable | Pte.user;
    let noExecute = 0;
    let global = 0;
    let first = firstEntryOfRoot(format, root);
    for (let level = geometry.levels; level > 1; level--) {
      shadow.used = true;
      shadow.writes = 0;
      const index = first + tableIndex(geometry, level, low, high);
      first = 0;
      const entry = this.#map.low(shadow, index);
      if (entry === 0) return false;
      rights &= entry;
      noExecute |= this.#map.high(shadow, index);
      global |= entry;
      shadow = this.#map.child(shadow, index);
      if (shadow.isPieces) break;
      found.tables.fill(shadow.page, 0, level - 1);
    }
    shadow.used = true;
    shadow.writes = 0;
    const index = tableIndex(geometry, 1, low, high);
    const entry = this.#map.low(shadow, index);
    if (entry === 0) return false;
    noExecute |= this.#map.high(shadow, index);
    if (user && (rights & entry & Pte.user) === 0) return false;
    if (access === Access.fetch && noExecute !== 0) return false;
    const writable = (rights & Pte.writable) !== 0;
    if (access === Access.write && (!writable || (entry & Pte.writable) === 0)) return false;
    const { result } = found;
    result.frame = (entry >>> 12) as Frame;
    result.page = shadow.targets[index] as number;
    result.writable = writable && (entry & Pte.writable) !== 0;
    result.executable = noExecute === 0;
    const isGlobal = ((entry | (shadow.isPieces ? global : 0)) & Pte.global) !== 0;
    result.kind =
      (isGlobal && (controls.cr4 & Cr4.globalPages) !== 0 ? PageKind.global : 0) |
      (shadow.isPieces ? PageKind.large : 0);
    return true;
  }

  fill(format: ShadowedFormat, root: number, low: number, high: number, controls: WalkControls): void {
    this.#counters.fills++;
    const geometry = TABLE_GEOMETRY[format];
    const option = hasOption(format, controls);
    this.#path.length = 0;
    let shadow = this.#obtain(tableOfRoot(format, root), roleOf(format, geometry.levels, option, false));
    let first = firstEntryOfRoot(format, root);
    for (let level = geometry.levels; level > 1; level--) {
      const index = first + tableIndex(geometry, level, low, high);
      first = 0;
      this.#readGuest(shadow, index);
      const isLarge = isLargeEntry(shadow, this.#guestLow);
      const child = this.#obtain(this.#guestTarget(shadow, isLarge), roleOf(format, level - 1, option, isLarge));
      this.#map.link(shadow, index, child, upperFlags(shadow, this.#guestLow), noExecuteOf(this.#guestHigh));
      shadow = child;
      if (isLarge) break;
    }
    const index = tableIndex(geometry, 1, low, high);
    if (shadow.isPieces) {
      this.#mapPage(shadow, index, shadow.page + index, leafFlags(Pte.user | Pte.writable | Pte.dirty), 0);
      return;
    }
    this.#readGuest(shadow, index);
    const page = this.#guestTarget(shadow, false);
    this.#mapPage(shadow, index, page, leafFlags(this.#guestLow), noExecuteOf(this.#guestHigh));
  }

  /** Makes an entry of level 1. */
  #mapPage(shadow: ShadowPage, index: number, page: number, flags: number, high: number): void {
    const mayWrite = this.#space.writeProtected[page] === 0;
    const rights = mayWrite ? flags : flags & ~Pte.writable;
    this.#map.map(shadow, index, page, this.#space.frames[page] as Frame, rights, high);
  }

  flush(): void {
    for (let shadow = this.#unsynced.pop(); shadow; shadow = this.#unsynced.pop()) this.#sync(shadow);
  }

  flushPage(format: ShadowedFormat, root: number, low: number, high: number): void {
    if (this.#unsynced.length === 0) return;
    for (const top of this.#map.shadowsOf(tableOfRoot(format, root))) {
      if (!top.isTop || top.geometry !== TABLE_GEOMETRY[format]) continue;
      let shadow = top;
      let first = firstEntryOfRoot(format, root);
      while (shadow.level > 1) {
        const index = first + tableIndex(top.geometry, shadow.level, low, high);
        first = 0;
        if (this.#map.low(shadow, index) === 0) break;
        shadow = this.#map.child(shadow, index);
      }
      if (!shadow.isSynced) this.#review(shadow, tableIndex(top.geometry, 1, low, high));
    }
  }

  passedOn(): void {
    this.#counters.faultsPassedOn++;
  }

  // ─── Stores to the guest's tables ──────────────────────────────────────────────────────────────────────────────────

  written(page: number, offset: number, length: number): void {
    this.#counters.storesSeen++;
    for (const shadow of this.#map.shadowsOf(page)) {
      if (shadow.page !== page || !shadow.protects) continue;
      this.#reviewBytes(shadow, offset, length);
      shadow.writes++;
      if (shadow.level > 1) {
        if (shadow.writes >= STORES_TO_RELEASE) this.#releaseFlooded(shadow);
      } else if (this.#mayUnsync && shadow.writes >= STORES_TO_UNSYNC) {
        this.#unsync(shadow);
      }
    }
  }

  #reviewBytes(shadow: ShadowPage, offset: number, length: number): void {
    const shift = shadow.stride === 1 ? 2 : 3;
    const last = Math.min((offset + length - 1) >> shift, shadow.entries - 1);
    for (let index = offset >> shift; index <= last; index++) this.#review(shadow, index);
  }

  #releaseFlooded(shadow: ShadowPage): void {
    this.#counters.floods++;
    this.#map.release(shadow);
  }

  /** Empties an entry that the guest's no longer justifies as it stands. */
  #review(shadow: ShadowPage, index: number): void {
    if (shadow.page !== NONE && this.#map.low(shadow, index) !== 0 && !this.#isJustified(shadow, index)) {
      this.#map.dropEntry(shadow, index);
    }
  }

  #isJustified(shadow: ShadowPage, index: number): boolean {
    this.#readGuest(shadow, index);
    const low = this.#guestLow;
    const required = shadow.isTopOfPae ? Pte.present : Pte.present | Pte.accessed;
    if ((low & required) !== required || hasReservedBits(shadow, low)) return false;
    if (noExecuteOf(this.#guestHigh) !== this.#map.high(shadow, index)) return false;
    const entry = this.#map.low(shadow, index);
    if (shadow.level === 1) {
      // One that may not be written may be so for the host's sake.
      const wanted = leafFlags(low);
      const isNarrower = (entry & 0xfff) === wanted || (entry & 0xfff) === (wanted & ~Pte.writable);
      return isNarrower && this.#guestTarget(shadow, false) === shadow.targets[index];
    }
    const child = this.#map.child(shadow, index);
    const isLarge = isLargeEntry(shadow, low);
    if (child.isPieces !== isLarge || child.page !== this.#guestTarget(shadow, isLarge)) return false;
    return (entry & 0xfff) === upperFlags(shadow, low);
  }

  #unsync(shadow: ShadowPage): void {
    if (this.#unsynced.length >= MOST_UNSYNCED) this.#sync(this.#unsynced.shift() as ShadowPage); // not empty
    this.#counters.unsyncs++;
    shadow.isSynced = false;
    this.#unsynced.push(shadow);
    this.#map.unprotect(shadow.page);
  }

  #sync(shadow: ShadowPage): void {
    // It was released since, or stands for something else by now.
    if (shadow.page === NONE || shadow.isSynced) return;
    this.#counters.syncs++;
    shadow.isSynced = true;
    shadow.writes = 0;
    this.#map.protect(shadow.page);
    for (let index = 0; index < shadow.entries && shadow.count > 0; index++) this.#review(shadow, index);
  }

  // ─── Tables that the guest announces ───────────────────────────────────────────────────────────────────────────────

  /**
   * A page is a table from here on, and the guest says by `told` what it changes there before it relies on the change. It
   * is the guest's own memory that a guest reaches wrongly which does not keep to that.
   */
  announce(page: number): void {
    if (page < this.#space.limit) this.#map.announce(page);
  }

  /** The page is a table no more, or one whose stores must be seen. */
  retract(page: number): void {
    this.#map.retract(page);
  }

  /** Whether the guest has promised to say what it changes in a page. */
  isAnnounced(page: number): boolean {
    return this.#map.isAnnounced(page);
  }

  /** Bytes of an announced table have changed. */
  told(page: number, offset: number, length: number): void {
    for (const shadow of this.#map.shadowsOf(page)) {
      if (shadow.page === page && shadow.protects) this.#reviewBytes(shadow, offset, length);
    }
  }

  /**
   * An entry above level 1 of an announced table that the guest has changed and not told of: it is walked as it was.
   * Costs a look at every entry of every such shadow. What the guest has told of must have been carried out before.
   */
  findUntold(): UntoldEntry | undefined {
    for (const shadow of this.#map.pool.all) {
      const { page, level } = shadow;
      if (page === NONE || level === 1 || !shadow.protects || !this.#map.isAnnounced(page)) continue;
      for (let index = 0; index < shadow.entries; index++) {
        if (this.#map.low(shadow, index) !== 0 && !this.#isJustified(shadow, index)) return { page, level, index };
      }
    }
    return undefined;
  }

  // ─── What becomes of the guest's pages ─────────────────────────────────────────────────────────────────────────────

  /** The frame behind a page goes, or is another. */
  pageGone(page: number): void {
    this.#map.unmap(page);
    for (const shadow of this.#map.shadowsOf(page)) if (!shadow.isPieces) this.#map.release(shadow);
  }

  /** The host lets nobody write a page. */
  pageProtected(page: number): void {
    this.#map.makeReadOnly(page);
  }

  /** Whether stores to a page are seen, because it has a shadow as a table. */
  isWatched(page: number): boolean {
    return this.#map.isProtected(page);
  }

  /** Level of a table that processors walk, 0 for a page that is none. */
  levelOf(page: number): number {
    return this.#map.shadowsOf(page).find(({ isPieces }) => !isPieces)?.level ?? 0;
  }

  refersTo(frame: Frame): boolean {
    return this.#map.refersTo(frame);
  }

  /** Forgets everything; walks make it anew. */
  dropAll(): void {
    for (const shadow of this.#map.pool.all) this.#map.release(shadow);
  }

  /** Ends the shadows, and gives their frames back. No processor walks them any more. */
  end(): void {
    this.dropAll();
    this.#map.pool.release();
  }

  statistics(): ShadowStatistics {
    const { used, capacity } = this.#map.pool;
    return { pages: used, capacity, ...this.#counters };
  }

  /**
   * Adds up from scratch what is kept of the shadows, and compares the entries of those that are never behind with the
   * guest's; empty when all is well.
   */
  recount(): ShadowDiscrepancy[] {
    const found = this.#map.recount();
    for (const shadow of this.#map.pool.all) {
      if (shadow.page === NONE || !shadow.protects || !this.#map.isProtected(shadow.page)) continue;
      for (let index = 0; index < shadow.entries; index++) {
        const stored = this.#map.low(shadow, index);
        if (stored === 0 || this.#isJustified(shadow, index)) continue;
        found.push({ mfn: shadow.page, what: 'shadow entry', stored, expected: this.#guestLow });
      }
    }
    return found;
  }

  // ─── Inside ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The shadow of a page in a role, made if there is none. */
  #obtain(page: number, role: number): ShadowPage {
    let shadow = this.#map.find(page, role);
    while (!shadow) {
      shadow = this.#map.create(page, role);
      if (!shadow) this.#evict();
    }
    this.#path.push(shadow);
    return shadow;
  }

  #evict(): void {
    this.#counters.evictions++;
    this.#map.release(this.#map.pool.chooseVictim(this.#path));
  }

  /** Reads the guest's entry. The host has the table's page: walks came through it, and it has not gone since. */
  #readGuest(shadow: ShadowPage, index: number): void {
    const frame = this.#space.frames[shadow.page] as Frame;
    const word = (this.#space.pool.addressOf(frame) >>> 2) + index * shadow.stride;
    this.#guestLow = this.#u32[word] as number;
    this.#guestHigh = shadow.stride === 1 ? 0 : (this.#u32[word + 1] as number);
  }

  /** Number of the page that the guest's entry leads to; of the first one, where that is a large page. */
  #guestTarget(shadow: ShadowPage, isLarge: boolean): number {
    const number = shadow.stride === 1 ? this.#guestLow >>> 12 : frameOfEntry(this.#guestLow, this.#guestHigh);
    return isLarge ? number - (number % (shadow.geometry.entries[1] ?? 1)) : number;
  }
}

/** What else the control registers say of a format's entries, as `roleOf` asks. */
function hasOption(format: ShadowedFormat, { efer, cr4 }: WalkControls): boolean {
  return format === 'two-level' ? (cr4 & Cr4.pageSizeExtensions) !== 0 : (efer & Efer.noExecute) !== 0;
}

/** Whether a guest's entry above level 1 is one of a large page. */
function isLargeEntry({ level, hasLargePages }: ShadowPage, low: number): boolean {
  return level === 2 && hasLargePages && (low & Pte.large) !== 0;
}

/** Whether a guest's entry faults for a bit that must be zero where it stands; NX is compared by itself. */
function hasReservedBits(shadow: ShadowPage, low: number): boolean {
  if (shadow.level === 1 || (low & Pte.large) === 0 || shadow.isTopOfPae || !shadow.hasLargePages) return false;
  return shadow.level > 2 || (low & (shadow.stride === 2 ? LARGE_RESERVED : LARGE_4M_RESERVED)) !== 0;
}

/** Rights of a guest's entry above level 1. */
function upperFlags(shadow: ShadowPage, low: number): number {
  return isLargeEntry(shadow, low) ? leafFlags(low) : tableFlags(low, shadow.isTopOfPae);
}
