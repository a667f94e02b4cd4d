import type { Scheduler } from 'fast-check';
import { AddressSpace } from '../src/mm/address-space.ts';
import type { CachedFile } from '../src/mm/page-cache.ts';
import { type HostVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { createWorld, Device, MemoryStore, page, type World } from './mm-world.ts';

/**
 * Guests whose memory is also kept in a model, and what they do. Each guest has two external tables; each writes a word
 * of its own in every page, so that the model knows what a page must hold whatever the order of awaits. A word of the
 * model is the set of values it may have: one, except while an operation is under way that changes it at some moment.
 */
const PAGES = 8;
/** The first half of a guest's pages is anonymous, the second a file's. */
const FILE_PAGE = 4;
/** Where areas are moved to. */
const ELSEWHERE = 1024;

export const DEVICES = 2;
const GUESTS = 3;
/** Five tables for each guest, and few pages. */
const FRAMES = 23;
const SLOTS = 128;
/** More waits than any run needs that gets ahead at all. */
const STEPS = 20_000;

/** A stretch of time in which something happens to pages at an unknown moment. */
interface Window {
  readonly affects: (index: number) => boolean;
  readonly written: (word: number, value: number) => void;
  readonly discarded: (index: number) => void;
}

class Guest {
  readonly space: AddressSpace;
  readonly devices: Device[] = [];
  /** Current address of each page. */
  readonly addresses: HostVirtual[] = Array.from({ length: PAGES }, (_none, index) => page(index));
  readonly words: Set<number>[];
  readonly windows = new Set<Window>();
  /** Areas or registrations change, so that an access may find none. */
  unsettled = 0;
  ending = false;

  constructor(space: AddressSpace, words: Set<number>[]) {
    this.space = space;
    this.words = words;
  }

  /** Whether pages [from, to) are where they were at first. */
  isHome(from: number, to: number): boolean {
    return this.addresses.slice(from, to).every((address, step) => address === page(from + step));
  }

  isStable(index: number): boolean {
    return ![...this.windows].some((window) => window.affects(index));
  }
}

function wordIndex(index: number, device: number): number {
  return index * DEVICES + device;
}

export type Operation =
  | { readonly kind: 'write' | 'read'; readonly guest: number; readonly device: number; readonly index: number }
  | { readonly kind: 'pin' | 'clone' | 'exit'; readonly guest: number; readonly index: number }
  | {
      readonly kind: 'discard' | 'move' | 'register';
      readonly guest: number;
      readonly index: number;
      readonly length: number;
    };

export class Model {
  readonly world: World;
  readonly store: MemoryStore;
  readonly #scheduler: Scheduler;
  readonly #file: CachedFile;
  readonly #guests: Guest[] = [];
  #values = 1000;
  #steps = 0;
  #cloning = 0;

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler;
    const wait = (what: string) => async () => {
      if (++this.#steps > STEPS) throw new Error('no progress');
      await scheduler.schedule(Promise.resolve(), what);
    };
    this.store = new MemoryStore(SLOTS, wait('swap'));
    this.world = createWorld(FRAMES, { store: this.store, pause: wait('pause') });
    this.#file = this.world.memory.openFile({
      name: 'file',
      size: (PAGES - FILE_PAGE) * PAGE_SIZE,
      read: async (offset, target) => {
        await wait('file')();
        const words = new Uint32Array(target.buffer, target.byteOffset, DEVICES);
        for (let device = 0; device < DEVICES; device++) words[device] = offset / PAGE_SIZE + 1;
      },
    });
  }

  async createGuest(): Promise<void> {
    const space = await this.world.memory.createSpace();
    if (!(space instanceof AddressSpace)) throw new Error(space.message);
    await space.map(page(0), page(FILE_PAGE));
    await space.map(page(FILE_PAGE), page(PAGES), { file: this.#file, index: 0 });
    const words = Array.from({ length: PAGES * DEVICES }, (_none, word) => {
      const index = Math.floor(word / DEVICES);
      return new Set([index < FILE_PAGE ? 0 : index - FILE_PAGE + 1]);
    });
    await this.#adopt(new Guest(space, words));
  }

  async #adopt(guest: Guest): Promise<void> {
    for (let device = 0; device < DEVICES; device++) {
      const table = new Device(this.world.pool, guest.space, device + 1, async () => {
        await this.#scheduler.schedule(Promise.resolve(), 'device');
      });
      await guest.space.attach(table);
      for (const { start, end } of guest.space.areas.all) await table.follow(start, end);
      guest.devices.push(table);
    }
    this.#guests.push(guest);
  }

  async perform(operation: Operation): Promise<void> {
    const living = this.#guests.filter((guest) => !guest.ending);
    const guest = living[operation.guest % Math.max(1, living.length)];
    if (!guest) return;
    const index = operation.index % PAGES;
    switch (operation.kind) {
      case 'write':
        return this.#write(guest, operation.device % DEVICES, index);
      case 'read':
        return this.#read(guest, operation.device % DEVICES, index);
      case 'pin':
        return this.#pin(guest, index);
      case 'clone':
        return living.length + this.#cloning < GUESTS ? this.#clone(guest) : undefined;
      case 'exit':
        return living.length > 1 ? this.#exit(guest) : undefined;
      case 'discard':
        return this.#discard(guest, index, Math.min(FILE_PAGE, index + operation.length));
      case 'move':
        return this.#move(guest, index, Math.min(PAGES, index + operation.length));
      case 'register':
        return this.#register(guest, index, Math.min(PAGES, index + operation.length));
    }
  }

  async #access(guest: Guest, device: number, index: number, write: boolean, use: (place: number) => void) {
    const address = ((guest.addresses[index] as number) + device * 4) as HostVirtual;
    const unsettled = guest.unsettled > 0;
    const failed = await (guest.devices[device] as Device).access(address, write, use);
    const mayFail = unsettled || guest.unsettled > 0 || guest.ending || address - device * 4 !== guest.addresses[index];
    if (failed && !mayFail) throw new Error(`page ${index} cannot be reached: ${JSON.stringify(failed)}`);
  }

  #write(guest: Guest, device: number, index: number): Promise<void> {
    return this.#access(guest, device, index, true, (place) => {
      const value = this.#values++;
      this.world.pool.memory.u32[place] = value;
      const word = wordIndex(index, device);
      if (guest.isStable(index)) guest.words[word] = new Set([value]);
      else guest.words[word]?.add(value);
      for (const window of guest.windows) window.written(word, value);
    });
  }

  #read(guest: Guest, device: number, index: number): Promise<void> {
    return this.#access(guest, device, index, false, (place) => {
      const value = this.world.pool.memory.u32[place] as number;
      const word = wordIndex(index, device);
      const allowed = guest.words[word] as Set<number>;
      if (!allowed.has(value)) {
        throw new Error(`page ${index}, word ${device} is ${value}; it must be one of ${[...allowed].join(', ')}`);
      }
      if (guest.isStable(index)) guest.words[word] = new Set([value]);
    });
  }

  async #pin(guest: Guest, index: number): Promise<void> {
    const address = guest.addresses[index] as HostVirtual;
    await guest.space.fault(address, true);
    const frame = guest.space.pin(address);
    if (frame === undefined) return;
    await this.#scheduler.schedule(Promise.resolve(), 'pinned');
    guest.space.unpin(frame);
  }

  async #clone(parent: Guest): Promise<void> {
    const words = parent.words.map((values) => new Set(values));
    const window: Window = {
      affects: () => false,
      written: (word, value) => void words[word]?.add(value),
      discarded: (index) => {
        for (let device = 0; device < DEVICES; device++) words[wordIndex(index, device)]?.add(0);
      },
    };
    parent.windows.add(window);
    parent.unsettled++;
    this.#cloning++;
    const addresses = [...parent.addresses];
    const space = await this.world.memory.clone(parent.space).catch((error: unknown) => {
      if (!parent.ending) throw error;
    });
    parent.unsettled--;
    parent.windows.delete(window);
    if (!space) {
      this.#cloning--;
      return;
    }
    if (!(space instanceof AddressSpace)) throw new Error(space.message);
    const child = new Guest(space, words);
    // The parent's areas may have been moved before the clone took its lock.
    for (const [index, address] of [...addresses, ...parent.addresses].entries()) {
      if (space.areas.find(address)) child.addresses[index % PAGES] = address;
    }
    await this.#adopt(child);
    this.#cloning--;
  }

  async #exit(guest: Guest): Promise<void> {
    guest.ending = true;
    await guest.space.exit();
  }

  async #discard(guest: Guest, from: number, to: number): Promise<void> {
    if (from >= to || !guest.isHome(from, to) || guest.unsettled > 0) return;
    const affects = (index: number) => index >= from && index < to;
    const during = guest.words.map(() => new Set([0]));
    const window: Window = {
      affects,
      written: (word, value) => void during[word]?.add(value),
      discarded: () => {},
    };
    for (let index = from; index < to; index++) {
      for (let device = 0; device < DEVICES; device++) guest.words[wordIndex(index, device)]?.add(0);
      for (const other of guest.windows) other.discarded(index);
    }
    guest.windows.add(window);
    guest.unsettled++;
    await guest.space.discard(page(from), page(to)).catch((error: unknown) => {
      if (!guest.ending) throw error;
    });
    guest.unsettled--;
    guest.windows.delete(window);
    for (const [word, values] of during.entries()) {
      if (affects(Math.floor(word / DEVICES))) guest.words[word] = values;
    }
  }

  async #move(guest: Guest, from: number, to: number): Promise<void> {
    const start = guest.addresses[from] as HostVirtual;
    const together = guest.addresses.slice(from, to).every((address, step) => address === start + step * PAGE_SIZE);
    if (from >= to || !together || guest.unsettled > 0) return;
    const target = start === page(from) ? page(ELSEWHERE + from) : page(from);
    guest.unsettled++;
    const failed = await guest.space
      .move(start, (start + (to - from) * PAGE_SIZE) as HostVirtual, target)
      .catch((error: unknown) => {
        if (!guest.ending) throw error;
      });
    if (failed) throw new Error(failed.message);
    for (let index = from; index < to; index++) {
      guest.addresses[index] = (target + (index - from) * PAGE_SIZE) as HostVirtual;
    }
    guest.unsettled--;
  }

  /** The registration of the second device for a range ends and begins again: areas split, and merge. */
  async #register(guest: Guest, from: number, to: number): Promise<void> {
    if (from >= to || !guest.isHome(from, to) || guest.unsettled > 0) return;
    const device = guest.devices[1];
    guest.unsettled++;
    try {
      await guest.space.unregister(device as Device, page(from), page(to));
      await this.#scheduler.schedule(Promise.resolve(), 'unregistered');
      await device?.follow(page(from), page(to));
    } catch (error) {
      if (!guest.ending) throw error;
    }
    guest.unsettled--;
  }

  /** All memory is what the model says; then all guests end, and nothing is left. */
  async finish(): Promise<void> {
    for (const guest of this.#guests) {
      if (guest.ending) continue;
      for (let index = 0; index < PAGES; index++) {
        for (let device = 0; device < DEVICES; device++) await this.#read(guest, device, index);
      }
    }
    for (const guest of this.#guests) if (!guest.ending) await this.#exit(guest);
    // Writes to the store that are still under way free their pages when they end.
    await this.world.memory.relieve();
    this.world.memory.closeFile(this.#file);
    const { frames, swap } = this.world.memory.statistics();
    if (frames.available !== frames.total) throw new Error(`${frames.total - frames.available} frames were not freed`);
    if (swap.used !== 0) throw new Error(`${swap.used} slots of the swap store were not freed`);
  }
}
