import type { Archive, Archived } from '../archive/archive.ts';

/** Numbers by index, nearly all of them zero; these take no memory. */
export class SparseNumbers implements Archived {
  readonly #values = new Map<number, number>();

  archive(archive: Archive): void {
    archive.map('values', this.#values);
  }

  get(index: number): number {
    return this.#values.get(index) ?? 0;
  }

  set(index: number, value: number): void {
    if (value === 0) this.#values.delete(index);
    else this.#values.set(index, value);
  }

  add(index: number, difference: number): void {
    this.set(index, this.get(index) + difference);
  }

  clear(): void {
    this.#values.clear();
  }

  /** Index and number of those that are not zero at present, by index. */
  entries(): [number, number][] {
    return [...this.#values].sort(([a], [b]) => a - b);
  }
}
