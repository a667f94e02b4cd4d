import { type HostVirtual, PAGE_SIZE } from '../x86/brand.ts';
import type { AddressSpace, Pause } from './address-space.ts';
import type { MemoryError } from './errors.ts';
import type { PageAllocator } from './page-allocator.ts';
import { PageKind } from './pages.ts';
import { asReadOnly, frameOf, isPresent, isSwapped, isWritable, presentPte, slotOf } from './pte.ts';

/** Bytes whose entries are listed at a time. */
const SLICE = 512 * PAGE_SIZE;
/** Entries between two pauses. */
const MOST_IN_A_ROW = 512;

/**
 * Lets an empty area of a clone share the pages of its parent. The parent's lock is held; reclaim goes on meanwhile, so
 * each entry is looked at anew whenever something was waited for.
 */
export async function shareEntries(
  allocator: PageAllocator,
  parent: AddressSpace,
  child: AddressSpace,
  start: HostVirtual,
  end: HostVirtual,
  pause: Pause,
): Promise<MemoryError | undefined> {
  let sincePause = 0;
  for (let slice: number = start; slice < end; slice += SLICE) {
    const addresses: HostVirtual[] = [];
    const sliceEnd = Math.min(end, slice + SLICE) as HostVirtual;
    parent.tables.visit(slice as HostVirtual, sliceEnd, (address) => addresses.push(address));
    for (const address of addresses) {
      while (!shareEntry(allocator, parent, child, address)) {
        const failed = await allocator.relieve({ space: parent, isNew: true });
        if (failed) return failed;
      }
    }
    sincePause += addresses.length;
    const isLast = sliceEnd === end;
    if (sincePause < MOST_IN_A_ROW && !(isLast && sincePause > 0)) continue;
    sincePause = 0;
    await pause();
  }
  return undefined;
}

/** False when a frame is missing. */
function shareEntry(
  allocator: PageAllocator,
  parent: AddressSpace,
  child: AddressSpace,
  address: HostVirtual,
): boolean {
  const pte = parent.tables.findPte(address);
  const vma = parent.areas.find(address);
  const copy = child.tables.allocatePte(address, () => allocator.take(PageKind.table));
  if (!copy) return false;
  if (!pte || !vma) throw new Error(`no entry at host address 0x${address.toString(16)}`);
  const value = parent.tables.readPte(pte);
  if (isSwapped(value)) {
    child.tables.setPteAt(copy, value);
    allocator.swap.reference(slotOf(value));
    return true;
  }
  // A file's page that was reclaimed meanwhile is found again in the file.
  if (!isPresent(value)) return true;
  const frame = frameOf(value);
  if (allocator.pages.pins[frame] !== 0) {
    const own = allocator.take(PageKind.anonymous);
    if (own === undefined) return false;
    allocator.copy(frame, own);
    child.tables.setPteAt(copy, presentPte(own, true));
    allocator.attach(own, child, address);
    return true;
  }
  if (isWritable(value)) {
    parent.notify(vma, 'writeProtect', (notifier) => notifier.writeProtect(vma, address));
    parent.tables.ptepSetWriteProtect(pte);
  }
  child.tables.setPteAt(copy, asReadOnly(value));
  allocator.attach(frame, child, address);
  return true;
}
