import type { Archive, Archived } from '../../archive/archive.ts';
import type { GuestPhysical } from '../../x86/brand.ts';
import type { DmaTable } from '../dma/table.ts';
import type { InterruptLine, MmioDevice } from '../mmio.ts';
import type { Transport, VirtioDevice } from './device.ts';
import { Feature, Interrupt, MAGIC, Register, Status, VENDOR, VERSION } from './registers.ts';
import { VirtioTransport } from './transport.ts';
import { createQueueState, type QueueState, Virtqueue } from './virtqueue.ts';

/** What the transport itself can do besides the device's own features. */
const TRANSPORT_FEATURES = [Feature.indirectDescriptors, Feature.eventIndex, Feature.version1];

/** A transport as a plain record. */
export interface TransportState {
  status: number;
  interrupt: number;
  deviceFeaturesSelect: number;
  driverFeaturesSelect: number;
  /** Features that the driver has accepted, bits 0–31 and 32–63. */
  readonly driverFeatures: [number, number];
  queueSelect: number;
  configurationGeneration: number;
  readonly queues: QueueState[];
  /** Why the device needs a reset. */
  failure: string | null;
}

export interface MmioTransportOptions {
  readonly device: VirtioDevice;
  readonly memory: DmaTable;
  readonly line: InterruptLine;
  /** Asks for a call of `poll` soon. May be called at any time. */
  readonly wake: () => void;
}

/**
 * A virtio device among a guest's physical addresses (virtio 1.2, 4.2, version 2 only). What the driver does comes as
 * register accesses; whatever comes of back ends and pages that arrive waits for `poll`, so that a guest notices
 * nothing between two of its turns.
 */
export class VirtioMmio extends VirtioTransport implements MmioDevice, Transport, Archived {
  readonly state: TransportState;
  readonly memory: DmaTable;
  readonly queues: readonly Virtqueue[];
  readonly #device: VirtioDevice;
  readonly #line: InterruptLine;
  readonly #wake: () => void;
  /** Offered features, bits 0–31 and 32–63. */
  readonly #features: readonly [number, number];

