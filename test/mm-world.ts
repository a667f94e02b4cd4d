import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import type { AddressSpace } from '../src/mm/address-space.ts';
import type { MemoryError } from '../src/mm/errors.ts';
import type { LockMode } from '../src/mm/lock.ts';
import { MemoryManager, type MemoryManagerOptions } from '../src/mm/memory-manager.ts';
import type { PteNotifier } from '../src/mm/notifier.ts';
import type { SwapStore } from '../src/mm/swap.ts';
import type { Vma } from '../src/mm/vma.ts';
import { type Frame, type HostVirtual, PAGE_SIZE } from '../src/x86/brand.ts';

/** First byte of a page of an address space. */
export function page(index: number): HostVirtual {
  return (index * PAGE_SIZE) as HostVirtual;
}

/** A swap store in ordinary memory. `delay` is what each transfer waits for. */
export class MemoryStore implements SwapStore {
  readonly slots: number;
  readonly #delay: () => Promise<void>;
  readonly #pages = new Map<number, Uint8Array>();
  writes = 0;
  reads = 0;
  /** Makes transfers fail. */
  failure: Error | undefined;

  constructor(slots: number, delay: () => Promise<void> = async () => {}) {
    this.slots = slots;
    this.#delay = delay;
  }

  async read(slot: number, target: Uint8Array): Promise<void> {
    this.reads++;
    await this.#delay();
    const bytes = this.#pages.get(slot);
    if (this.failure) throw this.failure;
    if (!bytes) throw new Error(`slot ${slot} was never written`);
    target.set(bytes);
  }

  async write(slot: number, source: Uint8Array): Promise<void> {
    this.writes++;
    const before = source.slice();
    await this.#delay();
    if (this.failure) throw this.failure;
    if (before.some((byte, index) => source[index] !== byte)) throw new Error('a page changed while it was written');
    this.#pages.set(slot, before);
  }

  async close(): Promise<void> {
    this.#pages.clear();
  }
}

export interface World {
  readonly pool: FramePool;
  readonly memory: MemoryManager;
}

/** A host with very little memory, all rules checked. */
export function createWorld(frames: number, options: Partial<MemoryManagerOptions> = {}): World {
  const hostMemory = new HostMemory((frames + 32) * PAGE_SIZE);
  const pool = new FramePool(hostMemory, frames);
  return { pool, memory: new MemoryManager({ pool, checked: true, reserve: 0, pause: async () => {}, ...options }) };
}

export async function createSpace({ memory }: World, pages: number): Promise<AddressSpace> {
  const space = await memory.createSpace();
  if ('kind' in space) throw new Error(space.message);
  if (pages > 0) await space.map(page(0), page(pages));
  return space;
}

interface Entry {
  readonly frame: Frame;
  writable: boolean;
  young: boolean;
}

/**
 * A device with a DMA table of its own. It trusts its hooks: between looking up a frame and using it time passes, and
 * only what the hooks told it says whether the frame is still good.
 */
export class Device implements PteNotifier {
  readonly order: number;
  readonly space: AddressSpace;
  readonly entries = new Map<HostVirtual, Entry>();
  /** Areas that were registered and are not closed. */
  readonly areas: { start: HostVirtual; end: HostVirtual }[] = [];
  readonly #pool: FramePool;
  readonly #delay: () => Promise<void>;
  readonly #ranges: { start: HostVirtual; end: HostVirtual }[] = [];
  #locked = false;
  #changes = 0;

  /** @param delay passes between looking up a frame and setting the entry */
  constructor(pool: FramePool, space: AddressSpace, order: number, delay: () => Promise<void> = async () => {}) {
    this.#pool = pool;
    this.space = space;
    this.order = order;
    this.#delay = delay;
  }

  async follow(start: HostVirtual, end: HostVirtual): Promise<void> {
    if (!this.space.notifiers.includes(this)) await this.space.attach(this);
    await this.space.register(this, start, end);
    this.areas.push({ start, end });
  }

  // Hooks

  clear(_vma: Vma, address: HostVirtual): void {
    this.entries.delete(address);
  }

  writeProtect(_vma: Vma, address: HostVirtual): void {
    const entry = this.entries.get(address);
    if (entry) entry.writable = false;
  }

