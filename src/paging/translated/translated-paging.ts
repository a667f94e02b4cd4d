import type { Archive } from '../../archive/archive.ts';
import type { Frame, GuestVirtual, Mfn, Pfn } from '../../x86/brand.ts';
import { ENTRY_FRAME_HIGH, frameOfEntry } from '../../x86/page-table.ts';
import { Pte } from '../../x86/registers.ts';
import { UPDATE_COMMAND_MASK, UpdateCommand } from '../direct/direct-paging.ts';
import { PagingError } from '../direct/errors.ts';
import { FrameOwner, type FrameType } from '../direct/frame-types.ts';
import { recountFrames } from '../direct/recount.ts';
import { isInHostWindow, type TableLevel } from '../direct/table-rules.ts';
import { type AnyDiscrepancy, DomainPaging, type DomainPagingOptions } from '../domain-paging.ts';
import type { ShadowTables } from '../shadow/shadow-tables.ts';
import { TranslatedDescriptors } from './translated-descriptors.ts';

const ACCESSED_DIRTY = Pte.accessed | Pte.dirty;
const NO_NUMBER = -1 as Mfn;

export interface TranslatedPagingOptions extends DomainPagingOptions {
  readonly shadow: ShadowTables;
}

/**
 * Paging of a Xen domain whose frames are translated for it ("auto-translated physmap"): the numbers in its tables are
 * pseudo-physical ones, and what processors walk are shadows of these tables. So nothing has to be examined: no page has
 * the type of a table, a pin says nothing, and the guest stores to its tables as it likes, or by mmu_update, which does
 * no more than such a store. The machine space is the guest's own map of its pages; flushes are the architecture's.
 *
 * Pages of the host (shared_info, the grant table) stand behind the guest's memory, and move there when it asks for it.
 */
export class TranslatedPaging extends DomainPaging {
  readonly shadow: ShadowTables;
  readonly descriptors: TranslatedDescriptors;
  readonly machineToPhysical = undefined;
  /** Numbers that the host's pages may be moved to. */
  readonly #places = new Set<Mfn>();
  /** Where those are that were moved, by the numbers that they began with. */
  readonly #moved = new Map<Mfn, Mfn>();

  constructor(options: TranslatedPagingOptions) {
    super(options);
    this.shadow = options.shadow;
    const { types, entries, rules } = this;
    this.descriptors = new TranslatedDescriptors(types, entries, options.virtualProcessors, rules.kernelPrivilege);
  }

