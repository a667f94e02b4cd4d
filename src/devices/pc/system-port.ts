import type { MmioDevice } from '../mmio.ts';
import type { TimerChannel } from './timer-channel.ts';

/** Bits of port 0x61 (82371SB, 2.5.7): the first four are the guest's to write. */
const enum Bit {
  gate = 0x01,
  writable = 0x0f,
  refresh = 0x10,
  output = 0x20,
}

/** Memory refreshes, which programs took for a clock, are this far apart. Nanoseconds. */
const REFRESH = 15_085;

/**
 * Port 0x61: the gate and the output of the timer's third channel, with a speaker that nobody hears. It has no state but
 * the bits that were written.
 */
export class SystemPort implements MmioDevice {
  readonly #channel: TimerChannel;
  readonly #now: () => number;
  written = 0;

  constructor(channel: TimerChannel, now: () => number) {
    this.#channel = channel;
    this.#now = now;
  }

  read(): number {
    const refresh = Math.floor(this.#now() / REFRESH) % 2 === 1 ? Bit.refresh : 0;
    return this.written | refresh | (this.#channel.output ? Bit.output : 0);
  }

  write(_offset: number, _bytes: number, value: number): void {
    this.written = value & Bit.writable;
    this.#channel.gate = (value & Bit.gate) !== 0;
  }
}
