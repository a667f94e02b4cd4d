import type { Archive, Archived } from '../../archive/archive.ts';
import type { Segment } from '../../devices/dma/segments.ts';
import type { DmaTable } from '../../devices/dma/table.ts';
import type { Transport, VirtioDevice } from '../../devices/virtio/device.ts';
import { VirtioTransport } from '../../devices/virtio/transport.ts';
import { type Chain, createQueueState, type QueueState, Virtqueue } from '../../devices/virtio/virtqueue.ts';
import type { GuestPhysical } from '../../x86/brand.ts';
import type { DeviceDescriptor } from './device-descriptor.ts';

export interface LguestDeviceOptions {
  readonly device: VirtioDevice;
  readonly descriptor: DeviceDescriptor;
  /** Guest-physical addresses of the queues' memory, which is the host's to place. */
  readonly rings: readonly GuestPhysical[];
  readonly memory: DmaTable;
  /** Raises the interrupt of a queue. */
  readonly interrupt: (queue: number) => void;
  /** Asks for a call of `poll` soon. May be called at any time. */
  readonly wake: () => void;
}

/**
 * A virtio device on lguest's bus, as drivers of version 0 of the specification use it: queues stand where the host has
 * put them and may be used as soon as the driver knows them.
 */
export class LguestDevice extends VirtioTransport implements Transport, Archived {
  readonly memory: DmaTable;
  readonly queues: readonly Virtqueue[];
  readonly rings: readonly GuestPhysical[];
  readonly #device: VirtioDevice;
  readonly #descriptor: DeviceDescriptor;
  readonly #interrupt: (queue: number) => void;
  readonly #wake: () => void;
  /** Whether the driver has notified since the last reset. */
  #isRunning = false;
  /** Why the device needs a reset. */
  #failure: string | null = null;

  constructor(options: LguestDeviceOptions) {
    super();
    this.#device = options.device;
    this.#descriptor = options.descriptor;
    this.memory = options.memory;
    this.rings = options.rings;
    this.#interrupt = options.interrupt;
    this.#wake = options.wake;
    this.queues = this.#device.queueSizes.map((size) => new LguestQueue(createQueueState(size), this));
    this.#placeQueues();
    this.#device.attach(this);
  }

  archive(archive: Archive): void {
    archive.parts('queues', this.queues);
    archive.part('device', this.#device);
    this.#isRunning = archive.value('isRunning', this.#isRunning);
    this.#failure = archive.value('failure', this.#failure);
  }

  #placeQueues(): void {
    for (const [index, { state }] of this.queues.entries()) {
      const { size } = state;
      Object.assign(state, createQueueState(size), {
        ready: true,
        ...placeRing(this.rings[index] as GuestPhysical, size),
      });
    }
  }

  // The guest's side

  /** The driver has put something into a queue. */
  notified(): void {
    if (this.#failure !== null) return;
    this.#isRunning = true;
    this.poll();
  }

  /** The driver begins anew; its memory for queues is empty. */
  reset(): void {
    this.#isRunning = false;
    this.#failure = null;
    this.#placeQueues();
    this.#device.reset();
  }

  // The domain's side

  /** Goes on with what back ends have finished and with transfers that waited for pages. */
  poll(): void {
    if (!this.#isRunning) return;
    this.#device.process();
    for (const [index, queue] of this.queues.entries()) if (queue.takeInterrupt()) this.#interrupt(index);
  }

  get isBusy(): boolean {
    return this.#device.isBusy;
  }

  destroy(): void {
    this.#device.close?.();
  }

  // The device's side

  hasFeature(bit: number): boolean {
    return this.#descriptor.isAccepted(bit);
  }

  get hasLongHeaders(): boolean {
    return this.#descriptor.hasLongHeaders;
  }

  /** Nothing tells the driver: there is no such status in this version. */
  fail(reason: string): void {
    this.#failure ??= reason;
    this.#isRunning = false;
  }

  /** There is no interrupt for it: the driver finds it when it looks next. */
  configurationChanged(): void {
    this.#descriptor.writeConfiguration();
  }

  wake(): void {
    this.#wake();
  }
}

/** Of a disk's request: what all releases have, and what stands behind it in the first. */
const HEADER_BYTES = 16;
const LONG_HEADER_BYTES = 24;

/** A queue whose chains are as devices know them. */
class LguestQueue extends Virtqueue {
  readonly #device: LguestDevice;

  constructor(state: QueueState, device: LguestDevice) {
    super(state, device);
    this.#device = device;
  }

  override pop(): Chain | undefined {
    const chain = super.pop();
    if (!chain || !this.#device.hasLongHeaders) return chain;
    return { ...chain, readable: without(chain.readable, HEADER_BYTES, LONG_HEADER_BYTES) };
  }
}

/** The segments without the bytes from `start` to `end`. */
function without(segments: readonly Segment[], start: number, end: number): Segment[] {
  const kept: Segment[] = [];
  let position = 0;
  for (const { address, length } of segments) {
    const before = Math.min(length, Math.max(0, start - position));
    const behind = Math.min(length, Math.max(0, end - position));
    if (before > 0) kept.push({ address, length: before });
    if (behind < length) kept.push({ address: (address + behind) as GuestPhysical, length: length - behind });
    position += length;
  }
  return kept;
}

const ALIGNMENT = 4096;
const DESCRIPTOR = 16;
/** Flags, index and event index of a ring besides its entries. */
const RING_EXTRA = 6;

/** The three areas of a queue of the version before 1.0, one behind the other. */
function placeRing(first: GuestPhysical, size: number) {
  const driver = first + DESCRIPTOR * size;
  const device = Math.ceil((driver + RING_EXTRA + 2 * size) / ALIGNMENT) * ALIGNMENT;
  return { descriptors: first, driver: driver as GuestPhysical, device: device as GuestPhysical };
}

/** Bytes of memory for a queue. */
export function ringBytes(size: number): number {
  const { device } = placeRing(0 as GuestPhysical, size);
  return device + RING_EXTRA + 8 * size;
}
