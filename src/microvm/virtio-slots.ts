import type { AcpiDevice } from '../boot/acpi.ts';
import type { FrameInvalidator } from '../cpu/translation.ts';
import type { Bus } from '../devices/bus.ts';
import { ResidentMemory } from '../devices/dma/resident-memory.ts';
import { DmaTable } from '../devices/dma/table.ts';
import { IO_APIC_PINS, type IoApic } from '../devices/pc/io-apic.ts';
import type { VirtioDevice } from '../devices/virtio/device.ts';
import { VirtioMmio } from '../devices/virtio/mmio-transport.ts';
import { REGISTER_WINDOW } from '../devices/virtio/registers.ts';
import type { FramePool } from '../memory/frame-pool.ts';
import { Physical, Pin, WINDOW_BYTES } from './layout.ts';

/** As many as there are pins of the I/O APIC for them. */
export const MOST_VIRTIO_DEVICES = IO_APIC_PINS - Pin.virtio;

export interface VirtioSlotsOptions {
  readonly devices: readonly VirtioDevice[];
  readonly pool: FramePool;
  readonly invalidator: FrameInvalidator;
  /** Frame of each guest-physical page. */
  readonly frames: Int32Array;
  readonly ioApic: IoApic;
  /** Called when `poll` has something to do. */
  readonly onWork: () => void;
}

/** The virtio devices of a microVM, each with a page of registers and a pin, all with one DMA table. */
export class VirtioSlots {
  readonly #devices: readonly VirtioDevice[];
  readonly #transports: readonly VirtioMmio[];
  readonly #memory: DmaTable;
  #isWoken = false;

  constructor(options: VirtioSlotsOptions) {
    const { devices, pool, invalidator, frames, ioApic } = options;
    if (devices.length > MOST_VIRTIO_DEVICES) {
      throw new RangeError(`a microVM has at most ${MOST_VIRTIO_DEVICES} virtio devices, not ${devices.length}`);
    }
    this.#devices = devices;
    const memory = new DmaTable(pool, new ResidentMemory(frames, invalidator));
    const wake = (): void => {
      this.#isWoken = true;
      options.onWork();
    };
    this.#memory = memory;
    this.#transports = devices.map(
      (device, index) => new VirtioMmio({ device, memory, line: ioApic.line(Pin.virtio + index), wake }),
    );
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

  /** Lets devices go on that back ends or arrived pages have woken. */
  poll(): void {
    if (!this.#isWoken) return;
    this.#isWoken = false;
    for (const transport of this.#transports) transport.poll();
  }

  destroy(): void {
    for (const device of this.#devices) device.close?.();
  }
}

function addressOf(index: number): number {
  return Physical.virtio + index * WINDOW_BYTES;
}
