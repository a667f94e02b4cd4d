import { decodeCbor } from '../archive/cbor.ts';
import type { PlainRecord } from '../archive/plain.ts';
import { ChunkReader, unpack } from './chunk-reader.ts';
import {
  checkHeader,
  damagedSnapshot,
  decodeTrailer,
  digestOf,
  type GuestDescription,
  HEADER_BYTES,
  type Index,
  type SnapshotSource,
  TRAILER_BYTES,
} from './format.ts';
import { PageFile } from './page-file.ts';

/** Most bytes of an index: page tables' worth of guests with all the memory that there can be. */
const LARGEST_INDEX = 256 << 20;

/** A snapshot that has been found to be whole. Its pages stay where they are until they are needed. */
export class Snapshot {
  readonly guest: GuestDescription;
  readonly state: PlainRecord;
  readonly memory: PageFile;
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array;

  private constructor(index: Index, memory: PageFile, kernel: Uint8Array, initrd: Uint8Array) {
    this.guest = index.guest;
    this.state = index.state;
    this.memory = memory;
    this.kernel = kernel;
    this.initrd = initrd;
  }

  /** Checks every byte of the source. @throws InputError when it is no snapshot, of another version, or damaged */
  static async open(source: SnapshotSource): Promise<Snapshot> {
    const { name } = source;
    if (source.size < HEADER_BYTES + TRAILER_BYTES) throw damagedSnapshot(name, 'it ends early');
    checkHeader(name, await bytesAt(source, 0, HEADER_BYTES));
    const index = await readIndex(source);
    const memory = new PageFile(source, index.memory);
    const kernel = new ChunkReader(source, index.kernel);
    const initrd = new ChunkReader(source, index.initrd);
    for (let chunk = 0; chunk < memory.chunks.chunks; chunk++) await memory.chunks.packed(chunk);
    return new Snapshot(index, memory, await kernel.all(), await initrd.all());
  }
}

async function bytesAt(source: SnapshotSource, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await source.read(offset, bytes);
  return bytes;
}

async function readIndex(source: SnapshotSource): Promise<Index> {
  const { name, size } = source;
  const trailer = decodeTrailer(name, size, await bytesAt(source, size - TRAILER_BYTES, TRAILER_BYTES));
  const packed = await bytesAt(source, trailer.offset, trailer.length);
  const digest = await digestOf(packed);
  if (!digest.every((byte, index) => byte === trailer.digest[index])) {
    throw damagedSnapshot(name, 'its index is not the one that was written');
  }
  const length = contentLength(packed);
  if (length > LARGEST_INDEX) throw damagedSnapshot(name, 'its index is too large');
  const index = decodeCbor(unpack(name, packed, length)) as Index;
  const lists = [index.memory.chunks, index.kernel, index.initrd];
  let end = HEADER_BYTES;
  for (const list of lists) {
    if (list.start !== end) throw damagedSnapshot(name, 'its index contradicts itself');
    end = new ChunkReader(source, list).end;
  }
  if (end !== trailer.offset) throw damagedSnapshot(name, 'its index contradicts itself');
  return index;
}

/** The content size in the header of the frame that the encoder makes. */
function contentLength(frame: Uint8Array): number {
  return new DataView(frame.buffer, frame.byteOffset).getUint32(5, true);
}