  archive(archive: Archive): void {
    archive.part('types', this.types);
    archive.part('descriptors', this.descriptors);
    archive.words('roots', this.roots);
    const moved = new Map(this.#moved);
    archive.map('moved', moved);
    for (const [first, number] of moved) {
      if (this.#moved.get(first) === number) continue;
      this.space.attach(number, this.space.detach(this.#moved.get(first) ?? first));
      this.#moved.set(first, number);
    }
  }

  protected override isTable(mfn: number): boolean {
    return this.types.isDomains(mfn);
  }

  // No page has the type of a table or of descriptors.
  protected override ldtFrameReleased(): void {}
  protected override leavesUse(): void {}

  /** Nothing of the guest's is mapped among the host's addresses. */
  hostWindow(address: GuestVirtual): null | undefined {
    return isInHostWindow(this.rules, address) ? null : undefined;
  }

  // ─── Frames ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** They are the guest's own. */
  publishNumbers(): boolean {
    return true;
  }

  /** A number for pages of the host's; for a page of its own the guest says itself which number it gets. */
  offerNumber(mfn: Mfn): void {
    this.#places.add(mfn);
  }

  populatePhysmap(pfn: Pfn): Mfn | PagingError {
    const mfn = this.numberOfPage(pfn);
    if (mfn < 0 || this.types.owner.get(mfn) !== FrameOwner.none) return PagingError.invalid;
    if (!this.space.populate(mfn)) return PagingError.noMemory;
    this.types.adopt(mfn, FrameOwner.domain);
    return mfn;
  }

  decreaseReservation(mfn: Mfn): number {
    if (!this.types.isDomains(mfn) || this.types.references.get(mfn) !== 0) return PagingError.invalid;
    this.release(mfn);
    return 0;
  }

  protected override release(mfn: Mfn): void {
    this.shadow.pageGone(mfn);
    super.release(mfn);
  }

  /** A number of the guest's memory, whether or not it has a page. */
  numberOfPage(pfn: Pfn): Mfn {
    return this.space.source?.has(pfn as number as Mfn) ? (pfn as number as Mfn) : NO_NUMBER;
  }

  /**
   * Moves a page of the host's to another number, one that was offered for it and has no page.
   * `busy` while the host has something in that page for the guest.
   */
  movePage(from: Mfn, to: Mfn): number {
    if (from === to) return 0;
    if (!this.#places.has(to) || this.types.owner.get(to) !== FrameOwner.none) return PagingError.invalid;
    if (this.types.references.get(from) !== 0) return PagingError.busy;
    this.shadow.pageGone(from);
    const frame: Frame = this.space.detach(from);
    this.invalidator.invalidateFrame(frame);
    this.types.disown(from);
    this.addFrame(to, frame, FrameOwner.shared);
    const first = [...this.#moved].find(([_first, number]) => number === from)?.[0] ?? from;
    this.#moved.set(first, to);
    return 0;
  }

  // ─── Entries ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The level of a table that processors walk. */
  typeOf(mfn: Mfn): FrameType {
    return this.shadow.levelOf(mfn) as FrameType;
  }

  mmuUpdate(pointerLow: number, pointerHigh: number, valueLow: number, valueHigh: number): number {
    const command = pointerLow & UPDATE_COMMAND_MASK;
    if (command > UpdateCommand.noTranslate) return PagingError.notImplemented;
    const mfn = frameOfEntry(pointerLow, pointerHigh) as Mfn;
    if (!this.types.isPlain(mfn) || pointerHigh >>> 0 > ENTRY_FRAME_HIGH) return PagingError.invalid;
    if (command === UpdateCommand.machineToPhysical) return PagingError.invalid;
    const index = (pointerLow & 0xfff) >>> 3;
    let low = valueLow;
    if (command === UpdateCommand.preserveAccessedDirty) {
      low |= this.entries.words[this.entries.wordOf(mfn) + index * 2]! & ACCESSED_DIRTY; // inside the page
    }
    this.entries.store(mfn, index, low, valueHigh);
    return 0;
  }

  updateVaMapping(root: Mfn, address: GuestVirtual, valueLow: number, valueHigh: number): number {
    const table = this.entries.level1TableOf(root, address);
    if (table < 0) return PagingError.invalid;
    this.entries.store(table, this.entries.level1Index(address), valueLow, valueHigh);
    return 0;
  }

  // ─── Tables ────────────────────────────────────────────────────────────────────────────────────────────────────────

  pin(_level: TableLevel, mfn: Mfn): number {
    return this.types.isDomains(mfn) ? 0 : PagingError.invalid;
  }

  unpin(mfn: Mfn): number {
    return this.pin(this.topLevel, mfn);
  }

  newBasePointer(processor: number, mfn: Mfn): number {
    if (!this.types.isDomains(mfn)) return PagingError.invalid;
    this.roots[processor * 2] = mfn;
    return 0;
  }

  newUserBasePointer(processor: number, mfn: Mfn): number {
    if (mfn !== 0 && !this.types.isDomains(mfn)) return PagingError.invalid;
    this.roots[processor * 2 + 1] = mfn === 0 ? NO_NUMBER : mfn;
    return 0;
  }

  get tableGenerations(): undefined {
    return undefined;
  }

  takeFlush(): boolean {
    return false;
  }

  finish(): void {}

  recount(): AnyDiscrepancy[] {
    const tables = { rules: this.rules, topLevel: this.topLevel, pending: false, entriesOf: () => 0 };
    const found = recountFrames(this.types, tables, this.entries, { roots: new Int32Array(0), gdtFrames: [] });
    return [...found, ...this.shadow.recount()];
  }
}
