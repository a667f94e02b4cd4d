import type { MmioDevice } from '../mmio.ts';

/** Pulses the lowest line of the output port, which is the processor's reset. */
const PULSE_RESET = 0xfe;

/** The command port of a keyboard controller that is not there, but for the one command that restarts a PC. */
export class KeyboardReset implements MmioDevice {
  readonly #reset: () => void;

  constructor(reset: () => void) {
    this.#reset = reset;
  }

  read(): number {
    return 0xff;
  }

  write(_offset: number, _bytes: number, value: number): void {
    if ((value & 0xff) === PULSE_RESET) this.#reset();
  }
}
