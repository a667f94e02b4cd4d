/**
 * Page tables as the architecture defines them (SDM vol. 3A, 4.3–4.5): types and tables, no state.
 *
 * An 8-byte entry is handled as two 32-bit halves, because a 64-bit number is no JavaScript number:
 *
 *     high word                                     low word
 *     31   30 … 20        19 … 0                    31 … 12          11 … 9      8 … 0
 *     NX   for software   frame number bits 39–20   frame bits 19–0  software    flags (`Pte`)
 */

/** How the tables below one root are laid out. */
export interface TableGeometry {
  readonly levels: number;
  readonly entryBytes: 4 | 8;
  /** Entries of a table, by level; level 1 holds the entries of 4 KiB pages, and index 0 means nothing. */
  readonly entries: readonly number[];
  /** Lowest address bit that selects an entry, by level. */
  readonly shift: readonly number[];
}

export const TABLE_GEOMETRY = {
  'two-level': { levels: 2, entryBytes: 4, entries: [0, 1024, 1024], shift: [0, 12, 22] },
  pae: { levels: 3, entryBytes: 8, entries: [0, 512, 512, 4], shift: [0, 12, 21, 30] },
  'four-level': { levels: 4, entryBytes: 8, entries: [0, 512, 512, 512, 512], shift: [0, 12, 21, 30, 39] },
} as const satisfies Record<string, TableGeometry>;

/** Bits 51–32 of an 8-byte entry that belong to the frame number, in its high word. */
export const ENTRY_FRAME_HIGH = 0x000f_ffff;
/** The same of the low word. */
export const ENTRY_FRAME_LOW = 0xffff_f000;

/** Frame number of an 8-byte entry, 0 … 2^40 − 1. The first case keeps small numbers small integers. */
export function frameOfEntry(low: number, high: number): number {
  const upper = high & ENTRY_FRAME_HIGH;
  return upper === 0 ? low >>> 12 : upper * 0x10_0000 + (low >>> 12);
}

/** How the numbers in a guest's entries stand for its pages. */
export interface EntryNumbers {
  /** The page that a number in an entry names; numbers that are no page's stand for themselves. */
  pageOf(number: number): number;
}

/** Entries hold the numbers of the pages themselves. */
export const OWN_NUMBERS: EntryNumbers = { pageOf: (number) => number };

/** Low word of an 8-byte entry: frame number and flags. */
export function entryLow(frame: number, flags: number): number {
  return ((frame << 12) | flags) >>> 0;
}

/** High word of an 8-byte entry, without NX and software bits. */
export function entryHigh(frame: number): number {
  return Math.floor(frame / 0x10_0000) & ENTRY_FRAME_HIGH;
}

/** Index into the table of one level that translates an address given by its 32-bit halves. */
export function tableIndex(geometry: TableGeometry, level: number, low: number, high: number): number {
  const shift = geometry.shift[level] ?? 0;
  const mask = (geometry.entries[level] ?? 1) - 1;
  return shift >= 32 ? (high >>> (shift - 32)) & mask : ((low >>> shift) | (high << (32 - shift))) & mask;
}
