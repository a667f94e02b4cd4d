import type { Archive, Archived } from '../archive/archive.ts';
import { FrameMark, type FrameMarks } from '../cpu/frame-marks.ts';
import type { FrameInvalidator } from '../cpu/translation.ts';
import { ABSENT_FRAME, NO_FRAME } from '../memory/frame-pool.ts';
import type { MachineSpace, PageSource } from '../memory/machine-space.ts';
import { SparseNumbers } from '../memory/sparse-numbers.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import type { MemoryError } from '../mm/errors.ts';
import type { MemoryManager } from '../mm/memory-manager.ts';
import type { PteNotifier } from '../mm/notifier.ts';
import type { Soon } from '../mm/soon.ts';
import type { Vma } from '../mm/vma.ts';
import { type Frame, type HostVirtual, type Mfn, PAGE_SIZE } from '../x86/brand.ts';
import type { GuestPages } from './guest-pages.ts';
import type { PageNumbers } from './page-numbers.ts';

export interface PagerOptions {
  readonly machine: MachineSpace;
  /** Has the domain's pages, from address 0. */
  readonly memory: AddressSpace;
  readonly invalidator: FrameInvalidator;
  readonly marks: FrameMarks;
  /** Machine frame numbers of the pages of `memory`. */
  readonly numbers: PageNumbers;
  /** Pages, from the first, that the domain begins with. */
  readonly populated: number;
  /** Place in the order of all external tables of the host. */
  readonly order: number;
}

/**
 * The machine space of a guest as an external page table (of a direct guest, or a nested table): the frame behind each
 * number is the one that the host's page table has, and goes when that goes. What a processor has cached of it, TLB entries and decoded
 * code, goes first; a processor that runs has nothing else, so it never has to be stopped for longer than that.
 */
export class Pager implements PteNotifier, PageSource, GuestPages, Archived {
  readonly order: number;
  readonly #machine: MachineSpace;
  readonly #memory: AddressSpace;
  readonly #invalidator: FrameInvalidator;
  readonly #marks: FrameMarks;
  readonly #numbers: PageNumbers;
  /** How often each number's page is pinned. */
  readonly #pins = new SparseNumbers();
  /** Numbers whose pages are retained. */
  readonly #retained = new Set<Mfn>();
  #ended = false;

  constructor(options: PagerOptions) {
    const { machine, numbers } = options;
    this.order = options.order;
    this.#machine = machine;
    this.#memory = options.memory;
    this.#invalidator = options.invalidator;
    this.#marks = options.marks;
    this.#numbers = numbers;
    for (let page = 0; page < options.populated; page++) machine.frames[numbers.numberOf(page)] = ABSENT_FRAME;
    machine.source = this;
  }

  /** Begins to follow the host's page table. */
  async start(): Promise<void> {
    await this.alsoTell(this);
  }

  /** Tells another external table, made out of this one, of all that this one is told, after it. */
  async alsoTell(notifier: PteNotifier): Promise<void> {
    await this.#memory.attach(notifier);
    await this.#memory.register(notifier, 0 as HostVirtual, (this.#numbers.pages * PAGE_SIZE) as HostVirtual);
  }

