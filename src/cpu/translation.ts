import type { DirtyLog } from '../memory/dirty-log.ts';
import type { Frame, GuestVirtual, HostAddress } from '../x86/brand.ts';
import type { EntryNumbers } from '../x86/page-table.ts';
import type { Access } from './exits.ts';
import type { TableGenerations } from './table-generations.ts';
import type { WalkControls, WalkResult } from './walk.ts';

/** How the tables below a root are read (SDM vol. 3A, 4.3–4.5). */
export type TableFormat = 'none' | 'two-level' | 'pae' | 'four-level';

/**
 * What the page walk of one virtual processor goes through; supplied by the paging that carries out the guest's tables.
 * Table numbers and leaf numbers are in the paging's own numbering (direct: machine frame numbers of the domain), into which
 * `numbers` translates those in entries.
 */
export interface Translation {
  readonly format: TableFormat;
  /**
   * Pool frame of each number that an entry can hold, −1 for none, −2 for a page that the host must bring in first;
   * read on every fill, and for each table of a walk.
   */
  readonly frames: Int32Array;
  /** What the numbers in entries stand for, where that is not themselves. */
  readonly numbers?: EntryNumbers | undefined;
  /** By number: 1 when the host lets nobody write the page; a write leaves with `Exit.hostFault`. */
  readonly writeProtected?: Uint8Array;
  /**
   * Number of the page that the host itself maps, read-only, at an address (Xen's M2P). `undefined`: not the host's;
   * `null`: not present.
   */
  hostWindow?(address: GuestVirtual, userAccess: boolean): number | null | undefined;
  /**
   * A store met a present, read-only entry in supervisor mode (direct paging: maybe a live level-1 table).
   * `target` is the number that the entry holds, `bytes` what would be written. Commits and returns true, or returns
   * false to let the page fault happen. @throws PageAbsent when a page must be brought in first
   */
  emulateStore?(address: GuestVirtual, target: number, bytes: Uint8Array): boolean;
  /**
   * By table number: grows when a present entry of the table changes and when the frame stops being a table; never
   * shrinks. With it, processors keep translations across changes of the root and across flushes, as long as a walk
   * would find them again. Without it flushes are the architecture's.
   */
  readonly tableGenerations?: TableGenerations | undefined;
  /**
   * Answers accesses to numbers without a frame: they are guest-physical addresses of devices. Without it such an entry
   * is the guest's mistake. The pages of devices are never cached.
   */
  readonly devices?: PhysicalDevices;
  /** Told of pages that are written, tables with their accessed and dirty bits among them. */
  readonly log?: DirtyLog;
  /** Tables that are walked in place of the guest's. */
  readonly shadow?: ShadowWalks | undefined;
}

/** Where a walk leaves what it found. */
export interface FoundPage {
  readonly result: WalkResult;
  /** As `PageWalker.tables`. */
  readonly tables: Int32Array;
}

/**
 * Tables that the host has made out of a guest's. What they permit, the guest's tables permit, and accessed and dirty bits
 * are set there; what they do not, has to be looked up in the guest's tables, and entries for it made.
 */
export interface ShadowWalks {
  /** Looks a page up; false when the tables do not permit the access, and nothing was found then. */
  walk(
    format: Exclude<TableFormat, 'none'>,
    root: number,
    low: number,
    high: number,
    access: Access,
    user: boolean,
    controls: WalkControls,
    found: FoundPage,
  ): boolean;
  /** Makes entries for a page to which a walk of the guest's tables has just led. */
  fill(format: Exclude<TableFormat, 'none'>, root: number, low: number, high: number, controls: WalkControls): void;
  /** A processor drops its translations, or changes its root: what follows must be what the guest's tables say. */
  flush(): void;
  /** The same of one page below a root. */
  flushPage(format: Exclude<TableFormat, 'none'>, root: number, low: number, high: number): void;
  /** The guest's tables refuse an access. */
  passedOn(): void;
}

/** Guest-physical memory apart from RAM, by bytes. */
export interface PhysicalDevices {
  /**
   * @param bytes 1, 2 or 4; the address is a multiple of it
   * @returns an unsigned value; all ones where nothing is
   */
  load(address: number, bytes: number): number;
  store(address: number, bytes: number, value: number): void;
}

/**
 * Guest memory as the running virtual processor sees it: linear addresses through its current tables.
 * Nothing here raises an exception in the guest; a failed access is reported by the result.
 */
export interface GuestMemory {
  /**
   * Host address of one byte, or −1 when the access would fault; no access of the result may cross the page. This and
   * all below throw PageAbsent when the host must bring the page in first.
   * `userAccess` defaults to false: the host acts for the guest's kernel.
   */
  translate(address: GuestVirtual, access: Access, userAccess?: boolean): HostAddress;
  /** Copies `target.length` bytes out of the guest; false when any byte is not readable (nothing is promised about `target` then). */
  read(address: GuestVirtual, target: Uint8Array): boolean;
  /** Copies `source` into the guest, all or nothing: both pages of a crossing write are checked first. */
  write(address: GuestVirtual, source: Uint8Array): boolean;
  /** Unsigned 32-bit word, or −1. */
  readWord(address: GuestVirtual): number;
  writeWord(address: GuestVirtual, value: number): boolean;
  /** 64-bit word as halves into `out[0]` (low) and `out[1]` (high); false on fault. */
  readLong(address: GuestVirtual, out: Uint32Array): boolean;
  writeLong(address: GuestVirtual, low: number, high: number): boolean;
}

/** What must be told when a frame changes its owner, type or writability. The one mechanism of invalidation. */
export interface FrameInvalidator {
  /** Removes every cached translation of the frame, saved ones included, on every virtual processor. */
  invalidateFrame(frame: Frame): void;
  /** Removes cached translations that allow writing only. */
  invalidateWritable(frame: Frame): void;
  /** The host wrote bytes of a frame: decoded code that covers them is dropped. `offset` and `length` in the frame. */
  frameWritten(frame: Frame, offset: number, length: number): void;
}
