import { RecentChanges } from './recent-changes.ts';

/**
 * Generations of a domain's tables, by number: a table's grows when a present entry of it changes and when its frame stops
 * being a table, and never shrinks. Equal generations say that a walk would find the same again.
 */
export class TableGenerations {
  readonly #values: Uint32Array;
  /** Numbers of the tables that changed. */
  readonly changes = new RecentChanges();

  /** @param limit first number that is none of the domain's */
  constructor(limit: number) {
    this.#values = new Uint32Array(limit);
  }

  /** 0 for a number that is no table's. */
  of(table: number): number {
    return this.#values[table] ?? 0;
  }

  changed(table: number): void {
    this.#values[table]! += 1; // tables are below the limit
    this.changes.note(table);
  }
}