  /**
   * Which numbers have pages, and which of these have to stay. Pages of a pager whose fields were read back are brought
   * in by `restorePins`, before anybody uses them.
   */
  archive(archive: Archive): void {
    const { frames } = this.#machine;
    const numberOf = (page: number): Mfn => this.#numbers.numberOf(page);
    const populated = Uint8Array.from({ length: this.pages }, (_none, page) =>
      frames[numberOf(page)] === NO_FRAME ? 0 : 1,
    );
    archive.words('populated', populated);
    archive.part('pins', this.#pins);
    const retained = archive.value('retained', [...this.#retained]);
    this.#retained.clear();
    for (const mfn of retained) this.#retained.add(mfn);
    for (const [page, has] of populated.entries()) {
      const mfn = numberOf(page);
      if (has === 0) frames[mfn] = NO_FRAME;
      else if (frames[mfn] === NO_FRAME) frames[mfn] = ABSENT_FRAME;
    }
  }

  /** Brings in the pages that have to stay, pins them as often as they were, and retains those that were. */
  async restorePins(): Promise<MemoryError | undefined> {
    for (const mfn of this.#retained) {
      while (!this.retain(mfn)) {
        const failed = await this.bringIn(mfn, false);
        if (failed) return failed;
      }
    }
    const wanted = this.#pins.entries();
    this.#pins.clear();
    for (const [number, pins] of wanted) {
      for (let made = 0; made < pins; made++) {
        const failed = await this.bringInPinned(number as Mfn);
        if (failed) return failed;
      }
    }
    return undefined;
  }

  /** Brings in a page that the domain has, and keeps it where it is, writable, until `unpin`. */
  async bringInPinned(mfn: Mfn): Promise<MemoryError | undefined> {
    for (;;) {
      if (this.pin(mfn)) return undefined;
      const failed = await this.bringIn(mfn, true);
      if (failed) return failed;
    }
  }

  /** Pages of the memory, those that a balloon can bring included. */
  get pages(): number {
    return this.#numbers.pages;
  }

  /** Copies a page of the memory out. @param target a page of zeroes, which it stays for a page that the domain gave back */
  readPage(page: number, target: Uint8Array): Soon<MemoryError | undefined> {
    const mfn = this.#numbers.numberOf(page);
    if (!this.#isPopulated(mfn)) return undefined;
    return this.#memory.readPage(this.#addressOf(mfn), target);
  }

  /** Another memory with the same pages, shared until somebody writes to them. */
  cloneMemory(manager: MemoryManager): Promise<AddressSpace | MemoryError> {
    return manager.clone(this.#memory);
  }

  /** Ends the memory. The caller gives all numbers back in the same step; the pages are freed when it settles. */
  end(): Promise<void> {
    this.#ended = true;
    return this.#memory.exit();
  }

  /**
   * Brings in a page and puts it behind its number. At once when nothing is in the way; nothing is done for a number
   * that has no page any more.
   */
  bringIn(mfn: Mfn, write: boolean): Soon<MemoryError | undefined> {
    if (!this.#isPopulated(mfn)) return undefined;
    const outcome = this.#memory.fault(this.#addressOf(mfn), write);
    if (outcome instanceof Promise) return this.#bringInAfter(outcome, mfn, write);
    if (outcome) return outcome;
    return this.#install(mfn, write) ? undefined : this.#bringInAfter(Promise.resolve(undefined), mfn, write);
  }

  async #bringInAfter(
    first: Promise<MemoryError | undefined>,
    mfn: Mfn,
    write: boolean,
  ): Promise<MemoryError | undefined> {
    let outcome = await first;
    while (!outcome && this.#isPopulated(mfn) && !this.#install(mfn, write)) {
      outcome = await this.#memory.fault(this.#addressOf(mfn), write);
    }
    return this.#ended ? undefined : outcome;
  }

  /** Page of the address space behind a machine frame number, or −1. */
  pageOf(mfn: Mfn): number {
    return this.#numbers.pageOf(mfn);
  }

  #isPopulated(mfn: Mfn): boolean {
    return this.has(mfn) && !this.#ended && this.#machine.frames[mfn] !== NO_FRAME;
  }

  #addressOf(mfn: Mfn): HostVirtual {
    return (this.pageOf(mfn) * PAGE_SIZE) as HostVirtual;
  }

  /** The number of the page at an address of the host's memory. */
  numberAt(address: HostVirtual): Mfn {
    return this.#numbers.numberOf(address / PAGE_SIZE);
  }

  /** Takes over the host's entry; false when it is not there, or may not be used at present. */
  #install(mfn: Mfn, write: boolean): boolean {
    const address = this.#addressOf(mfn);
    const frame = this.#memory.lookup(address, write);
    if (frame === undefined) return false;
    const writable = this.#memory.mayWrite(address);
    this.#machine.frames[mfn] = frame;
    this.#machine.writeProtected[mfn] = writable ? 0 : 1;
    if (this.#memory.checked) this.#memory.checkExternalEntry(this, address, frame, writable);
    return true;
  }

  #remove(mfn: Mfn): void {
    const frame = this.#machine.frames[mfn] as Frame;
    if (frame < 0) return;
    this.#invalidator.invalidateFrame(frame);
    this.#invalidator.frameWritten(frame, 0, PAGE_SIZE);
    this.#machine.frames[mfn] = ABSENT_FRAME;
    this.#machine.writeProtected[mfn] = 0;
  }

  // The machine space's source of pages

  has(mfn: Mfn): boolean {
    return this.pageOf(mfn) >= 0;
  }

  populate(mfn: Mfn): boolean {
    if (this.#machine.frames[mfn] !== NO_FRAME) return false;
    this.#machine.frames[mfn] = ABSENT_FRAME;
    return true;
  }

  pin(mfn: Mfn): boolean {
    if ((this.#machine.frames[mfn] as number) < 0) return false;
    if (this.#memory.pin(this.#addressOf(mfn)) === undefined) return false;
    this.#pins.add(mfn, 1);
    return true;
  }

  unpin(mfn: Mfn): void {
    this.#pins.add(mfn, -1);
    this.#memory.unpin(this.#machine.frames[mfn] as Frame);
  }

  retain(mfn: Mfn): boolean {
    if ((this.#machine.frames[mfn] as number) < 0 || !this.#memory.retain(this.#addressOf(mfn))) return false;
    this.#retained.add(mfn);
    return true;
  }

  letGo(mfn: Mfn): void {
    if (this.#retained.delete(mfn)) this.#memory.letGo(this.#addressOf(mfn));
  }

  giveBack(mfn: Mfn): void {
    this.letGo(mfn);
    while (this.#pins.get(mfn) > 0) this.unpin(mfn);
    this.#remove(mfn);
    this.#machine.frames[mfn] = NO_FRAME;
    if (this.#ended) return;
    const address = this.#addressOf(mfn);
    this.#memory.discard(address, (address + PAGE_SIZE) as HostVirtual).catch((error: unknown) => {
      if (!this.#ended) throw error;
    });
  }

  // What the host's memory tells

  clear(_vma: Vma, address: HostVirtual): void {
    this.#remove(this.numberAt(address));
  }

  writeProtect(_vma: Vma, address: HostVirtual): void {
    const mfn = this.numberAt(address);
    const frame = this.#machine.frames[mfn] as Frame;
    if (frame < 0) return;
    this.#machine.writeProtected[mfn] = 1;
    this.#invalidator.invalidateWritable(frame);
  }

  change(_vma: Vma, address: HostVirtual, frame: Frame, writable: boolean): void {
    const mfn = this.numberAt(address);
    if (this.#machine.frames[mfn] !== frame) {
      this.#remove(mfn);
      // Who reads a page that is retained does not wait.
      if (!this.#retained.has(mfn)) return;
      this.#machine.frames[mfn] = frame;
    }
    this.#machine.writeProtected[mfn] = writable ? 0 : 1;
  }

  testYoung(_vma: Vma, address: HostVirtual): boolean {
    const frame = this.#machine.frames[this.numberAt(address)] as Frame;
    return frame >= 0 && this.#marks.has(frame, FrameMark.cached);
  }

  /** A page is young while a processor has a translation of it; without one, the next use is a walk. */
  testAndClearYoung(vma: Vma, address: HostVirtual): boolean {
    if (!this.testYoung(vma, address)) return false;
    this.#invalidator.invalidateFrame(this.#machine.frames[this.numberAt(address)] as Frame);
    return true;
  }

  close(): void {
    // Areas of a domain end with the domain.
  }

  // Entries are only made in the step that looks the host's up, and the look fails while they may not be made.
  lock(): void {}
  unlock(): void {}
  rangeStart(): void {}
  rangeEnd(): void {}

  release(): void {
    for (let page = 0; page < this.pages; page++) this.#remove(this.#numbers.numberOf(page));
  }

  refersTo(frame: Frame): boolean {
    return this.#machine.frames.includes(frame) || this.#marks.has(frame, FrameMark.cached);
  }
}
