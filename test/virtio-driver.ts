import type { VirtioDevice } from '../src/devices/virtio/device.ts';
import { VirtioMmio } from '../src/devices/virtio/mmio-transport.ts';
import { Feature, Interrupt, Register, Status } from '../src/devices/virtio/registers.ts';
import type { Gfn } from '../src/x86/brand.ts';
import { SwappedMemory } from './dma-machine.ts';

/** Memory of the driver: each queue's areas in 8 pages, then places for requests. */
const QUEUE_BYTES = 0x8000;
const SLOTS_START = 0x1_0000;
const SLOT_BYTES = 0x6000;
const SLOTS = 8;
/** Offset of an indirect table in a slot; the buffers come behind it. */
const BUFFERS = 0x1000;

const enum Flag {
  next = 1,
  write = 2,
  indirect = 4,
}

interface Buffer {
  readonly address: number;
  readonly length: number;
  readonly write: boolean;
}

export interface Request {
  readonly slot: number;
  readonly writable: readonly Buffer[];
}

export interface Used {
  readonly request: Request;
  readonly written: number;
  /** All bytes of the writable buffers. */
  readonly data: Uint8Array;
}

export interface RequestOptions {
  readonly indirect?: boolean;
  /** Where the bytes are cut into buffers; sorted positions. */
  readonly cuts?: readonly number[];
}

class DriverQueue {
  readonly base: number;
  readonly size: number;
  available = 0;
  seen = 0;
  readonly requests = new Map<number, Request>();
  readonly freeDescriptors: number[];

  constructor(base: number, size: number) {
    this.base = base;
    this.size = size;
    this.freeDescriptors = Array.from({ length: size }, (_, index) => index);
  }

  get descriptors(): number {
    return this.base;
  }

  get driver(): number {
    return this.base + 0x2000;
  }

  get device(): number {
    return this.base + 0x4000;
  }
}

/** A driver of virtio devices, in memory that comes and goes. */
export class VirtioDriver {
  readonly memory = new SwappedMemory();
  readonly transport: VirtioMmio;
  line = false;
  /** Times that the line was raised. */
  interrupts = 0;
  wakes = 0;
  readonly queues: DriverQueue[] = [];
  readonly #chains = new Map<Request, number[]>();
  readonly #freeSlots = Array.from({ length: SLOTS }, (_, index) => index);

  constructor(device: VirtioDevice) {
    this.transport = new VirtioMmio({
      device,
      memory: this.memory.table,
      line: {
        set: (level) => {
          if (level && !this.line) this.interrupts++;
          this.line = level;
        },
      },
      wake: () => {
        this.wakes++;
      },
    });
  }

  read(register: Register): number {
    return this.transport.read(register, 4);
  }

  write(register: Register, value: number): void {
    this.transport.write(register, 4, value);
  }

