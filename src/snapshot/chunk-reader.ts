import { InputError } from '../boot/input-error.ts';
import { decompressZstd } from '../boot/zstd.ts';
import { CHUNK_BYTES, type ChunkList, DIGEST_BYTES, damagedSnapshot, digestOf, type SnapshotSource } from './format.ts';

/** Chunks whose content is kept: a guest that goes on asks for many pages near each other. */
const KEPT_CHUNKS = 16;

/** Content in chunks, which are read and unpacked when they are needed. */
export class ChunkReader {
  readonly size: number;
  /** Where the chunks end in the source. */
  readonly end: number;
  readonly #source: SnapshotSource;
  /** Where each chunk begins, and the end of the last. */
  readonly #offsets: Float64Array;
  readonly #digests: Uint8Array;
  /** The last used is the last. */
  readonly #kept = new Map<number, Uint8Array>();
  readonly #loading = new Map<number, Promise<Uint8Array>>();

  /** @throws InputError when the list does not fit together */
  constructor(source: SnapshotSource, list: ChunkList) {
    const { size, start, lengths, digests } = list;
    const count = Math.ceil(size / CHUNK_BYTES);
    if (lengths.length !== count * 4 || digests.length !== count * DIGEST_BYTES) {
      throw damagedSnapshot(source.name, 'its index contradicts itself');
    }
    const view = new DataView(lengths.buffer, lengths.byteOffset);
    this.size = size;
    this.#source = source;
    this.#digests = digests;
    this.#offsets = new Float64Array(count + 1);
    this.#offsets[0] = start;
    for (let chunk = 0; chunk < count; chunk++) {
      this.#offsets[chunk + 1] = (this.#offsets[chunk] as number) + view.getUint32(chunk * 4, true);
    }
    this.end = this.#offsets[count] as number;
    if (this.end > source.size) throw damagedSnapshot(source.name, 'its index leads beyond its end');
  }

  get chunks(): number {
    return this.#offsets.length - 1;
  }

  /** Reads a chunk as it is packed. @throws InputError when it is not what was written */
  async packed(chunk: number): Promise<Uint8Array> {
    const start = this.#offsets[chunk] as number;
    const bytes = new Uint8Array((this.#offsets[chunk + 1] as number) - start);
    await this.#source.read(start, bytes);
    const digest = await digestOf(bytes);
    const expected = this.#digests.subarray(chunk * DIGEST_BYTES, (chunk + 1) * DIGEST_BYTES);
    if (!digest.every((byte, index) => byte === expected[index])) {
      throw damagedSnapshot(this.#source.name, `the bytes from ${start} on are not those that were written`);
    }
    return bytes;
  }

  /** The content of a chunk if it is at hand. */
  kept(chunk: number): Uint8Array | undefined {
    const content = this.#kept.get(chunk);
    if (content) {
      this.#kept.delete(chunk);
      this.#kept.set(chunk, content);
    }
    return content;
  }

  /** The content of a chunk. */
  load(chunk: number): Promise<Uint8Array> {
    let loading = this.#loading.get(chunk);
    if (!loading) {
      loading = this.#unpack(chunk).finally(() => this.#loading.delete(chunk));
      this.#loading.set(chunk, loading);
    }
    return loading;
  }

  async #unpack(chunk: number): Promise<Uint8Array> {
    const expected = Math.min(CHUNK_BYTES, this.size - chunk * CHUNK_BYTES);
    const content = unpack(this.#source.name, await this.packed(chunk), expected);
    this.#kept.set(chunk, content);
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > KEPT_CHUNKS && oldest !== undefined) this.#kept.delete(oldest);
    return content;
  }

  /** All of the content. */
  async all(): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.size);
    for (let chunk = 0; chunk < this.chunks; chunk++) {
      const expected = Math.min(CHUNK_BYTES, this.size - chunk * CHUNK_BYTES);
      bytes.set(unpack(this.#source.name, await this.packed(chunk), expected), chunk * CHUNK_BYTES);
    }
    return bytes;
  }
}

/** @throws InputError when the result does not have the expected length */
export function unpack(name: string, packed: Uint8Array, expected: number): Uint8Array {
  let content: Uint8Array;
  try {
    content = decompressZstd(packed, expected).slice();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw damagedSnapshot(name, error.message);
  }
  if (content.length !== expected) throw damagedSnapshot(name, 'a chunk has another length than its content');
  return content;
}
