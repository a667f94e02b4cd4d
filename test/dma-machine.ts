import { type DmaMemory, DmaMiss } from '../src/devices/dma/memory.ts';
import { DmaTable } from '../src/devices/dma/table.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { type Frame, type Gfn, type GuestPhysical, PAGE_SIZE } from '../src/x86/brand.ts';

const PAGES = 64;
/** What a frame holds that was taken from the guest: a device that still uses it is found out by it. */
const POISON = 0xa5;

/** Guest memory whose pages come and go, as an owner that swaps would have it. Frames stand in another order than pages. */
export class SwappedMemory implements DmaMemory {
  readonly pages = PAGES;
  readonly pool = new FramePool(new HostMemory(4 << 20), 512);
  readonly table: DmaTable;
  /** Pages asked for and not brought in yet. */
  readonly wanted = new Set<Gfn>();
  /** Bytes of frames that the owner was told of. */
  readonly writes: { frame: Frame; offset: number; length: number }[] = [];
  /** Pages that devices may read only. */
  readonly readOnly = new Set<Gfn>();
  /** Called in `map` before it answers. */
  onMap: (gfn: Gfn) => void = () => {};
  readonly #frames = new Map<Gfn, Frame>();
  readonly #store = new Map<Gfn, Uint8Array>();

  constructor() {
    const frames = Array.from({ length: PAGES }, () => this.pool.allocate());
    for (let gfn = 0; gfn < PAGES; gfn++) this.#frames.set(gfn as Gfn, frames[(gfn * 37 + 11) % PAGES] as Frame);
    this.table = new DmaTable(this.pool, this);
  }

  get isWaiting(): boolean {
    return this.wanted.size > 0;
  }

  map(gfn: Gfn, write: boolean): Frame | DmaMiss {
    this.onMap(gfn);
    if (write && this.readOnly.has(gfn)) return DmaMiss.refused;
    return this.#frames.get(gfn) ?? DmaMiss.absent;
  }

  fetch(gfn: Gfn): void {
    this.wanted.add(gfn);
  }

  written(frame: Frame, offset: number, length: number): void {
    this.writes.push({ frame, offset, length });
  }

  /** Takes a page away from the guest; its frame gets another use at once. */
  evict(gfn: Gfn): void {
    const frame = this.#frames.get(gfn);
    if (frame === undefined) return;
    this.table.invalidate(gfn, 1);
    const bytes = this.#bytesOf(frame);
    this.#store.set(gfn, bytes.slice());
    bytes.fill(POISON);
    this.#frames.delete(gfn);
  }

  evictAll(): void {
    for (let gfn = 0; gfn < PAGES; gfn++) this.evict(gfn as Gfn);
  }

  /** Brings in what was asked for, each page in another frame than before. */
  bringIn(): void {
    for (const gfn of this.wanted) this.#load(gfn);
    this.wanted.clear();
  }

  /** The frame of a page that is in memory. */
  frameOf(gfn: Gfn): Frame {
    return this.#load(gfn);
  }

  // The guest's own accesses: they fault pages in, as a processor does.

  read(address: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let index = 0; index < length; index++)
      bytes[index] = this.pool.memory.u8[this.#hostAddress(address + index)]!;
    return bytes;
  }

  write(address: number, bytes: ArrayLike<number>): void {
    for (let index = 0; index < bytes.length; index++) {
      this.pool.memory.u8[this.#hostAddress(address + index)] = bytes[index]!;
    }
  }

  readU16(address: number): number {
    return this.pool.memory.view.getUint16(this.#hostAddress(address), true);
  }

  readU32(address: number): number {
    return this.pool.memory.view.getUint32(this.#hostAddress(address), true);
  }

  writeU16(address: number, value: number): void {
    this.pool.memory.view.setUint16(this.#hostAddress(address), value, true);
  }

  writeU32(address: number, value: number): void {
    this.pool.memory.view.setUint32(this.#hostAddress(address), value, true);
  }

  #hostAddress(address: number): number {
    const gfn = Math.floor(address / PAGE_SIZE) as Gfn;
    return this.pool.addressOf(this.#load(gfn)) + (address % PAGE_SIZE);
  }

  #load(gfn: Gfn): Frame {
    const present = this.#frames.get(gfn);
    if (present !== undefined) return present;
    const frame = this.pool.allocate();
    this.#bytesOf(frame).set(this.#store.get(gfn) ?? []);
    this.#frames.set(gfn, frame);
    return frame;
  }

  #bytesOf(frame: Frame): Uint8Array {
    const start = this.pool.addressOf(frame);
    return this.pool.memory.u8.subarray(start, start + PAGE_SIZE);
  }
}

export const physical = (address: number): GuestPhysical => address as GuestPhysical;
