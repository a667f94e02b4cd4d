import type { SeedPlaces } from '../boot/seed-places.ts';

/**
 * What Linux keeps of its seed (drivers/char/random.c, `base_crng`): a key of 32 bytes, and in words of the processor
 *
 *   since 5.17, up to 6.1   ticks when it was made · how many were made before · a lock
 *   since 6.2               how many were made before · a lock
 *
 * The first ask before each draw whether the seed is older than a minute, and make another if it is. So it suffices to put
 * back the time: what then happens is the kernel's own doing, which mixes what it has gathered with RDSEED or RDRAND, the
 * host's and different in each copy. The others make seeds by a timer and ask nothing. Their key is changed by numbers of
 * the host's that are added bit by bit, which leaves it as good as it was at least; that is done only where the count also
 * stands for user programs (`_vdso_rng_data`, 6.11 to 6.14), and so can be recognised. In both the count goes on, as with
 * each seed, so that what was drawn in advance is thrown away.
 */
export const KEY_BYTES = 32;
const LOCK_BYTES = 4;
/** CRNG_RESEED_INTERVAL, in ticks at the highest CONFIG_HZ of x86. */
const OLD_AGE = 60_000n;
/** INITIAL_JIFFIES: `jiffies_64` begins 300 seconds before its low word overflows. */
const FIRST_TICK = (1n << 32n) - 300_000n;
/** A thousand years and some: more is no number of ticks. */
const MOST_TICKS = 1n << 45n;

/** What a guest's memory has at the places. */
export interface SeedFields {
  /** `jiffies_64`. */
  readonly ticks: Uint8Array;
  /** `base_crng`, as far as it is known. */
  readonly seed: Uint8Array;
  /** `_vdso_rng_data`: the count, one higher, and a byte that tells whether there is a seed. */
  readonly count: Uint8Array | undefined;
}

/** Bytes to be written; none crosses a page. */
export interface Store {
  readonly physical: number;
  readonly bytes: Uint8Array;
}

/** Bytes of `base_crng` that are looked at. */
export function seedLength({ bits, seedRoom }: SeedPlaces): number {
  return Math.min(seedRoom, KEY_BYTES + (2 * bits) / 8 + LOCK_BYTES);
}

/** Makes a seed that has a time older than a minute. Undefined if there are no age and no count that a seed can have. */
export function asOldSeed({ bits, seedAt }: SeedPlaces, { ticks, seed }: SeedFields): Store[] | undefined {
  const word = bits / 8;
  if (seed.length < KEY_BYTES + 2 * word + LOCK_BYTES) return undefined;
  const [birthAt, countAt] = [KEY_BYTES, KEY_BYTES + word];
  const now = numberAt(ticks, 0, 8);
  const age = BigInt.asUintN(bits, now - numberAt(seed, birthAt, word));
  const count = numberAt(seed, countAt, word);
  if (!isCount(count, now) || age > now - FIRST_TICK) return undefined;
  const wanted = age > OLD_AGE ? age : OLD_AGE + 1n;
  return [
    { physical: seedAt + birthAt, bytes: bytesOf(now - wanted, word) },
    { physical: seedAt + countAt, bytes: bytesOf(count + 1n, word) },
  ];
}

/** Gives a seed without a time another key. Undefined unless nobody changes the seed, and both counts agree. */
export function asOtherSeed(
  { seedAt, bits, countAt }: SeedPlaces,
  { ticks, seed, count: shared }: SeedFields,
  random: (out: Uint32Array<ArrayBuffer>) => void,
): Store[] | undefined {
  if (bits !== 64 || countAt === null || !shared || seed.length < KEY_BYTES + 8 + LOCK_BYTES) return undefined;
  const count = numberAt(seed, KEY_BYTES, 8);
  const isLocked = numberAt(seed, KEY_BYTES + 8, LOCK_BYTES) !== 0n;
  if (isLocked || !isCount(count, numberAt(ticks, 0, 8))) return undefined;
  if (numberAt(shared, 0, 8) !== count + 1n || shared[8] !== 1) return undefined;
  const stores: Store[] = [];
  for (let offset = 0; offset < KEY_BYTES; offset += 8) {
    const fresh = new Uint32Array(2);
    random(fresh);
    const added = new Uint8Array(fresh.buffer);
    stores.push({ physical: seedAt + offset, bytes: added.map((byte, at) => byte ^ (seed[offset + at] as number)) });
  }
  stores.push({ physical: seedAt + KEY_BYTES, bytes: bytesOf(count + 1n, 8) });
  stores.push({ physical: countAt, bytes: bytesOf(count + 2n, 8) });
  return stores;
}

/** The first seed counts as 1, and no more than one is made in a tick. */
function isCount(count: bigint, now: bigint): boolean {
  const ticks = now - FIRST_TICK;
  return ticks <= MOST_TICKS && count >= 1n && count <= ticks;
}

/** Little-endian. */
function numberAt(bytes: Uint8Array, offset: number, length: number): bigint {
  return bytes.subarray(offset, offset + length).reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

function bytesOf(value: bigint, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_none, index) => Number((value >> BigInt(8 * index)) & 0xffn));
}
