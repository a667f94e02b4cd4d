import type { DirtyLog } from '../../memory/dirty-log.ts';
import type { FramePool } from '../../memory/frame-pool.ts';
import { type Frame, type Gfn, type GuestPhysical, type HostAddress, PAGE_SIZE } from '../../x86/brand.ts';
import { type DmaMemory, DmaMiss } from './memory.ts';

/** What came of `prepare`. */
export const enum DmaStatus {
  /** All bytes can be touched until control leaves the caller. */
  ready,
  /** Some page is being brought in; the guest's devices are polled when it is there. */
  absent,
  /** Some byte is no RAM that devices may reach. */
  refused,
}

/** What a table did so far. */
export interface DmaCounters {
  /** Entries made. */
  made: number;
  /** Entries that the memory's owner took away, or made read-only, while they were there. */
  taken: number;
  /** Times that a device had to wait for a page. */
  waits: number;
}

/** Passes over a range in which mapping one page may take away another, before the transfer has to wait its turn. */
const PASSES = 3;

const NO_ENTRY = 0;

/** An entry is a frame, shifted, and these. */
const enum EntryBit {
  writable = 1,
  /** Used since the owner last looked. */
  young = 2,
  present = 4,
}
const FRAME_SHIFT = 3;

/**
 * The page table through which a guest's devices reach its memory: the external page table of an IOMMU, or of an RDMA
 * adapter. Its entries are made when a device first touches a page, and whoever maps the guest's memory may take any of
 * them away at any time between two uses; no page is pinned for a transfer that takes long.
 *
 * Hence the one rule of its users: `prepare` a range, then touch it, with no await, callback or other range between. A
 * transfer that waits for a disk keeps guest-physical addresses only, and prepares them again when the disk is done.
 */
export class DmaTable {
  readonly memory: DmaMemory;
  readonly counters: DmaCounters = { made: 0, taken: 0, waits: 0 };
  readonly #pool: FramePool;
  readonly #log: Pick<DirtyLog, 'note'> | undefined;
  /** By guest-physical page; there are none before a device touches memory, as those of most clones never do. */
  #entries = new Int32Array(0);
  /** Grows with each entry that is taken away. */
  #invalidations = 0;

  /** @param log told of pages that devices write */
  constructor(pool: FramePool, memory: DmaMemory, log?: Pick<DirtyLog, 'note'>) {
    this.#log = log;
    this.#pool = pool;
    this.memory = memory;
  }

  /**
   * Makes sure of entries for all bytes of a range; when a page is absent, asks for it.
   * @param address,length any numbers from a guest; a length of 0 is always ready
   */
  prepare(address: GuestPhysical, length: number, write: boolean): DmaStatus {
    if (length === 0) return DmaStatus.ready;
    const last = Math.floor((address + length - 1) / PAGE_SIZE);
    if (last >= this.memory.pages) return DmaStatus.refused;
    const first = Math.floor(address / PAGE_SIZE);
    for (let pass = 0; pass < PASSES; pass++) {
      const before = this.#invalidations;
      for (let gfn = first; gfn <= last; gfn++) {
        const status = this.#prepareEntry(gfn as Gfn, write);
        if (status !== DmaStatus.ready) return status;
      }
      if (this.#invalidations === before) return DmaStatus.ready;
    }
    return this.#wait(first as Gfn, write);
  }

  #wait(gfn: Gfn, write: boolean): DmaStatus {
    this.counters.waits++;
    this.memory.fetch(gfn, write);
    return DmaStatus.absent;
  }

  #prepareEntry(gfn: Gfn, write: boolean): DmaStatus {
    if (this.maps(gfn, write)) {
      this.#entries[gfn] = (this.#entries[gfn] as number) | EntryBit.young;
      return DmaStatus.ready;
    }
    const frame = this.memory.map(gfn, write);
    if (frame === DmaMiss.refused) return DmaStatus.refused;
    if (frame === DmaMiss.absent) return this.#wait(gfn, write);
    this.counters.made++;
    if (this.#entries.length === 0) this.#entries = new Int32Array(this.memory.pages);
    this.#entries[gfn] = (frame << FRAME_SHIFT) | EntryBit.present | EntryBit.young | (write ? EntryBit.writable : 0);
    return DmaStatus.ready;
  }

