import type { Archive, Archived } from '../../archive/archive.ts';
import type { TableGenerations } from '../../cpu/table-generations.ts';
import type { FrameInvalidator, Translation } from '../../cpu/translation.ts';
import { PAE_TOPS } from '../../cpu/walk.ts';
import type { DirtyLog } from '../../memory/dirty-log.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import { type Frame, type GuestVirtual, lowWord, type Mfn, PAGE_SIZE, type Pfn } from '../../x86/brand.ts';
import { ENTRY_FRAME_HIGH, ENTRY_FRAME_LOW, frameOfEntry } from '../../x86/page-table.ts';
import { Pte } from '../../x86/registers.ts';
import type { ShadowTables } from '../shadow/shadow-tables.ts';
import { DescriptorPages } from './descriptor-pages.ts';
import { TableEntries } from './entries.ts';
import { PagingError } from './errors.ts';
import { FRAME_TYPE_NAMES, FrameFlag, FrameOwner, FrameType, FrameTypes } from './frame-types.ts';
import { MachineToPhysical } from './machine-to-physical.ts';
import { type Discrepancy, recountFrames } from './recount.ts';
import {
  type DirectFormat,
  isFixedSlot,
  refusedHigh,
  TABLE_RULES,
  type TableLevel,
  type TableRules,
} from './table-rules.ts';
import { TableValidator } from './validate.ts';

/** Entries looked at in one call before it answers `preempted`: well under a millisecond. */
const WORK_PER_CALL = 16_384;

const ACCESSED_DIRTY = Pte.accessed | Pte.dirty;
/** A present entry above level 1 that keeps these keeps what it refers to; the other flags need no judgement. */
const UPPER_IDENTITY_LOW =
  ENTRY_FRAME_LOW | Pte.writable | Pte.writeThrough | Pte.cacheDisable | Pte.large | Pte.global;

const NO_NUMBER = -1 as Mfn;

/** Commands of mmu_update, in the low bits of its pointer. */
export const enum UpdateCommand {
  normal = 0,
  machineToPhysical = 1,
  preserveAccessedDirty = 2,
  noTranslate = 3,
}
export const UPDATE_COMMAND_MASK = 7;

/** What direct paging tells of while it works. */
export interface PagingEvents {
  /** A store of the guest's kernel into a live level-1 table was carried out. */
  storeCarriedOut?(address: GuestVirtual, table: Mfn, index: number, old: Uint32Array, value: Uint32Array): void;
  /** A store of the guest's kernel met a table above level 1, and was not carried out. */
  storeRefused?(table: Mfn, index: number): void;
  /** A frame is about to become a table of a level; writable translations of it are gone already. */
  becomesTable?(mfn: Mfn, level: number): void;
  /** A frame is about to leave the domain. */
  leaves?(mfn: Mfn): void;
}

export interface DirectPagingOptions {
  readonly space: MachineSpace;
  readonly invalidator: FrameInvalidator;
  readonly virtualProcessors: number;
  /** Number of the first page of the machine-to-physical table, which covers all numbers below it. */
  readonly machineToPhysical: Mfn;
  /** Format of the guest's tables; 8-byte entries. */
  readonly format?: DirectFormat;
  /** Entries looked at in one call before it answers `preempted`, at least 1. */
  readonly workPerCall?: number;
  readonly events?: PagingEvents;
  /** Shadows of the domain's tables, which processors walk in their place; they see each store, so no flush is needed for them. */
  readonly shadow?: ShadowTables | undefined;
}

/**
 * Direct paging: the guest's own tables are walked as they stand, because nothing gets into them unexamined. Their
 * entries hold machine frame numbers of the domain. frame-types.ts says what the counts mean, validate.ts how a frame
 * becomes a table, descriptor-pages.ts what GDTs and LDTs lie in; here are the operations a guest asks for. All of them
 * answer 0 or a `PagingError`; a refused one leaves every count, table and root as it was.
 *
 * `preempted` means: make the same call again. Other calls may come between, of this or another processor.
 *
 * Flushes are the caller's: after a call, or a batch of calls, `takeFlush()` says whether the translations of every
 * processor must go. A changed level-1 entry asks for none; that is the guest's to do.
 */
