import type { FramePool } from '../memory/frame-pool.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import { type Frame, type GuestVirtual, type HostAddress, joinSigned } from '../x86/brand.ts';
import { EntryIndex, NO_ENTRY } from './entry-index.ts';
import { EntryList } from './entry-list.ts';
import { Access } from './exits.ts';
import type { FrameMarks } from './frame-marks.ts';
import type { TableGenerations } from './table-generations.ts';
import { TlbEntry } from './tlb-layout.ts';

const WORD = 2;

/** What an entry must remember of its page besides the translation, a set of bits. */
export const enum PageKind {
  /** Stays when the root or the process context changes (SDM vol. 3A, 4.10.2.4). */
  global = 1,
  /** A piece of a larger page: INVLPG anywhere in that page drops it. */
  large = 2,
}

const PAGE_BITS = 12;

/** Low bits of the numbers of tables. */
const TABLES_MASK = 0xfff;

/**
 * Pieces of large pages are told apart by the bits of their addresses from 22 on, which are equal in the largest page, of
 * 4 MiB. A kernel's mapping of all memory takes many buckets. None of them is also one of the other half of the addresses:
 * each flush of a program's page there would empty it.
 */
const BUCKETS_OF_HALF = 2048;
const PIECE_BUCKETS = 2 * BUCKETS_OF_HALF;

/** Any odd number that spreads the bits above 31. */
const SPREAD = 0x9e37;

function pieceBucket(low: number, high: number): number {
  const inHalf = ((low >>> 22) ^ Math.imul(high & 0x7fff, SPREAD)) & (BUCKETS_OF_HALF - 1);
  return (high >>> 31) * BUCKETS_OF_HALF + inHalf;
}

/** Tables between the root and a page, of which an entry remembers the numbers. */
export const PATH_TABLES = 3;
/** In place of a table's number: the entry does not come from tables. */
export const NO_TABLES = -1;

/** Where a translation came from. */
export interface TablePath {
  /** Numbers of the tables, the page's own first; NO_TABLES when it came from none. A large page's stands in place of those below. */
  readonly tables: Int32Array;
  /** The page's own entry, accessed and dirty bits set as they were wanted. */
  readonly entryLow: number;
  readonly entryHigh: number;
  /** Generation of the page's own table, and the sum of the others'. */
  readonly lastGeneration: number;
  readonly upperGenerations: number;
}

/** The words of a table of 512 entries, by the table's number, as an index of 32-bit words; −1 when it has none. */
export type TableWords = (table: number) => number;

/**
 * The software TLB of one root or process context and one privilege, in host memory; tlb-layout.ts draws an entry.
 *
 * An entry also remembers the tables it came through and their generations. A generation grows when a present entry of
 * the table changes and when the frame loses its type, and never shrinks; so equal ones say that a walk would find the same
 * page again, and that the accessed and dirty bits it would set are set. When only the last table has changed, the
 * table's entry says whether it was that one.
 */
export class Tlb {
  readonly address: HostAddress;
  /** Number of the top table whose translations these are; −1 when the TLB is free. */
  root = -1;
  /** Process context that they belong to. */
  context = 0;
  /** Generation of the root when the TLB was last in use. */
  rootGeneration = 0;
  /** Invalidations (`FrameMarks`) when it was last in use: what came later is still to be applied. */
  parkedAt = 0;
  /** Grows with each use, so that the one least recently used can be found. */
  lastUse = 0;
  readonly #memory: HostMemory;
  readonly #u32: Uint32Array;
  readonly #entries: number;
  /**
   * Entries that may be valid. Most of a kernel's are global, and would be looked at in vain at each change of the root;
   * so they have a list of their own. An entry that was used for both kinds can be in both.
   */
  readonly #local: EntryList;
  readonly #global: EntryList;
  /** Of each entry the numbers of its tables, `PATH_TABLES` each, the last one first. */
  readonly #tables: Int32Array;
  /** The last table's generation, and the sum of the others'. */
  readonly #lastGenerations: Uint32Array;
  readonly #upperGenerations: Uint32Array;
  /** The last table's entry, in two words. */
  readonly #lastEntries: Uint32Array;
  /** Changes of tables when the entries were last compared with them; −1 when entries came from elsewhere since. */
  #refreshedAt = -1;
  /** `PageKind` of each entry. */
  readonly #kinds: Uint8Array;
  /** The entries by frame. */
  readonly #byFrame: EntryIndex;
  /** Entries by their last table. */
  readonly #byTable: EntryIndex;
  /** Whether entries may have come through a table, by the low bits of its number, that is not their last. */
  readonly #isAbove = new Uint8Array(TABLES_MASK + 1);
  /** Whether a bucket may have pieces of large pages. */
  readonly #hasPieces = new Uint8Array(PIECE_BUCKETS);