  get offered(): readonly number[] {
    return Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => {
      this.write(Register.deviceFeaturesSelect, bit >> 5);
      return (this.read(Register.deviceFeatures) >>> (bit & 31)) & 1;
    });
  }

  /** Up to FEATURES_OK. @returns whether the device agrees */
  negotiate(features: readonly number[]): boolean {
    this.write(Register.status, 0);
    this.write(Register.status, Status.acknowledge);
    this.write(Register.status, Status.acknowledge | Status.driver);
    for (const word of [0, 1]) {
      const bits = features.filter((bit) => bit >> 5 === word).reduce((sum, bit) => sum + 2 ** (bit & 31), 0);
      this.write(Register.driverFeaturesSelect, word);
      this.write(Register.driverFeatures, bits);
    }
    this.write(Register.status, Status.acknowledge | Status.driver | Status.featuresOk);
    return (this.read(Register.status) & Status.featuresOk) !== 0;
  }

  placeQueue(index: number, size: number): void {
    const queue = new DriverQueue(index * QUEUE_BYTES, size);
    this.queues[index] = queue;
    this.memory.write(queue.base, new Uint8Array(QUEUE_BYTES));
    const WORDS: readonly (readonly [Register, number])[] = [
      [Register.queueSelect, index],
      [Register.queueSize, size],
      [Register.queueDescriptorsLow, queue.descriptors],
      [Register.queueDescriptorsHigh, 0],
      [Register.queueDriverLow, queue.driver],
      [Register.queueDriverHigh, 0],
      [Register.queueDeviceLow, queue.device],
      [Register.queueDeviceHigh, 0],
      [Register.queueReady, 1],
    ];
    for (const [register, value] of WORDS) this.write(register, value);
  }

  /** A reset, and all that a driver does before it uses the device. */
  start(features: readonly number[] = this.offered, size = 16): void {
    if (!this.negotiate(features)) throw new Error('the device does not agree to its own features');
    const count = this.transport.queues.length;
    for (let index = 0; index < count; index++) {
      this.write(Register.queueSelect, index);
      this.placeQueue(index, Math.min(size, this.read(Register.queueSizeMaximum)));
    }
    this.write(Register.status, Status.acknowledge | Status.driver | Status.featuresOk | Status.driverOk);
  }

  get hasEventIndex(): boolean {
    return this.transport.hasFeature(Feature.eventIndex);
  }

  /** Puts a request into a queue without telling the device. Undefined when the queue is full. */
  offer(index: number, toRead: Uint8Array, room: number, options: RequestOptions = {}): Request | undefined {
    const queue = this.queues[index]!;
    const slot = this.#freeSlots[0];
    if (slot === undefined) return undefined;
    const base = SLOTS_START + slot * SLOT_BYTES + BUFFERS;
    this.memory.write(base, toRead);
    const cuts = [0, ...(options.cuts ?? []), toRead.length, toRead.length + room];
    const total = toRead.length + room;
    const edges = [...new Set(cuts.filter((cut) => cut <= total))].sort((a, b) => a - b);
    const buffers = edges.slice(1).map((end, edge): Buffer => {
      const start = edges[edge] as number;
      return { address: base + start, length: end - start, write: start >= toRead.length };
    });
    const count = options.indirect ? 1 : buffers.length;
    if (count > queue.freeDescriptors.length) return undefined;
    this.#freeSlots.shift();
    const chain = queue.freeDescriptors.splice(0, count);
    const table = SLOTS_START + slot * SLOT_BYTES;
    if (options.indirect) {
      this.#descriptor(queue.descriptors, chain[0]!, table, buffers.length * 16, Flag.indirect, 0);
      for (const [place, buffer] of buffers.entries()) this.#buffer(table, place, buffer, place + 1, buffers.length);
    } else {
      for (const [place, buffer] of buffers.entries()) {
        this.#buffer(queue.descriptors, chain[place]!, buffer, chain[place + 1] ?? -1, -1);
      }
    }
    const request: Request = { slot, writable: buffers.filter((buffer) => buffer.write) };
    this.#chains.set(request, chain);
    queue.requests.set(chain[0]!, request);
    this.publish(index, chain[0]!);
    return request;
  }

  #buffer(table: number, place: number, buffer: Buffer, next: number, end: number): void {
    const hasNext = next !== end && next >= 0;
    const flags = (buffer.write ? Flag.write : 0) | (hasNext ? Flag.next : 0);
    this.#descriptor(table, place, buffer.address, buffer.length, flags, hasNext ? next : 0);
  }

  #descriptor(table: number, place: number, address: number, length: number, flags: number, next: number): void {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, address, true);
    view.setUint32(8, length, true);
    view.setUint16(12, flags, true);
    view.setUint16(14, next, true);
    this.memory.write(table + place * 16, bytes);
  }

  /** Makes a chain available, whatever it is. */
  publish(index: number, head: number): void {
    const queue = this.queues[index]!;
    this.memory.writeU16(queue.driver + 4 + 2 * (queue.available % queue.size), head);
    queue.available = (queue.available + 1) & 0xffff;
    this.memory.writeU16(queue.driver + 2, queue.available);
  }

  notify(index: number): void {
    this.write(Register.queueNotify, index);
  }

  /** Asks for an interrupt at the next used chain (event index), or for none. */
  wantInterrupts(index: number, wanted: boolean): void {
    const queue = this.queues[index]!;
    this.memory.writeU16(queue.driver, wanted ? 0 : 1);
    this.memory.writeU16(queue.driver + 4 + 2 * queue.size, wanted ? queue.seen : (queue.seen - 1) & 0xffff);
  }

  /** Where the device wants to be notified next (event index). */
  availableEvent(index: number): number {
    const queue = this.queues[index]!;
    return this.memory.readU16(queue.device + 4 + 8 * queue.size);
  }

  /** Takes what the device has given back, as an interrupt handler does. */
  collect(index: number): Used[] {
    this.write(Register.interruptAcknowledge, this.read(Register.interruptStatus) & Interrupt.usedBuffer);
    const queue = this.queues[index]!;
    const found: Used[] = [];
    while (queue.seen !== this.memory.readU16(queue.device + 2)) {
      const entry = queue.device + 4 + 8 * (queue.seen % queue.size);
      const head = this.memory.readU32(entry);
      const request = queue.requests.get(head);
      if (request === undefined) throw new Error(`the device gives back chain ${head}, which it does not have`);
      queue.requests.delete(head);
      queue.freeDescriptors.push(...(this.#chains.get(request) ?? []));
      this.#chains.delete(request);
      this.#freeSlots.push(request.slot);
      const parts = request.writable.map((buffer) => [...this.memory.read(buffer.address, buffer.length)]);
      found.push({ request, written: this.memory.readU32(entry + 4), data: Uint8Array.from(parts.flat()) });
      queue.seen = (queue.seen + 1) & 0xffff;
    }
    if (this.hasEventIndex) this.wantInterrupts(index, true);
    return found;
  }

  /** Lets the host bring in pages and poll until nothing more is wanted. */
  settle(): void {
    for (let round = 0; round < 1000; round++) {
      this.transport.poll();
      if (this.memory.wanted.size === 0) return;
      this.memory.bringIn();
    }
    throw new Error('the device asks for pages for ever');
  }

  /** The same, until back ends have answered as well. */
  async settleBusy(): Promise<void> {
    do {
      await new Promise<void>((resolve) => setTimeout(resolve));
      this.settle();
    } while (this.transport.isBusy);
  }

  /** One request from beginning to end. */
  async request(index: number, toRead: Uint8Array, room: number, options: RequestOptions = {}): Promise<Used> {
    const request = this.offer(index, toRead, room, options);
    if (request === undefined) throw new Error('the queue is full');
    this.notify(index);
    await this.settleBusy();
    const used = this.collect(index).find((one) => one.request === request);
    if (used === undefined) throw new Error('the device does not give the request back');
    return used;
  }

  evict(...pages: number[]): void {
    for (const page of pages) this.memory.evict(page as Gfn);
  }
}
