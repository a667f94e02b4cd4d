import type { FrameInvalidator } from '../../cpu/translation.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import type { MemoryError } from '../../mm/errors.ts';
import type { Soon } from '../../mm/soon.ts';
import type { DomainPaging } from '../../paging/domain-paging.ts';
import type { GuestRam } from '../../paging/guest-pages.ts';
import type { Pager } from '../../paging/pager.ts';
import { storeData } from '../../paging/store-data.ts';
import { type HostVirtual, PAGE_SIZE } from '../../x86/brand.ts';

/** The memory of a domain by pseudo-physical address. */
export class DomainRam implements GuestRam {
  readonly #space: MachineSpace;
  readonly #paging: DomainPaging;
  readonly #pager: Pager;
  readonly #invalidator: Pick<FrameInvalidator, 'frameWritten'>;

  constructor(
    { space, paging }: { readonly space: MachineSpace; readonly paging: DomainPaging },
    pager: Pager,
    invalidator: Pick<FrameInvalidator, 'frameWritten'>,
  ) {
    this.#space = space;
    this.#paging = paging;
    this.#pager = pager;
    this.#invalidator = invalidator;
  }

  get pages(): number {
    return this.#pager.pages;
  }

  readPage(page: number, target: Uint8Array): Soon<MemoryError | undefined> {
    return this.#pager.readPage(page, target);
  }

  /** A table that was examined stays as it is, and so do pages that are the host's. */
  async store(physical: number, bytes: Uint8Array): Promise<MemoryError | undefined> {
    const offset = physical % PAGE_SIZE;
    const mfn = this.#pager.numberAt((physical - offset) as HostVirtual);
    if (this.#paging.holdType(mfn) !== 0) return undefined;
    try {
      return await storeData(this.#space, this.#pager, this.#invalidator, mfn, offset, bytes);
    } finally {
      this.#paging.dropType(mfn);
    }
  }
}