  /** @param entries a power of two, from 1 to `MOST_ENTRIES` */
  constructor(memory: HostMemory, entries: number) {
    this.address = memory.reserve(entries * TlbEntry.size, 64);
    this.#memory = memory;
    this.#u32 = memory.u32;
    this.#entries = entries;
    this.#local = new EntryList(entries);
    this.#global = new EntryList(entries);
    this.#tables = new Int32Array(entries * PATH_TABLES);
    this.#lastGenerations = new Uint32Array(entries);
    this.#upperGenerations = new Uint32Array(entries);
    this.#lastEntries = new Uint32Array(entries * 2);
    this.#kinds = new Uint8Array(entries);
    this.#byFrame = new EntryIndex(entries);
    this.#byTable = new EntryIndex(entries);
    // Tags of zeroes are invalid in every other entry: page 0 belongs to the first. The rest is left untouched, so that
    // memory of a TLB that is hardly used is never committed.
    this.#clear(0);
  }

  #word(index: number): number {
    return (this.address + index * TlbEntry.size) >> WORD;
  }

  #invalidate(word: number, index: number): void {
    // A page whose number belongs to another entry; bit 62 keeps it off the canonical ones with a single entry.
    this.#u32[word] = (index ^ 1) << 12;
    this.#u32[word + 1] = 0x4000_0000;
  }

  #clear(index: number): void {
    const word = this.#word(index);
    this.#invalidate(word + TlbEntry.readTag / 4, index);
    this.#invalidate(word + TlbEntry.writeTag / 4, index);
    this.#invalidate(word + TlbEntry.executeTag / 4, index);
    this.#u32[word + TlbEntry.frame / 4] = 0;
  }

  /** Index of the entry that an address (low word) belongs to. */
  #index(low: number): number {
    return (low >>> 12) & (this.#entries - 1);
  }

  /** Host address of a byte whose page is cached for an access, or −1. */
  find(low: number, high: number, access: Access): HostAddress {
    const word = this.#word(this.#index(low)) + (access === Access.read ? 0 : access === Access.write ? 2 : 4);
    if (this.#u32[word] !== (low & ~0xfff) >>> 0 || this.#u32[word + 1] !== high) return -1 as HostAddress;
    const frame = this.#u32[this.#word(this.#index(low)) + 6] as number;
    return (frame + (low & 0xfff)) as HostAddress;
  }

  /**
   * Caches a page given by the halves of its linear address.
   * @param path the tables it came through, when they are dated
   * @param kind bits of `PageKind`
   */
  fill(
    low: number,
    high: number,
    frame: HostAddress,
    writable: boolean,
    executable: boolean,
    path: TablePath | undefined,
    kind: number,
  ): void {
    const index = this.#index(low);
    const word = this.#word(index);
    const u32 = this.#u32;
    const page = low & ~0xfff;
    u32[word] = page;
    u32[word + 1] = high;
    if (writable) {
      u32[word + 2] = page;
      u32[word + 3] = high;
    } else {
      this.#invalidate(word + 2, index);
    }
    if (executable) {
      u32[word + 4] = page;
      u32[word + 5] = high;
    } else {
      this.#invalidate(word + 4, index);
    }
    u32[word + 6] = frame;
    if (path) this.#notePath(index, path);
    this.#noteKind(index, low, high, kind);
    this.#note(index, frame);
  }

  #notePath(index: number, path: TablePath): void {
    const first = index * PATH_TABLES;
    this.#tables[first] = path.tables[0] as number;
    this.#tables[first + 1] = path.tables[1] as number;
    this.#tables[first + 2] = path.tables[2] as number;
    this.#lastGenerations[index] = path.lastGeneration;
    this.#upperGenerations[index] = path.upperGenerations;
    this.#lastEntries[index * 2] = path.entryLow;
    this.#lastEntries[index * 2 + 1] = path.entryHigh;
    this.#noteTables(index);
  }

  #noteTables(index: number): void {
    const first = index * PATH_TABLES;
    const last = this.#tables[first] as number;
    if (last === NO_TABLES) return;
    this.#byTable.note(index, last);
    this.#isAbove[(this.#tables[first + 1] as number) & TABLES_MASK] = 1;
    this.#isAbove[(this.#tables[first + 2] as number) & TABLES_MASK] = 1;
  }

  #noteKind(index: number, low: number, high: number, kind: number): void {
    this.#kinds[index] = kind;
    if ((kind & PageKind.large) !== 0) this.#hasPieces[pieceBucket(low, high)] = 1;
  }

  #isGlobal(index: number): boolean {
    return ((this.#kinds[index] as number) & PageKind.global) !== 0;
  }

  get #lists(): readonly EntryList[] {
    return [this.#local, this.#global];
  }

  /** Meets the entries that may be valid; some perhaps twice. */
  #visitFilled(visit: (index: number) => void): void {
    this.#local.visit(visit);
    this.#global.visit(visit);
  }

  #note(index: number, frame: HostAddress): void {
    this.#byFrame.note(index, frame >>> PAGE_BITS);
    (this.#isGlobal(index) ? this.#global : this.#local).add(index);
  }

  /** Drops all entries. */
  flush(): void {
    // The next ones may be another domain's.
    this.#refreshedAt = -1;
    for (const list of this.#lists) {
      list.retain((index) => {
        this.#clear(index);
        return false;
      });
    }
    this.#hasPieces.fill(0);
    this.#isAbove.fill(0);
  }

  /** Drops the entries of pages that are not global. */
  flushLocal(): void {
    this.#local.retain((index) => {
      if (!this.#isGlobal(index)) this.#clear(index);
      return false;
    });
  }

  /**
   * Drops the entries that a walk would not give again.
   * @param wordsOf where tables stand; without it an entry goes when any of its tables has changed
   */
  refresh(generations: TableGenerations, wordsOf: TableWords | undefined): void {
    const { changes } = generations;
    const since = this.#refreshedAt;
    // What was filled since then was filled from tables that have not changed either.
    this.#refreshedAt = changes.count;
    if (since < 0 || !changes.remembersSince(since)) {
      this.#refreshAll(generations, wordsOf);
      return;
    }
    let last = NO_TABLES;
    for (let change = since + 1; change <= changes.count; change++) {
      const table = changes.at(change);
      if (table === last) continue;
      last = table;
      if (this.#isAbove[table & TABLES_MASK] !== 0) {
        this.#refreshAll(generations, wordsOf);
        return;
      }
      for (let index = this.#byTable.first(table); index !== NO_ENTRY; index = this.#byTable.after(index)) {
        if (!this.#isCurrent(index, generations, wordsOf)) this.#clear(index);
      }
    }
  }

  #refreshAll(generations: TableGenerations, wordsOf: TableWords | undefined): void {
    for (const list of this.#lists) {
      list.retain((index) => {
        const stays = this.#isCurrent(index, generations, wordsOf);
        if (!stays) this.#clear(index);
        return stays;
      });
    }
  }

  #isCurrent(index: number, generations: TableGenerations, wordsOf: TableWords | undefined): boolean {
    // Dropped meanwhile.
    if (this.#u32[this.#word(index) + TlbEntry.frame / 4] === 0) return false;
    const first = index * PATH_TABLES;
    const table = this.#tables[first] as number;
    if (table === NO_TABLES) return true;
    const above = generations.of(this.#tables[first + 1] as number) + generations.of(this.#tables[first + 2] as number);
    if (above >>> 0 !== this.#upperGenerations[index]) return false;
    const generation = generations.of(table);
    if (generation === this.#lastGenerations[index]) return true;
    const words = wordsOf?.(table) ?? -1;
    if (words < 0) return false;
    const entry = words + (((this.#u32[this.#word(index)] as number) >>> 12) & 0x1ff) * 2;
    const same =
      this.#u32[entry] === this.#lastEntries[index * 2] && this.#u32[entry + 1] === this.#lastEntries[index * 2 + 1];
    if (same) this.#lastGenerations[index] = generation;
    return same;
  }

  /** Applies what was done to frames while the TLB was not in use. */
  catchUp(marks: FrameMarks, pool: FramePool): void {
    const { invalidations } = marks;
    if (invalidations.remembersSince(this.parkedAt)) {
      for (let change = this.parkedAt + 1; change <= invalidations.count; change++) {
        const frame = invalidations.at(change) as Frame;
        if (marks.removedSince(frame, this.parkedAt)) this.invalidateFrame(pool.addressOf(frame), false);
        else this.invalidateFrame(pool.addressOf(frame), true);
      }
      return;
    }
    this.#visitFilled((index) => {
      const word = this.#word(index);
      const address = this.#u32[word + TlbEntry.frame / 4] as HostAddress;
      if (address === 0) return;
      const frame = pool.frameAt(address);
      if (marks.removedSince(frame, this.parkedAt)) this.#clear(index);
      else if (marks.protectedSince(frame, this.parkedAt)) this.#invalidate(word + TlbEntry.writeTag / 4, index);
    });
  }

  /**
   * Takes over current entries of another TLB whose top-level entries are the same in both roots.
   * @param shared whether a top-level slot is the same
   */
  adopt(other: Tlb, shared: Uint8Array): void {
    this.#refreshedAt = -1;
    other.#visitFilled((index) => {
      const from = other.#word(index);
      const high = this.#u32[from + 1] as number;
      if (this.#u32[from + TlbEntry.frame / 4] === 0 || shared[(high >>> 7) & 0x1ff] === 0) return;
      if (other.#tables[index * PATH_TABLES] === NO_TABLES) return;
      const offset = index * TlbEntry.size;
      this.#memory.copyFew(this.address + offset, other.address + offset, TlbEntry.size);
      for (let table = index * PATH_TABLES; table < (index + 1) * PATH_TABLES; table++) {
        this.#tables[table] = other.#tables[table] as number;
      }
      this.#lastGenerations[index] = other.#lastGenerations[index] as number;
      this.#upperGenerations[index] = other.#upperGenerations[index] as number;
      this.#lastEntries[index * 2] = other.#lastEntries[index * 2] as number;
      this.#lastEntries[index * 2 + 1] = other.#lastEntries[index * 2 + 1] as number;
      this.#noteTables(index);
      this.#noteKind(index, this.#u32[from] as number, high, other.#kinds[index] as number);
      this.#note(index, this.#u32[from + TlbEntry.frame / 4] as HostAddress);
    });
  }

  /** Drops what is cached of the page at an address, however large the page is. */
  invalidatePage(low: number, high: number): void {
    this.#clear(this.#index(low));
    const bucket = pieceBucket(low, high);
    if (this.#hasPieces[bucket] === 0) return;
    this.#visitFilled((index) => {
      const isPiece = ((this.#kinds[index] as number) & PageKind.large) !== 0;
      if (!isPiece) return;
      const word = this.#word(index);
      if (pieceBucket(this.#u32[word] as number, this.#u32[word + 1] as number) === bucket) this.#clear(index);
    });
    this.#hasPieces[bucket] = 0;
  }

  /** Each cached translation that leads to a frame: its page's address, and whether a store goes through it. */
  visitFrame(frame: HostAddress, visit: (address: GuestVirtual, writable: boolean) => void): void {
    const u32 = this.#u32;
    for (let index = this.#byFrame.first(frame >>> PAGE_BITS); index !== NO_ENTRY; index = this.#byFrame.after(index)) {
      const word = this.#word(index);
      if (u32[word + 6] !== frame) continue;
      const low = u32[word] as number;
      const high = u32[word + 1] as number;
      visit(joinSigned(low, high) as GuestVirtual, u32[word + 2] === low && u32[word + 3] === high);
    }
  }

  /** Drops every entry of a frame, or only its permission to write. */
  invalidateFrame(frame: HostAddress, writableOnly: boolean): void {
    for (let index = this.#byFrame.first(frame >>> PAGE_BITS); index !== NO_ENTRY; index = this.#byFrame.after(index)) {
      const word = this.#word(index);
      if (this.#u32[word + 6] !== frame) continue;
      if (writableOnly) this.#invalidate(word + 2, index);
      else this.#clear(index);
    }
  }
}
