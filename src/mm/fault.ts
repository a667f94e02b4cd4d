import { type Frame, type HostVirtual, PAGE_SIZE } from '../x86/brand.ts';
import type { AddressSpace } from './address-space.ts';
import { type MemoryError, messageOf } from './errors.ts';
import type { PageAllocator } from './page-allocator.ts';
import type { CachedFile } from './page-cache.ts';
import type { PtePointer } from './page-tables.ts';
import { PageKind } from './pages.ts';
import { asYoung, frameOf, isPresent, isSwapped, isWritable, presentPte, slotOf } from './pte.ts';
import type { Soon } from './soon.ts';
import { NO_SLOT } from './swap.ts';
import { fileIndexAt, type Vma } from './vma.ts';

/** Nothing: the page is there. A promise: something was in the way; when it settles well, the attempt is made again. */
type Attempt = Soon<MemoryError | undefined>;

/**
 * Brings in the page of an address, so that it can be read, or written.
 *
 * An attempt is synchronous from its first look at the page table to the entry that it sets. When something must be
 * waited for (a free frame, a page lock, a page being read) it ends with a promise of that, and the next attempt looks
 * at everything again; so nothing that was seen before an await is believed after it.
 */
export class FaultHandler {
  readonly #allocator: PageAllocator;

  constructor(allocator: PageAllocator) {
    this.#allocator = allocator;
  }

  /** The caller holds the lock of the space. `address` is the first of the page. */
  attempt(space: AddressSpace, address: HostVirtual, write: boolean): Attempt {
    const vma = space.areas.find(address);
    if (!vma) {
      return { kind: 'no-such-address', message: `nothing is mapped at host address 0x${address.toString(16)}` };
    }
    const pte = space.tables.allocatePte(address, () => this.#allocator.take(PageKind.table));
    if (!pte) return this.#relieve(space);
    const value = space.tables.readPte(pte);
    if (isPresent(value)) {
      if (write && !isWritable(value)) return this.#breakSharing(space, vma, address, pte);
      space.tables.setPteAt(pte, asYoung(value));
      return undefined;
    }
    if (isSwapped(value)) return this.#swapIn(space, address, pte, write);
    return vma.backing
      ? this.#mapFile(space, address, pte, write, vma.backing.file, fileIndexAt(vma, vma.backing, address))
      : this.#mapZeroed(space, address, pte);
  }

  #relieve(space: AddressSpace): Promise<MemoryError | undefined> {
    return this.#allocator.relieve({ space, isNew: false });
  }

