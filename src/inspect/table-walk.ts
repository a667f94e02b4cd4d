import type { MmuState } from '../ops/contracts.ts';
import { type GuestVirtual, highWord, lowWord } from '../x86/brand.ts';
import { frameOfEntry, tableIndex } from '../x86/page-table.ts';
import { Pte } from '../x86/registers.ts';

/** Where a walk ended: at a page, or at an entry that is not present. */
export interface WalkEnd {
  readonly level: number;
  readonly table: number;
  readonly index: number;
  /** Whether the table is in memory; otherwise its entry is taken for one that is not present. */
  readonly isReadable: boolean;
}

/** Follows present entries from a root; leaves the last one in `entry`. */
export function walkTables(state: MmuState, root: number, address: GuestVirtual, entry: Uint32Array): WalkEnd {
  const { geometry } = state;
  let table = root;
  for (let level = geometry.levels; ; level--) {
    const index = tableIndex(geometry, level, lowWord(address), highWord(address));
    const isReadable = state.readEntry(table, index, entry);
    if (!isReadable) entry.fill(0);
    const low = entry[0]!; // two words
    const stop = level === 1 || (low & Pte.present) === 0 || (level < 4 && (low & Pte.large) !== 0);
    if (stop) return { level, table, index, isReadable };
    table = frameOfEntry(low, entry[1]!); // two words
  }
}
