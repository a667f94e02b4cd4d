import type { Archive, Archived } from '../archive/archive.ts';
import { ENTRY_FRAME_HIGH, ENTRY_FRAME_LOW, type EntryNumbers, entryHigh, frameOfEntry } from '../x86/page-table.ts';
import { Pte } from '../x86/registers.ts';

/** How much further on a page's machine frame number is: a third of all, so that the two can be confused in neither direction. */
const DISTANCE = 1 / 3;

/**
 * Machine frame numbers of a guest whose memory is pages from 0 on, and which begins without any: until `begin`, they are
 * the pages' own. Then they are these moved on in a circle. What is behind the memory is devices', and stands for itself.
 */
export class MachineNumbers implements EntryNumbers, Archived {
  readonly pages: number;
  #distance = 0;

  constructor(pages: number) {
    this.pages = pages;
  }

  archive(archive: Archive): void {
    this.#distance = archive.value('distance', this.#distance);
  }

  /** How far each number is from its page; 0 while they are the same. */
  get distance(): number {
    return this.#distance;
  }

  begin(): void {
    this.#distance = Math.floor(this.pages * DISTANCE);
  }

  pageOf(number: number): number {
    if (number >= this.pages) return number;
    const page = number - this.#distance;
    return page < 0 ? page + this.pages : page;
  }

  numberOf(page: number): number {
    if (page >= this.pages) return page;
    const number = page + this.#distance;
    return number < this.pages ? number : number - this.pages;
  }

  /** Makes of an 8-byte entry that names a page one that names its machine frame. What is not present names nothing. */
  putInto(entry: Uint32Array): void {
    this.#rename(entry, (page) => this.numberOf(page));
  }

  /** Undoes `putInto`. */
  takeOutOf(entry: Uint32Array): void {
    this.#rename(entry, (number) => this.pageOf(number));
  }

  #rename(entry: Uint32Array, other: (number: number) => number): void {
    const [low, high] = entry as unknown as [number, number];
    if (this.#distance === 0 || (low & Pte.present) === 0) return;
    const number = other(frameOfEntry(low, high));
    entry[0] = (low & ~ENTRY_FRAME_LOW) | (number << 12);
    entry[1] = (high & ~ENTRY_FRAME_HIGH) | entryHigh(number);
  }
}
