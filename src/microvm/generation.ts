import type { InterruptLine } from '../devices/mmio.ts';
import type { MemoryError } from '../mm/errors.ts';
import type { GuestRam } from '../paging/guest-pages.ts';
import { Physical } from './layout.ts';

/** Bytes of the identifier. */
export const GENERATION_BYTES = 16;

/**
 * The generation of a guest (Microsoft's "Virtual Machine Generation ID", which QEMU and others have too): an identifier in
 * its memory that is another one whenever the guest may not be the only one that has its state. ACPI tells the kernel of
 * the change, which then makes its random numbers anew.
 */
export class Generation {
  readonly #ram: Pick<GuestRam, 'store'>;
  readonly #line: InterruptLine;

  /** @param line of the event that tells of a change */
  constructor(ram: Pick<GuestRam, 'store'>, line: InterruptLine) {
    this.#ram = ram;
    this.#line = line;
  }

  /** Gives the guest, which stands still, another identifier, and tells it. */
  async change(identifier: Uint8Array): Promise<MemoryError | undefined> {
    const failed = await this.#ram.store(Physical.generation, identifier);
    if (failed) return failed;
    this.#line.set(true);
    this.#line.set(false);
    return undefined;
  }
}
