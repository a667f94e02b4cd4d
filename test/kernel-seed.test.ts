import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { loadKernel } from '../src/boot/kernel.ts';
import { findSeedPlaces, type SeedPlaces } from '../src/boot/seed-places.ts';
import { renewSeed } from '../src/domain/kernel-seed.ts';
import { asOldSeed } from '../src/domain/seed-fields.ts';
import type { GuestRam } from '../src/paging/guest-pages.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import { debianKernel, hasPackageArchive } from './debian-kernel.ts';

const PAGES = 4;
const BANNER = new TextEncoder().encode('Linux version 6.1.0-1-cloud-amd64 (somebody)\n');
/** Fifty seconds after the start, at 250 ticks a second. */
const NOW = (1n << 32n) - 250n * 300n + 250n * 50n;
const MINUTE_AT_1000 = 60_000n;

/** The banner crosses a page, and so do the two fields of the seed. */
function placesOf(bits: 32 | 64): SeedPlaces {
  return {
    bits,
    bannerAt: PAGE_SIZE - 10,
    banner: BANNER,
    jiffiesAt: 2 * PAGE_SIZE,
    seedAt: 3 * PAGE_SIZE - 32 - bits / 8,
    seedRoom: 64,
    countAt: null,
  };
}

/** Host's numbers: never the same. */
const random = (out: Uint32Array<ArrayBuffer>): void => void crypto.getRandomValues(out);

class Ram implements GuestRam {
  readonly pages = PAGES;
  readonly bytes = new Uint8Array(PAGES * PAGE_SIZE);
  readonly #places: SeedPlaces;

  constructor(
    places: SeedPlaces,
    fields: { readonly now?: bigint; readonly birth: bigint; readonly generation: bigint },
  ) {
    this.#places = places;
    this.bytes.set(places.banner, places.bannerAt);
    this.#view.setBigUint64(places.jiffiesAt, fields.now ?? NOW, true);
    this.#write(0, fields.birth);
    this.#write(1, fields.generation);
  }

  get #view(): DataView {
    return new DataView(this.bytes.buffer);
  }

  #fieldAt(index: number): number {
    return this.#places.seedAt + 32 + (index * this.#places.bits) / 8;
  }

  #write(index: number, value: bigint): void {
    if (this.#places.bits === 64) this.#view.setBigUint64(this.#fieldAt(index), value, true);
    else this.#view.setUint32(this.#fieldAt(index), Number(BigInt.asUintN(32, value)), true);
  }

  field(index: number): bigint {
    if (this.#places.bits === 64) return this.#view.getBigUint64(this.#fieldAt(index), true);
    return BigInt(this.#view.getUint32(this.#fieldAt(index), true));
  }

  readPage(page: number, target: Uint8Array): undefined {
    target.set(this.bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE));
  }

  async store(physical: number, bytes: Uint8Array): Promise<undefined> {
    expect(Math.floor(physical / PAGE_SIZE)).toBe(Math.floor((physical + bytes.length - 1) / PAGE_SIZE));
    this.bytes.set(bytes, physical);
  }
}

describe.each([32, 64] as const)('the seed of a %i-bit kernel', (bits) => {
  const places = placesOf(bits);

  it('becomes older than a minute at any rate of ticks, and another one', async () => {
    const ram = new Ram(places, { birth: NOW - 100n, generation: 3n });
    const before = ram.bytes.slice();
    expect(await renewSeed(ram, places, random)).toBeUndefined();
    expect(BigInt.asUintN(bits, NOW - ram.field(0))).toBeGreaterThan(MINUTE_AT_1000);
    expect(ram.field(1)).toBe(4n);
    const changed = [...ram.bytes.keys()].filter((at) => ram.bytes[at] !== before[at]);
    expect(Math.min(...changed)).toBeGreaterThanOrEqual(places.seedAt + 32);
    expect(Math.max(...changed)).toBeLessThan(places.seedAt + 32 + bits / 4);
  });

  it('stays as old as it is when that is more', async () => {
    const now = NOW + 1_000_000n;
    const ram = new Ram(places, { now, birth: now - 900_000n, generation: 3n });
    await renewSeed(ram, places, random);
    expect(BigInt.asUintN(bits, now - ram.field(0))).toBe(900_000n);
  });

  it.each([
    ['was never made', { birth: 0n, generation: 0n }],
    ['is of the future', { birth: NOW + 1n, generation: 3n }],
    ['is older than the guest', { birth: NOW - 400_000n, generation: 3n }],
    ['was made more often than once a tick', { birth: NOW - 100n, generation: 1_000_000n }],
    ['has a clock beside it that never began', { now: 5n, birth: 4n, generation: 3n }],
    ['has a clock beside it that has run for ages', { now: 1n << 60n, birth: (1n << 60n) - 1n, generation: 3n }],
  ])('is left alone when it %s', async (_what, fields) => {
    const ram = new Ram(places, fields);
    const before = ram.bytes.slice();
    expect(await renewSeed(ram, places, random)).toBeUndefined();
    expect(ram.bytes).toEqual(before);
  });

  it('is left alone when the banner is of another build', async () => {
    const ram = new Ram(places, { birth: NOW - 100n, generation: 3n });
    ram.bytes[places.bannerAt + BANNER.length - 2]! ^= 1; // the place is in the memory
    const before = ram.bytes.slice();
    await renewSeed(ram, places, random);
    expect(ram.bytes).toEqual(before);
  });

  it('is left alone when there is no room for a time', async () => {
    const ram = new Ram(places, { birth: NOW - 100n, generation: 3n });
    const before = ram.bytes.slice();
    await renewSeed(ram, { ...places, seedRoom: 32 + bits / 4 }, random);
    expect(ram.bytes).toEqual(before);
  });

  it('is left alone when memory ends before it', async () => {
    const ram = new Ram(places, { birth: NOW - 100n, generation: 3n });
    const before = ram.bytes.slice();
    for (const at of [-PAGE_SIZE, PAGES * PAGE_SIZE - 8, 2 ** 52, Number.NaN]) {
      await renewSeed(ram, { ...places, bannerAt: at }, random);
      await renewSeed(ram, { ...places, jiffiesAt: at + 4 }, random);
      await renewSeed(ram, { ...places, seedAt: at }, random);
    }
    expect(ram.bytes).toEqual(before);
  });
});

