import { createSymbolizer, type SymbolExtent } from './kallsyms.ts';
import type { KernelImage } from './kernel.ts';

/**
 * Where Linux keeps the seed of its random numbers (domain/seed-fields.ts draws it), and what shows that the kernel in a
 * guest's memory is the one whose file was looked at. Physical addresses, as the interface counts them. Plain data, which
 * a snapshot keeps: nobody has to unpack the kernel to go on from one.
 */
export type SeedPlaces = {
  readonly bits: 32 | 64;
  /** `linux_banner`: the text that names this very build. */
  readonly bannerAt: number;
  readonly banner: Uint8Array;
  /** `jiffies_64`, ticks since the start. */
  readonly jiffiesAt: number;
  /** `base_crng`, and at most how many bytes it has. */
  readonly seedAt: number;
  readonly seedRoom: number;
  /** `_vdso_rng_data`, of kernels that have it: the count of seeds as user programs see it. */
  readonly countAt: number | null;
};

const SYMBOLS = ['linux_banner', 'jiffies_64', 'base_crng', '_vdso_rng_data'] as const;
const BANNER_START = new TextEncoder().encode('Linux version ');
const LONGEST_BANNER = 512;

/**
 * Looks for them by the names that the kernel carries for itself. Undefined for a kernel that names no data
 * (CONFIG_KALLSYMS_ALL), or is none of Linux since 5.17.
 * @param physicalOffset what physical addresses in the file are too large by
 */
export function findSeedPlaces(kernel: KernelImage, physicalOffset: number): SeedPlaces | undefined {
  const found = createSymbolizer(kernel)?.find(SYMBOLS);
  const [banner, jiffies, seed, count] = SYMBOLS.map((name) => place(kernel, found?.get(name)));
  if (!banner || !jiffies || !seed) return undefined;
  const text = banner.data.slice(0, LONGEST_BANNER);
  const length = text.indexOf(0);
  if (length < 0 || !BANNER_START.every((byte, index) => text[index] === byte)) return undefined;
  return {
    bits: kernel.bits,
    bannerAt: banner.physical - physicalOffset,
    banner: text.slice(0, length),
    jiffiesAt: jiffies.physical - physicalOffset,
    seedAt: seed.physical - physicalOffset,
    seedRoom: seed.room,
    countAt: count ? count.physical - physicalOffset : null,
  };
}

interface Place {
  readonly physical: number;
  readonly room: number;
  /** What the file has from there on. */
  readonly data: Uint8Array;
}

function place({ segments }: KernelImage, symbol: SymbolExtent | undefined): Place | undefined {
  if (!symbol) return undefined;
  const { address, room } = symbol;
  const segment = segments.find(({ vaddr, memsz }) => address >= vaddr && address < vaddr + BigInt(memsz));
  if (!segment) return undefined;
  const offset = Number(address - segment.vaddr);
  return { physical: segment.paddr + offset, room, data: segment.data.subarray(offset) };
}
