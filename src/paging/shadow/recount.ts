import type { MachineSpace } from '../../memory/machine-space.ts';
import type { Frame } from '../../x86/brand.ts';
import { Pte } from '../../x86/registers.ts';
import { ENTRY_MASK, ENTRY_SHIFT, NONE, type ShadowPage } from './shadow-page.ts';
import type { ShadowPool } from './shadow-pool.ts';

/** Something about shadows that is not what their entries and the guest's add up to. */
export interface ShadowDiscrepancy {
  /** Number of the guest's page; −1 for what is about a frame. */
  readonly mfn: number;
  readonly what:
    | 'shadow'
    | 'shadow entries'
    | 'shadow parents'
    | 'shadow mappings'
    | 'shadow uses'
    | 'shadow frame'
    | 'shadow rights'
    | 'shadow protection'
    | 'shadow entry';
  readonly stored: number;
  readonly expected: number;
}

/** What is kept of shadows. */
export interface KeptShadows {
  readonly pool: ShadowPool;
  readonly space: MachineSpace;
  /** By page of the guest: the first of the level-1 entries that lead to it, and how many they are. */
  readonly mappings: Int32Array;
  readonly mappingCounts: Uint16Array;
  /** Level-1 entries that hold a frame. */
  readonly uses: Int32Array;
  shadowsOf(page: number): readonly ShadowPage[];
  low(shadow: ShadowPage, index: number): number;
  /** Whether stores to a page are seen, and whether the guest tells of them. */
  isProtected(page: number): boolean;
  isAnnounced(page: number): boolean;
}

/** Adds up everything from the entries of all shadows, and compares. Costs a look at every entry of every shadow. */
export function recountShadows(kept: KeptShadows): ShadowDiscrepancy[] {
  const { pool, space } = kept;
  const found: ShadowDiscrepancy[] = [];
  const uses = new Int32Array(kept.uses.length);
  const mappingCounts = new Uint16Array(kept.mappingCounts.length);
  const parents = new Uint32Array(pool.all.length);

  function compare(mfn: number, what: ShadowDiscrepancy['what'], stored: number, expected: number): void {
    if (stored !== expected) found.push({ mfn, what, stored, expected });
  }
  function useLeaf(shadow: ShadowPage, index: number, low: number): void {
    const page = shadow.targets[index] as number;
    const frame = (low >>> 12) as Frame;
    compare(page, 'shadow frame', frame, space.frames[page] ?? NONE);
    if (space.writeProtected[page] !== 0) compare(page, 'shadow rights', low & Pte.writable, 0);
    mappingCounts[page]!++; // a page beyond the limit was reported above, and the store is ignored
    uses[frame]!++;
  }

  for (const shadow of pool.all) {
    if (shadow.page === NONE) continue;
    compare(shadow.page, 'shadow', kept.shadowsOf(shadow.page).includes(shadow) ? 1 : 0, 1);
    if (shadow.protects && !kept.isAnnounced(shadow.page)) {
      compare(shadow.page, 'shadow protection', kept.isProtected(shadow.page) ? 1 : 0, 1);
    }
    let entries = 0;
    for (let index = 0; index < shadow.entries; index++) {
      const low = kept.low(shadow, index);
      if (low === 0) continue;
      entries++;
      if (shadow.level === 1) {
        useLeaf(shadow, index, low);
        continue;
      }
      const child = pool.at(shadow.targets[index] as number);
      compare(shadow.page, 'shadow frame', low >>> 12, child.page === NONE ? NONE : child.frame);
      parents[child.slot]!++; // one for each slot
    }
    compare(shadow.page, 'shadow entries', shadow.count, entries);
  }

  const lengthOf = (first: number): number => {
    let length = 0;
    for (let entry = first; entry !== NONE; length++) {
      entry = pool.at(entry >> ENTRY_SHIFT).next[entry & ENTRY_MASK] as number;
    }
    return length;
  };
  for (const shadow of pool.all) {
    if (shadow.page !== NONE) compare(shadow.page, 'shadow parents', lengthOf(shadow.parents), parents[shadow.slot]!); // one for each slot
  }
  for (const [page, count] of mappingCounts.entries()) {
    compare(page, 'shadow mappings', kept.mappingCounts[page]!, count); // as long
    compare(page, 'shadow mappings', lengthOf(kept.mappings[page]!), count);
  }
  for (const [frame, count] of uses.entries()) compare(-1, 'shadow uses', kept.uses[frame]!, count); // as long
  return found;
}
