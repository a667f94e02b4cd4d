import type { Archive, Archived } from '../archive/archive.ts';
import type { AcpiDevice } from '../boot/acpi.ts';
import type { Bus } from '../devices/bus.ts';
import type { DmaCounters, DmaTable } from '../devices/dma/table.ts';
import { IO_APIC_PINS, type IoApic } from '../devices/pc/io-apic.ts';
import type { VirtioDevice } from '../devices/virtio/device.ts';
import { VirtioMmio } from '../devices/virtio/mmio-transport.ts';
import { REGISTER_WINDOW } from '../devices/virtio/registers.ts';
import { Physical, Pin, WINDOW_BYTES } from './layout.ts';

/** As many as there are pins of the I/O APIC for them. */
export const MOST_VIRTIO_DEVICES = IO_APIC_PINS - Pin.virtio;

export interface VirtioSlotsOptions {
  readonly devices: readonly VirtioDevice[];
  /** Through which all devices reach the guest's memory. */
  readonly memory: DmaTable;
  readonly ioApic: IoApic;
  /** Called when `poll` has something to do. */
  readonly onWork: () => void;
}

/** The virtio devices of a microVM, each with a page of registers and a pin, all with one DMA table. */
export class VirtioSlots implements Archived {
  readonly #devices: readonly VirtioDevice[];
  readonly #transports: readonly VirtioMmio[];
  readonly #memory: DmaTable;
  readonly #onWork: () => void;
  #isWoken = false;

  constructor(options: VirtioSlotsOptions) {
    const { devices, memory, ioApic } = options;
    if (devices.length > MOST_VIRTIO_DEVICES) {
      throw new RangeError(`a microVM has at most ${MOST_VIRTIO_DEVICES} virtio devices, not ${devices.length}`);
    }
    this.#devices = devices;
    this.#memory = memory;
    this.#onWork = options.onWork;
    const wake = (): void => this.wake();
    this.#transports = devices.map(
      (device, index) => new VirtioMmio({ device, memory, line: ioApic.line(Pin.virtio + index), wake }),
    );
  }

  archive(archive: Archive): void {
    archive.parts('transports', this.#transports);
    this.#isWoken = archive.value('isWoken', this.#isWoken);
  }

  /** What the DSDT says of them. */
  get descriptions(): readonly AcpiDevice[] {
    return this.#transports.map((_, index) => ({
      name: `VR${String(index).padStart(2, '0')}`,
      identifier: 'LNRO0005',
      unique: index,
      memory: { first: addressOf(index), bytes: REGISTER_WINDOW },
      interrupt: { line: Pin.virtio + index, edgeTriggered: false },
    }));
  }

  addTo(bus: Bus): void {
    for (const [index, transport] of this.#transports.entries()) bus.add(addressOf(index), REGISTER_WINDOW, transport);
  }

  /** Whether a back end or a page has yet to come: with virtual time, the guest must wait for it. */
  get isBusy(): boolean {
    return this.#memory.memory.isWaiting || this.#transports.some((transport) => transport.isBusy);
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
    for (const transport of this.#transports) transport.poll();
  }

  /** What the DMA table did so far; the end of the domain takes all entries away, and does not count. */
  get counters(): DmaCounters {
    return { ...this.#memory.counters };
  }

  destroy(): void {
    for (const device of this.#devices) device.close?.();
  }
}

function addressOf(index: number): number {
  return Physical.virtio + index * WINDOW_BYTES;
}
