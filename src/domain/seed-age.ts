import type { SeedPlaces } from '../boot/seed-places.ts';
import type { MemoryError } from '../mm/errors.ts';
import type { GuestRam } from '../paging/guest-pages.ts';
import { PAGE_SIZE } from '../x86/brand.ts';

/**
 * Why a host looks into the memory of a guest: a copy of one that runs has the original's seed, and draws the same random
 * numbers until its kernel makes a seed anew, up to a minute later. A generation identifier tells some kernels what they
 * are. The others of Linux 5.17 to 6.1 (and of older stable releases that took over their generator) ask before each draw
 * whether their seed is older than a minute; so the host makes it older. What then happens is the kernel's own doing: it
 * mixes what it has gathered with RDSEED or RDRAND, which are the host's and different in each copy.
 *
 * Nothing but two numbers changes, and neither can do harm: the time of the seed goes back, and its count goes on by one,
 * which makes the kernel draw numbers anew that it holds in store. Nothing is changed at all unless the guest's memory has
 * the banner of the very build in which the places were looked up, and unless the numbers make sense together. A guest
 * that deceives the host about that gets two of its own numbers changed, in a page of its data.
 *
 * What it cannot help: a processor that is about to draw, or to make a seed, when its guest is copied ends that as the
 * original does. Kernels from 6.2 on make their seeds by a timer, and ask nothing.
 */
const KEY_BYTES = 32;
const LOCK_BYTES = 4;
/** CRNG_RESEED_INTERVAL, in ticks at the highest CONFIG_HZ of x86. */
const OLD_AGE = 60_000n;
/** INITIAL_JIFFIES: `jiffies_64` begins 300 seconds before its low word overflows. */
const FIRST_TICK = (1n << 32n) - 300_000n;
/** A thousand years and some: more is no number of ticks. */
const MOST_TICKS = 1n << 45n;

/** Makes the seed of a guest's kernel an old one, if the guest, which stands still, has what the places tell of. */
export async function ageSeed(ram: GuestRam, places: SeedPlaces): Promise<MemoryError | undefined> {
  const { bits, banner } = places;
  const word = bits / 8;
  if (places.seedRoom < KEY_BYTES + 2 * word + LOCK_BYTES || places.seedAt % word !== 0) return undefined;
  const wanted = [
    [places.bannerAt, banner.length],
    [places.jiffiesAt, 8],
    [places.seedAt + KEY_BYTES, 2 * word],
  ] as const;
  const found: Uint8Array[] = [];
  for (const [physical, length] of wanted) {
    if (!(physical >= 0 && physical + length <= ram.pages * PAGE_SIZE)) return undefined;
    const bytes = await read(ram, physical, length);
    if (!(bytes instanceof Uint8Array)) return bytes;
    found.push(bytes);
  }
  const [bannerFound, jiffies, fields] = found;
  if (!bannerFound || !jiffies || !fields || !bannerFound.every((byte, index) => byte === banner[index])) {
    return undefined;
  }
  const [now, birth, generation] = [
    numberIn(jiffies),
    numberIn(fields.subarray(0, word)),
    numberIn(fields.subarray(word)),
  ];
  const aged = age(now, birth, generation, bits);
  if (!aged) return undefined;
  const store = (field: number, value: bigint): Promise<MemoryError | undefined> =>
    ram.store(places.seedAt + KEY_BYTES + field * word, bytesOf(value, word));
  return (await store(0, aged.birth)) ?? (await store(1, aged.generation));
}

/** What the two fields become, or undefined if they are no age and no count that a seed can have. */
export function age(
  now: bigint,
  birth: bigint,
  generation: bigint,
  bits: 32 | 64,
): { readonly birth: bigint; readonly generation: bigint } | undefined {
  const ticks = now - FIRST_TICK;
  if (ticks < 0n || ticks > MOST_TICKS) return undefined;
  const present = BigInt.asUintN(bits, now - birth);
  // The first seed counts as 1, and at most one is made in a second.
  if (present > ticks || generation < 1n || generation > ticks) return undefined;
  const wanted = present > OLD_AGE ? present : OLD_AGE + 1n;
  return { birth: BigInt.asUintN(bits, now - wanted), generation: generation + 1n };
}

async function read(ram: GuestRam, physical: number, length: number): Promise<Uint8Array | MemoryError> {
  const bytes = new Uint8Array(length);
  const page = new Uint8Array(PAGE_SIZE);
  for (let done = 0; done < length; ) {
    const at = physical + done;
    const failed = await ram.readPage(Math.floor(at / PAGE_SIZE), page.fill(0));
    if (failed) return failed;
    const piece = page.subarray(at % PAGE_SIZE).subarray(0, length - done);
    bytes.set(piece, done);
    done += piece.length;
  }
  return bytes;
}

/** Little-endian. */
function numberIn(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

function bytesOf(value: bigint, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_none, index) => Number((value >> BigInt(8 * index)) & 0xffn));
}
