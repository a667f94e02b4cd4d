import type { Archive } from '../../archive/archive.ts';
import type { TableGenerations } from '../../cpu/table-generations.ts';
import { type GuestVirtual, lowWord, type Mfn, PAGE_SIZE, type Pfn } from '../../x86/brand.ts';
import { ENTRY_FRAME_HIGH, ENTRY_FRAME_LOW, frameOfEntry } from '../../x86/page-table.ts';
import { Pte } from '../../x86/registers.ts';
import { type AnyDiscrepancy, DomainPaging, type DomainPagingOptions } from '../domain-paging.ts';
import type { ShadowTables } from '../shadow/shadow-tables.ts';
import { DescriptorPages } from './descriptor-pages.ts';
import { PagingError } from './errors.ts';
import { FrameFlag, FrameOwner, FrameType } from './frame-types.ts';
import { MachineToPhysical } from './machine-to-physical.ts';
import { recountFrames } from './recount.ts';
import { isFixedSlot, refusedHigh, type TableLevel } from './table-rules.ts';
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
  /** A frame is a table no more. */
  leavesTable?(mfn: Mfn): void;
  /** A frame is about to leave the domain. */
  leaves?(mfn: Mfn): void;
}

export interface DirectPagingOptions extends DomainPagingOptions {
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
export class DirectPaging extends DomainPaging {
  readonly machineToPhysical: MachineToPhysical;
  readonly descriptors: DescriptorPages;
  readonly shadow: ShadowTables | undefined;
  readonly #events: PagingEvents;
  readonly #oldEntry = new Uint32Array(2);
  readonly #newEntry = new Uint32Array(2);

  readonly #validator: TableValidator;
  readonly #workPerCall: number;
  #unusedNumbers: Mfn[] = [];
  #flush = false;

  constructor(options: DirectPagingOptions) {
    super(options);
    const { space, invalidator, virtualProcessors } = options;
    const { types, entries, rules } = this;
    this.shadow = options.shadow;
    this.#events = options.events ?? {};
    this.#validator = new TableValidator(types, entries, space, invalidator, rules, (mfn, level) =>
      this.#events.becomesTable?.(mfn as Mfn, level),
    );
    this.#workPerCall = options.workPerCall ?? WORK_PER_CALL;
    this.descriptors = new DescriptorPages({
      types,
      entries,
      space,
      invalidator,
      virtualProcessors,
      kernelPrivilege: rules.kernelPrivilege,
      begin: () => this.#begin(),
      finish: () => this.#validator.finish(),
    });
    this.machineToPhysical = new MachineToPhysical(space, options.limit, rules);
  }

