import type { PhysicalDevices } from '../cpu/translation.ts';
import type { MmioDevice } from './mmio.ts';

/** A device with its place on a bus. */
interface Window {
  readonly first: number;
  readonly end: number;
  readonly device: MmioDevice;
}

/**
 * The devices of one address space, guest-physical or of I/O ports. Where there is none, reads give all ones and writes go
 * nowhere, as on a PC's bus.
 */
export class Bus implements PhysicalDevices {
  readonly #windows: Window[] = [];

  /** @param bytes that the device's registers take, from `first` on */
  add(first: number, bytes: number, device: MmioDevice): void {
    const end = first + bytes;
    if (this.#windows.some((other) => first < other.end && other.first < end)) {
      throw new RangeError(`two devices at address 0x${first.toString(16)}`);
    }
    this.#windows.push({ first, end, device });
  }

  #at(address: number): Window | undefined {
    for (const window of this.#windows) if (address >= window.first && address < window.end) return window;
    return undefined;
  }

  load(address: number, bytes: number): number {
    const window = this.#at(address);
    if (!window) return bytes === 4 ? 0xffff_ffff : 2 ** (bytes * 8) - 1;
    return window.device.read(address - window.first, bytes);
  }

  store(address: number, bytes: number, value: number): void {
    const window = this.#at(address);
    window?.device.write(address - window.first, bytes, value);
  }
}
