import type { FrameInvalidator, PhysicalDevices, TableFormat, Translation } from '../../cpu/translation.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import type { MemoryError } from '../../mm/errors.ts';
import type { Soon } from '../../mm/soon.ts';
import { type Gfn, type GuestPhysical, type HostAddress, type Mfn, PAGE_SIZE } from '../../x86/brand.ts';
import type { GuestRam } from '../guest-pages.ts';
import type { Pager } from '../pager.ts';
import type { ShadowTables } from '../shadow/shadow-tables.ts';
import { storeData } from '../store-data.ts';

/**
 * Nested paging: the guest's tables hold guest-physical page numbers and are the guest's own affair; a second table leads
 * from these numbers to frames of the host's pool. It is consulted when a TLB entry is filled, and for each table that a
 * walk goes through.
 *
 * The second table is a machine space whose numbers are guest-physical pages. With a pager it follows the host's page
 * table: entries come when they are needed and go at any time, with every translation that a processor has cached.
 */
export class NestedPaging implements GuestRam {
  readonly space: MachineSpace;
  readonly pager: Pager | undefined;
  /** Tables that are walked in place of the guest's, if there are any. */
  readonly shadow: ShadowTables | undefined = undefined;
  readonly #invalidator: FrameInvalidator;

  /** @param space has a number for each page that can be RAM */
  constructor(space: MachineSpace, invalidator: FrameInvalidator, pager?: Pager) {
    this.space = space;
    this.pager = pager;
    this.#invalidator = invalidator;
  }

  /** Pages of RAM. */
  get pages(): number {
    return this.space.limit;
  }

  /** What the walks of one processor go through, by format. @param devices all that is not RAM, as this processor sees it */
  translations(devices: PhysicalDevices): Readonly<Record<TableFormat, Translation>> {
    const { frames, writeProtected, log } = this.space;
    const second = this.pager ? { frames, writeProtected, log, devices } : { frames, log, devices };
    return {
      none: { format: 'none', ...second },
      'two-level': { format: 'two-level', ...second },
      pae: { format: 'pae', ...second },
      'four-level': { format: 'four-level', ...second },
    };
  }

  /**
   * Host address of a byte of RAM, to be written, good within its page until control leaves the caller; −1 where there is
   * no RAM. @throws PageAbsent
   */
  addressOf(physical: GuestPhysical): HostAddress {
    const page = this.space.writableAddressOf(Math.floor(physical / PAGE_SIZE) as Mfn);
    return page < 0 ? page : ((page + (physical % PAGE_SIZE)) as HostAddress);
  }

  readPage(page: number, target: Uint8Array): Soon<MemoryError | undefined> {
    if (this.pager) return this.pager.readPage(page, target);
    target.set(this.#bytesOf(page as Mfn));
    return undefined;
  }

  store(physical: number, bytes: Uint8Array): Promise<MemoryError | undefined> {
    const page = Math.floor(physical / PAGE_SIZE) as Mfn;
    return storeData(this.space, this.pager, this.#invalidator, page, physical % PAGE_SIZE, bytes);
  }

  /** Fills memory whose pages all stay, before it is used. @param read fills a page of zeroes */
  async load(read: (page: number, target: Uint8Array) => Soon<void>): Promise<void> {
    for (let page = 0; page < this.pages; page++) await read(page, this.#bytesOf(page as Mfn));
  }

  #bytesOf(page: Mfn): Uint8Array {
    const address = this.space.addressOf(page);
    return this.space.pool.memory.u8.subarray(address, address + PAGE_SIZE);
  }

  /** Keeps a page that the host writes at any time where it is, until `unpin`. @throws PageAbsent */
  pin(gfn: Gfn): void {
    this.space.pin(gfn as number as Mfn);
  }

  unpin(gfn: Gfn): void {
    this.space.unpin(gfn as number as Mfn);
  }

  /** Gives every frame back; settles when that is done. No processor uses the memory any more. */
  async destroy(): Promise<void> {
    const { pool, frames } = this.space;
    if (this.pager) {
      const freed = this.pager.end();
      for (const number of frames.keys()) this.space.release(number as Mfn);
      return freed;
    }
    for (const [number, frame] of frames.entries()) {
      if (frame < 0) continue;
      const released = this.space.detach(number as Mfn);
      this.#invalidator.invalidateFrame(released);
      this.#invalidator.frameWritten(released, 0, PAGE_SIZE);
      pool.release(released);
    }
  }
}
