import type { FrameInvalidator } from '../../cpu/translation.ts';
import type { DirtyLog } from '../../memory/dirty-log.ts';
import type { FramePool } from '../../memory/frame-pool.ts';
import type { AddressSpace } from '../../mm/address-space.ts';
import type { MemoryError } from '../../mm/errors.ts';
import type { LockMode } from '../../mm/lock.ts';
import type { PteNotifier } from '../../mm/notifier.ts';
import type { Soon } from '../../mm/soon.ts';
import type { Vma } from '../../mm/vma.ts';
import { type Frame, type Gfn, type HostVirtual, PAGE_SIZE } from '../../x86/brand.ts';
import { type DmaMemory, DmaMiss } from './memory.ts';
import { DmaTable } from './table.ts';

export interface SpaceMemoryOptions {
  readonly space: AddressSpace;
  readonly pool: FramePool;
  readonly invalidator: Pick<FrameInvalidator, 'frameWritten'>;
  /** Told of pages that devices write. */
  readonly log?: Pick<DirtyLog, 'note'>;
  /** Guest-physical pages; page 0 is the first of the address space. */
  readonly pages: number;
  /** Among the notifiers of the space. */
  readonly order: number;
  /** Called when devices that wait for pages should look again; has to return at once. */
  readonly onArrival: () => void;
  /** A page cannot be had: the guest cannot go on. */
  readonly onFailure: (error: MemoryError) => void;
}

/**
 * Guest memory that the host pages: the DMA table follows the host's own page table by PTE notifiers. An entry is looked
 * up and made in one synchronous step, and the space refuses look-ups while its lock is held exclusively or a range is
 * changing. So the table needs no lock of its own; it only has to let entries go, and to look again afterwards.
 */
export class SpaceMemory implements DmaMemory, PteNotifier {
  readonly pages: number;
  readonly order: number;
  readonly table: DmaTable;
  readonly #space: AddressSpace;
  readonly #invalidator: Pick<FrameInvalidator, 'frameWritten'>;
  readonly #onArrival: () => void;
  readonly #onFailure: (error: MemoryError) => void;
  /** Pages that are on their way. */
  readonly #arriving = new Set<Gfn>();
  /** What bringing in a page threw: a broken rule, which the next user of the table shall hear of. */
  #defect: unknown;

  private constructor(options: SpaceMemoryOptions) {
    this.pages = options.pages;
    this.order = options.order;
    this.#space = options.space;
    this.#invalidator = options.invalidator;
    this.#onArrival = options.onArrival;
    this.#onFailure = options.onFailure;
    this.table = new DmaTable(options.pool, this, options.log);
  }

  /** Begins to follow the areas of the guest's memory, which are mapped already. */
  static async follow(options: SpaceMemoryOptions): Promise<SpaceMemory> {
    const memory = new SpaceMemory(options);
    await options.space.attach(memory);
    await options.space.register(memory, 0 as HostVirtual, (options.pages * PAGE_SIZE) as HostVirtual);
    return memory;
  }

  // The table's side

  get isWaiting(): boolean {
    return this.#arriving.size > 0;
  }

  map(gfn: Gfn, write: boolean): Frame | DmaMiss {
    if (this.#defect !== undefined) throw this.#defect;
    const frame = this.#lookup(gfn, write);
    if (frame !== undefined || this.#arriving.has(gfn)) return frame ?? DmaMiss.absent;
    if (this.#bringIn(gfn, write)) return this.#lookup(gfn, write) ?? DmaMiss.absent;
    return DmaMiss.absent;
  }

  /** A page that is there, but in a range that is changing, arrives at the range's end. */
  fetch(gfn: Gfn, write: boolean): void {
    if (this.#arriving.has(gfn) || !this.#bringIn(gfn, write)) return;
    if (this.#lookup(gfn, write) !== undefined) this.#onArrival();
  }

  written(frame: Frame, offset: number, length: number): void {
    this.#invalidator.frameWritten(frame, offset, length);
  }

  #lookup(gfn: Gfn, write: boolean): Frame | undefined {
    const address = addressOf(gfn);
    const frame = this.#space.lookup(address, write);
    if (frame !== undefined && this.#space.checked) this.#space.checkExternalEntry(this, address, frame, write);
    return frame;
  }

  /** @returns whether the page came at once */
  #bringIn(gfn: Gfn, write: boolean): boolean {
    const soon: Soon<MemoryError | undefined> = this.#space.fault(addressOf(gfn), write);
    if (soon instanceof Promise) {
      this.#arriving.add(gfn);
      const settled = (error: MemoryError | undefined): void => {
        this.#arriving.delete(gfn);
        if (error === undefined) this.#onArrival();
        else this.#onFailure(error);
      };
      soon.then(settled, (defect: unknown) => {
        this.#defect = defect;
        settled(undefined);
      });
      return false;
    }
    if (soon !== undefined) this.#onFailure(soon);
    return soon === undefined;
  }

  // The host's side

  clear(_vma: Vma, address: HostVirtual): void {
    this.table.invalidate(pageOf(address), 1);
  }

  writeProtect(_vma: Vma, address: HostVirtual): void {
    this.table.protect(pageOf(address), 1);
  }

  change(_vma: Vma, address: HostVirtual): void {
    this.table.invalidate(pageOf(address), 1);
  }

  testYoung(_vma: Vma, address: HostVirtual): boolean {
    return this.table.isYoung(pageOf(address));
  }

  testAndClearYoung(_vma: Vma, address: HostVirtual): boolean {
    const isYoung = this.table.isYoung(pageOf(address));
    this.table.clearYoung(pageOf(address));
    return isYoung;
  }

  /** The memory of a guest stays where it is, so an area that moves is no RAM any more. */
  close(vma: Vma): void {
    this.table.invalidate(pageOf(vma.start), (vma.end - vma.start) / PAGE_SIZE);
  }

  /** Look-ups fail from here on; entries that are there stay good until `clear` and its like. */
  lock(): void {}

  unlock(_space: AddressSpace, mode: LockMode): void {
    if (mode === 'exclusive') this.#onArrival();
  }

  release(): void {
    this.table.invalidate(0 as Gfn, this.pages);
  }

  /** As `lock`, for a range. */
  rangeStart(): void {}

  rangeEnd(): void {
    this.#onArrival();
  }

  refersTo(frame: Frame): boolean {
    return this.table.refersTo(frame);
  }
}

function addressOf(gfn: Gfn): HostVirtual {
  return (gfn * PAGE_SIZE) as HostVirtual;
}

function pageOf(address: HostVirtual): Gfn {
  return Math.floor(address / PAGE_SIZE) as Gfn;
}
