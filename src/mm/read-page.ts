import type { HostVirtual } from '../x86/brand.ts';
import type { AddressSpace } from './address-space.ts';
import { type MemoryError, messageOf } from './errors.ts';
import type { PageAllocator } from './page-allocator.ts';
import { frameOf, isPresent, isSwapped, slotOf } from './pte.ts';
import type { Soon } from './soon.ts';
import { fileIndexAt } from './vma.ts';

/**
 * Copies what a page holds, wherever it is, and leaves it there: nothing is mapped, so that to read all pages of a guest
 * takes no memory from others. The guest stands still; reclaim goes on, so an attempt that had to wait is made anew.
 * @param address the first of a page
 * @param target one page of zeroes
 */
export function readPage(
  allocator: PageAllocator,
  space: AddressSpace,
  address: HostVirtual,
  target: Uint8Array,
): Soon<MemoryError | undefined> {
  const { pages, swap } = allocator;
  const again = (): Soon<MemoryError | undefined> => readPage(allocator, space, address, target);
  const pte = space.tables.findPte(address);
  const value = pte && space.tables.readPte(pte);
  if (value !== undefined && isPresent(value)) {
    target.set(allocator.bytes(frameOf(value)));
    return undefined;
  }
  if (value !== undefined && isSwapped(value)) {
    const slot = slotOf(value);
    const cached = swap.cached(slot);
    if (cached !== undefined) {
      if (pages.isLocked(cached)) return pages.whenUnlocked(cached).then(again);
      target.set(allocator.bytes(cached));
      return undefined;
    }
    if (!swap.store) return { kind: 'swap-read', message: 'there is no swap store' };
    return swap.store.read(slot, target).then(
      () => undefined,
      (error: unknown) => ({ kind: 'swap-read', message: `cannot read a page back from swap: ${messageOf(error)}` }),
    );
  }
  const vma = space.areas.find(address);
  if (!vma?.backing) return undefined;
  const { file } = vma.backing;
  const index = fileIndexAt(vma, vma.backing, address);
  const cached = file.find(index);
  if (cached !== undefined) {
    if (pages.isLocked(cached)) return pages.whenUnlocked(cached).then(again);
    target.set(allocator.bytes(cached));
    return undefined;
  }
  const failed = (error: unknown): MemoryError => ({
    kind: 'file-read',
    message: `cannot read page ${index} of ${file.file.name}: ${messageOf(error)}`,
  });
  const read = file.readPage(index, target);
  return read instanceof Promise ? read.then(() => undefined, failed) : undefined;
}
