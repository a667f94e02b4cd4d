import type { Archive, Archived } from '../../archive/archive.ts';
import type { GuestPhysical } from '../../x86/brand.ts';
import type { Segment } from '../dma/segments.ts';
import { DmaStatus, type DmaTable } from '../dma/table.ts';

/**
 * A split virtqueue (Virtual I/O Device 1.2, 2.7): three areas in guest memory, which the driver places.
 *
 *   descriptors  16 bytes each: address u64, length u32, flags u16, next u16
 *   driver area  flags u16, index u16, heads of available chains u16[size], used event u16
 *   device area  flags u16, index u16, used chains {head u32, written u32}[size], available event u16
 *
 * Indexes count up freely modulo 2^16. The driver is a hostile guest: whatever it says is bounded here, and what a sound
 * driver would never say breaks the queue.
 */

const enum Descriptor {
  address = 0,
  length = 8,
  flags = 12,
  next = 14,
  size = 16,
}

const enum DescriptorFlag {
  next = 1,
  /** The device writes to the buffer. */
  write = 2,
  /** The buffer holds the chain's descriptors. */
  indirect = 4,
}

/** Both rings begin alike. */
const enum Ring {
  flags = 0,
  index = 2,
  entries = 4,
}
const AVAILABLE_ENTRY = 2;
const USED_ENTRY = 8;
/** Flag of the driver area: the driver wants no interrupts. */
const NO_INTERRUPT = 1;

/** Where the areas must stand (2.7, table of alignments). */
const ALIGNMENT = { descriptors: 16, driver: 2, device: 4 } as const;

/** A queue as a plain record. */
export interface QueueState {
  /** A power of two. */
  size: number;
  ready: boolean;
  descriptors: GuestPhysical;
  driver: GuestPhysical;
  device: GuestPhysical;
  /** Index of the next chain to take. */
  taken: number;
  /** Index of the next used entry. */
  used: number;
  /** `used` when the driver was last considered for an interrupt. */
  signalled: number;
  /** Chains taken and not given back; a driver cannot have published more than the queue holds. */
  outstanding: number;
}

export function createQueueState(size: number): QueueState {
  const nowhere = 0 as GuestPhysical;
  return {
    size,
    ready: false,
    descriptors: nowhere,
    driver: nowhere,
    device: nowhere,
    taken: 0,
    used: 0,
    signalled: 0,
    outstanding: 0,
  };
}

/** What the driver offers in one piece: bytes for the device to read, then room for it to write. */
export interface Chain {
  readonly head: number;
  readonly readable: readonly Segment[];
  readonly writable: readonly Segment[];
}

/** What a queue needs to know of the device that it belongs to. */
export interface QueueOwner {
  readonly memory: DmaTable;
  readonly hasIndirectDescriptors: boolean;
  readonly hasEventIndex: boolean;
  /** The driver has broken the rules; nothing of the device works until it is reset. */
  fail(reason: string): void;
}

/** The device's side of one queue. Where a page is missing an operation does nothing and is to be tried again later. */
export class Virtqueue implements Archived {
  readonly state: QueueState;
  readonly #owner: QueueOwner;
  readonly #bytes = new Uint8Array(Descriptor.size);
  readonly #view = new DataView(this.#bytes.buffer);

  constructor(state: QueueState, owner: QueueOwner) {
    this.state = state;
    this.#owner = owner;
  }

  archive(archive: Archive): void {
    archive.record('state', this.state);
  }

  /** Whether the driver has placed the areas as it must. */
  get isWellPlaced(): boolean {
    const { state } = this;
    return (
      state.descriptors % ALIGNMENT.descriptors === 0 &&
      state.driver % ALIGNMENT.driver === 0 &&
      state.device % ALIGNMENT.device === 0
    );
  }

  /** @returns the next chain; undefined when there is none, or none that can be read at present. */
  pop(): Chain | undefined {
    const { state } = this;
    if (!state.ready) return undefined;
    const available = this.#available();
    if (available === undefined || available === state.taken) return undefined;
    const count = (available - state.taken) & 0xffff;
    if (count + state.outstanding > state.size) {
      this.#owner.fail(`the driver offers ${count + state.outstanding} chains in a queue of ${state.size}`);
      return undefined;
    }
    const head = this.#readU16(state.driver, Ring.entries + AVAILABLE_ENTRY * (state.taken % state.size));
    const chain = head === undefined ? undefined : this.#walk(head);
    if (chain === undefined) return undefined;
    state.taken = (state.taken + 1) & 0xffff;
    state.outstanding++;
    return chain;
  }

