import { afterEach, expect, test } from 'vitest';
import { type Mfn, PAGE_SIZE } from '../src/x86/brand.ts';
import { createPagedGuest, DATA, destroyGuests, type SmallGuest } from './xen-guest.ts';

const BYTES = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
/** More passes of reclaim than it takes to go through all pages of the guest. */
const PASSES = 40;

afterEach(destroyGuests);

function physicalOf({ domain }: SmallGuest, mfn: number): number {
  return (domain.pager?.pageOf(mfn as Mfn) ?? -1) * PAGE_SIZE;
}

async function bytesAt({ domain }: SmallGuest, physical: number): Promise<Uint8Array> {
  const page = new Uint8Array(PAGE_SIZE);
  await domain.ram.readPage(Math.floor(physical / PAGE_SIZE), page);
  return page.slice(physical % PAGE_SIZE, (physical % PAGE_SIZE) + BYTES.length);
}

test.each([false, true])("the host changes a domain's data, wherever the page is: swapped out %s", async (isOut) => {
  const { guest, manager } = await createPagedGuest();
  const { domain } = guest;
  const physical = physicalOf(guest, guest.mfnAt(DATA)) + 24;
  await domain.ram.store(
    physical,
    BYTES.map((byte) => byte + 50),
  );
  if (isOut) for (let pass = 0; pass < PASSES; pass++) await manager.relieve();
  expect(await domain.ram.store(physical, BYTES)).toBeUndefined();
  expect(await bytesAt(guest, physical)).toEqual(BYTES);
  expect(guest.load(DATA + 24)).toBe(0x0403_0201);
  expect(domain.paging.recount()).toEqual([]);
});

test('no table that was examined is changed, at any level', async () => {
  const { guest } = await createPagedGuest();
  for (const { table, index } of guest.path(DATA)) {
    const physical = physicalOf(guest, table) + index * 8;
    const before = await bytesAt(guest, physical);
    expect(await guest.domain.ram.store(physical, BYTES)).toBeUndefined();
    expect(await bytesAt(guest, physical)).toEqual(before);
  }
});

test("no page of the host's is changed, such as those of the table from machine numbers", async () => {
  const { guest } = await createPagedGuest();
  const { ram, pages } = guest.domain;
  expect(ram.pages).toBeGreaterThan(pages);
  for (let page = pages; page < ram.pages; page++) {
    const before = await bytesAt(guest, page * PAGE_SIZE);
    expect(await ram.store(page * PAGE_SIZE, BYTES)).toBeUndefined();
    expect(await bytesAt(guest, page * PAGE_SIZE)).toEqual(before);
  }
});
