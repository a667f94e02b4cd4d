import type { MemoryError } from '../mm/errors.ts';
import type { Soon } from '../mm/soon.ts';

/** All memory of a guest, to be copied while it stands still. */
export interface GuestPages {
  readonly pages: number;
  /** Copies a page, wherever it is. @param target a page of zeroes */
  readPage(page: number, target: Uint8Array): Soon<MemoryError | undefined>;
}

/** The memory of a guest that stands still, where the host has something to change. */
export interface GuestRam extends GuestPages {
  /**
   * Changes bytes of the guest's data. Nothing is changed in a page that is in a use in which its guest could not write it
   * either. @param physical the first of them; all lie within one of the pages
   */
  store(physical: number, bytes: Uint8Array): Promise<MemoryError | undefined>;
}
