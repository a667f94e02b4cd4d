import type { Archive, Archived } from '../../archive/archive.ts';
import type { HostWindow } from '../../cpu/translation.ts';
import type { FramePool } from '../../memory/frame-pool.ts';
import type { GuestVirtual } from '../../x86/brand.ts';
import { PAGE_SIZE } from '../../x86/brand.ts';

/** First address of level-4 slot 256; slots 256–271 are the host's, and the table stands at their start. */
export const HOST_WINDOW_START = -0x8000_0000_0000 as GuestVirtual;
/** First address of slot 272, which is the guest's again. */
export const HOST_WINDOW_END = -0x7800_0000_0000 as GuestVirtual;

const ENTRY_BYTES = 8;

/** The pseudo-physical number of every machine frame number of a domain: 8-byte entries, all ones for none. */
export class MachineToPhysical implements Archived {
  readonly #pool: FramePool;
  /** Pages of the table, as the page walk wants them. */
  readonly windows: readonly HostWindow[];

  /** @param limit one more than the highest machine frame number. @throws OutOfFrames */
  constructor(pool: FramePool, limit: number) {
    this.#pool = pool;
    this.windows = Array.from({ length: Math.ceil((limit * ENTRY_BYTES) / PAGE_SIZE) }, () => {
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

  /** What the guest sees at an address of slots 256–271; null for not present. The table is the kernel's only. */
  window(address: GuestVirtual, userAccess: boolean): HostWindow | null {
    if (userAccess) return null;
    return this.windows[Math.floor((address - HOST_WINDOW_START) / PAGE_SIZE)] ?? null;
  }

  set(mfn: number, low: number, high: number): void {
    const word = this.#word(mfn);
    this.#pool.memory.u32[word] = low;
    this.#pool.memory.u32[word + 1] = high;
  }

  clear(mfn: number): void {
    this.set(mfn, 0xffff_ffff, 0xffff_ffff);
  }

  /** Pseudo-physical number of a machine frame number below the limit, or −1 when the entry holds none (or a senseless one). */
  get(mfn: number): number {
    const word = this.#word(mfn);
    return this.#pool.memory.u32[word + 1] === 0 ? this.#pool.memory.u32[word]! : -1; // inside the table's page
  }

  #word(mfn: number): number {
    const window = this.windows[Math.floor((mfn * ENTRY_BYTES) / PAGE_SIZE)];
    if (window === undefined) throw new RangeError(`machine frame ${mfn} is beyond the machine-to-physical table`);
    return (this.#pool.addressOf(window.frame) + ((mfn * ENTRY_BYTES) % PAGE_SIZE)) >>> 2;
  }
}