  change(_vma: Vma, address: HostVirtual, frame: Frame, writable: boolean): void {
    const entry = this.entries.get(address);
    if (entry) this.entries.set(address, { frame, writable, young: entry.young });
  }

  testYoung(_vma: Vma, address: HostVirtual): boolean {
    return this.entries.get(address)?.young ?? false;
  }

  testAndClearYoung(_vma: Vma, address: HostVirtual): boolean {
    const entry = this.entries.get(address);
    if (!entry?.young) return false;
    entry.young = false;
    return true;
  }

  close(vma: Vma, successor: Vma | undefined): void {
    const rest = this.areas.flatMap(({ start, end }) => {
      const parts: { start: HostVirtual; end: HostVirtual }[] = [];
      if (start < vma.start) parts.push({ start, end: Math.min(end, vma.start) as HostVirtual });
      if (end > vma.end) parts.push({ start: Math.max(start, vma.end) as HostVirtual, end });
      return parts;
    });
    this.areas.splice(0, this.areas.length, ...rest);
    if (successor) this.areas.push({ start: successor.start, end: successor.end });
  }

  lock(_space: AddressSpace, mode: LockMode): void {
    if (mode === 'exclusive') this.#locked = true;
  }

  unlock(_space: AddressSpace, mode: LockMode): void {
    if (mode === 'exclusive') this.#locked = false;
  }

  release(_space: AddressSpace): void {
    this.entries.clear();
  }

  rangeStart(_space: AddressSpace, start: HostVirtual, end: HostVirtual): void {
    this.#ranges.push({ start, end });
  }

  rangeEnd(_space: AddressSpace, start: HostVirtual, end: HostVirtual): void {
    this.#ranges.splice(
      this.#ranges.findIndex((range) => range.start === start && range.end === end),
      1,
    );
    this.#changes++;
  }

  refersTo(frame: Frame): boolean {
    for (const entry of this.entries.values()) if (entry.frame === frame) return true;
    return false;
  }

  // Transfers

  #mayMap(address: HostVirtual): boolean {
    return !this.#locked && !this.#ranges.some(({ start, end }) => start <= address && address < end);
  }

  isRegistered(address: HostVirtual): boolean {
    return this.areas.some(({ start, end }) => start <= address && address < end);
  }

  /**
   * Lets `use` have the index of the 32-bit word of the host's memory that an address leads to, through the device's
   * table. A string says why there is none: not registered, or busy when `attempts` did not suffice.
   */
  async access(
    address: HostVirtual,
    write: boolean,
    use: (word: number) => void,
    attempts = Number.POSITIVE_INFINITY,
  ): Promise<undefined | MemoryError | 'unregistered' | 'busy'> {
    const first = (address - (address % PAGE_SIZE)) as HostVirtual;
    for (let attempt = 0; attempt < attempts; attempt++) {
      if (!this.isRegistered(first)) return 'unregistered';
      const entry = this.entries.get(first);
      if (entry && (entry.writable || !write)) {
        entry.young = true;
        use((this.#pool.addressOf(entry.frame) + (address % PAGE_SIZE)) >>> 2);
        return undefined;
      }
      const error = await this.space.fault(address, write);
      if (error) return error;
      const changes = this.#changes;
      const frame = this.space.lookup(address, write);
      if (frame === undefined) continue;
      const writable = this.space.mayWrite(address);
      await this.#delay();
      if (this.#changes !== changes || !this.#mayMap(first) || !this.isRegistered(first)) continue;
      this.entries.set(first, { frame, writable, young: true });
      this.space.checkExternalEntry(this, first, frame, writable);
    }
    return 'busy';
  }

  write(address: HostVirtual, value: number, attempts?: number): Promise<undefined | MemoryError | string> {
    return this.access(
      address,
      true,
      (word) => {
        this.#pool.memory.u32[word] = value;
      },
      attempts,
    );
  }

  async read(address: HostVirtual): Promise<number | MemoryError | string> {
    let value = 0;
    const failed = await this.access(address, false, (word) => {
      value = this.#pool.memory.u32[word] as number;
    });
    return failed ?? value;
  }
}