describe('the seed of a kernel that makes seeds by a timer', () => {
  const places: SeedPlaces = { ...placesOf(64), seedAt: PAGE_SIZE + 4000, seedRoom: 48, countAt: 2 * PAGE_SIZE + 640 };
  const countIn = (ram: Ram): bigint => new DataView(ram.bytes.buffer).getBigUint64(2 * PAGE_SIZE + 640, true);
  const keyIn = (ram: Ram): Uint8Array => ram.bytes.slice(places.seedAt, places.seedAt + 32);

  /** @param lock is held when it is not 0 */
  function createRam(lock: bigint, count: bigint, isReady: number): Ram {
    const ram = new Ram(places, { birth: 3n, generation: lock });
    ram.bytes.set(crypto.getRandomValues(new Uint8Array(32)), places.seedAt);
    new DataView(ram.bytes.buffer).setBigUint64(2 * PAGE_SIZE + 640, count, true);
    ram.bytes[2 * PAGE_SIZE + 648] = isReady;
    return ram;
  }

  it('gets another key in each copy, and both its counts go on', async () => {
    const ram = createRam(0n, 4n, 1);
    const copy = new Ram(places, { birth: 0n, generation: 0n });
    copy.bytes.set(ram.bytes);
    const before = keyIn(ram);
    for (const each of [ram, copy]) {
      expect(await renewSeed(each, places, random)).toBeUndefined();
      expect([each.field(0), each.field(1), countIn(each)]).toEqual([4n, 0n, 5n]);
    }
    const keys = [before, keyIn(ram), keyIn(copy)].map((key) => Buffer.from(key).toString('hex'));
    expect(new Set(keys).size).toBe(3);
  });

  it.each([
    ['somebody changes it', 1n, 4n, 1],
    ['programs see another count', 0n, 3n, 1],
    ['there is none yet', 0n, 4n, 0],
  ] as const)('is left alone when %s', async (_what, lock, count, isReady) => {
    const ram = createRam(lock, count, isReady);
    const before = ram.bytes.slice();
    await renewSeed(ram, places, random);
    expect(ram.bytes).toEqual(before);
  });

  it('is left alone when the kernel has no count for programs', async () => {
    const ram = createRam(0n, 4n, 1);
    const before = ram.bytes.slice();
    await renewSeed(ram, { ...places, countAt: null }, random);
    expect(ram.bytes).toEqual(before);
  });
});

it('what is written is never what a kernel could not come to by itself, whatever stands in its memory', () => {
  const word = fc.bigInt(0n, (1n << 64n) - 1n);
  const near = fc.bigInt(-400_000n, 1_000_000n).map((ticks) => (1n << 32n) + ticks);
  const value = fc.oneof(word, near, fc.bigInt(0n, 1000n));
  fc.assert(
    fc.property(
      fc.oneof(word, near),
      value,
      value,
      fc.constantFrom(32 as const, 64 as const),
      (now, birth, count, bits) => {
        const places = placesOf(bits);
        const ram = new Ram(places, { now, birth, generation: count });
        const ticks = ram.bytes.slice(places.jiffiesAt, places.jiffiesAt + 8);
        const seed = ram.bytes.slice(places.seedAt, places.seedAt + 64);
        const stores = asOldSeed(places, { ticks, seed, count: undefined });
        if (!stores) return;
        for (const { physical, bytes } of stores) ram.bytes.set(bytes, physical);
        expect(ram.field(1)).toBe(BigInt.asUintN(bits, count) + 1n);
        expect(ram.field(1)).toBeLessThanOrEqual(now);
        expect(BigInt.asUintN(bits, now - ram.field(0))).toBeGreaterThan(MINUTE_AT_1000);
      },
    ),
    { numRuns: 2000 },
  );
});

describe.skipIf(!hasPackageArchive)("the places in Debian's kernels", () => {
  it('are found where data have names', async () => {
    const image = loadKernel(await debianKernel('cloud-amd64'));
    const places = findSeedPlaces(image, 0);
    expect(new TextDecoder().decode(places?.banner)).toMatch(/^Linux version 6\.1\.\S+-cloud-amd64 .*\n$/);
    expect(places?.seedRoom).toBeGreaterThanOrEqual(52);
    expect(findSeedPlaces(image, 4096)?.seedAt).toBe((places?.seedAt ?? 0) - 4096);
  });

  it('are not in a file without names', async () => {
    const image = loadKernel(await debianKernel('cloud-amd64'));
    const segments = image.segments.map((segment) => ({ ...segment, data: segment.data.map(() => 0) }));
    expect(findSeedPlaces({ ...image, segments }, 0)).toBeUndefined();
  });
});
