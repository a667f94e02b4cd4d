import { DomainCrash } from '../../domain/crash.ts';
import type { DirectPaging } from '../../paging/direct/direct-paging.ts';
import type { TableLevel } from '../../paging/direct/table-rules.ts';
import type { Mfn, Pfn } from '../../x86/brand.ts';
import { Pte } from '../../x86/registers.ts';
import { MADE_READ_ONLY } from './host-call.ts';

const entry = new Uint32Array(2);

/** Visits the present entries of a page of the domain's as of a table. @throws PageAbsent */
export function eachPresentEntry(
  paging: DirectPaging,
  table: number,
  level: TableLevel,
  visit: (index: number, low: number, high: number) => void,
): void {
  const count = paging.rules.geometry.entries[level] ?? 0;
  for (let index = 0; index < count; index++) {
    paging.entries.read(table, index, entry);
    const [low, high] = entry as unknown as [number, number];
    if ((low & Pte.present) !== 0) visit(index, low, high);
  }
}

/**
 * The tables that are to be examined from here on: those that a root leads to, and those that were announced, with what
 * these lead to. A page that is met twice has the level that it was met with first.
 * @throws DomainCrash for a large page below the root, PageAbsent
 */
export function surveyTables(
  paging: DirectPaging,
  root: Mfn,
  announced: ReadonlyMap<Pfn, TableLevel>,
): ReadonlyMap<number, TableLevel> {
  const tables = new Map<number, TableLevel>();
  let belowRoot = true;
  const visit = (table: number, level: TableLevel): void => {
    if (tables.has(table) || !paging.types.isDomains(table)) return;
    tables.set(table, level);
    if (level === 1) return;
    eachPresentEntry(paging, table, level, (_index, low, high) => {
      const isLarge = level === 2 && (low & Pte.large) !== 0;
      if (isLarge && belowRoot) {
        throw new DomainCrash('the kernel maps large pages, of which CPUID does not tell: direct paging has none');
      }
      if (!isLarge) visit(paging.types.namedBy(low, high), (level - 1) as TableLevel);
    });
  };
  visit(root, paging.topLevel);
  belowRoot = false;
  for (const [page, level] of announced) visit(page, level);
  return tables;
}

/** Lets these tables, where they map one of them, map it read-only. @throws PageAbsent */
export function mapReadOnly(paging: DirectPaging, tables: ReadonlyMap<number, TableLevel>): void {
  for (const [table, level] of tables) {
    if (level > 1) continue;
    eachPresentEntry(paging, table, level, (index, low, high) => {
      if ((low & Pte.writable) === 0 || !tables.has(paging.types.namedBy(low, high))) return;
      paging.entries.store(table, index, low & ~Pte.writable, high | MADE_READ_ONLY);
    });
  }
}
