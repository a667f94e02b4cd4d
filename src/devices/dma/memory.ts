import type { Frame, Gfn } from '../../x86/brand.ts';

/** Why a device gets no frame for a page. Frames are not negative, so one number says either. */
export const enum DmaMiss {
  /** RAM of the guest that is not in the host's memory at present. */
  absent = -1,
  /** Not RAM, or not writable by anyone: no device will ever reach it. */
  refused = -2,
}

/**
 * The memory of a guest, as its owner hands it to DMA tables. Nothing that is handed out is locked: the owner takes a
 * page back by `DmaTable.invalidate`, before its frame can mean anything else.
 */
export interface DmaMemory {
  /** One more than the highest page that can be RAM. */
  readonly pages: number;
  /** Whether some page is on its way: with virtual time, the guest must wait as well. */
  readonly isWaiting: boolean;
  /**
   * The frame behind a page, without waiting. For writing, the frame is the guest's own (copy-on-write is broken) and
   * counts as changed until the table's entry is invalidated or protected.
   * @param gfn below `pages`
   * @returns a frame, or a `DmaMiss`
   */
  map(gfn: Gfn, write: boolean): Frame | DmaMiss;
  /** Begins to bring in a page that `map` found absent. The guest's devices are polled when it is there. */
  fetch(gfn: Gfn, write: boolean): void;
  /** A device wrote bytes of a frame: code decoded from them is stale, a log of changed pages wants to know. */
  written(frame: Frame, offset: number, length: number): void;
}
