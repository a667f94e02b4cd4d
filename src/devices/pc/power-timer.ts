import type { MmioDevice } from '../mmio.ts';

const FREQUENCY = 3_579_545;
const NANOSECONDS = 1_000_000_000;
/** Unless the FADT says otherwise, it has 24 bits. */
const MODULUS = 0x100_0000;

/**
 * ACPI's power management timer (ACPI 6.4, 4.8.2.1): a count that kernels measure other clocks by. They read it between
 * two looks at the TSC and can tell when the host was busy elsewhere, which waiting for the 8254 does not forgive.
 */
export class PowerTimer implements MmioDevice {
  readonly #now: () => number;

  /** @param now system time in nanoseconds */
  constructor(now: () => number) {
    this.#now = now;
  }

  read(offset: number, bytes: number): number {
    const count = Math.floor((this.#now() * FREQUENCY) / NANOSECONDS) % MODULUS;
    return Math.floor(count / 2 ** (8 * offset)) % 2 ** (8 * bytes);
  }

  /** It is not for writing. */
  write(): void {}
}
