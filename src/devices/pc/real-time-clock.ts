import type { Archive, Archived } from '../../archive/archive.ts';
import type { MmioDevice } from '../mmio.ts';

/** Offsets of the two ports: the number of a register, and its content. */
const enum Port {
  index = 0,
  data = 1,
}

const enum Register {
  statusA = 10,
  statusB = 11,
  statusC = 12,
  statusD = 13,
  century = 0x32,
}

/** 32.768 kHz, and no update in progress. */
const STATUS_A = 0x26;
/** 24 hours, binary-coded decimals. */
const STATUS_B = 0x02;
/** The battery is good. */
const STATUS_D = 0x80;

function decimal(value: number): number {
  return (Math.floor(value / 10) << 4) | (value % 10);
}

/** What each register of the date gives; days of the week and months count from 1. */
const DATE: Readonly<Record<number, (date: Date) => number>> = {
  0: (date) => date.getUTCSeconds(),
  2: (date) => date.getUTCMinutes(),
  4: (date) => date.getUTCHours(),
  6: (date) => date.getUTCDay() + 1,
  7: (date) => date.getUTCDate(),
  8: (date) => date.getUTCMonth() + 1,
  9: (date) => date.getUTCFullYear() % 100,
  [Register.century]: (date) => Math.floor(date.getUTCFullYear() / 100),
};

const STATUS: Readonly<Record<number, number>> = {
  [Register.statusA]: STATUS_A,
  [Register.statusB]: STATUS_B,
  [Register.statusC]: 0,
  [Register.statusD]: STATUS_D,
};

/** The MC146818 as far as kernels need it: the date, in UTC. It cannot be set and has no alarm. */
export class RealTimeClock implements MmioDevice, Archived {
  readonly #seconds: () => number;
  #index = 0;

  /** @param seconds since 1970 */
  constructor(seconds: () => number) {
    this.#seconds = seconds;
  }

  archive(archive: Archive): void {
    this.#index = archive.value('index', this.#index);
  }

  read(offset: number): number {
    if (offset !== Port.data) return 0xff;
    const field = DATE[this.#index];
    return field ? decimal(field(new Date(this.#seconds() * 1000))) : (STATUS[this.#index] ?? 0);
  }

  write(offset: number, _bytes: number, value: number): void {
    // Bit 7 masks NMIs.
    if (offset === Port.index) this.#index = value & 0x7f;
  }
}
