import type { Archive, Archived } from '../archive/archive.ts';
import type { TableGenerations } from '../cpu/table-generations.ts';
import type { FrameInvalidator, Translation } from '../cpu/translation.ts';
import { PAE_TOPS } from '../cpu/walk.ts';
import type { DirtyLog } from '../memory/dirty-log.ts';
import type { MachineSpace } from '../memory/machine-space.ts';
import { type Frame, type GuestVirtual, type Mfn, PAGE_SIZE, type Pfn } from '../x86/brand.ts';
import type { EntryNumbers } from '../x86/page-table.ts';
import type { DescriptorTables } from './direct/descriptor-tables.ts';
import { TableEntries } from './direct/entries.ts';
import { PagingError } from './direct/errors.ts';
import {
  FRAME_TYPE_NAMES,
  FrameOwner,
  type FrameType,
  type FrameTypeEvents,
  FrameTypes,
} from './direct/frame-types.ts';
import type { MachineToPhysical } from './direct/machine-to-physical.ts';
import type { Discrepancy } from './direct/recount.ts';
import { type DirectFormat, TABLE_RULES, type TableLevel, type TableRules } from './direct/table-rules.ts';
import type { ShadowDiscrepancy } from './shadow/recount.ts';
import type { ShadowTables } from './shadow/shadow-tables.ts';

const NO_NUMBER = -1 as Mfn;

/** What a recount can find. */
export type AnyDiscrepancy = Discrepancy | ShadowDiscrepancy;

export interface DomainPagingOptions {
  readonly space: MachineSpace;
  /** One more than the highest number that the guest can name. */
  readonly limit: Mfn;
  readonly invalidator: FrameInvalidator;
  readonly virtualProcessors: number;
  /** Format of the guest's tables; 8-byte entries. */
  readonly format?: DirectFormat;
  /** What is demanded of tables; unless it is given, what Xen demands. */
  readonly rules?: TableRules;
  /** Whether numbers beyond the limit are those of devices, which the guest may map. */
  readonly hasDevices?: boolean;
  /** What entries name frames by; without it, by their own numbers. */
  readonly numbers?: EntryNumbers;
}

/**
 * The pages of a Xen domain and what it asks of its page tables, whichever way these are carried out: as they stand,
 * because they are examined (direct-paging.ts), or by shadows, because nobody examines them (translated-paging.ts).
 *
 * Operations answer 0 or a `PagingError`. `preempted` means: make the same call again. Other calls may come between, of
 * this or another processor.
 */
export abstract class DomainPaging implements Translation, Archived {
  readonly format: DirectFormat;
  readonly rules: TableRules;
  readonly frames: Int32Array;
  readonly writeProtected: Uint8Array;
  readonly log: DirtyLog;
  readonly types: FrameTypes;
  readonly entries: TableEntries;
  /** Shadows of the domain's tables, which processors walk in their place. */
  abstract readonly shadow: ShadowTables | undefined;
  abstract readonly descriptors: DescriptorTables;
  /** What the guest reads to find the pseudo-physical number of a machine frame number; undefined when these are the same. */
  abstract readonly machineToPhysical: MachineToPhysical | undefined;
  protected readonly space: MachineSpace;
  protected readonly invalidator: FrameInvalidator;
  /** Kernel and user root of each virtual processor, −1 for none. */
  protected readonly roots: Int32Array;

  constructor(options: DomainPagingOptions) {
    const { space, limit, invalidator, virtualProcessors, format = 'four-level' } = options;
    this.format = format;
    this.rules = options.rules ?? TABLE_RULES[format];
    this.frames = space.frames;
    this.writeProtected = space.writeProtected;
    this.log = space.log;
    this.space = space;
    this.invalidator = invalidator;
    const events: FrameTypeEvents = {
      ldtFrameReleased: (mfn) => this.ldtFrameReleased(mfn as Mfn),
      leavesUse: (mfn, type) => this.leavesUse(mfn as Mfn, type),
    };
    this.types = new FrameTypes(limit, events, options.hasDevices, options.numbers);
    const isTable = (mfn: number, level: number) => this.isTable(mfn, level);
    this.entries = new TableEntries(this.types, space, invalidator, this.rules, isTable);
    this.roots = new Int32Array(virtualProcessors * 2).fill(NO_NUMBER);
  }

