import type { Archive, Archived } from '../../archive/archive.ts';
import type { FrameWatcher } from '../../cpu/frame-watchers.ts';
import type { ProcessorGroup } from '../../cpu/processor.ts';
import type { TableFormat, Translation } from '../../cpu/translation.ts';
import { DomainCrash } from '../../domain/crash.ts';
import { hexadecimal } from '../../inspect/text.ts';
import { MachineNumbers } from '../../memory/machine-numbers.ts';
import type { MicrovmDomain } from '../../microvm/domain.ts';
import type { ExaminedTables } from '../../microvm/interface.ts';
import type { MicrovmVcpu } from '../../microvm/vcpu.ts';
import { DirectPaging } from '../../paging/direct/direct-paging.ts';
import { PagingError } from '../../paging/direct/errors.ts';
import { FrameOwner, FrameType } from '../../paging/direct/frame-types.ts';
import { TABLE_RULES, type TableLevel, type TableRules } from '../../paging/direct/table-rules.ts';
import type { NestedPaging } from '../../paging/nested/nested-paging.ts';
import {
  type Frame,
  type GuestPhysical,
  type GuestVirtual,
  type Mfn,
  PAGE_SHIFT,
  PAGE_SIZE,
  type Pfn,
} from '../../x86/brand.ts';
import { Pte } from '../../x86/registers.ts';
import { MADE_READ_ONLY } from './host-call.ts';
import type { LinearMappings } from './linear-mappings.ts';
import { eachPresentEntry, mapReadOnly, surveyTables } from './table-survey.ts';

const FOUR_GIB = 0x1_0000_0000 as GuestVirtual;

/** The tables are the kernel's from end to end; but of the page that PAE's top table begins, only four entries are one. */
const RULES: TableRules = {
  ...TABLE_RULES.pae,
  hostWindow: { start: FOUR_GIB, end: FOUR_GIB },
  fixedSlots: { first: 4, last: 511 },
  requiredSlot: undefined,
};

const entry = new Uint32Array(2);

/** What the tables of a guest need besides the guest, which does not exist yet when its processors get their translations. */
export interface DirectTablesOptions {
  readonly memory: NestedPaging;
  readonly group: ProcessorGroup;
  readonly vcpus: number;
}

/**
 * VMI with direct paging: the kernel's own tables are walked as they stand, because each entry has been examined. What
 * entries name pages by is one of two:
 *
 *   guest-physical numbers   for a kernel that reads entries by plain loads, as all with VMI 3.0 do: it finds what it stored
 *   machine frame numbers    for one that reads them by GetPxELong, and has said so before: entries are translated as they
 *                            are set, and back as they are read, in this class and by the ROM. What the kernel stores by
 *                            itself is the entry as it stands.
 *
 * Either way these calls are what it is about:
 *
 *   SetPxE…            goes to the host, which examines the entry and stores it
 *   AllocatePage       the page becomes a table; its place in the kernel's linear mapping becomes read-only
 *   ReleasePage        the page is none any more
 *   SetCR3             the page becomes a table of the top level while a processor has it, since nobody announces those
 *   a store to a table that is live is examined like a call; to a page that has been one, its place may be written again
 *
 * It begins with the first CR3 that the kernel loads after it has adopted the ROM and told of its linear mapping. Whatever
 * reaches a live table by another way, a device or a processor without paging, ends the guest.
 */
export class DirectTables implements ExaminedTables, FrameWatcher, Archived {
  readonly paging: DirectPaging;
  readonly #numbers: MachineNumbers;
  readonly #memory: NestedPaging;
  readonly #group: ProcessorGroup;
  #domain: MicrovmDomain | undefined;
  #mappings: LinearMappings | undefined;
  /** Where the ROM is told of the numbers: pages of the memory, and their distance. */
  #told = 0 as GuestPhysical;
  #isAdopted = false;
  /** Whether entries are to hold machine frame numbers when they are examined. */
  #wantsMachineFrames = false;
  #isLive = false;
  /** Announced before tables were examined, with their levels. */
  #announced = new Map<Pfn, TableLevel>();
  /** The frames of live tables, as they are watched. */
  readonly #watched = new Map<number, Frame>();
  #isStoring = false;

