import type { ProcessorGroup } from '../../cpu/processor.ts';
import type { HostMemory } from '../../memory/host-memory.ts';
import type { NestedPaging } from '../../paging/nested/nested-paging.ts';
import { type GuestPhysical, type HostAddress, PAGE_SIZE } from '../../x86/brand.ts';

/** What areas need of their domain. */
export interface AreaOwner {
  readonly paging: NestedPaging;
  readonly group: ProcessorGroup;
}

/**
 * A part of a guest's page that guest and host share. Nothing is held: the address is translated at each use, and where
 * the page has no frame nothing is written.
 */
export class GuestArea {
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

  get isNamed(): boolean {
    return this.#physical >= 0;
  }

  /** @returns false for an address that is not aligned, leaves its page or is no RAM */
  name(physical: number): boolean {
    const inPage = (physical % PAGE_SIZE) + this.#bytes <= PAGE_SIZE;
    const isRam = physical < this.#owner.paging.frames.length * PAGE_SIZE;
    if (physical % this.#alignment !== 0 || !inPage || !isRam) return false;
    this.#physical = physical;
    return true;
  }

  forget(): void {
    this.#physical = -1;
  }

  /** Where the area stands in the host's memory, good until control leaves the caller; −1 when it does not. */
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