  abstract archive(archive: Archive): void;

  /** Whether a walk may go on in a page as a table of a level. */
  protected abstract isTable(mfn: number, level: number): boolean;

  protected abstract ldtFrameReleased(mfn: Mfn): void;

  /** A frame is no table any more, or holds no descriptors. */
  protected abstract leavesUse(mfn: Mfn, type: FrameType): void;

  /** Addresses that the host answers itself. */
  abstract hostWindow(address: GuestVirtual, userAccess: boolean): Mfn | null | undefined;

  // ─── Frames ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Gives the domain a frame under a number that is not in use. @throws RangeError when it is */
  addFrame(mfn: Mfn, frame: Frame, owner: FrameOwner): void {
    this.space.attach(mfn, frame);
    this.types.adopt(mfn, owner);
  }

  /**
   * Lets the guest look up which of its pages a number stands for. False when there is no memory for that.
   * @param numbers by pseudo-physical page
   */
  abstract publishNumbers(numbers: Uint32Array): boolean;

  /** Names a number that a page which comes later, or is moved, may have. */
  abstract offerNumber(mfn: Mfn): void;

  /** Gives a fresh zeroed page to the domain as a pseudo-physical one; its number, or a `PagingError`. @throws PageAbsent */
  abstract populatePhysmap(pfn: Pfn): Mfn | PagingError;

  /** Takes a page from the domain and frees it. `invalid` when it is not the domain's or something refers to it. @throws PageAbsent */
  abstract decreaseReservation(mfn: Mfn): number;

  /** Moves a page of the host's to another number. `invalid` where pages do not move or the number cannot be had. */
  abstract movePage(from: Mfn, to: Mfn): number;

  /** The number that stands for a pseudo-physical page, or −1. @throws PageAbsent */
  abstract numberOfPage(pfn: Pfn): Mfn;

  /** Ends the domain's memory: all its frames go back to the pool. Its processors run no more. */
  destroy(): void {
    this.shadow?.end();
    for (let mfn = 0; mfn < this.types.limit; mfn++) {
      if (this.types.owner.get(mfn) !== FrameOwner.none) this.release(mfn as Mfn);
    }
  }

  /** Keeps a page where it is and writable for the host (a ring, vcpu_info): it cannot become a table. */
  holdWritable(mfn: Mfn): number {
    this.finish();
    if (!this.types.isPlain(mfn)) return PagingError.invalid;
    this.space.pin(mfn);
    return this.holdType(mfn);
  }

  /** Ends what one successful `holdWritable` began. */
  dropWritable(mfn: Mfn): void {
    this.dropType(mfn);
    this.space.unpin(mfn);
  }

  /** Keeps a page from becoming a table, for a device that writes it; its frame may come and go meanwhile. */
  holdType(mfn: Mfn): number {
    this.finish();
    if (!this.types.isPlain(mfn)) return PagingError.invalid;
    this.types.takeWritable(mfn);
    this.types.references.add(mfn, 1);
    this.types.hostHolds.add(mfn, 1);
    return 0;
  }

  /** Ends what one successful `holdType` began. */
  dropType(mfn: Mfn): void {
    if (this.types.hostHolds.get(mfn) === 0) throw new RangeError(`machine frame ${mfn} is not held by the host`);
    this.types.hostHolds.add(mfn, -1);
    this.types.references.add(mfn, -1);
    this.types.dropWritable(mfn);
  }

  /** Takes a number out of use, and frees its page. */
  protected release(mfn: Mfn): void {
    const frame = this.frames[mfn] as Frame; // the number is owned
    if (frame >= 0) {
      this.invalidator.invalidateFrame(frame);
      // Whoever gets the frame next finds other bytes in it: code that was decoded from these must not be found again.
      this.invalidator.frameWritten(frame, 0, PAGE_SIZE);
    }
    this.types.disown(mfn);
    this.space.release(mfn);
  }

