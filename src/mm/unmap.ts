import { type Frame, type HostVirtual, PAGE_SIZE } from '../x86/brand.ts';
import type { AddressSpace } from './address-space.ts';
import type { PageAllocator } from './page-allocator.ts';
import type { PtePointer } from './page-tables.ts';
import { PageKind } from './pages.ts';
import { frameOf, isPresent, slotOf, swapPte } from './pte.ts';
import type { Vma } from './vma.ts';

/** Clears an entry that is not empty. External tables are told first, unless they were released. */
export function zapPte(
  allocator: PageAllocator,
  space: AddressSpace,
  vma: Vma | undefined,
  address: HostVirtual,
  pte: PtePointer,
): void {
  const value = space.tables.readPte(pte);
  if (!isPresent(value)) {
    space.tables.ptepGetAndClear(pte);
    allocator.dropSlot(slotOf(value));
    return;
  }
  const frame = frameOf(value);
  allocator.pages.tryLock(frame);
  if (vma) space.notify(vma, 'clear', (notifier) => notifier.clear(vma, address));
  space.tables.ptepGetAndClear(pte);
  allocator.pages.unlock(frame);
  allocator.detach(frame, space, address);
}

/**
 * Takes a page away from everybody who maps it. Entries of an anonymous page name its swap slot afterwards; those of a
 * file's page are empty, since the file has it. The caller has locked the page, which nothing pins.
 */
export function tryToUnmap(allocator: PageAllocator, frame: Frame): void {
  const slot = allocator.pages.slot(frame);
  const anonymous = allocator.pages.kind[frame] === PageKind.anonymous;
  for (const { space, address } of allocator.rmap.of(frame)) {
    const vma = space.areas.find(address);
    const pte = space.tables.findPte(address);
    if (!vma || !pte) throw new Error(`no entry at host address 0x${address.toString(16)}, which maps frame ${frame}`);
    const end = (address + PAGE_SIZE) as HostVirtual;
    space.rangeStart(address, end);
    space.notify(vma, 'clear', (notifier) => notifier.clear(vma, address));
    space.tables.ptepGetAndClear(pte);
    if (anonymous) {
      space.tables.setPteAt(pte, swapPte(slot));
      allocator.swap.reference(slot);
    }
    space.rangeEnd(address, end);
    allocator.detach(frame, space, address);
  }
}
