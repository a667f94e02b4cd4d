import type { TableFormat } from '../../cpu/translation.ts';
import { PAE_TOPS } from '../../cpu/walk.ts';
import type { Frame } from '../../x86/brand.ts';
import { TABLE_GEOMETRY, type TableGeometry } from '../../x86/page-table.ts';
import { PTE_NO_EXECUTE_HIGH, Pte } from '../../x86/registers.ts';

export type ShadowedFormat = Exclude<TableFormat, 'none'>;

/** No entry, in place of an entry's number; no page, in place of a page's. */
export const NONE = -1;

/** An entry's number is the slot of its page, shifted, and its index: a table has at most 1024 entries. */
export const ENTRY_SHIFT = 10;
export const ENTRY_MASK = (1 << ENTRY_SHIFT) - 1;

/** What is always set in a shadow's entry: the guest's accessed and dirty bits were set before it was made. */
const ALWAYS = Pte.present | Pte.accessed | Pte.dirty;

const PAE_TOP_ENTRIES = 4;

const FORMATS: readonly ShadowedFormat[] = ['two-level', 'pae', 'four-level'];

/**
 * What a shadow page stands for besides the page's number: one page of a guest can be a table of two levels at the same
 * time, or be used with and without what is `optional` in its format: EFER.NXE, in two-level tables CR4.PSE. (CR0.WP
 * needs no bit: entries are made as if it were set, and stores that only its absence permits are made one by one.)
 */
export function roleOf(format: ShadowedFormat, level: number, optional: boolean, isPieces: boolean): number {
  return level | (FORMATS.indexOf(format) << 3) | (optional ? 0x20 : 0) | (isPieces ? 0x40 : 0);
}

/** Number of the page that a root stands in: PAE's top tables are small, and all of a page have one shadow together. */
export function tableOfRoot(format: ShadowedFormat, root: number): number {
  return format === 'pae' ? Math.floor(root / PAE_TOPS) : root;
}

/** In the page of a root, the first entry of its table. */
export function firstEntryOfRoot(format: ShadowedFormat, root: number): number {
  return format === 'pae' ? (root % PAE_TOPS) * PAE_TOP_ENTRIES : 0;
}

/** Rights of a guest's level-1 entry. Without the dirty bit there is none to write: the next store has to set it. */
export function leafFlags(low: number): number {
  const writable = (low & Pte.dirty) !== 0 ? low & Pte.writable : 0;
  return ALWAYS | (low & (Pte.user | Pte.global)) | writable;
}

/** Rights of a guest's entry above level 1 that leads to a table. The top entries of PAE have none to restrict. */
export function tableFlags(low: number, isTopOfPae: boolean): number {
  return ALWAYS | (isTopOfPae ? Pte.user | Pte.writable : low & (Pte.user | Pte.writable));
}

/** NX of a guest's entry, as the high word of a shadow's. */
export function noExecuteOf(high: number): number {
  return (high & PTE_NO_EXECUTE_HIGH) >>> 0;
}

/**
 * One shadow table, in a frame of the host: what processors walk in place of a guest's table, entry by entry in the same
 * places. Its entries hold frames of the pool. A large page of the guest is shadowed in pieces, by a table that
 * stands for no table of the guest's: the host has no large pages.
 *
 * Beside each entry stands where it leads: at level 1 the number of the guest's page, above it the slot of the shadow
 * page. All entries that lead to the same place are a chain through their pages.
 */
export class ShadowPage {
  readonly slot: number;
  readonly frame: Frame;
  /** The frame's first word in the host's memory. */
  readonly word: number;
  /** Number of the guest's table, or of the first page of the large one; −1 when this page is free. */
  page = NONE;
  role = 0;
  level = 0;
  /** Whether this stands for a large page. */
  isPieces = false;
  geometry: TableGeometry = TABLE_GEOMETRY['four-level'];
  /** Words of an entry. */
  stride = 2;
  /** Whether entries of level 2 can be large pages. */
  hasLargePages = true;
  /** First of the chain of entries that lead here. */
  parents = NONE;
  /** Entries that are present. */
  count = 0;
  /** Whether stores to the guest's table are seen, so that this is never behind it. */
  isSynced = true;
  /** Stores to the guest's table since a walk came by. */
  writes = 0;
  /** Whether a walk came by since the last time somebody looked for a page to take away. */
  used = false;
  targets = new Int32Array(0);
  next = new Int32Array(0);
  previous = new Int32Array(0);

  constructor(slot: number, frame: Frame, word: number) {
    this.slot = slot;
    this.frame = frame;
    this.word = word;
  }

  /** Begins to stand for a page in a role. All entries are empty. */
  begin(page: number, role: number): void {
    this.page = page;
    this.role = role;
    this.level = role & 7;
    this.isPieces = (role & 0x40) !== 0;
    this.geometry = TABLE_GEOMETRY[FORMATS[(role >> 3) & 3] as ShadowedFormat]; // two bits that roleOf set
    this.stride = this.geometry.entryBytes / 4;
    this.hasLargePages = this.stride === 2 || (role & 0x20) !== 0;
    this.parents = NONE;
    this.count = 0;
    this.isSynced = true;
    this.writes = 0;
    this.used = true;
    const { entries } = this;
    if (this.targets.length < entries) {
      this.targets = new Int32Array(entries);
      this.next = new Int32Array(entries);
      this.previous = new Int32Array(entries);
    }
  }

  get entries(): number {
    return this.isTopOfPae ? PAE_TOPS * PAE_TOP_ENTRIES : (this.geometry.entries[this.level] ?? 0);
  }

  get isTopOfPae(): boolean {
    return this.level === 3 && this.geometry.levels === 3;
  }

  /** Whether walks begin here: it stays without an entry that leads to it. */
  get isTop(): boolean {
    return this.level === this.geometry.levels;
  }

  /** Whether the guest's table is write-protected for this. */
  get protects(): boolean {
    return this.isSynced && !this.isPieces;
  }
}