  /**
   * Gives a chain back.
   * @param written bytes from the beginning of the writable part
   * @returns false when it has to be tried again
   */
  push(head: number, written: number): boolean {
    const { state } = this;
    if (!state.ready) return false;
    this.#view.setUint32(0, head, true);
    this.#view.setUint32(4, written, true);
    const entry = (state.device + Ring.entries + USED_ENTRY * (state.used % state.size)) as GuestPhysical;
    if (!this.#prepare(entry, USED_ENTRY, true)) return false;
    this.#owner.memory.write(entry, this.#bytes.subarray(0, USED_ENTRY));
    const used = (state.used + 1) & 0xffff;
    if (!this.#writeU16(state.device, Ring.index, used)) return false;
    state.used = used;
    state.outstanding--;
    return true;
  }

  /** Whether the driver wants to be told of chains given back since the last call. */
  takeInterrupt(): boolean {
    const { state } = this;
    if (!state.ready || state.used === state.signalled) return false;
    const before = state.signalled;
    state.signalled = state.used;
    if (!this.#owner.hasEventIndex) {
      const flags = this.#readU16(state.driver, Ring.flags);
      return flags === undefined || (flags & NO_INTERRUPT) === 0;
    }
    const event = this.#readU16(state.driver, Ring.entries + AVAILABLE_ENTRY * state.size);
    // One interrupt too many does no harm where the page is missing.
    if (event === undefined) return true;
    return ((state.used - event - 1) & 0xffff) < ((state.used - before) & 0xffff);
  }

  /** The driver's index. When nothing is left, the driver is first told to notify of the next chain. */
  #available(): number | undefined {
    const { state } = this;
    const available = this.#readU16(state.driver, Ring.index);
    if (available !== state.taken || !this.#owner.hasEventIndex) return available;
    if (!this.#writeU16(state.device, Ring.entries + USED_ENTRY * state.size, state.taken)) return undefined;
    return this.#readU16(state.driver, Ring.index);
  }

  #walk(head: number): Chain | undefined {
    const { state } = this;
    const readable: Segment[] = [];
    const writable: Segment[] = [];
    let table = state.descriptors;
    let entries = state.size;
    let index = head;
    let isIndirect = false;
    let bytes = 0;
    // Each descriptor of a sound chain is visited once, and the one that names an indirect table as well.
    for (let visited = 0; visited <= state.size; visited++) {
      if (index >= entries) return this.#fail(`descriptor ${index} of ${entries}`);
      const place = (table + Descriptor.size * index) as GuestPhysical;
      if (!this.#prepare(place, Descriptor.size, false)) return undefined;
      this.#owner.memory.read(place, this.#bytes);
      const address = this.#address();
      const length = this.#view.getUint32(Descriptor.length, true);
      const flags = this.#view.getUint16(Descriptor.flags, true);
      if (flags & DescriptorFlag.indirect) {
        const isSound = this.#owner.hasIndirectDescriptors && !isIndirect && !(flags & DescriptorFlag.next);
        if (!isSound || length === 0 || length % Descriptor.size !== 0) return this.#fail('a bad indirect descriptor');
        table = address;
        entries = length / Descriptor.size;
        index = 0;
        isIndirect = true;
        continue;
      }
      bytes += length;
      if (bytes > 0xffff_ffff) return this.#fail('a chain of over 4 GiB');
      if (flags & DescriptorFlag.write) writable.push({ address, length });
      else if (writable.length > 0) return this.#fail('a chain with bytes to read after room to write');
      else readable.push({ address, length });
      if (!(flags & DescriptorFlag.next)) return { head, readable, writable };
      index = this.#view.getUint16(Descriptor.next, true);
    }
    return this.#fail('a chain longer than its queue');
  }

  /** Addresses beyond 2^53 lose bits here, and are no RAM in any case. */
  #address(): GuestPhysical {
    const low = this.#view.getUint32(Descriptor.address, true);
    const high = this.#view.getUint32(Descriptor.address + 4, true);
    return (high * 0x1_0000_0000 + low) as GuestPhysical;
  }

  #fail(what: string): undefined {
    this.#owner.fail(`the driver offers ${what}`);
    return undefined;
  }

  #readU16(area: GuestPhysical, offset: number): number | undefined {
    const address = (area + offset) as GuestPhysical;
    return this.#prepare(address, 2, false) ? this.#owner.memory.readU16(address) : undefined;
  }

  #writeU16(area: GuestPhysical, offset: number, value: number): boolean {
    const address = (area + offset) as GuestPhysical;
    if (!this.#prepare(address, 2, true)) return false;
    this.#owner.memory.writeU16(address, value);
    return true;
  }

  #prepare(address: GuestPhysical, length: number, write: boolean): boolean {
    const status = this.#owner.memory.prepare(address, length, write);
    if (status === DmaStatus.refused) this.#owner.fail(`the driver names ${length} bytes that are no RAM`);
    return status === DmaStatus.ready;
  }
}
