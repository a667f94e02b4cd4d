import { type BlockResult, type BlockStore, SECTOR } from './store.ts';

/** Sectors that are kept together: one bit each in a chunk's mask of four words. */
const CHUNK_SECTORS = 128;

interface Chunk {
  readonly bytes: Uint8Array;
  /** Which sectors were written. */
  readonly written: Uint32Array;
}

/** A disk that keeps what is written in the host's memory and leaves the one below alone (copy on write). */
export class OverlayStore implements BlockStore {
  readonly isReadOnly = false;
  readonly #base: BlockStore;
  readonly #chunks = new Map<number, Chunk>();

  constructor(base: BlockStore) {
    this.#base = base;
  }

  get sectors(): number {
    return this.#base.sectors;
  }

  get identifier(): string {
    return this.#base.identifier;
  }

  async read(sector: number, target: Uint8Array): Promise<BlockResult> {
    const result = await this.#base.read(sector, target);
    if (result === 'failed') return result;
    for (let offset = 0; offset < target.length; offset += SECTOR) {
      const place = sector + offset / SECTOR;
      const chunk = this.#chunks.get(Math.floor(place / CHUNK_SECTORS));
      const index = place % CHUNK_SECTORS;
      if (chunk === undefined || ((chunk.written[index >> 5] as number) & (1 << (index & 31))) === 0) continue;
      target.set(chunk.bytes.subarray(index * SECTOR, (index + 1) * SECTOR), offset);
    }
    return 'done';
  }

  async write(sector: number, source: Uint8Array): Promise<BlockResult> {
    for (let offset = 0; offset < source.length; offset += SECTOR) {
      const place = sector + offset / SECTOR;
      const chunk = this.#chunkAt(Math.floor(place / CHUNK_SECTORS));
      const index = place % CHUNK_SECTORS;
      chunk.bytes.set(source.subarray(offset, offset + SECTOR), index * SECTOR);
      chunk.written[index >> 5] = (chunk.written[index >> 5] as number) | (1 << (index & 31));
    }
    return 'done';
  }

  async flush(): Promise<BlockResult> {
    return 'done';
  }

  close(): Promise<void> {
    return this.#base.close();
  }

  #chunkAt(number: number): Chunk {
    let chunk = this.#chunks.get(number);
    if (chunk === undefined) {
      chunk = { bytes: new Uint8Array(CHUNK_SECTORS * SECTOR), written: new Uint32Array(CHUNK_SECTORS / 32) };
      this.#chunks.set(number, chunk);
    }
    return chunk;
  }
}
