import type { Archive, Archived } from '../../archive/archive.ts';
import type { ProcessorGroup } from '../../cpu/processor.ts';
import type { HostMemory } from '../../memory/host-memory.ts';
import type { NestedPaging } from '../../paging/nested/nested-paging.ts';
import { type Gfn, type GuestPhysical, type HostAddress, PAGE_SIZE } from '../../x86/brand.ts';

/** What areas need of their domain. */
export interface AreaOwner {
  readonly paging: NestedPaging;
  readonly group: ProcessorGroup;
}

/**
 * A part of a guest's page that guest and host share. Its page stays where it is for as long as the guest has named it:
 * the host writes it between turns, when it cannot wait for pages.
 */
export class GuestArea implements Archived {
  readonly #owner: AreaOwner;
  readonly #bytes: number;
  readonly #alignment: number;
  /** −1 when the guest has named none. */
  #physical = -1;

  /** @param alignment of the address, a power of two */
  constructor(owner: AreaOwner, bytes: number, alignment: number) {
    this.#owner = owner;
    this.#bytes = bytes;
    this.#alignment = alignment;
  }

  /** The page's pin is the pager's to restore. */
  archive(archive: Archive): void {
    this.#physical = archive.value('physical', this.#physical);
  }

  get isNamed(): boolean {
    return this.#physical >= 0;
  }

  /** @returns false for an address that is not aligned, leaves its page or is no RAM. @throws PageAbsent */
  name(physical: number): boolean {
    const { paging } = this.#owner;
    const inPage = (physical % PAGE_SIZE) + this.#bytes <= PAGE_SIZE;
    if (physical % this.#alignment !== 0 || !inPage || physical >= paging.pages * PAGE_SIZE) return false;
    paging.pin(pageOf(physical));
    this.forget();
    this.#physical = physical;
    return true;
  }

  forget(): void {
    if (this.#physical >= 0) this.#owner.paging.unpin(pageOf(this.#physical));
    this.#physical = -1;
  }

  /** Where the area stands in the host's memory; −1 when the guest has named none. */
  get address(): HostAddress {
    if (this.#physical < 0) return -1 as HostAddress;
    return this.#owner.paging.addressOf(this.#physical as GuestPhysical);
  }

  get memory(): HostMemory {
    return this.#owner.group.parts.memory;
  }

  /** Bytes of the area were changed. */
  written(): void {
    const { address } = this;
    const frame = this.#owner.group.parts.pool.frameAt(address);
    this.#owner.group.frameWritten(frame, address % PAGE_SIZE, this.#bytes);
  }
}

function pageOf(physical: number): Gfn {
  return Math.floor(physical / PAGE_SIZE) as Gfn;
}
