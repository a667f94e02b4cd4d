import type { GuestPhysical, HostAddress, Mfn } from '../../x86/brand.ts';
import type { DmaTable } from '../dma/table.ts';
import type { Xenstore } from '../xenstore.ts';

/**
 * What a back end has of the guest whose device it is. Where its front end stands, and where its own end does, both say
 * in XenStore by one of these numbers (public/io/xenbus.h).
 */
export const enum BusState {
  initialising = 1,
  initWait = 2,
  initialised = 3,
  connected = 4,
  closing = 5,
  closed = 6,
}

/** An access to a granted page that is under way. Translate `mfn` again on each use of the page. */
export interface GrantUse {
  readonly reference: number;
  readonly mfn: Mfn;
  readonly write: boolean;
}

/** The guest on the other side of a back end. */
export interface FrontEnd {
  readonly domain: number;
  readonly store: Xenstore;
  /** Through which data reaches the guest's memory; no page stays for it. */
  readonly memory: DmaTable;
  /**
   * Begins an access to a page that the guest has granted; undefined when it has not.
   * @param reference any unsigned 32-bit number
   */
  begin(reference: number, write: boolean): GrantUse | undefined;
  end(use: GrantUse): void;
  /** Where the page of an access stands for the DMA table. */
  addressOf(use: GrantUse): GuestPhysical;
  /** Keeps the page of an access where it is, for a ring. @throws PageAbsent when it must be brought in first */
  pin(use: GrantUse): void;
  unpin(use: GrantUse): void;
  /** Host address of a pinned page. */
  pinnedAddress(use: GrantUse): HostAddress;
  /** The back end has stored to a pinned page. */
  written(use: GrantUse): void;
  /** Binds to a port that the guest has opened for its back end; false when it is none. */
  bind(port: number): boolean;
  unbind(port: number): void;
  raise(port: number): void;
  /** Asks for a call of `poll`. */
  wake(): void;
}
