/**
 * A snapshot file: all that a guest is, so that it can go on anywhere. Numbers are little-endian.
 *
 *     0           magic "ring1vm\n", version u32, zero u32
 *     16          chunks: each one zstd frame of up to 128 KiB of content
 *     …           index: one zstd frame; CBOR of `Index`
 *     end − 56    trailer: offset and length of the index, u64 each; SHA-256 of the index; magic
 *
 * Everything is written in order, so a target need not be a file. The header says what can read the rest, the trailer is
 * the last to come: a file without it was not written to its end. Each bit lies in a magic number, in the zero word or
 * under a digest: those of chunks stand in the index, that of the index in the trailer.
 */

import type { PlainRecord } from '../archive/plain.ts';
import { InputError } from '../boot/input-error.ts';
import type { SeedPlaces } from '../boot/seed-places.ts';

/** Grows with each change of what a guest consists of. */
export const VERSION = 10;

const MAGIC = Uint8Array.from('ring1vm\n', (character) => character.charCodeAt(0));
export const HEADER_BYTES = 16;
export const TRAILER_BYTES = 56;
export const DIGEST_BYTES = 32;
/** Content of a chunk: what one block of zstd holds. */
export const CHUNK_BYTES = 128 * 1024;

/** Takes a snapshot as it is written, from its beginning to its end. */
export interface SnapshotTarget {
  /** Rejects when the bytes cannot be kept. They are the target's from here on. */
  append(bytes: Uint8Array): Promise<void>;
}

/** Where a snapshot is read from, at any place. It does not change. */
export interface SnapshotSource {
  /** What error messages call it. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Fills `target` with what stands at `offset`; the range lies within the size. */
  read(offset: number, target: Uint8Array): Promise<void>;
}

/** Some content in chunks: where the first stands, and of each its length as it is packed, and its digest. */
export type ChunkList = {
  /** Bytes of content; the last chunk can hold less than the others. */
  readonly size: number;
  readonly start: number;
  /** 32-bit words. */
  readonly lengths: Uint8Array;
  readonly digests: Uint8Array;
};

/** Pages of guest memory. Those that are not zero stand one after another in the chunks. */
export type PageList = {
  readonly pages: number;
  /** One bit for each page that is not zero, the lowest bit of a byte first. */
  readonly present: Uint8Array;
  readonly chunks: ChunkList;
};

/** What a guest is built from before its state is read back. */
export type GuestDescription = {
  readonly interface: string;
  readonly paging: string;
  /** Bytes. */
  readonly memory: number;
  readonly vcpus: number;
  readonly commandLine: string;
  readonly deterministic: boolean;
  /** The identifier that a Xen guest knows itself by. */
  readonly domain: number;
  readonly disks: number;
  readonly adapters: number;
  /** System time when it was saved, in nanoseconds, with what the guest was behind it. */
  readonly systemTime: number;
  /** When that was, in milliseconds of Unix time; 0 of a guest with virtual time. */
  readonly savedAt: number;
  /** Where its kernel keeps its seed, if that is known. */
  readonly seed: SeedPlaces | null;
};

export type Index = {
  readonly guest: GuestDescription;
  readonly state: PlainRecord;
  readonly memory: PageList;
  readonly kernel: ChunkList;
  readonly initrd: ChunkList;
};

export interface Trailer {
  readonly offset: number;
  readonly length: number;
  readonly digest: Uint8Array;
}

export async function digestOf(bytes: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>));
}

export function encodeHeader(): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  bytes.set(MAGIC);
  new DataView(bytes.buffer).setUint32(8, VERSION, true);
  return bytes;
}

/** @throws InputError when the file is no snapshot, or one of another version */
export function checkHeader(name: string, bytes: Uint8Array): void {
  if (!startsWithMagic(bytes)) throw new InputError(`${name} is no snapshot of ring1`);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const version = view.getUint32(8, true);
  if (version !== VERSION) {
    throw new InputError(`the snapshot ${name} is of version ${version}, and this ring1 reads version ${VERSION}`);
  }
  if (view.getUint32(12, true) !== 0) throw damagedSnapshot(name, 'its header has unknown bits');
}

export function encodeTrailer({ offset, length, digest }: Trailer): Uint8Array {
  const bytes = new Uint8Array(TRAILER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(offset), true);
  view.setBigUint64(8, BigInt(length), true);
  bytes.set(digest, 16);
  bytes.set(MAGIC, 48);
  return bytes;
}

/** @throws InputError when the file does not end as it should */
export function decodeTrailer(name: string, size: number, bytes: Uint8Array): Trailer {
  if (!startsWithMagic(bytes.subarray(48))) throw damagedSnapshot(name, 'it ends early');
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const offset = Number(view.getBigUint64(0, true));
  const length = Number(view.getBigUint64(8, true));
  if (offset < HEADER_BYTES || offset + length !== size - TRAILER_BYTES) {
    throw damagedSnapshot(name, 'its index is not where it should be');
  }
  return { offset, length, digest: bytes.slice(16, 48) };
}

export function damagedSnapshot(name: string, what: string): InputError {
  return new InputError(`the snapshot ${name} is damaged: ${what}; use an intact copy`);
}

function startsWithMagic(bytes: Uint8Array): boolean {
  return MAGIC.every((byte, index) => bytes[index] === byte);
}