  constructor({ memory, group, vcpus }: DirectTablesOptions) {
    this.#memory = memory;
    this.#group = group;
    const limit = memory.pages as Mfn;
    this.#numbers = new MachineNumbers(limit);
    this.paging = new DirectPaging({
      space: memory.space,
      limit,
      invalidator: group,
      virtualProcessors: vcpus,
      format: 'pae',
      rules: RULES,
      hasDevices: true,
      numbers: this.#numbers,
      events: { becomesTable: (mfn) => this.#keep(mfn), leavesTable: (mfn) => this.#letGo(mfn) },
    });
    for (let page = 0; page < limit; page++) this.paging.types.adopt(page, FrameOwner.domain);
  }

  archive(archive: Archive): void {
    archive.part('paging', this.paging);
    archive.part('numbers', this.#numbers);
    this.#wantsMachineFrames = archive.value('wantsMachineFrames', this.#wantsMachineFrames);
    this.#isAdopted = archive.value('isAdopted', this.#isAdopted);
    this.#isLive = archive.value('isLive', this.#isLive);
    this.#announced = new Map(archive.value('announced', [...this.#announced]));
  }

  /** Puts the examination of stores into what the walks of a processor go through. */
  translations(
    vcpu: number,
    own: Readonly<Record<TableFormat, Translation>>,
  ): Readonly<Record<TableFormat, Translation>> {
    const emulateStore = (address: GuestVirtual, target: number, bytes: Uint8Array) =>
      this.#store(vcpu, address, target as Mfn, bytes);
    return { ...own, pae: { ...own.pae, numbers: this.#numbers, emulateStore } };
  }

  /** The guest exists. @param told where two words of its ROM are, for the number of its pages and their distance */
  begin(domain: MicrovmDomain, mappings: LinearMappings, told: GuestPhysical): void {
    this.#domain = domain;
    this.#mappings = mappings;
    this.#told = told;
    for (const vcpu of domain.vcpus) vcpu.state.onTables = () => this.#useTables(vcpu);
  }

  /** The kernel uses the ROM from here on. */
  adopt(): void {
    this.#isAdopted = true;
  }

  /** The kernel reads entries by GetPxELong alone. False when it is too late for that. */
  useMachineFrames(): boolean {
    if (!this.#isLive) this.#wantsMachineFrames = true;
    return this.#wantsMachineFrames;
  }

  /** Whether what stands in tables is not what the kernel has asked for. */
  get holdsMachineFrames(): boolean {
    return this.#numbers.distance !== 0;
  }

  get isLive(): boolean {
    return this.#isLive && this.#domain?.state.kind === 'running';
  }

  // ─── Roots ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A processor is about to walk other tables. @throws DomainCrash when they cannot be examined, PageAbsent */
  #useTables(vcpu: MicrovmVcpu): void {
    const { state } = vcpu;
    const adopted = this.#isAdopted && this.#mappings?.hasDirect === true;
    if (!adopted || (state.format === 'none' && !this.#isLive)) return;
    if (state.format === 'two-level') {
      throw new DomainCrash('direct paging needs a kernel with PAE; give --paging shadow');
    }
    if (state.format !== 'pae') return;
    if (state.cr3 % PAGE_SIZE !== 0) {
      throw new DomainCrash('direct paging needs a top table at the start of a page; give --paging shadow');
    }
    const root = (state.cr3 / PAGE_SIZE) as Mfn;
    if (this.paging.root(vcpu.index) === root) return;
    if (!this.#isLive) this.#goLive(vcpu.index, root);
    else {
      this.#protect(vcpu.index, root);
      this.#takeRoot(vcpu.index, root);
    }
  }

  #takeRoot(vcpu: number, root: Mfn): void {
    const result = this.#completely(() => this.paging.newBasePointer(vcpu, root));
    if (result === 0) return;
    throw new DomainCrash(`direct paging refuses the page tables at page ${hexadecimal(root)} (${result})`);
  }

  /** Tables are examined from here on: those that a root leads to, and those that were announced. */
  #goLive(vcpu: number, root: Mfn): void {
    const tables = surveyTables(this.paging, root, this.#announced);
    const { space } = this.#memory;
    const pinned: Mfn[] = [];
    try {
      // Nobody has to wait for a page once the first entry has changed.
      if (this.#wantsMachineFrames) space.requireWritable(Math.floor(this.#told / PAGE_SIZE) as Mfn);
      for (const table of tables.keys()) {
        space.pin(table as Mfn);
        pinned.push(table as Mfn);
      }
      mapReadOnly(this.paging, tables);
      if (this.#wantsMachineFrames) this.#beginMachineFrames(tables);
      this.#takeRoot(vcpu, root);
      this.#isLive = true;
      for (const [page, level] of this.#announced) this.#pin(page, level);
      this.#announced.clear();
    } finally {
      for (const table of pinned) space.unpin(table);
    }
    for (const { processor } of this.#domain?.vcpus ?? []) processor.flushTlb();
  }

  /** Entries hold machine frame numbers from here on, and the ROM translates what it reads. */
  #beginMachineFrames(tables: ReadonlyMap<number, TableLevel>): void {
    const { paging } = this;
    this.#numbers.begin();
    for (const [table, level] of tables) {
      eachPresentEntry(paging, table, level, (index, low, high) => {
        const [newLow, newHigh] = this.#withMachineFrame(low, high);
        paging.entries.store(table, index, newLow, newHigh);
      });
    }
    const { pool } = this.#memory.space;
    const address = this.#memory.addressOf(this.#told);
    pool.memory.view.setUint32(address, this.#numbers.pages, true);
    pool.memory.view.setUint32(address + 4, this.#numbers.distance, true);
    this.#group.frameWritten(pool.frameAt(address), address % PAGE_SIZE, 8);
  }

  /** What stands in a table for an entry that the kernel has asked for. */
  #withMachineFrame(low: number, high: number): readonly [low: number, high: number] {
    entry.set([low, high]);
    this.#numbers.putInto(entry);
    return [entry[0] as number, entry[1] as number];
  }

  // ─── What the kernel says ──────────────────────────────────────────────────────────────────────────────────────────

  announce(vcpu: number, page: Pfn, level: TableLevel): void {
    if (page >= this.#memory.pages) return;
    if (!this.isLive) this.#announced.set(page, level);
    else {
      this.#protect(vcpu, page as number as Mfn);
      this.#pin(page, level);
    }
  }

  retract(page: Pfn): void {
    if (!this.isLive) this.#announced.delete(page);
    else this.#completely(() => this.paging.unpin(page as number as Mfn));
  }

  showAsStored(found: Uint32Array): void {
    const [low, high] = found as unknown as [number, number];
    if ((high & MADE_READ_ONLY) !== 0) found.set([low | Pte.writable, high & ~MADE_READ_ONLY]);
    this.#numbers.takeOutOf(found);
  }

  /** The page that an entry at a linear address stands in, −1 where none is mapped. */
  pageOf(vcpu: number, pointer: GuestVirtual): number {
    const told = this.#mappings?.pageOf(pointer) ?? -1;
    return told >= 0 ? told : this.paging.entries.frameNumberAt(this.paging.root(vcpu), pointer);
  }

  /**
   * Changes an entry of any page. One that would let the kernel write to a table is made read-only, and a page that an
   * entry makes a table without having been announced is protected like others.
   */
  setEntry(vcpu: number, table: Pfn, index: number, wantedLow: number, wantedHigh: number): number {
    const mfn = table as number as Mfn;
    const [low, high] = this.#withMachineFrame(wantedLow, wantedHigh);
    let result = this.#update(mfn, index, low, high);
    if (result !== 0 && (low & Pte.present) !== 0) {
      if (this.paging.typeOf(mfn) !== FrameType.level1) {
        this.#protect(vcpu, this.paging.types.namedBy(low, high) as Mfn);
        result = this.#update(mfn, index, low, high);
      } else if ((low & Pte.writable) !== 0) {
        result = this.#update(mfn, index, low & ~Pte.writable, high | MADE_READ_ONLY);
      }
    }
    if (result !== 0) {
      this.#crash(
        `the kernel set entry ${hexadecimal(index)} of the page table in page ${hexadecimal(table)} to ${hexadecimal(wantedHigh * FOUR_GIB + (wantedLow >>> 0))}, which direct paging refuses`,
      );
    }
    return result;
  }

  #update(table: Mfn, index: number, low: number, high: number): number {
    const pointerLow = ((table << PAGE_SHIFT) | (index << 3)) >>> 0;
    const pointerHigh = table >>> (32 - PAGE_SHIFT);
    const result = this.#completely(() => this.paging.mmuUpdate(pointerLow, pointerHigh, low >>> 0, high));
    if (this.paging.takeFlush()) for (const { processor } of this.#domain?.vcpus ?? []) processor.flushTlb();
    return result;
  }

  // ─── Stores of the kernel's ────────────────────────────────────────────────────────────────────────────────────────

  /** A store in ring 0 met a page that is mapped read-only. False lets the page fault happen. @throws PageAbsent */
  #store(vcpu: number, address: GuestVirtual, target: Mfn, bytes: Uint8Array): boolean {
    if (!this.isLive || !this.#readMapping(vcpu, address)) return false;
    if (((entry[1] as number) & MADE_READ_ONLY) === 0) return false;
    const isTable = isTableType(this.paging.typeOf(target));
    return isTable ? this.#storeEntry(vcpu, address, target, bytes) : this.#storePlain(vcpu, address, target, bytes);
  }

  #storeEntry(vcpu: number, address: GuestVirtual, table: Mfn, bytes: Uint8Array): boolean {
    const offset = address % PAGE_SIZE;
    const { length } = bytes;
    if (length > 8 || (offset % 8) + length > 8) return false;
    const index = offset >>> 3;
    this.paging.entries.read(table, index, entry);
    new Uint8Array(entry.buffer).set(bytes, offset % 8);
    this.showAsStored(entry);
    const [low, high] = entry as unknown as [number, number];
    const set = this.#domain?.operations.mmu.setPte;
    return set?.(vcpu, table as number as Pfn, index, low, high) === 0;
  }

  /** A page that has been a table: its place, whose entry was read last, may be written again. */
  #storePlain(vcpu: number, address: GuestVirtual, page: Mfn, bytes: Uint8Array): boolean {
    const [low, high] = entry as unknown as [number, number];
    const { space } = this.#memory;
    space.requireWritable(page);
    if (this.#map(vcpu, address, low | Pte.writable, high & ~MADE_READ_ONLY) !== 0) return false;
    const offset = address % PAGE_SIZE;
    space.pool.memory.u8.set(bytes, space.addressOf(page) + offset);
    this.#group.frameWritten(space.frameOf(page), offset, bytes.length);
    return true;
  }

  // ─── Inside ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Makes a page's place in the linear mapping read-only. */
  #protect(vcpu: number, page: Mfn): void {
    const address = (this.#mappings?.addressOf(page as number as Pfn) ?? -1) as GuestVirtual;
    if (address < 0 || !this.#readMapping(vcpu, address)) return;
    const [low, high] = entry as unknown as [number, number];
    if ((low & Pte.writable) === 0 || this.paging.types.namedBy(low, high) !== page) return;
    this.#map(vcpu, address, low & ~Pte.writable, high | MADE_READ_ONLY);
  }

  /** Reads the level-1 entry that translates an address; false when nothing is mapped there. */
  #readMapping(vcpu: number, address: GuestVirtual): boolean {
    const { entries } = this.paging;
    const table = entries.level1TableOf(this.paging.root(vcpu), address);
    return table >= 0 && entries.read(table, entries.level1Index(address), entry) && isPresent(entry);
  }

  #map(vcpu: number, address: GuestVirtual, low: number, high: number): number {
    const root = this.paging.root(vcpu);
    return this.#completely(() => this.paging.updateVaMapping(root, address, low >>> 0, high >>> 0));
  }

  /**
   * What cannot be a table yet is examined when an entry leads to it. Linux announces its first top table as one of the
   * level below, too.
   */
  #pin(page: Pfn, level: TableLevel): void {
    this.#completely(() => this.paging.pin(level, page as number as Mfn));
  }

  /** Makes a call until all of it is done. */
  #completely(step: () => number): number {
    return this.#storing(() => {
      let result: number = PagingError.preempted;
      while (result === PagingError.preempted) result = step();
      return result;
    });
  }

  #storing<Result>(step: () => Result): Result {
    const outer = this.#isStoring;
    this.#isStoring = true;
    try {
      return step();
    } finally {
      this.#isStoring = outer;
    }
  }

  #crash(reason: string): void {
    const domain = this.#domain;
    domain?.crash(domain.running, reason);
  }

  /** A page becomes a table: it keeps its frame, so that this can be watched. @throws PageAbsent */
  #keep(mfn: Mfn): void {
    this.#memory.space.pin(mfn);
    this.#watch(mfn);
  }

  #watch(mfn: Mfn): void {
    const frame = this.#memory.space.frameOf(mfn);
    this.#watched.set(mfn, frame);
    this.#group.watch(frame, this, mfn);
  }

  #letGo(mfn: Mfn): void {
    this.#unwatch(mfn);
    this.#memory.space.unpin(mfn);
  }

  #unwatch(mfn: Mfn): void {
    const frame = this.#watched.get(mfn);
    if (frame !== undefined) this.#group.unwatch(frame, this, mfn);
    this.#watched.delete(mfn);
  }

  /** A processor's turn begins: of a guest that goes on, tables are where they are only now. */
  resume(): void {
    if (!this.#isLive || this.#watched.size > 0) return;
    for (let mfn = 0; mfn < this.paging.types.limit; mfn++) {
      if (isTableType(this.paging.typeOf(mfn as Mfn))) this.#watch(mfn as Mfn);
    }
  }

  written(page: number): void {
    if (!this.#isStoring) this.#crash(`the page table in page ${hexadecimal(page)} was written to by a way around it`);
  }

  /** The guest is gone. */
  release(): void {
    for (const mfn of [...this.#watched.keys()]) this.#unwatch(mfn as Mfn);
  }
}

function isTableType(type: FrameType): boolean {
  return type >= FrameType.level1 && type <= FrameType.level4;
}

function isPresent(value: Uint32Array): boolean {
  return ((value[0] as number) & Pte.present) !== 0;
}