  constructor(options: MmioTransportOptions) {
    super();
    this.#device = options.device;
    this.memory = options.memory;
    this.#line = options.line;
    this.#wake = options.wake;
    const offered = [...this.#device.features, ...TRANSPORT_FEATURES];
    this.#features = [featureWord(offered, 0), featureWord(offered, 1)];
    this.state = {
      status: 0,
      interrupt: 0,
      deviceFeaturesSelect: 0,
      driverFeaturesSelect: 0,
      driverFeatures: [0, 0],
      queueSelect: 0,
      configurationGeneration: 0,
      queues: this.#device.queueSizes.map(createQueueState),
      failure: null,
    };
    this.queues = this.state.queues.map((queue) => new Virtqueue(queue, this));
    this.#device.attach(this);
  }

  archive(archive: Archive): void {
    const { queues: _, ...registers } = this.state;
    Object.assign(this.state, archive.value('registers', registers));
    archive.parts('queues', this.queues);
    archive.part('device', this.#device);
  }

  // The guest's side

  read(offset: number, bytes: number): number {
    if (offset >= Register.configuration) return this.#readConfiguration(offset - Register.configuration, bytes);
    if (bytes !== 4) return 0;
    return READERS[offset]?.(this) ?? 0;
  }

  write(offset: number, bytes: number, value: number): void {
    // No device here has configuration that its driver writes.
    if (bytes === 4) WRITERS[offset]?.(this, value);
  }

  #readConfiguration(offset: number, bytes: number): number {
    const { configuration } = this.#device;
    let value = 0;
    for (let byte = 0; byte < bytes; byte++) value += (configuration[offset + byte] ?? 0) * 2 ** (8 * byte);
    return value;
  }

  // The domain's side

  /** Goes on with what back ends have finished and with transfers that waited for pages. */
  poll(): void {
    if (!this.#isRunning) return;
    this.#device.process();
    if (this.queues.map((queue) => queue.takeInterrupt()).includes(true)) this.#interrupt(Interrupt.usedBuffer);
  }

  get isBusy(): boolean {
    return this.#device.isBusy;
  }

  // The device's side

  hasFeature(bit: number): boolean {
    return ((this.state.driverFeatures[bit >> 5] ?? 0) & (1 << (bit & 31))) !== 0;
  }

  fail(reason: string): void {
    if (this.state.failure !== null) return;
    this.state.failure = reason;
    this.state.status |= Status.needsReset;
    for (const queue of this.state.queues) queue.ready = false;
    this.#interrupt(Interrupt.configuration);
  }

  configurationChanged(): void {
    this.state.configurationGeneration = (this.state.configurationGeneration + 1) >>> 0;
    if (this.#isRunning) this.#interrupt(Interrupt.configuration);
  }

  wake(): void {
    this.#wake();
  }

  // Registers

  get device(): VirtioDevice {
    return this.#device;
  }

  get selectedQueue(): Virtqueue | undefined {
    return this.queues[this.state.queueSelect];
  }

  /** The largest size of the selected queue; 0 when there is no such queue. */
  get selectedQueueMaximum(): number {
    return this.#device.queueSizes[this.state.queueSelect] ?? 0;
  }

  offeredFeatures(word: number): number {
    return this.#features[word] ?? 0;
  }

  acceptFeatures(word: number, bits: number): void {
    if (word > 1 || this.state.status & Status.featuresOk) return;
    this.state.driverFeatures[word as 0 | 1] = bits;
  }

  /** A driver adds bits; only zero takes them all away. */
  setStatus(value: number): void {
    const { state } = this;
    if (value === 0) {
      this.#reset();
      return;
    }
    const wasRunning = this.#isRunning;
    let added = value & (Status.acknowledge | Status.driver | Status.driverOk | Status.featuresOk | Status.failed);
    if (added & Status.featuresOk && !this.#acceptsFeatures()) added &= ~Status.featuresOk;
    if (added & Status.driverOk && !((state.status | added) & Status.featuresOk)) added &= ~Status.driverOk;
    state.status |= added;
    // The driver may have filled queues, and notified, before it said that it is ready.
    if (this.#isRunning && !wasRunning) this.poll();
  }

  setQueueSize(size: number): void {
    const queue = this.selectedQueue?.state;
    if (queue === undefined || queue.ready) return;
    if (size > 0 && size <= this.selectedQueueMaximum && (size & (size - 1)) === 0) queue.size = size;
  }

  setQueueReady(value: number): void {
    const queue = this.selectedQueue;
    if (queue === undefined || this.state.failure !== null) return;
    if (value !== 1) queue.state.ready = false;
    else if (queue.isWellPlaced) queue.state.ready = true;
    else this.fail(`the driver has put queue ${this.state.queueSelect} at odd addresses`);
  }

  notified(queue: number): void {
    if (queue < this.queues.length) this.poll();
  }

  acknowledgeInterrupt(bits: number): void {
    this.state.interrupt &= ~bits;
    this.#line.set(this.state.interrupt !== 0);
  }

  get #isRunning(): boolean {
    return (this.state.status & Status.driverOk) !== 0 && this.state.failure === null;
  }

  /** Old drivers, which know no version 1, are not served; nor is one that asks for more than was offered. */
  #acceptsFeatures(): boolean {
    const [low, high] = this.state.driverFeatures;
    return (low & ~this.#features[0]) === 0 && (high & ~this.#features[1]) === 0 && this.hasFeature(Feature.version1);
  }

  #interrupt(bits: number): void {
    this.state.interrupt |= bits;
    this.#line.set(true);
  }

  #reset(): void {
    const { state } = this;
    state.status = 0;
    state.failure = null;
    state.deviceFeaturesSelect = 0;
    state.driverFeaturesSelect = 0;
    state.driverFeatures.fill(0);
    state.queueSelect = 0;
    for (const [index, queue] of state.queues.entries()) {
      Object.assign(queue, createQueueState(this.#device.queueSizes[index] as number));
    }
    this.#device.reset();
    this.acknowledgeInterrupt(~0);
  }
}

function featureWord(bits: readonly number[], word: number): number {
  return bits.filter((bit) => bit >> 5 === word).reduce((value, bit) => (value | (1 << (bit & 31))) >>> 0, 0);
}

type Reader = (transport: VirtioMmio) => number;
type Writer = (transport: VirtioMmio, value: number) => void;

/** No shared memory regions: their length reads as −1 (4.2.2). */
const NO_SHARED_MEMORY: Reader = () => 0xffff_ffff;

/** What each register reads as; those that are only written read as 0. */
const READERS: Readonly<Record<number, Reader>> = {
  [Register.magic]: () => MAGIC,
  [Register.version]: () => VERSION,
  [Register.deviceId]: ({ device }) => device.kind,
  [Register.vendorId]: () => VENDOR,
  [Register.deviceFeatures]: (transport) => transport.offeredFeatures(transport.state.deviceFeaturesSelect),
  [Register.queueSizeMaximum]: (transport) => transport.selectedQueueMaximum,
  [Register.queueReady]: ({ selectedQueue }) => (selectedQueue?.state.ready ? 1 : 0),
  [Register.interruptStatus]: ({ state }) => state.interrupt,
  [Register.status]: ({ state }) => state.status,
  [Register.sharedMemoryLengthLow]: NO_SHARED_MEMORY,
  [Register.sharedMemoryLengthHigh]: NO_SHARED_MEMORY,
  [Register.sharedMemoryBaseLow]: NO_SHARED_MEMORY,
  [Register.sharedMemoryBaseHigh]: NO_SHARED_MEMORY,
  [Register.configurationGeneration]: ({ state }) => state.configurationGeneration,
};

const WRITERS: Readonly<Record<number, Writer>> = {
  [Register.deviceFeaturesSelect]: ({ state }, value) => {
    state.deviceFeaturesSelect = value;
  },
  [Register.driverFeaturesSelect]: ({ state }, value) => {
    state.driverFeaturesSelect = value;
  },
  [Register.driverFeatures]: (transport, value) => {
    transport.acceptFeatures(transport.state.driverFeaturesSelect, value);
  },
  [Register.queueSelect]: ({ state }, value) => {
    state.queueSelect = value;
  },
  [Register.queueSize]: (transport, value) => transport.setQueueSize(value),
  [Register.queueReady]: (transport, value) => transport.setQueueReady(value),
  [Register.queueNotify]: (transport, value) => transport.notified(value),
  [Register.interruptAcknowledge]: (transport, value) => transport.acknowledgeInterrupt(value),
  [Register.status]: (transport, value) => transport.setStatus(value),
  ...areaWriters('descriptors', Register.queueDescriptorsLow, Register.queueDescriptorsHigh),
  ...areaWriters('driver', Register.queueDriverLow, Register.queueDriverHigh),
  ...areaWriters('device', Register.queueDeviceLow, Register.queueDeviceHigh),
};

/** The address of a queue's area comes in two halves, in either order, and must not change while the queue is in use. */
function areaWriters(
  area: 'descriptors' | 'driver' | 'device',
  low: Register,
  high: Register,
): Readonly<Record<number, Writer>> {
  const set = (transport: VirtioMmio, change: (address: number) => number): void => {
    const queue = transport.selectedQueue?.state;
    if (queue !== undefined && !queue.ready) queue[area] = change(queue[area]) as GuestPhysical;
  };
  const WORD = 0x1_0000_0000;
  return {
    [low]: (transport, value) => set(transport, (address) => Math.floor(address / WORD) * WORD + value),
    [high]: (transport, value) => set(transport, (address) => value * WORD + (address % WORD)),
  };
}