  // The owner's side

  /** Takes entries away: called before the frames can get another content or owner. */
  invalidate(first: Gfn, count: number): void {
    for (let gfn = first; gfn < first + count; gfn++) {
      if (!this.maps(gfn)) continue;
      this.counters.taken++;
      this.#entries[gfn] = NO_ENTRY;
    }
    this.#invalidations++;
  }

  /** Takes the right to write away, for copy-on-write or a log of changed pages. */
  protect(first: Gfn, count: number): void {
    for (let gfn = first; gfn < first + count; gfn++) {
      if (!this.maps(gfn, true)) continue;
      this.counters.taken++;
      this.#entries[gfn] = (this.#entries[gfn] as number) & ~EntryBit.writable;
    }
    this.#invalidations++;
  }

  /** Whether the table has an entry for a page; one for writing, if that is asked. */
  maps(gfn: Gfn, write = false): boolean {
    const entry = this.#entries[gfn] ?? NO_ENTRY;
    return entry !== NO_ENTRY && (!write || (entry & EntryBit.writable) !== 0);
  }

  /** Whether a device used a page since the last `clearYoung`. */
  isYoung(gfn: Gfn): boolean {
    return this.maps(gfn) && ((this.#entries[gfn] as number) & EntryBit.young) !== 0;
  }

  clearYoung(gfn: Gfn): void {
    if (this.maps(gfn)) this.#entries[gfn] = (this.#entries[gfn] as number) & ~EntryBit.young;
  }

  /** Whether some entry leads to a frame. Looks at all of them: for checks. */
  refersTo(frame: Frame): boolean {
    return this.#entries.some((entry) => entry !== NO_ENTRY && entry >> FRAME_SHIFT === frame);
  }

  // Touching prepared ranges

  /** Copies out of guest memory. */
  read(address: GuestPhysical, target: Uint8Array): void {
    this.#eachPage(address, target.length, false, (host, done, count) => {
      target.set(this.#pool.memory.u8.subarray(host, host + count), done);
    });
  }

  /** Copies into guest memory. */
  write(address: GuestPhysical, source: Uint8Array): void {
    this.#eachPage(address, source.length, true, (host, done, count, frame) => {
      this.#pool.memory.u8.set(source.subarray(done, done + count), host);
      this.memory.written(frame, host & (PAGE_SIZE - 1), count);
    });
  }

  /** @param address even */
  readU16(address: GuestPhysical): number {
    return this.#pool.memory.view.getUint16(this.#hostAddress(address, false), true);
  }

  /** @param address even */
  writeU16(address: GuestPhysical, value: number): void {
    const host = this.#hostAddress(address, true);
    this.#log?.note(Math.floor(address / PAGE_SIZE));
    this.#pool.memory.view.setUint16(host, value, true);
    this.memory.written(this.#pool.frameAt(host), host & (PAGE_SIZE - 1), 2);
  }

  #eachPage(
    address: GuestPhysical,
    length: number,
    write: boolean,
    touch: (host: HostAddress, done: number, count: number, frame: Frame) => void,
  ): void {
    for (let done = 0; done < length; ) {
      const host = this.#hostAddress((address + done) as GuestPhysical, write);
      const count = Math.min(length - done, PAGE_SIZE - (host & (PAGE_SIZE - 1)));
      if (write) this.#log?.note(Math.floor((address + done) / PAGE_SIZE));
      touch(host, done, count, this.#pool.frameAt(host));
      done += count;
    }
  }

  #hostAddress(address: GuestPhysical, write: boolean): HostAddress {
    const gfn = Math.floor(address / PAGE_SIZE) as Gfn;
    if (!this.maps(gfn, write)) throw new Error(`guest-physical page ${gfn} was touched without being prepared`);
    const frame = ((this.#entries[gfn] as number) >> FRAME_SHIFT) as Frame;
    return (this.#pool.addressOf(frame) + (address & (PAGE_SIZE - 1))) as HostAddress;
  }
}