export class DirectPaging implements Translation, Archived {
  readonly format: DirectFormat;
  readonly rules: TableRules;
  readonly frames: Int32Array;
  readonly writeProtected: Uint8Array;
  readonly types: FrameTypes;
  readonly machineToPhysical: MachineToPhysical;
  readonly entries: TableEntries;
  readonly descriptors: DescriptorPages;
  readonly log: DirtyLog;
  readonly shadow: ShadowTables | undefined;
  readonly #events: PagingEvents;
  readonly #oldEntry = new Uint32Array(2);
  readonly #newEntry = new Uint32Array(2);

  readonly #space: MachineSpace;
  readonly #invalidator: FrameInvalidator;
  readonly #validator: TableValidator;
  readonly #workPerCall: number;
  /** Kernel and user root of each virtual processor, −1 for none. */
  readonly #roots: Int32Array;
  #unusedNumbers: Mfn[] = [];
  #flush = false;

  constructor(options: DirectPagingOptions) {
    const { space, invalidator, virtualProcessors } = options;
    this.format = options.format ?? 'four-level';
    this.frames = space.frames;
    this.writeProtected = space.writeProtected;
    this.log = space.log;
    this.shadow = options.shadow;
    this.#space = space;
    this.#invalidator = invalidator;
    this.rules = TABLE_RULES[this.format];
    this.types = new FrameTypes(options.machineToPhysical, {
      ldtFrameReleased: (mfn) => this.descriptors.forgetLdtFrame(mfn as Mfn),
      leavesUse: (mfn, type) => {
        if (type === FrameType.segmentDescriptors) space.unpin(mfn as Mfn);
        else space.letGo(mfn as Mfn);
      },
    });
    this.entries = new TableEntries(this.types, space, invalidator, this.rules);
    this.#events = options.events ?? {};
    this.#validator = new TableValidator(this.types, this.entries, space, invalidator, this.rules, (mfn, level) =>
      this.#events.becomesTable?.(mfn as Mfn, level),
    );
    this.#workPerCall = options.workPerCall ?? WORK_PER_CALL;
    this.descriptors = new DescriptorPages({
      types: this.types,
      entries: this.entries,
      space,
      invalidator,
      virtualProcessors,
      kernelPrivilege: this.format === 'pae' ? 1 : 3,
      finish: () => this.#validator.finish(),
    });
    this.#roots = new Int32Array(virtualProcessors * 2).fill(-1);
    this.machineToPhysical = new MachineToPhysical(space, options.machineToPhysical, this.rules);
  }

  archive(archive: Archive): void {
    archive.part('types', this.types);
    archive.part('validator', this.#validator);
    archive.part('descriptors', this.descriptors);
    archive.words('roots', this.#roots);
    this.#unusedNumbers = archive.value('unusedNumbers', this.#unusedNumbers);
    this.#flush = archive.value('flush', this.#flush);
  }

  // ─── Frames ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Gives the domain a frame under a number that is not in use. @throws RangeError when it is */
  addFrame(mfn: Mfn, frame: Frame, owner: FrameOwner): void {
    this.#space.attach(mfn, frame);
    this.types.adopt(mfn, owner);
  }

  /** Names a number that `populatePhysmap` may use. */
  offerNumber(mfn: Mfn): void {
    this.#unusedNumbers.push(mfn);
  }

  /** Gives a fresh zeroed frame to the domain as a pseudo-physical page; its machine frame number, or `noMemory`. @throws PageAbsent */
  populatePhysmap(pfn: Pfn): Mfn | PagingError.noMemory {
    const mfn = this.#unusedNumbers.at(-1);
    if (mfn === undefined) return PagingError.noMemory;
    this.machineToPhysical.requireWritable(mfn);
    if (!this.#space.populate(mfn)) return PagingError.noMemory;
    this.#unusedNumbers.pop();
    this.types.adopt(mfn, FrameOwner.domain);
    this.machineToPhysical.set(mfn, pfn, 0);
    return mfn;
  }

  /** Takes a frame from the domain and frees it. `invalid` when it is not the domain's or anything still refers to it. @throws PageAbsent */
  decreaseReservation(mfn: Mfn): number {
    if (!this.#begin()) return PagingError.preempted;
    const types = this.types;
    if (!types.isDomains(mfn) || types.references[mfn] !== 0) return PagingError.invalid;
    this.machineToPhysical.clear(mfn);
    this.#events.leaves?.(mfn);
    this.#release(mfn);
    this.#unusedNumbers.push(mfn);
    return 0;
  }

  /** Ends the domain's memory: all its frames go back to the pool. Its processors run no more. */
  destroy(): void {
    this.shadow?.end();
    for (let mfn = 0; mfn < this.types.limit; mfn++) {
      if (this.types.owner[mfn] !== FrameOwner.none) this.#release(mfn as Mfn);
    }
    this.machineToPhysical.release(this.#invalidator);
  }

  /** Keeps a page where it is and writable for the host (a ring, vcpu_info): it cannot become a table. */
  holdWritable(mfn: Mfn): number {
    this.#validator.finish();
    if (!this.types.isPlain(mfn)) return PagingError.invalid;
    this.#space.pin(mfn);
    return this.holdType(mfn);
  }

  /** Ends what one successful `holdWritable` began. */
  dropWritable(mfn: Mfn): void {
    this.dropType(mfn);
    this.#space.unpin(mfn);
  }

  /** Keeps a page from becoming a table, for a device that writes it; its frame may come and go meanwhile. */
  holdType(mfn: Mfn): number {
    this.#validator.finish();
    if (!this.types.isPlain(mfn)) return PagingError.invalid;
    this.types.takeWritable(mfn);
    this.types.references[mfn]!++; // an owned number is below the limit
    this.types.hostHolds.add(mfn, 1);
    return 0;
  }

  /** Ends what one successful `holdType` began. */
  dropType(mfn: Mfn): void {
    if (this.types.hostHolds.get(mfn) === 0) throw new RangeError(`machine frame ${mfn} is not held by the host`);
    this.types.hostHolds.add(mfn, -1);
    this.types.references[mfn]!--;
    this.types.dropWritable(mfn);
  }

  // ─── Entries ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * One request of mmu_update: a machine address with its command, and the new value, by halves.
   * A frame that is no table but may be written gets a plain 8-byte store.
   */
  mmuUpdate(pointerLow: number, pointerHigh: number, valueLow: number, valueHigh: number): number {
    const command = pointerLow & UPDATE_COMMAND_MASK;
    const mfn = frameOfEntry(pointerLow, pointerHigh);
    const type = this.types.type[mfn];
    if (!this.#begin(this.#expectedPromotion(type, valueLow, valueHigh))) return PagingError.preempted;
    if (command > UpdateCommand.noTranslate) return PagingError.notImplemented;
    const owner = this.types.owner[mfn] ?? FrameOwner.none;
    if (owner === FrameOwner.none || pointerHigh >>> 0 > ENTRY_FRAME_HIGH) return PagingError.invalid;
    if (command === UpdateCommand.machineToPhysical) {
      if (owner !== FrameOwner.domain) return PagingError.invalid;
      this.machineToPhysical.set(mfn, valueLow, valueHigh);
      return 0;
    }
    const index = (pointerLow & (PAGE_SIZE - 1)) >>> 3;
    const preserve = command === UpdateCommand.preserveAccessedDirty;
    // The type is read again: what was left over may have been this frame's demotion.
    switch (this.types.type[mfn] as FrameType) {
      case FrameType.level1:
        return this.#updateLevel1(mfn, index, valueLow, valueHigh, preserve);
      case FrameType.level2:
      case FrameType.level3:
      case FrameType.level4:
        return this.#updateUpper(mfn, index, valueLow, valueHigh, preserve);
      case FrameType.segmentDescriptors:
        return PagingError.invalid;
      default:
        if (owner === FrameOwner.readOnly) return PagingError.invalid;
        this.entries.store(mfn, index, valueLow, valueHigh);
        return 0;
    }
  }

  /** Changes the level-1 entry that translates an address below a root. `invalid` when there is no such table. */
  updateVaMapping(root: Mfn, address: GuestVirtual, valueLow: number, valueHigh: number): number {
    if (!this.#begin()) return PagingError.preempted;
    const table = this.entries.level1TableOf(root, address);
    if (table < 0) return PagingError.invalid;
    return this.#updateLevel1(table, this.entries.level1Index(address), valueLow, valueHigh, false);
  }

  /**
   * A store of the guest's kernel met a read-only page. When the page is a live level-1 table and the store is naturally
   * aligned within one entry, it is carried out as mmu_update would. False lets the page fault happen.
   */
  emulateStore(address: GuestVirtual, target: number, bytes: Uint8Array): boolean {
    const { length } = bytes;
    const offset = lowWord(address) & (PAGE_SIZE - 1);
    if (length > 8 || (length & (length - 1)) !== 0 || length === 0 || (offset & (length - 1)) !== 0) return false;
    this.#validator.finish();
    const mfn = target as Mfn;
    const type = this.types.type[mfn] as FrameType;
    const index = offset >>> 3;
    if (type !== FrameType.level1) {
      if (type > FrameType.level1 && type <= FrameType.level4) this.#events.storeRefused?.(mfn, index);
      return false;
    }
    const word = this.entries.wordOf(mfn) + index * 2;
    let low = this.entries.words[word]!; // inside the table's page
    let high = this.entries.words[word + 1]!;
    this.#oldEntry[0] = low;
    this.#oldEntry[1] = high;
    for (let i = 0; i < length; i++) {
      const position = (offset & 7) + i;
      const shift = (position & 3) * 8;
      const byte = bytes[i]! << shift; // i is below the length
      if (position < 4) low = (low & ~(0xff << shift)) | byte;
      else high = (high & ~(0xff << shift)) | byte;
    }
    if (this.#updateLevel1(mfn, index, low, high, false) !== 0) {
      // A PAE kernel that writes the halves in this order means the entry to come with the other half.
      const isUpperHalf = this.format === 'pae' && length === 4 && (offset & 4) !== 0;
      low &= ~Pte.present;
      if (!isUpperHalf || this.#updateLevel1(mfn, index, low, high, false) !== 0) return false;
    }
    this.#newEntry[0] = low;
    this.#newEntry[1] = high;
    this.#events.storeCarriedOut?.(address, mfn, index, this.#oldEntry, this.#newEntry);
    return true;
  }

  hostWindow(address: GuestVirtual, userAccess: boolean): Mfn | null | undefined {
    return this.machineToPhysical.window(address, userAccess);
  }

  // ─── Tables ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Makes a frame a table of a level, and keeps it one until it is unpinned. */
  pin(level: TableLevel, mfn: Mfn): number {
    if (!this.#begin(mfn)) return PagingError.preempted;
    if (level > this.topLevel || !this.types.isDomains(mfn)) return PagingError.invalid;
    if ((this.types.flags[mfn]! & FrameFlag.pinned) !== 0) return PagingError.invalid; // the domain's own
    const result = this.#validator.acquire(mfn, level);
    if (result === 0) this.types.flags[mfn]! |= FrameFlag.pinned;
    return result;
  }

  /** Ends a pin. The demotion may go on during later calls. */
  unpin(mfn: Mfn): number {
    if (!this.#begin()) return PagingError.preempted;
    if (((this.types.flags[mfn] ?? 0) & FrameFlag.pinned) === 0) return PagingError.invalid;
    this.types.flags[mfn]! &= ~FrameFlag.pinned; // below the limit, since it has a flag
    this.types.generations.changed(mfn);
    this.#validator.dropTable(mfn);
    this.#validator.demote();
    return 0;
  }

  /** Makes a frame the kernel's root of a virtual processor. */
  newBasePointer(processor: number, mfn: Mfn): number {
    return mfn < 0 ? PagingError.invalid : this.#setRoot(processor * 2, mfn);
  }

  /** Makes a frame the root that a virtual processor has in user mode; 0 for none. */
  newUserBasePointer(processor: number, mfn: Mfn): number {
    if (mfn < 0) return PagingError.invalid;
    return this.#setRoot(processor * 2 + 1, mfn === 0 ? NO_NUMBER : mfn);
  }

  /** Ends the references of a virtual processor to its roots and GDT (it is being reset, or its domain ends). */
  releaseProcessor(processor: number): void {
    this.#validator.finish();
    this.#setRoot(processor * 2, NO_NUMBER);
    this.#validator.finish();
    this.#setRoot(processor * 2 + 1, NO_NUMBER);
    this.descriptors.setGdt(processor, [], 0);
  }

  /** Kernel root of a virtual processor, or −1. */
  root(processor: number): Mfn {
    return (this.#roots[processor * 2] ?? NO_NUMBER) as Mfn;
  }

  /** User root of a virtual processor, or −1. */
  userRoot(processor: number): Mfn {
    return (this.#roots[processor * 2 + 1] ?? NO_NUMBER) as Mfn;
  }

  /** A processor's root as a walk counts top tables: of PAE by their place in the page, which is the first. */
  walkedRoot(root: Mfn): number {
    return this.format === 'pae' && root >= 0 ? root * PAE_TOPS : root;
  }

  /** Translations of 32-bit guests are not kept across flushes. */
  get tableGenerations(): TableGenerations | undefined {
    return this.format === 'four-level' ? this.types.generations : undefined;
  }

  /** Level of a root. */
  get topLevel(): TableLevel {
    return this.rules.topLevel;
  }

  /** Whether every processor's translations must go since it was last asked. */
  takeFlush(): boolean {
    const flush = this.#flush;
    this.#flush = false;
    return flush;
  }

  /** Finishes what preempted calls left over, however much it is. */
  finish(): void {
    this.#validator.finish();
  }

  // ─── Pages ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Zeroes a page. `invalid` unless the guest could write it. */
  clearPage(mfn: Mfn): number {
    this.#validator.finish();
    if (!this.types.isPlain(mfn)) return PagingError.invalid;
    this.#space.requireWritable(mfn);
    const word = this.entries.wordOf(mfn);
    this.entries.words.fill(0, word, word + PAGE_SIZE / 4);
    this.#invalidator.frameWritten(this.#space.frameOf(mfn), 0, PAGE_SIZE);
    return 0;
  }

  /** Copies a page of the domain, of any type. `invalid` unless the guest could write the target. */
  copyPage(target: Mfn, source: Mfn): number {
    this.#validator.finish();
    if (!this.types.isDomains(source) || !this.types.isPlain(target)) return PagingError.invalid;
    this.#space.requireWritable(target);
    const from = this.entries.wordOf(source);
    this.entries.words.copyWithin(this.entries.wordOf(target), from, from + PAGE_SIZE / 4);
    this.#invalidator.frameWritten(this.#space.frameOf(target), 0, PAGE_SIZE);
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

  /** Entries looked at by promotions and demotions so far; a caller of many operations bounds a batch by it. */
  get work(): number {
    return this.#validator.work;
  }

  /** Adds up every type and count from scratch; empty when all is well. */
  recount(): Discrepancy[] {
    const holds = { roots: this.#roots, gdtFrames: this.descriptors.allGdtFrames };
    return recountFrames(this.types, this.#validator, this.entries, holds);
  }

  // ─── Inside ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Begins a call: a fresh budget, and leftovers first. False when they used it up. */
  #begin(own = -1): boolean {
    this.#validator.budget = this.#workPerCall;
    return !this.#validator.pending || this.#validator.resume(own);
  }

  /**
   * The unfinished promotion that a repeated update above level 1 is about to go on with, or −1. It must be of the level
   * below the table's, or the table itself could be part of what is being promoted.
   */
  #expectedPromotion(tableType: number | undefined, low: number, high: number): number {
    if (!this.#validator.pending || tableType === undefined) return -1;
    const target = frameOfEntry(low, high);
    return this.types.type[target] === tableType - 1 ? target : -1;
  }

  #setRoot(slot: number, mfn: Mfn): number {
    if (!this.#begin(mfn)) return PagingError.preempted;
    const old = this.#roots[slot]!; // the caller names a processor that exists
    if (mfn === old) return 0;
    if (mfn >= 0) {
      const result = this.#validator.acquire(mfn, this.topLevel);
      if (result !== 0) return result;
    }
    this.#roots[slot] = mfn;
    if (old >= 0) {
      this.#validator.dropTable(old);
      this.#validator.demote();
    }
    return 0;
  }

  #updateLevel1(table: number, index: number, valueLow: number, high: number, preserve: boolean): number {
    this.#space.requireWritable(table as Mfn);
    const word = this.entries.wordOf(table) + index * 2;
    const oldLow = this.entries.words[word]!; // inside the table's page
    const oldHigh = this.entries.words[word + 1]!;
    const low = preserve ? valueLow | (oldLow & ACCESSED_DIRTY) : valueLow;
    const wasPresent = (oldLow & Pte.present) !== 0;
    const isPresent = (low & Pte.present) !== 0;
    if (isPresent) {
      // The new entry's references come first, so that a refusal changes nothing and no count passes through zero.
      const result = this.types.takeMapping(low, high);
      if (result !== 0) return result;
    }
    this.entries.store(table, index, low, high);
    if (wasPresent) {
      this.types.dropMapping(oldLow, oldHigh);
      this.types.noticeUnmapping(oldLow, oldHigh);
      if (((oldLow ^ low) | (oldHigh ^ high)) !== 0) this.types.generations.changed(table);
    }
    return 0;
  }

  #updateUpper(table: number, index: number, valueLow: number, high: number, preserve: boolean): number {
    const level = this.types.type[table]!; // a table is below the limit
    if (isFixedSlot(this.rules, level, index)) return PagingError.invalid;
    this.#space.requireWritable(table as Mfn);
    const word = this.entries.wordOf(table) + index * 2;
    const oldLow = this.entries.words[word]!; // inside the table's page
    const oldHigh = this.entries.words[word + 1]!;
    const low = preserve ? valueLow | (oldLow & ACCESSED_DIRTY) : valueLow;
    const wasPresent = (oldLow & Pte.present) !== 0;
    const isPresent = (low & Pte.present) !== 0;
    if (isPresent && (high & refusedHigh(this.rules, level)) !== 0) return PagingError.invalid;
    const sameTarget =
      wasPresent &&
      isPresent &&
      ((oldLow ^ low) & UPPER_IDENTITY_LOW) === 0 &&
      ((oldHigh ^ high) & ENTRY_FRAME_HIGH) === 0;
    if (isPresent && !sameTarget) {
      const result = this.#validator.takeEntry(table, level, low, high);
      if (result !== 0) return result;
    }
    this.entries.store(table, index, low, high);
    if (!wasPresent) return 0;
    if (!sameTarget) {
      this.#validator.dropEntry(table, level, oldLow, oldHigh);
      this.#validator.demote();
    }
    this.types.generations.changed(table);
    this.#flush = true;
    return 0;
  }

  #release(mfn: Mfn): void {
    const frame = this.#space.frames[mfn] as Frame; // the number is owned
    if (frame >= 0) {
      this.#invalidator.invalidateFrame(frame);
      // Whoever gets the frame next finds other bytes in it: code that was decoded from these must not be found again.
      this.#invalidator.frameWritten(frame, 0, PAGE_SIZE);
    }
    this.types.disown(mfn);
    this.#space.release(mfn);
  }
}
