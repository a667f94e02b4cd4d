import type { SeedPlaces } from '../boot/seed-places.ts';
import type { MemoryError } from '../mm/errors.ts';
import type { GuestRam } from '../paging/guest-pages.ts';
import { PAGE_SIZE } from '../x86/brand.ts';
import { asOldSeed, asOtherSeed, type SeedFields, seedLength } from './seed-fields.ts';

/** `_vdso_rng_data`. */
const COUNT_BYTES = 16;

/**
 * Why a host looks into the memory of a guest: a copy of one that runs has the original's seed, and draws the same random
 * numbers until its kernel makes a seed anew, up to a minute later. A generation identifier tells some kernels what they
 * are; for others of Linux the host sees to it that their next number comes from another seed (`seed-fields.ts`).
 *
 * Nothing is changed unless the guest's memory has the banner of the very build in which the places were looked up, and
 * what stands at them makes sense together. A guest that deceives the host about that gets numbers in its own data changed,
 * in a page that it could write itself.
 *
 * What it cannot help: a processor that is about to draw, or to make a seed, when its guest is copied ends that as the
 * original does.
 *
 * @param ram of the guest, which stands still
 * @param random different in each copy
 */
export async function renewSeed(
  ram: GuestRam,
  places: SeedPlaces,
  random: (out: Uint32Array<ArrayBuffer>) => void,
): Promise<MemoryError | undefined> {
  const { bits, banner, bannerAt, jiffiesAt, seedAt, countAt } = places;
  if (seedAt % (bits / 8) !== 0 || (countAt ?? 0) % 8 !== 0) return undefined;
  const wanted = [
    [bannerAt, banner.length],
    [jiffiesAt, 8],
    [seedAt, seedLength(places)],
    [countAt ?? 0, countAt === null ? 0 : COUNT_BYTES],
  ] as const;
  const found: Uint8Array[] = [];
  for (const [physical, length] of wanted) {
    if (!(physical >= 0 && physical + length <= ram.pages * PAGE_SIZE)) return undefined;
    const bytes = await read(ram, physical, length);
    if (!(bytes instanceof Uint8Array)) return bytes;
    found.push(bytes);
  }
  const [text, ticks, seed, count] = found;
  if (!text || !ticks || !seed || !banner.every((byte, index) => text[index] === byte)) return undefined;
  const fields: SeedFields = { ticks, seed, count };
  for (const { physical, bytes } of asOldSeed(places, fields) ?? asOtherSeed(places, fields, random) ?? []) {
    const failed = await ram.store(physical, bytes);
    if (failed) return failed;
  }
  return undefined;
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
