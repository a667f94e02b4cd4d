import { encodeCbor } from '../archive/cbor.ts';
import type { PlainRecord } from '../archive/plain.ts';
import { ZstdEncoder } from '../boot/zstd-encoder.ts';
import type { GuestPages } from '../paging/guest-pages.ts';
import { PAGE_SIZE } from '../x86/brand.ts';
import { ChunkWriter, CountingTarget } from './chunk-writer.ts';
import {
  type ChunkList,
  digestOf,
  encodeHeader,
  encodeTrailer,
  type GuestDescription,
  type Index,
  type PageList,
  type SnapshotTarget,
} from './format.ts';

/** All that a snapshot holds. */
export interface GuestImage {
  readonly guest: GuestDescription;
  readonly state: PlainRecord;
  readonly memory: GuestPages;
  /** What the guest was booted from: it names the kernel's functions, and a guest that restarts needs it. */
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array;
}

/** @throws Error when a page cannot be read, or what the target throws */
export async function writeSnapshot(image: GuestImage, target: SnapshotTarget): Promise<void> {
  const output = new CountingTarget(target);
  await output.append(encodeHeader());
  const index: Index = {
    guest: image.guest,
    state: image.state,
    memory: await writePages(image.memory, output),
    kernel: await writeBytes(image.kernel, output),
    initrd: await writeBytes(image.initrd, output),
  };
  const packed = new ZstdEncoder().encode(encodeCbor(index));
  const offset = output.position;
  const digest = await digestOf(packed);
  await output.append(packed);
  await output.append(encodeTrailer({ offset, length: packed.length, digest }));
}

async function writePages(memory: GuestPages, output: CountingTarget): Promise<PageList> {
  const { pages } = memory;
  const chunks = new ChunkWriter(output);
  const present = new Uint8Array(Math.ceil(pages / 8));
  const bytes = new Uint8Array(PAGE_SIZE);
  const words = new Uint32Array(bytes.buffer);
  for (let page = 0; page < pages; page++) {
    bytes.fill(0);
    const soon = memory.readPage(page, bytes);
    const failed = soon instanceof Promise ? await soon : soon;
    if (failed) throw new Error(failed.message);
    if (isZero(words)) continue;
    present[page >> 3] = (present[page >> 3] as number) | (1 << (page & 7));
    await chunks.write(bytes);
  }
  return { pages, present, chunks: await chunks.finish() };
}

function isZero(words: Uint32Array): boolean {
  for (let index = 0; index < words.length; index++) if (words[index] !== 0) return false;
  return true;
}

async function writeBytes(bytes: Uint8Array, output: CountingTarget): Promise<ChunkList> {
  const chunks = new ChunkWriter(output);
  await chunks.write(bytes);
  return chunks.finish();
}
