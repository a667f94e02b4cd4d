import type { BackingFile } from '../mm/page-cache.ts';
import type { Soon } from '../mm/soon.ts';
import { PAGE_SIZE } from '../x86/brand.ts';
import { ChunkReader } from './chunk-reader.ts';
import { CHUNK_BYTES, damagedSnapshot, type PageList, type SnapshotSource } from './format.ts';

const PAGES_PER_CHUNK = CHUNK_BYTES / PAGE_SIZE;
const ZERO = -1;
/** Zero pages in a row that are worth an area of their own: 1 MiB. */
const LONG_RUN = 256;

/** Pages [first, end) of a memory. */
export interface PageRun {
  readonly first: number;
  readonly end: number;
  /** All of them are zero. */
  readonly isZero: boolean;
}

/** The memory of a snapshot as a file that address spaces map: pages come when a guest first needs them. */
export class PageFile implements BackingFile {
  readonly name: string;
  readonly size: number;
  readonly chunks: ChunkReader;
  /** Place of each page among those in the chunks. */
  readonly #places: Int32Array;

  /** @throws InputError when the list does not fit together */
  constructor(source: SnapshotSource, { pages, present, chunks }: PageList) {
    this.name = `the snapshot ${source.name}`;
    this.size = pages * PAGE_SIZE;
    this.chunks = new ChunkReader(source, chunks);
    this.#places = new Int32Array(pages);
    let place = 0;
    for (let page = 0; page < pages; page++) {
      const isPresent = (((present[page >> 3] ?? 0) >> (page & 7)) & 1) !== 0;
      this.#places[page] = isPresent ? place++ : ZERO;
    }
    if (place * PAGE_SIZE !== this.chunks.size)
      throw damagedSnapshot(source.name, 'its pages are not as many as it says');
  }

  get pages(): number {
    return this.#places.length;
  }

  read(offset: number, target: Uint8Array): Soon<void> {
    const place = this.#places[offset / PAGE_SIZE] as number;
    if (place === ZERO) return undefined;
    const chunk = Math.floor(place / PAGES_PER_CHUNK);
    const start = (place % PAGES_PER_CHUNK) * PAGE_SIZE;
    const copy = (content: Uint8Array): void => target.set(content.subarray(start, start + target.length));
    const kept = this.chunks.kept(chunk);
    return kept ? copy(kept) : this.chunks.load(chunk).then(copy);
  }

  /** The memory in parts: long runs of zeroes need not be read from anywhere. */
  runs(): PageRun[] {
    const runs: PageRun[] = [];
    let first = 0;
    for (let page = 0; page < this.pages; ) {
      let end = page;
      while (end < this.pages && this.#places[end] === ZERO) end++;
      if (end - page >= LONG_RUN) {
        if (first < page) runs.push({ first, end: page, isZero: false });
        runs.push({ first: page, end, isZero: true });
        first = end;
      }
      page = end + 1;
    }
    if (first < this.pages) runs.push({ first, end: this.pages, isZero: false });
    return runs;
  }
}
