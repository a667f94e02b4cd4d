import type { Archive, Archived } from '../../archive/archive.ts';
import { InputError } from '../../boot/input-error.ts';
import type { DmaCounters, DmaTable } from '../../devices/dma/table.ts';
import type { VirtioDevice } from '../../devices/virtio/device.ts';
import type { HostMemory } from '../../memory/host-memory.ts';
import type { NestedPaging } from '../../paging/nested/nested-paging.ts';
import { type Gfn, type GuestPhysical, type HostAddress, PAGE_SIZE } from '../../x86/brand.ts';
import { INTERRUPT_LINES, TIMER_LINE } from './abi.ts';
import { LguestDevice, ringBytes } from './device.ts';
import { type DescriptorFormat, DeviceDescriptor, type QueuePlace } from './device-descriptor.ts';

const pagesOf = (size: number): number => Math.ceil(ringBytes(size) / PAGE_SIZE);

/**
 * Pages of the bus: one for the descriptors, and those of the queues.
 * @throws InputError when there are more devices than the interrupt lines suffice for; their descriptors fit into a page
 */
export function busPages(devices: readonly VirtioDevice[]): number {
  const sizes = devices.flatMap(({ queueSizes }) => queueSizes);
  if (sizes.length > INTERRUPT_LINES - 1) {
    throw new InputError(
      `a guest of lguest has ${INTERRUPT_LINES - 1} interrupts for devices, and these need ${sizes.length}`,
    );
  }
  return 1 + sizes.reduce((sum, size) => sum + pagesOf(size), 0);
}

export interface LguestBusOptions {
  readonly devices: readonly VirtioDevice[];
  /** Through which all devices reach the guest's memory. */
  readonly memory: DmaTable;
  readonly paging: NestedPaging;
  readonly host: HostMemory;
  /** Told of bytes of the guest's memory that the bus has written: they may be code, or a page table. */
  readonly written: (address: HostAddress, bytes: number) => void;
  /** The page behind the guest's RAM; as many as `busPages` says are the bus's. */
  readonly firstPage: number;
  /** How the guest reads descriptors: known when it has its kernel. */
  readonly format: () => DescriptorFormat;
  readonly raise: (line: number) => void;
  /** Called when `poll` has something to do. */
  readonly onWork: () => void;
}

interface Slot {
  readonly descriptor: DeviceDescriptor;
  readonly transport: LguestDevice;
  readonly queues: readonly QueuePlace[];
}

/** lguest's bus: pages above the guest's memory that describe virtio devices and hold their queues. */
export class LguestBus implements Archived {
  readonly #slots: readonly Slot[];
  readonly #memory: DmaTable;
  readonly #paging: NestedPaging;
  readonly #host: HostMemory;
  readonly #written: LguestBusOptions['written'];
  readonly #firstPage: number;
  readonly #onWork: () => void;
  #isWoken = false;

  constructor(options: LguestBusOptions) {
    this.#memory = options.memory;
    this.#paging = options.paging;
    this.#host = options.host;
    this.#written = options.written;
    this.#firstPage = options.firstPage;
    this.#onWork = options.onWork;
    let page = options.firstPage + 1;
    let line = TIMER_LINE + 1;
    this.#slots = options.devices.map((device, index) => {
      const queues = device.queueSizes.map((size) => {
        const place = { size, line: line++, page };
        page += pagesOf(size);
        return place;
      });
      const descriptor = new DeviceDescriptor(
        device,
        () => this.#viewOf(index),
        ({ byteOffset, byteLength }) => this.#written(byteOffset as HostAddress, byteLength),
        options.format,
      );
      const transport = new LguestDevice({
        device,
        descriptor,
        rings: queues.map((queue) => (queue.page * PAGE_SIZE) as GuestPhysical),
        memory: options.memory,
        interrupt: (queue) => options.raise((queues[queue] as (typeof queues)[number]).line), // one for each
        wake: () => this.wake(),
      });
      return { descriptor, transport, queues };
    });
  }

  archive(archive: Archive): void {
    archive.parts(
      'devices',
      this.#slots.map(({ transport }) => transport),
    );
    this.#isWoken = archive.value('isWoken', this.#isWoken);
  }

  /** Writes what the guest finds. The descriptors' page stays where it is: devices look at it between turns. */
  start(): void {
    this.#paging.pin(this.#firstPage as Gfn);
    for (const { descriptor, queues } of this.#slots) descriptor.write(queues);
  }

  /** Guest-physical address of a descriptor, which notifications name: they stand one behind the other. */
  #addressOf(index: number): number {
    const before = this.#slots.slice(0, index);
    return this.#firstPage * PAGE_SIZE + before.reduce((sum, { descriptor }) => sum + descriptor.bytes, 0);
  }

  #viewOf(index: number): DataView {
    const address = this.#paging.addressOf(this.#addressOf(index) as GuestPhysical);
    return new DataView(this.#host.view.buffer, address, this.#slots[index]?.descriptor.bytes);
  }

  /**
   * A driver has written its status, or put something into a queue.
   * @returns false when there is nothing at the address. @throws PageAbsent
   */
  notified(physical: number): boolean {
    for (const [index, slot] of this.#slots.entries()) {
      if (this.#addressOf(index) === physical) {
        if (slot.descriptor.status === 0) this.#reset(slot);
        return true;
      }
      if (slot.transport.rings.includes(physical as GuestPhysical)) {
        slot.transport.notified();
        return true;
      }
    }
    return false;
  }

  /** The memory of the queues is empty for the next driver. @throws PageAbsent, to be done again */
  #reset({ transport, queues }: Slot): void {
    for (const { size, page } of queues) {
      for (let index = 0; index < pagesOf(size); index++) {
        const address = this.#paging.addressOf(((page + index) * PAGE_SIZE) as GuestPhysical);
        this.#host.u8.fill(0, address, address + PAGE_SIZE);
        this.#written(address, PAGE_SIZE);
      }
    }
    transport.reset();
  }

  /** Whether a back end or a page has yet to come: with virtual time, the guest must wait for it. */
  get isBusy(): boolean {
    return this.#memory.memory.isWaiting || this.#slots.some(({ transport }) => transport.isBusy);
  }

  /** Asks for a call of `poll`. */
  wake(): void {
    this.#isWoken = true;
    this.#onWork();
  }

  /** Lets devices go on that back ends or arrived pages have woken. */
  poll(): void {
    if (!this.#isWoken) return;
    this.#isWoken = false;
    for (const { transport } of this.#slots) transport.poll();
  }

  /** What the DMA table did so far. */
  get counters(): DmaCounters {
    return { ...this.#memory.counters };
  }

  destroy(): void {
    for (const { transport } of this.#slots) transport.destroy();
  }
}
