import { type BlockResult, type BlockStore, SECTOR } from './store.ts';

/** A disk that lasts as long as its host. */
export class MemoryStore implements BlockStore {
  readonly identifier: string;
  readonly isReadOnly: boolean;
  readonly #bytes: Uint8Array;

  /** @param bytes the contents, whole sectors; writes go there */
  constructor(bytes: Uint8Array, { identifier = 'memory', isReadOnly = false } = {}) {
    if (bytes.length % SECTOR !== 0) throw new RangeError(`${bytes.length} bytes are not whole sectors of ${SECTOR}`);
    this.#bytes = bytes;
    this.identifier = identifier;
    this.isReadOnly = isReadOnly;
  }

  get sectors(): number {
    return this.#bytes.length / SECTOR;
  }

  async read(sector: number, target: Uint8Array): Promise<BlockResult> {
    target.set(this.#bytes.subarray(sector * SECTOR, sector * SECTOR + target.length));
    return 'done';
  }

  async write(sector: number, source: Uint8Array): Promise<BlockResult> {
    this.#bytes.set(source, sector * SECTOR);
    return 'done';
  }

  async flush(): Promise<BlockResult> {
    return 'done';
  }

  async close(): Promise<void> {}
}
