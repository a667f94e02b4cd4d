import type { MmioDevice } from '../mmio.ts';

/** Registers of a hardware-reduced ACPI machine, by offset (ACPI 6.4, 4.8.3.6 and 4.8.3.7), and the reset register. */
export const enum PowerRegister {
  sleepControl = 0,
  sleepStatus = 1,
  reset = 2,
  size = 3,
}

/** What the DSDT's \_S5 says, and SLP_TYP of a power-off. */
export const SLEEP_TYPE_OFF = 5;
/** What the FADT says is to be written to the reset register. */
export const RESET_VALUE = 1;

const SLEEP_ENABLE = 0x20;
const SLEEP_TYPE_SHIFT = 2;
/** The status register after a wake-up, which there is none of. */
const NEVER_WOKEN = 0;

/** Power off and reset. */
export class PowerRegisters implements MmioDevice {
  readonly #powerOff: () => void;
  readonly #reset: () => void;

  constructor(powerOff: () => void, reset: () => void) {
    this.#powerOff = powerOff;
    this.#reset = reset;
  }

  read(): number {
    return NEVER_WOKEN;
  }

  write(offset: number, _bytes: number, value: number): void {
    if (offset === PowerRegister.reset && value === RESET_VALUE) this.#reset();
    const off = (value & SLEEP_ENABLE) !== 0 && ((value >> SLEEP_TYPE_SHIFT) & 7) === SLEEP_TYPE_OFF;
    if (offset === PowerRegister.sleepControl && off) this.#powerOff();
  }
}
