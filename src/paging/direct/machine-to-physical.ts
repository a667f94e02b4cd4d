import type { Archive, Archived } from '../../archive/archive.ts';
import type { HostWindow } from '../../cpu/translation.ts';
import type { FramePool } from '../../memory/frame-pool.ts';
import type { GuestVirtual } from '../../x86/brand.ts';
import { PAGE_SIZE } from '../../x86/brand.ts';
import { isInHostWindow, type TableRules } from './table-rules.ts';

/** The pseudo-physical number of every machine frame number of a domain: entries of the guest's `long`, all ones for none. */
export class MachineToPhysical implements Archived {
  readonly #pool: FramePool;
  readonly #rules: TableRules;
  /** Pages of the table, as the page walk wants them. */
  readonly windows: readonly HostWindow[];

  /** @param limit one more than the highest machine frame number. @throws OutOfFrames */
  constructor(pool: FramePool, limit: number, rules: TableRules) {
    this.#pool = pool;
    this.#rules = rules;
    this.windows = Array.from({ length: Math.ceil((limit * rules.machineToPhysicalBytes) / PAGE_SIZE) }, () => {
      const frame = pool.allocate();
      const address = pool.addressOf(frame);
      pool.memory.u8.fill(0xff, address, address + PAGE_SIZE);
      return { frame, writable: false };
    });
  }

  archive(archive: Archive): void {
    for (const [index, { frame }] of this.windows.entries()) {
      const address = this.#pool.addressOf(frame);
      archive.words(`page ${index}`, this.#pool.memory.u8.subarray(address, address + PAGE_SIZE));
    }
  }

  /** What the guest sees at an address: null for not present, undefined where the host has no say. The table is the kernel's only. */
  window(address: GuestVirtual, userAccess: boolean): HostWindow | null | undefined {
    if (!isInHostWindow(this.#rules, address)) return undefined;
    if (userAccess) return null;
    return this.windows[Math.floor((address - this.#rules.hostWindow.start) / PAGE_SIZE)] ?? null;
  }

  /** First address behind the table. */
  get end(): GuestVirtual {
    return (this.#rules.hostWindow.start + this.windows.length * PAGE_SIZE) as GuestVirtual;
  }

  /** @param high kept where entries have room for it */
  set(mfn: number, low: number, high: number): void {
    const word = this.#word(mfn);
    this.#pool.memory.u32[word] = low;
    if (this.#isWide) this.#pool.memory.u32[word + 1] = high;
  }

  clear(mfn: number): void {
    this.set(mfn, 0xffff_ffff, 0xffff_ffff);
  }

  /** Pseudo-physical number of a machine frame number below the limit, or −1 when the entry holds none (or a senseless one). */
  get(mfn: number): number {
    const word = this.#word(mfn);
    const low = this.#pool.memory.u32[word]!; // inside the table's page
    const isNumber = this.#isWide ? this.#pool.memory.u32[word + 1] === 0 : low !== 0xffff_ffff;
    return isNumber ? low : -1;
  }

  get #isWide(): boolean {
    return this.#rules.machineToPhysicalBytes === 8;
  }

  #word(mfn: number): number {
    const offset = mfn * this.#rules.machineToPhysicalBytes;
    const window = this.windows[Math.floor(offset / PAGE_SIZE)];
    if (window === undefined) throw new RangeError(`machine frame ${mfn} is beyond the machine-to-physical table`);
    return (this.#pool.addressOf(window.frame) + (offset % PAGE_SIZE)) >>> 2;
  }
}