  #install(space: AddressSpace, address: HostVirtual, pte: PtePointer, frame: Frame, writable: boolean): void {
    space.tables.setPteAt(pte, presentPte(frame, writable));
    this.#allocator.attach(frame, space, address);
  }

  #mapZeroed(space: AddressSpace, address: HostVirtual, pte: PtePointer): Attempt {
    const frame = this.#allocator.take(PageKind.anonymous);
    if (frame === undefined) return this.#relieve(space);
    this.#install(space, address, pte, frame, true);
    return undefined;
  }

  #mapFile(
    space: AddressSpace,
    address: HostVirtual,
    pte: PtePointer,
    write: boolean,
    file: CachedFile,
    index: number,
  ): Attempt {
    const { pages } = this.#allocator;
    const cached = file.find(index);
    if (cached === undefined) {
      const frame = this.#allocator.take(PageKind.file);
      if (frame === undefined) return this.#relieve(space);
      const read = this.#readFilePage(file, index, frame);
      return read === 'there' ? this.#mapFile(space, address, pte, write, file, index) : read;
    }
    if (pages.isLocked(cached)) return pages.whenUnlocked(cached).then(() => undefined);
    if (!write) {
      this.#install(space, address, pte, cached, false);
      return undefined;
    }
    const copy = this.#allocator.take(PageKind.anonymous);
    if (copy === undefined) return this.#relieve(space);
    this.#allocator.copy(cached, copy);
    this.#install(space, address, pte, copy, true);
    this.#allocator.dropUnneeded(file, cached);
    return undefined;
  }

  /** Begins to read the pages of a file that are not cached, until frames run short. */
  readAhead(file: CachedFile): void {
    for (let index = 0; index < file.pages && this.#allocator.deficit < 0; index++) {
      if (file.find(index) !== undefined) continue;
      const frame = this.#allocator.take(PageKind.file);
      if (frame === undefined) return;
      // What goes wrong with a page is reported to whoever needs it.
      void this.#readFilePage(file, index, frame);
    }
  }

  #readFilePage(file: CachedFile, index: number, frame: Frame): Promise<MemoryError | undefined> | 'there' {
    const allocator = this.#allocator;
    allocator.enterFile(file, index, frame);
    const finish = () => {
      allocator.pages.referenced[frame] = 1;
      allocator.pages.unlock(frame);
      return undefined;
    };
    const read = file.readPage(index, allocator.bytes(frame));
    if (!(read instanceof Promise)) {
      finish();
      return 'there';
    }
    return read.then(finish, (error: unknown) => {
      allocator.pages.unlock(frame);
      allocator.dropFromFile(frame);
      const place = `page ${index} of ${file.file.name}`;
      return { kind: 'file-read', message: `cannot read ${place}: ${messageOf(error)}` };
    });
  }

  #swapIn(space: AddressSpace, address: HostVirtual, pte: PtePointer, write: boolean): Attempt {
    const { pages, swap } = this.#allocator;
    const slot = slotOf(space.tables.readPte(pte));
    const frame = swap.cached(slot);
    if (frame === undefined) return this.#readSlot(space, slot);
    if (pages.isLocked(frame)) return pages.whenUnlocked(frame).then(() => undefined);
    this.#install(space, address, pte, frame, false);
    swap.drop(slot);
    // Once half of all slots are taken, a copy in the store that only saves a later write gives its slot away.
    const alone = pages.mapCount[frame] === 1 && swap.references(slot) === 1;
    if (alone && swap.used * 2 > swap.slots) this.#allocator.leaveSwapCache(frame);
    return write ? this.attempt(space, address, write) : undefined;
  }

  #readSlot(space: AddressSpace, slot: number): Attempt {
    const allocator = this.#allocator;
    const { pages, swap } = allocator;
    const { store } = swap;
    const frame = allocator.take(PageKind.anonymous);
    if (frame === undefined) return this.#relieve(space);
    pages.private[frame] = slot;
    pages.tryLock(frame);
    swap.addToCache(slot, frame);
    const read = store ? store.read(slot, allocator.bytes(frame)) : Promise.reject(new Error('there is no swap store'));
    return read.then(
      () => {
        swap.swappedIn++;
        pages.referenced[frame] = 1;
        pages.unlock(frame);
        allocator.settle(frame);
        return undefined;
      },
      (error: unknown) => {
        allocator.leaveSwapCache(frame);
        pages.unlock(frame);
        allocator.settle(frame);
        return { kind: 'swap-read', message: `cannot read a page back from swap: ${messageOf(error)}` };
      },
    );
  }

  /** A write to a page that is mapped read-only: because others have it too, or because the store has a copy. */
  #breakSharing(space: AddressSpace, vma: Vma, address: HostVirtual, pte: PtePointer): Attempt {
    const allocator = this.#allocator;
    const { pages, swap } = allocator;
    const frame = frameOf(space.tables.readPte(pte));
    const slot = pages.slot(frame);
    const exclusive =
      pages.kind[frame] === PageKind.anonymous &&
      pages.mapCount[frame] === 1 &&
      (slot === NO_SLOT || swap.references(slot) === 1);
    if (exclusive) {
      allocator.leaveSwapCache(frame);
      space.tables.setPteAt(pte, presentPte(frame, true));
      space.notify(vma, 'change', (notifier) => notifier.change(vma, address, frame, true));
      return undefined;
    }
    const copy = allocator.take(PageKind.anonymous);
    if (copy === undefined) return this.#relieve(space);
    allocator.copy(frame, copy);
    const end = (address + PAGE_SIZE) as HostVirtual;
    space.rangeStart(address, end);
    space.tables.ptepGetAndClear(pte);
    this.#install(space, address, pte, copy, true);
    space.retainInstead(address, frame, copy);
    space.notify(vma, 'change', (notifier) => notifier.change(vma, address, copy, true));
    space.rangeEnd(address, end);
    allocator.detach(frame, space, address);
    if (vma.backing) allocator.dropUnneeded(vma.backing.file, frame);
    return undefined;
  }
}
