import type { FrameInvalidator } from '../../cpu/translation.ts';
import { NO_FRAME } from '../../memory/frame-pool.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import type { Frame, GuestVirtual, HostAddress, Mfn } from '../../x86/brand.ts';
import { PAGE_SIZE } from '../../x86/brand.ts';
import { isInHostWindow, type TableRules } from './table-rules.ts';

const WORDS_PER_PAGE = PAGE_SIZE / 4;
const NO_ENTRY = 0xffff_ffff;

/** Pages that a machine-to-physical table of so many numbers takes. */
export function machineToPhysicalPages(numbers: number, { machineToPhysicalBytes }: TableRules): number {
  return Math.ceil((numbers * machineToPhysicalBytes) / PAGE_SIZE);
}

/**
 * The pseudo-physical number of every machine frame number of a domain: entries of the guest's `long`, all ones for none.
 *
 * The table's pages have machine frame numbers themselves, behind all those that it covers, though none that a guest
 * could name. So what holds of a domain's memory holds of them: they come when they are needed, may be swapped out, are
 * part of a snapshot, and a clone shares them until somebody stores into them.
 */
export class MachineToPhysical {
  readonly #space: MachineSpace;
  readonly #rules: TableRules;
  readonly #first: Mfn;
  readonly pages: number;

  /** @param first number of the table's first page, and one more than the last number that it covers */
  constructor(space: MachineSpace, first: Mfn, rules: TableRules) {
    this.#space = space;
    this.#first = first;
    this.#rules = rules;
    this.pages = machineToPhysicalPages(first, rules);
  }

  /** One more than the highest number that has an entry. */
  get limit(): number {
    return this.#first;
  }

  /** Gives the table its pages, as far as the domain's memory does not have them, and empties it. False without a page for it. */
  create(): boolean {
    const { pool, frames } = this.#space;
    for (let page = 0; page < this.pages; page++) {
      const number = this.#numberOf(page);
      if ((frames[number] as Frame) < 0 && !this.#space.populate(number)) return false;
      const word = this.#space.writableAddressOf(number) >>> 2;
      pool.memory.u32.fill(NO_ENTRY, word, word + WORDS_PER_PAGE);
    }
    return true;
  }

  /** Gives the pages back. */
  release(invalidator: FrameInvalidator): void {
    for (let page = 0; page < this.pages; page++) {
      const number = this.#numberOf(page);
      const frame = this.#space.frames[number] as Frame; // below the space's limit
      if (frame === NO_FRAME) continue;
      if (frame >= 0) invalidator.invalidateFrame(frame);
      this.#space.release(number);
    }
  }

  /**
   * Number of the page that the guest sees, read-only, at an address: null for not present, undefined where the host has
   * no say. The table is the kernel's only.
   */
  window(address: GuestVirtual, userAccess: boolean): Mfn | null | undefined {
    if (!isInHostWindow(this.#rules, address)) return undefined;
    const page = Math.floor((address - this.#rules.hostWindow.start) / PAGE_SIZE);
    return userAccess || page >= this.pages ? null : this.#numberOf(page);
  }

  /** First address behind the table. */
  get end(): GuestVirtual {
    return (this.#rules.hostWindow.start + this.pages * PAGE_SIZE) as GuestVirtual;
  }

  /** The entry of a number is about to be stored. @throws PageAbsent */
  requireWritable(mfn: number): void {
    this.#space.requireWritable(this.#pageOf(mfn));
  }

  /** @param high kept where entries have room for it. @throws PageAbsent */
  set(mfn: number, low: number, high: number): void {
    const word = this.#wordIn(this.#space.writableAddressOf(this.#pageOf(mfn)), mfn);
    const { u32 } = this.#space.pool.memory;
    u32[word] = low;
    if (this.#isWide) u32[word + 1] = high;
  }

  /** @throws PageAbsent */
  clear(mfn: number): void {
    this.set(mfn, NO_ENTRY, NO_ENTRY);
  }

  /**
   * Pseudo-physical number of a machine frame number below the limit, or −1 when the entry holds none (or a senseless
   * one). @throws PageAbsent
   */
  get(mfn: number): number {
    const word = this.#wordIn(this.#space.addressOf(this.#pageOf(mfn)), mfn);
    const { u32 } = this.#space.pool.memory;
    const low = u32[word] as number; // inside the table's page
    const isNumber = this.#isWide ? u32[word + 1] === 0 : low !== NO_ENTRY;
    return isNumber ? low : -1;
  }

  get #isWide(): boolean {
    return this.#rules.machineToPhysicalBytes === 8;
  }

  #numberOf(page: number): Mfn {
    return (this.#first + page) as Mfn;
  }

  /** Number of the page that has the entry of a number. */
  #pageOf(mfn: number): Mfn {
    if (mfn >= this.#first) throw new RangeError(`machine frame ${mfn} is beyond the machine-to-physical table`);
    return this.#numberOf(Math.floor((mfn * this.#rules.machineToPhysicalBytes) / PAGE_SIZE));
  }

  #wordIn(page: HostAddress, mfn: number): number {
    return (page + ((mfn * this.#rules.machineToPhysicalBytes) % PAGE_SIZE)) >>> 2;
  }
}
