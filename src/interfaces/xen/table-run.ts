import { PAGE_SHIFT } from '../../x86/brand.ts';
import type { TableGeometry } from '../../x86/page-table.ts';

/** Sets one entry: `table` and `target` are pseudo-physical pages. */
export type SetEntry = (table: number, index: number, target: number, level: number) => void;

/**
 * The tables that map a run of pages, below a root that may map others: those of the level below the root first, those of
 * level 1 last.
 */
export class TableRun {
  readonly #geometry: TableGeometry;
  readonly #address: number;
  readonly #pages: number;
  /** Tables by level; index 0 means nothing. */
  readonly #counts: readonly number[];

  /** @param address of the first page, signed */
  constructor(geometry: TableGeometry, address: number, pages: number) {
    this.#geometry = geometry;
    this.#address = address;
    this.#pages = pages;
    this.#counts = Array.from({ length: geometry.levels }, (_none, level) =>
      level === 0 ? 0 : this.#slot(level + 1, pages - 1) - this.#slot(level + 1, 0) + 1,
    );
  }

  /** All tables, without the root. */
  get total(): number {
    return this.#counts.reduce((sum, count) => sum + count, 0);
  }

  /** Indexes of the root's entries that the run takes. */
  hasRootEntry(index: number): boolean {
    const { levels } = this.#geometry;
    const first = this.#index(levels, this.#slot(levels, 0));
    return index >= first && index < first + (this.#counts[levels - 1] ?? 0);
  }

  /**
   * Sets all entries.
   * @param firstTable the first of `total` pages @param firstPage the first that is mapped
   */
  write(root: number, firstTable: number, firstPage: number, set: SetEntry): void {
    let upper = root;
    let next = firstTable;
    for (let level = this.#geometry.levels; level >= 1; level--) {
      const lower = level === 1 ? firstPage : next;
      const count = level === 1 ? this.#pages : (this.#counts[level - 1] ?? 0);
      const first = this.#slot(level, 0);
      const firstUpper = level === this.#geometry.levels ? this.#tableOf(level, first) : this.#slot(level + 1, 0);
      for (let step = 0; step < count; step++) {
        const slot = first + step;
        set(upper + this.#tableOf(level, slot) - firstUpper, this.#index(level, slot), lower + step, level);
      }
      upper = lower;
      if (level > 1) next += count;
    }
  }

  /** Number, from address 0, of the entry of a level for a page of the run. */
  #slot(level: number, page: number): number {
    const pages = 2 ** ((this.#geometry.shift[level] ?? 0) - PAGE_SHIFT);
    return Math.floor((this.#address / 2 ** PAGE_SHIFT + page) / pages);
  }

  /** Number, from address 0, of the table that an entry stands in. */
  #tableOf(level: number, slot: number): number {
    return Math.floor(slot / (this.#geometry.entries[level] ?? 1));
  }

  #index(level: number, slot: number): number {
    const entries = this.#geometry.entries[level] ?? 1;
    return ((slot % entries) + entries) % entries;
  }
}
