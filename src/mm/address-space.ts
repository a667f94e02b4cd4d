import { type Frame, type HostVirtual, PAGE_SIZE } from '../x86/brand.ts';
import { shareEntries } from './clone.ts';
import { type MemoryError, RuleViolation } from './errors.ts';
import type { FaultHandler } from './fault.ts';
import { type LockMode, SharedLock } from './lock.ts';
import { insertInOrder, type PteNotifier } from './notifier.ts';
import type { PageAllocator } from './page-allocator.ts';
import type { PageTables, PtePointer } from './page-tables.ts';
import { PageKind } from './pages.ts';
import { frameOf, isPresent, isWritable, isYoung, type PteValue } from './pte.ts';
import { readPage } from './read-page.ts';
import type { Soon } from './soon.ts';
import { zapPte } from './unmap.ts';
import { type FileBacking, partOf, type Vma, VmaList } from './vma.ts';

/** Entries changed between two pauses of a long operation: well under a millisecond. */
const ENTRIES_PER_SLICE = 512;

/** A page that was taken away again that often before it could be used will not come to stay. */
const ATTEMPTS_PER_FAULT = 1000;
const TOO_SMALL: MemoryError = {
  kind: 'out-of-memory',
  message: "the host's memory is too small for what its guests use at the same time",
};

/** Beyond the highest host address. */
const END_OF_ADDRESSES = 0x1_0000_0000_0000 as HostVirtual;

/** Lets the rest of the event loop run. */
export type Pause = () => Promise<void>;

interface Range {
  readonly start: HostVirtual;
  readonly end: HostVirtual;
}

/**
 * The memory of one guest as the host sees it: areas, page tables, a lock, and the external tables that follow them.
 *
 * The lock is held shared while a page is brought in and exclusively while areas change, across all awaits of the
 * operation. Reclaim does not take it: what it does to an entry is one synchronous step.
 */
export class AddressSpace {
  readonly tables: PageTables;
  readonly areas = new VmaList();
  readonly #allocator: PageAllocator;
  readonly #faults: FaultHandler;
  readonly #pause: Pause;
  readonly #lock = new SharedLock();
  #notifiers: readonly PteNotifier[] = [];
  /** Ranges whose entries are changing. */
  readonly #changing: Range[] = [];
  /** Pages that stay in memory, whatever frames they are in. */
  readonly #retained = new Set<HostVirtual>();
  #exclusive = false;
  #ended = false;
  /** Grows when a range of entries has changed; what was looked up before may be wrong. */
  sequence = 0;

  constructor(allocator: PageAllocator, faults: FaultHandler, tables: PageTables, pause: Pause) {
    this.#allocator = allocator;
    this.#faults = faults;
    this.tables = tables;
    this.#pause = pause;
    allocator.spaces.add(this);
  }

  /** Notifiers that are attached, in order. */
  get notifiers(): readonly PteNotifier[] {
    return this.#notifiers;
  }

  // ─── Lock and notifications ────────────────────────────────────────────────────────────────────────────────────────

  /** Calls one hook of the notifiers of an area. */
  notify<Result>(vma: Vma, name: keyof PteNotifier, call: (notifier: PteNotifier) => Result): Result[] {
    return vma.notifiers.map((notifier) => this.#allocator.guard.run(name, () => call(notifier)));
  }

  #notifyAll(name: keyof PteNotifier, call: (notifier: PteNotifier) => void): void {
    for (const notifier of this.#notifiers) this.#allocator.guard.run(name, () => call(notifier));
  }

  #notifyBackwards(name: keyof PteNotifier, call: (notifier: PteNotifier) => void): void {
    for (const notifier of [...this.#notifiers].reverse()) this.#allocator.guard.run(name, () => call(notifier));
  }

  #taken(mode: LockMode): void {
    this.#exclusive = mode === 'exclusive';
    this.#notifyAll('lock', (notifier) => notifier.lock(this, mode));
  }

  #release(mode: LockMode): void {
    this.#notifyBackwards('unlock', (notifier) => notifier.unlock(this, mode));
    this.#exclusive = false;
    this.#lock.release(mode);
  }

