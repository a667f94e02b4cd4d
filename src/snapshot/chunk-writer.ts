import { ZstdEncoder } from '../boot/zstd-encoder.ts';
import { CHUNK_BYTES, type ChunkList, DIGEST_BYTES, digestOf, type SnapshotTarget } from './format.ts';

/** What is appended to a target, and how far it got. */
export class CountingTarget {
  readonly #target: SnapshotTarget;
  position = 0;

  constructor(target: SnapshotTarget) {
    this.#target = target;
  }

  async append(bytes: Uint8Array): Promise<void> {
    this.position += bytes.length;
    await this.#target.append(bytes);
  }
}

/** Packs content as it comes, a chunk at a time. */
export class ChunkWriter {
  readonly #target: CountingTarget;
  readonly #encoder = new ZstdEncoder();
  readonly #start: number;
  readonly #content = new Uint8Array(CHUNK_BYTES);
  readonly #lengths: number[] = [];
  readonly #digests: Uint8Array[] = [];
  #filled = 0;
  #size = 0;

  constructor(target: CountingTarget) {
    this.#target = target;
    this.#start = target.position;
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const part = bytes.subarray(done, done + CHUNK_BYTES - this.#filled);
      this.#content.set(part, this.#filled);
      this.#filled += part.length;
      done += part.length;
      if (this.#filled === CHUNK_BYTES) await this.#flush();
    }
  }

  async #flush(): Promise<void> {
    const packed = this.#encoder.encode(this.#content.subarray(0, this.#filled));
    this.#size += this.#filled;
    this.#filled = 0;
    this.#lengths.push(packed.length);
    this.#digests.push(await digestOf(packed));
    await this.#target.append(packed);
  }

  async finish(): Promise<ChunkList> {
    if (this.#filled > 0) await this.#flush();
    const lengths = Uint32Array.from(this.#lengths);
    const digests = new Uint8Array(this.#digests.length * DIGEST_BYTES);
    for (const [index, digest] of this.#digests.entries()) digests.set(digest, index * DIGEST_BYTES);
    return { size: this.#size, start: this.#start, lengths: new Uint8Array(lengths.buffer), digests };
  }
}