  archive(archive: Archive): void {
    archive.part('types', this.types);
    archive.part('validator', this.#validator);
    archive.part('descriptors', this.descriptors);
    archive.words('roots', this.roots);
    this.#unusedNumbers = archive.value('unusedNumbers', this.#unusedNumbers);
    this.#flush = archive.value('flush', this.#flush);
  }

  // ─── Frames ────────────────────────────────────────────────────────────────────────────────────────────────────────

  protected override isTable(mfn: number, level: number): boolean {
    return this.types.type.get(mfn) === level;
  }

  protected override ldtFrameReleased(mfn: Mfn): void {
    this.descriptors.forgetLdtFrame(mfn);
  }

  protected override leavesUse(mfn: Mfn, type: FrameType): void {
    if (type === FrameType.segmentDescriptors) this.space.unpin(mfn);
    else {
      this.#events.leavesTable?.(mfn);
      this.space.letGo(mfn);
    }
  }

  publishNumbers(numbers: Uint32Array): boolean {
    if (!this.machineToPhysical.create()) return false;
    for (const [pfn, mfn] of numbers.entries()) this.machineToPhysical.set(mfn, pfn, 0);
    return true;
  }

  offerNumber(mfn: Mfn): void {
    this.#unusedNumbers.push(mfn);
  }

  populatePhysmap(pfn: Pfn): Mfn | PagingError.noMemory {
    const mfn = this.#unusedNumbers.at(-1);
    if (mfn === undefined) return PagingError.noMemory;
    this.machineToPhysical.requireWritable(mfn);
    if (!this.space.populate(mfn)) return PagingError.noMemory;
    this.#unusedNumbers.pop();
    this.types.adopt(mfn, FrameOwner.domain);
    this.machineToPhysical.set(mfn, pfn, 0);
    return mfn;
  }

  decreaseReservation(mfn: Mfn): number {
    if (!this.#begin()) return PagingError.preempted;
    const types = this.types;
    if (!types.isDomains(mfn) || types.references.get(mfn) !== 0) return PagingError.invalid;
    this.machineToPhysical.clear(mfn);
    this.#events.leaves?.(mfn);
    this.release(mfn);
    this.#unusedNumbers.push(mfn);
    return 0;
  }

  /** A guest that knows machine frames finds the host's pages by their numbers. */
  movePage(): number {
    return PagingError.invalid;
  }

  numberOfPage(pfn: Pfn): Mfn {
    for (let mfn = 0; mfn < this.types.limit; mfn++) {
      if (this.types.isDomains(mfn) && this.machineToPhysical.get(mfn) === pfn) return mfn as Mfn;
    }
    return NO_NUMBER;
  }

  override destroy(): void {
    super.destroy();
    this.machineToPhysical.release(this.invalidator);
  }

  // ─── Entries ───────────────────────────────────────────────────────────────────────────────────────────────────────

  typeOf(mfn: Mfn): FrameType {
    return this.types.type.get(mfn) as FrameType;
  }

  mmuUpdate(pointerLow: number, pointerHigh: number, valueLow: number, valueHigh: number): number {
    const command = pointerLow & UPDATE_COMMAND_MASK;
    const mfn = frameOfEntry(pointerLow, pointerHigh);
    const type = this.types.type.get(mfn);
    if (!this.#begin(this.#expectedPromotion(type, valueLow, valueHigh))) return PagingError.preempted;
    if (command > UpdateCommand.noTranslate) return PagingError.notImplemented;
    const owner = this.types.owner.get(mfn);
    if (owner === FrameOwner.none || pointerHigh >>> 0 > ENTRY_FRAME_HIGH) return PagingError.invalid;
    if (command === UpdateCommand.machineToPhysical) {
      if (owner !== FrameOwner.domain) return PagingError.invalid;
      this.machineToPhysical.set(mfn, valueLow, valueHigh);
      return 0;
    }
    const index = (pointerLow & (PAGE_SIZE - 1)) >>> 3;
    const preserve = command === UpdateCommand.preserveAccessedDirty;
    // The type is read again: what was left over may have been this frame's demotion.
    switch (this.types.type.get(mfn) as FrameType) {
      case FrameType.level1:
        return this.#updateLevel1(mfn, index, valueLow, valueHigh, preserve);
      case FrameType.level2:
      case FrameType.level3:
      case FrameType.level4:
        return this.#updateUpper(mfn, index, valueLow, valueHigh, preserve);
      case FrameType.segmentDescriptors:
        return PagingError.invalid;
      default:
        this.entries.store(mfn, index, valueLow, valueHigh);
        return 0;
    }
  }

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
    const type = this.types.type.get(mfn) as FrameType;
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
      if (!isUpperHalf) return false;
      low &= ~Pte.present;
      // Refers to nothing, so that nothing can be wrong with it.
      this.#updateLevel1(mfn, index, low, high, false);
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

  pin(level: TableLevel, mfn: Mfn): number {
    if (!this.#begin(mfn)) return PagingError.preempted;
    if (level > this.topLevel || !this.types.isDomains(mfn)) return PagingError.invalid;
    if (this.types.hasFlag(mfn, FrameFlag.pinned)) return PagingError.invalid;
    const result = this.#validator.acquire(mfn, level);
    if (result === 0) this.types.setFlag(mfn, FrameFlag.pinned);
    return result;
  }

  unpin(mfn: Mfn): number {
    if (!this.#begin()) return PagingError.preempted;
    if (!this.types.hasFlag(mfn, FrameFlag.pinned)) return PagingError.invalid;
    this.types.clearFlag(mfn, FrameFlag.pinned);
    this.types.generations.changed(mfn);
    this.#validator.dropTable(mfn);
    this.#validator.demote();
    return 0;
  }

  newBasePointer(processor: number, mfn: Mfn): number {
    return mfn < 0 ? PagingError.invalid : this.#setRoot(processor * 2, mfn);
  }

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

  /** Translations of 32-bit guests are not kept across flushes. */
  get tableGenerations(): TableGenerations | undefined {
    return this.format === 'four-level' ? this.types.generations : undefined;
  }

  takeFlush(): boolean {
    const flush = this.#flush;
    this.#flush = false;
    return flush;
  }

  finish(): void {
    this.#validator.finish();
  }

  // ─── Looking in ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Entries looked at by promotions and demotions so far; a caller of many operations bounds a batch by it. */
  get work(): number {
    return this.#validator.work;
  }

  recount(): AnyDiscrepancy[] {
    const holds = { roots: this.roots, gdtFrames: this.descriptors.allGdtFrames };
    const found = recountFrames(this.types, this.#validator, this.entries, holds);
    return [...found, ...(this.shadow?.recount() ?? [])];
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
    const target = this.types.namedBy(low, high);
    return this.types.type.get(target) === tableType - 1 ? target : -1;
  }

  #setRoot(slot: number, mfn: Mfn): number {
    if (!this.#begin(mfn)) return PagingError.preempted;
    const old = this.roots[slot]!; // the caller names a processor that exists
    if (mfn === old) return 0;
    if (mfn >= 0) {
      const result = this.#validator.acquire(mfn, this.topLevel);
      if (result !== 0) return result;
    }
    this.roots[slot] = mfn;
    if (old >= 0) {
      this.#validator.dropTable(old);
      this.#validator.demote();
    }
    return 0;
  }

  #updateLevel1(table: number, index: number, valueLow: number, high: number, preserve: boolean): number {
    this.space.requireWritable(table as Mfn);
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
    const level = this.types.type.get(table);
    if (isFixedSlot(this.rules, level, index)) return PagingError.invalid;
    this.space.requireWritable(table as Mfn);
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
}
