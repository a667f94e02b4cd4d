import type { MemoryError } from '../mm/errors.ts';
import type { Soon } from '../mm/soon.ts';

/** All memory of a guest, to be copied while it stands still. */
export interface GuestPages {
  readonly pages: number;
  /** Copies a page, wherever it is. @param target a page of zeroes */
  readPage(page: number, target: Uint8Array): Soon<MemoryError | undefined>;
}