  async #exclusively<Result>(what: string, work: () => Promise<Result> | Result): Promise<Result> {
    this.#allocator.guard.enter(what);
    await this.#lock.take('exclusive');
    this.#taken('exclusive');
    try {
      if (this.#ended) throw new Error(`${what}: the address space has ended`);
      return await work();
    } finally {
      this.#release('exclusive');
    }
  }

  /** Entries of [start, end) are going to change. */
  rangeStart(start: HostVirtual, end: HostVirtual): void {
    this.#changing.push({ start, end });
    this.#notifyAll('rangeStart', (notifier) => notifier.rangeStart(this, start, end));
  }

  rangeEnd(start: HostVirtual, end: HostVirtual): void {
    this.#changing.splice(
      this.#changing.findIndex((range) => range.start === start && range.end === end),
      1,
    );
    this.sequence++;
    this.#notifyBackwards('rangeEnd', (notifier) => notifier.rangeEnd(this, start, end));
  }

  // ─── Pages ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Brings in the page at an address. At once when nothing is in the way. The page can be gone again by the time a
   * promise has settled; who then needs it looks with `lookup` and asks again.
   */
  fault(address: HostVirtual, write: boolean): Soon<MemoryError | undefined> {
    this.#allocator.guard.enter('fault');
    if (!this.#lock.tryTake('shared')) return this.#faultLater(address, write, this.#lock.take('shared'));
    this.#taken('shared');
    let first: Soon<MemoryError | undefined>;
    try {
      first = this.#attempt(address, write);
    } catch (error) {
      this.#release('shared');
      throw error;
    }
    if (first instanceof Promise) return this.#faultOn(address, write, first);
    this.#release('shared');
    return first;
  }

  async #faultLater(address: HostVirtual, write: boolean, lock: Promise<void>): Promise<MemoryError | undefined> {
    await lock;
    this.#taken('shared');
    return this.#faultOn(address, write, Promise.resolve(undefined));
  }

  async #faultOn(
    address: HostVirtual,
    write: boolean,
    first: Promise<MemoryError | undefined>,
  ): Promise<MemoryError | undefined> {
    try {
      let attempt: Soon<MemoryError | undefined> = first;
      for (let made = 0; attempt instanceof Promise; made++) {
        if (made === ATTEMPTS_PER_FAULT) return TOO_SMALL;
        attempt = (await attempt) ?? this.#attempt(address, write);
      }
      return attempt;
    } finally {
      this.#release('shared');
    }
  }

  #attempt(address: HostVirtual, write: boolean): Soon<MemoryError | undefined> {
    return this.#faults.attempt(this, pageOf(address), write);
  }

  /**
   * The frame that the host's entry names, if an external entry with that right may be made: the page is there, and
   * neither is its range changing nor the lock held exclusively.
   */
  lookup(address: HostVirtual, write: boolean): Frame | undefined {
    if (!this.#mayMap(address)) return undefined;
    const value = this.#valueAt(address);
    return value !== undefined && isPresent(value) && (!write || isWritable(value)) ? frameOf(value) : undefined;
  }

  /** Whether the host's entry allows writing, so that an external one may. */
  mayWrite(address: HostVirtual): boolean {
    return this.lookup(address, true) !== undefined;
  }

  #mayMap(address: HostVirtual): boolean {
    if (this.#exclusive || this.#ended) return false;
    return !this.#changing.some((range) => range.start <= address && address < range.end);
  }

  #valueAt(address: HostVirtual): PteValue | undefined {
    const pte = this.tables.findPte(address);
    return pte && this.tables.readPte(pte);
  }

  /**
   * Checks an external entry that was just made; each external table calls it when checks are on.
   * @throws RuleViolation
   */
  checkExternalEntry(notifier: PteNotifier, address: HostVirtual, frame: Frame, writable: boolean): void {
    const where = `external table ${notifier.order} made an entry at host address 0x${address.toString(16)}`;
    if (!this.#mayMap(address)) throw new RuleViolation(`${where} while the host's entry is changing`);
    if (!this.areas.find(address)?.notifiers.includes(notifier)) {
      throw new RuleViolation(`${where}, for which it is not registered`);
    }
    const value = this.#valueAt(address);
    if (value === undefined || !isPresent(value) || frameOf(value) !== frame || (writable && !isWritable(value))) {
      throw new RuleViolation(`${where} that the host's entry does not allow`);
    }
  }

  get checked(): boolean {
    return this.#allocator.guard.checked;
  }

  /** Copies a page out, wherever it is. @param target a page of zeroes */
  readPage(address: HostVirtual, target: Uint8Array): Soon<MemoryError | undefined> {
    this.#allocator.guard.enter('readPage');
    return readPage(this.#allocator, this, address, target);
  }

  /** Keeps a page where it is, writable, until `unpin`. Undefined when `fault` must bring it in first. */
  pin(address: HostVirtual): Frame | undefined {
    this.#allocator.guard.enter('pin');
    const frame = this.lookup(address, true);
    if (frame !== undefined) this.#allocator.pages.pins[frame] = (this.#allocator.pages.pins[frame] as number) + 1;
    return frame;
  }

  unpin(frame: Frame): void {
    this.#allocator.guard.enter('unpin');
    this.#allocator.pages.pins[frame] = (this.#allocator.pages.pins[frame] as number) - 1;
    this.#allocator.settle(frame);
  }

  /** Keeps a page in memory until `letGo`: writing may change its frame, but it always has one. False when `fault` must bring it in first. */
  retain(address: HostVirtual): boolean {
    this.#allocator.guard.enter('retain');
    const frame = this.lookup(address, false);
    if (frame === undefined) return false;
    if (!this.#retained.has(address)) this.#changeRetained(frame, 1);
    this.#retained.add(address);
    return true;
  }

  letGo(address: HostVirtual): void {
    this.#allocator.guard.enter('letGo');
    const value = this.#valueAt(address);
    if (this.#retained.delete(address) && value !== undefined) this.#changeRetained(frameOf(value), -1);
  }

  /** A page has another frame from here on. */
  retainInstead(address: HostVirtual, old: Frame, frame: Frame): void {
    if (!this.#retained.has(address)) return;
    this.#changeRetained(old, -1);
    this.#changeRetained(frame, 1);
  }

  #changeRetained(frame: Frame, difference: number): void {
    const { retained } = this.#allocator.pages;
    retained[frame] = (retained[frame] as number) + difference;
  }

  /** Pages that are there, and how many of them were used since reclaim last looked; nothing is changed by asking. */
  workingSet(): { readonly resident: number; readonly young: number } {
    let resident = 0;
    let young = 0;
    for (const vma of this.areas.all) {
      this.tables.visit(vma.start, vma.end, (address, pte) => {
        const value = this.tables.readPte(pte);
        if (!isPresent(value)) return;
        resident++;
        const used = this.notify(vma, 'testYoung', (notifier) => notifier.testYoung(vma, address));
        if (isYoung(value) || used.includes(true)) young++;
      });
    }
    return { resident, young };
  }

  // ─── Areas ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Adds an area: anonymous, or private pages of a file. The range is free; a file's pages all exist. */
  map(start: HostVirtual, end: HostVirtual, backing?: FileBacking): Promise<void> {
    return this.#exclusively('map', () => {
      if (start >= end || this.areas.within(start, end).length > 0) {
        throw new RangeError(`host addresses 0x${start.toString(16)} … 0x${end.toString(16)} cannot be mapped`);
      }
      if (backing && backing.index + (end - start) / PAGE_SIZE > backing.file.pages) {
        throw new RangeError(`the mapping goes beyond the end of ${backing.file.file.name}`);
      }
      this.areas.insert({ start, end, backing, notifiers: [] });
    });
  }

  /** Removes all areas of [start, end), with their pages. */
  unmap(start: HostVirtual, end: HostVirtual): Promise<void> {
    return this.#exclusively('unmap', async () => {
      await this.#zap(start, end);
      for (const vma of this.areas.take(start, end)) this.#close(vma, undefined);
    });
  }

  /** Gives the pages of [start, end) back; anonymous ones read as zero afterwards. */
  discard(start: HostVirtual, end: HostVirtual): Promise<void> {
    return this.#exclusively('discard', () => this.#zap(start, end));
  }

  async #zap(start: HostVirtual, end: HostVirtual): Promise<void> {
    await this.#changeEntries(start, end, (vma, address, pte) => zapPte(this.#allocator, this, vma, address, pte));
  }

  /** Changes each entry of [start, end) that is not empty, in slices with pauses, as one range. */
  async #changeEntries(
    start: HostVirtual,
    end: HostVirtual,
    change: (vma: Vma, address: HostVirtual, pte: PtePointer) => void,
  ): Promise<void> {
    this.rangeStart(start, end);
    try {
      for (const part of this.areas.within(start, end)) {
        const { start: from, end: to } = partOf(part, start, end);
        for (let slice: number = from; slice < to; slice += ENTRIES_PER_SLICE * PAGE_SIZE) {
          const sliceEnd = Math.min(to, slice + ENTRIES_PER_SLICE * PAGE_SIZE) as HostVirtual;
          this.tables.visit(slice as HostVirtual, sliceEnd, (address, pte) => change(part, address, pte));
          await this.#pause();
        }
      }
    } finally {
      this.rangeEnd(start, end);
    }
  }

  #close(vma: Vma, successor: Vma | undefined): void {
    this.notify(vma, 'close', (notifier) => notifier.close(vma, successor));
  }

  /**
   * Moves the areas of [start, end) to `target`, with their pages; that range is free and does not overlap the old one.
   * External entries go; the registrations close, and go on for the areas at their new place.
   */
  move(start: HostVirtual, end: HostVirtual, target: HostVirtual): Promise<MemoryError | undefined> {
    return this.#exclusively('move', async () => {
      const targetEnd = (target + (end - start)) as HostVirtual;
      if (this.areas.within(target, targetEnd).length > 0 || (target < end && start < targetEnd)) {
        throw new RangeError(`areas cannot be moved to host address 0x${target.toString(16)}`);
      }
      const failed = await this.#prepareTables(target, targetEnd);
      if (failed) return failed;
      this.rangeStart(start, end);
      this.#moveEntries(start, end, target);
      for (const vma of this.areas.take(start, end)) {
        const successor = movedBy(vma, target - start);
        this.areas.insert(successor);
        this.#close(vma, successor);
      }
      this.rangeEnd(start, end);
      return undefined;
    });
  }

  async #prepareTables(start: HostVirtual, end: HostVirtual): Promise<MemoryError | undefined> {
    for (let address: number = start; address < end; address += PAGE_SIZE) {
      while (!this.tables.allocatePte(address as HostVirtual, () => this.#allocator.take(PageKind.table))) {
        const failed = await this.#allocator.relieve({ space: this, isNew: false });
        if (failed) return failed;
      }
    }
    return undefined;
  }

  #moveEntries(start: HostVirtual, end: HostVirtual, target: HostVirtual): void {
    const { rmap } = this.#allocator;
    for (const vma of this.areas.within(start, end)) {
      const { start: from, end: to } = partOf(vma, start, end);
      this.tables.visit(from, to, (address, pte) => {
        const moved = (target + (address - start)) as HostVirtual;
        const movedPte = this.tables.findPte(moved);
        if (!movedPte) throw new Error(`no table at host address 0x${moved.toString(16)}`);
        const present = isPresent(this.tables.readPte(pte));
        if (present) this.notify(vma, 'clear', (notifier) => notifier.clear(vma, address));
        const value = this.tables.ptepGetAndClear(pte);
        this.tables.setPteAt(movedPte, value);
        if (!present) return;
        rmap.remove(frameOf(value), this, address);
        rmap.add(frameOf(value), this, moved);
        if (this.#retained.delete(address)) this.#retained.add(moved);
      });
    }
  }

  /**
   * Another address space with the same areas and pages, shared until one of them writes. Pinned pages are copied. No
   * external table follows the clone yet.
   */
  clone(empty: AddressSpace): Promise<MemoryError | undefined> {
    return this.#exclusively('clone', async () => {
      for (const vma of this.areas.all) empty.areas.insert({ ...vma, notifiers: [] });
      for (const { start, end } of this.areas.all) {
        this.rangeStart(start, end);
        const failed = await shareEntries(this.#allocator, this, empty, start, end, this.#pause);
        this.rangeEnd(start, end);
        if (failed) return failed;
      }
      return undefined;
    });
  }

  /** Ends the address space: external tables let go, registrations close, pages are freed, in this order. */
  exit(): Promise<void> {
    return this.#exclusively('exit', () => {
      this.#notifyAll('release', (notifier) => notifier.release(this));
      const areas = this.areas.take(0 as HostVirtual, END_OF_ADDRESSES);
      for (const vma of areas) this.#close(vma, undefined);
      for (const { start, end } of areas) {
        this.tables.visit(start, end, (address, pte) => zapPte(this.#allocator, this, undefined, address, pte));
      }
      for (const table of this.tables.dismantle()) this.#allocator.free(table);
      this.#ended = true;
      this.#allocator.remove(this);
    });
  }

  // ─── Registrations ─────────────────────────────────────────────────────────────────────────────────────────────────

  /** An external table begins to follow this address space. */
  async attach(notifier: PteNotifier): Promise<void> {
    await this.#changeAttached('attach', () => insertInOrder(this.#notifiers, notifier));
  }

  /** It follows no longer; it is registered for no area any more. */
  async detach(notifier: PteNotifier): Promise<void> {
    await this.#changeAttached('detach', () => this.#notifiers.filter((other) => other !== notifier));
  }

  /** Nobody is told of the lock: who comes would be told only of its end, and who goes only of its beginning. */
  async #changeAttached(what: string, change: () => readonly PteNotifier[]): Promise<void> {
    this.#allocator.guard.enter(what);
    await this.#lock.take('exclusive');
    this.#notifiers = change();
    this.#lock.release('exclusive');
  }

  /** Registers an attached notifier for all areas of [start, end). */
  register(notifier: PteNotifier, start: HostVirtual, end: HostVirtual): Promise<void> {
    return this.#exclusively('register', () => {
      if (!this.#notifiers.includes(notifier)) throw new RuleViolation('a PTE notifier is registered but not attached');
      this.areas.changeNotifiers(start, end, (vma) => insertInOrder(vma.notifiers, notifier));
    });
  }

  /** Ends the registration: its entries of [start, end) are cleared, then it is closed. */
  unregister(notifier: PteNotifier, start: HostVirtual, end: HostVirtual): Promise<void> {
    return this.#exclusively('unregister', () => {
      const { guard } = this.#allocator;
      this.areas.changeNotifiers(start, end, (vma) => {
        if (!vma.notifiers.includes(notifier)) return vma.notifiers;
        this.tables.visit(vma.start, vma.end, (address, pte) => {
          if (isPresent(this.tables.readPte(pte))) guard.run('clear', () => notifier.clear(vma, address));
        });
        guard.run('close', () => notifier.close(vma, undefined));
        return vma.notifiers.filter((other) => other !== notifier);
      });
    });
  }
}

function pageOf(address: HostVirtual): HostVirtual {
  return (address - (address % PAGE_SIZE)) as HostVirtual;
}

function movedBy(vma: Vma, distance: number): Vma {
  return { ...vma, start: (vma.start + distance) as HostVirtual, end: (vma.end + distance) as HostVirtual };
}