  // ─── Entries ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** What a page is as far as the paging knows: the level of a table in use, or something else. */
  abstract typeOf(mfn: Mfn): FrameType;

  /**
   * One request of mmu_update: a machine address with its command, and the new value, by halves.
   * A frame that is no table but may be written gets a plain 8-byte store.
   */
  abstract mmuUpdate(pointerLow: number, pointerHigh: number, valueLow: number, valueHigh: number): number;

  /** Changes the level-1 entry that translates an address below a root. `invalid` when there is no such table. */
  abstract updateVaMapping(root: Mfn, address: GuestVirtual, valueLow: number, valueHigh: number): number;

  // ─── Tables ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Makes a frame a table of a level, and keeps it one until it is unpinned. */
  abstract pin(level: TableLevel, mfn: Mfn): number;

  /** Ends a pin. The demotion may go on during later calls. */
  abstract unpin(mfn: Mfn): number;

  /** Makes a frame the kernel's root of a virtual processor. */
  abstract newBasePointer(processor: number, mfn: Mfn): number;

  /** Makes a frame the root that a virtual processor has in user mode; 0 for none. */
  abstract newUserBasePointer(processor: number, mfn: Mfn): number;

  /** Kernel root of a virtual processor, or −1. */
  root(processor: number): Mfn {
    return (this.roots[processor * 2] ?? NO_NUMBER) as Mfn;
  }

  /** User root of a virtual processor, or −1. */
  userRoot(processor: number): Mfn {
    return (this.roots[processor * 2 + 1] ?? NO_NUMBER) as Mfn;
  }

  /** A processor's root as a walk counts top tables: of PAE by their place in the page, which is the first. */
  walkedRoot(root: Mfn): number {
    return this.format === 'pae' && root >= 0 ? root * PAE_TOPS : root;
  }

  /** What lets processors keep translations across flushes; undefined where flushes are the architecture's. */
  abstract get tableGenerations(): TableGenerations | undefined;

  /** Level of a root. */
  get topLevel(): TableLevel {
    return this.rules.topLevel;
  }

  /** Whether every processor's translations must go since it was last asked. */
  abstract takeFlush(): boolean;

  /** Finishes what preempted calls left over, however much it is. */
  abstract finish(): void;

  // ─── Pages ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Zeroes a page. `invalid` unless the guest could write it. */
  clearPage(mfn: Mfn): number {
    this.finish();
    if (!this.types.isPlain(mfn)) return PagingError.invalid;
    this.space.requireWritable(mfn);
    const word = this.entries.wordOf(mfn);
    this.entries.words.fill(0, word, word + PAGE_SIZE / 4);
    this.invalidator.frameWritten(this.space.frameOf(mfn), 0, PAGE_SIZE);
    return 0;
  }

  /** Copies a page of the domain, of any type. `invalid` unless the guest could write the target. */
  copyPage(target: Mfn, source: Mfn): number {
    this.finish();
    if (!this.types.isDomains(source) || !this.types.isPlain(target)) return PagingError.invalid;
    this.space.requireWritable(target);
    const from = this.entries.wordOf(source);
    this.entries.words.copyWithin(this.entries.wordOf(target), from, from + PAGE_SIZE / 4);
    this.invalidator.frameWritten(this.space.frameOf(target), 0, PAGE_SIZE);
    return 0;
  }

  // ─── Looking in ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Frames of the domain by type. */
  statistics(): Record<(typeof FRAME_TYPE_NAMES)[number], number> {
    const entries = FRAME_TYPE_NAMES.map((name, type) => [name, this.types.framesByType[type] ?? 0] as const);
    return Object.fromEntries(entries) as Record<(typeof FRAME_TYPE_NAMES)[number], number>;
  }

  /** Frames of the domain, the host's pages that it uses too among them. */
  get frameCount(): number {
    return this.types.framesByType.reduce((sum, count) => sum + count, 0);
  }

  /** Adds up every type and count from scratch, those of shadows too; empty when all is well. */
  abstract recount(): AnyDiscrepancy[];
}
