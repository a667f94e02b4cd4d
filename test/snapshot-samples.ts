import type { SnapshotSource } from '../src/snapshot/format.ts';
import { type GuestImage, writeSnapshot } from '../src/snapshot/write-snapshot.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';

/** What the pages of a sample hold: most are zero, and no two of the others are equal. */
export function samplePage(page: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(PAGE_SIZE);
  if (page % 3 === 0 || (page > 40 && page < 400)) return bytes;
  return bytes.map((_, index) => (index % 16 === 0 ? page : (index >> 4) * seed));
}

/** A small guest that never ran. */
export function sampleImage(seed: number, pages = 500): GuestImage {
  return {
    guest: {
      interface: 'kvm',
      paging: 'nested',
      memory: pages * PAGE_SIZE,
      vcpus: 1,
      commandLine: `seed=${seed}`,
      deterministic: true,
      domain: 1,
      disks: 0,
      adapters: 0,
      systemTime: seed * 1000,
      savedAt: 0,
      seed: null,
    },
    state: { seed },
    memory: {
      pages,
      readPage: (page, target) => {
        target.set(samplePage(page, seed));
        return undefined;
      },
    },
    kernel: new Uint8Array(200_000).map((_, index) => index >> 3),
    initrd: new Uint8Array(0),
  };
}

export async function sampleBytes(image: GuestImage): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  await writeSnapshot(image, { append: async (bytes) => void parts.push(bytes) });
  return Uint8Array.from(Buffer.concat(parts));
}

export function sourceOf(bytes: Uint8Array): SnapshotSource {
  return {
    name: 'sample',
    size: bytes.length,
    read: async (offset, target) => target.set(bytes.subarray(offset, offset + target.length)),
  };
}
