import type { FrameInvalidator } from '../cpu/translation.ts';
import type { InterruptLine } from '../devices/mmio.ts';
import { PageAbsent } from '../memory/page-absent.ts';
import type { MemoryError } from '../mm/errors.ts';
import type { NestedPaging } from '../paging/nested/nested-paging.ts';
import { type GuestPhysical, type Mfn, PAGE_SHIFT } from '../x86/brand.ts';
import { Physical } from './layout.ts';

/** Bytes of the identifier. */
export const GENERATION_BYTES = 16;

/**
 * The generation of a guest (Microsoft's "Virtual Machine Generation ID", which QEMU and others have too): an identifier in
 * its memory that is another one whenever the guest may not be the only one that has its state. ACPI tells the kernel of
 * the change, which then makes its random numbers anew.
 */
export class Generation {
  readonly #paging: NestedPaging;
  readonly #invalidator: Pick<FrameInvalidator, 'frameWritten'>;
  readonly #line: InterruptLine;

  /** @param line of the event that tells of a change */
  constructor(paging: NestedPaging, invalidator: Pick<FrameInvalidator, 'frameWritten'>, line: InterruptLine) {
    this.#paging = paging;
    this.#invalidator = invalidator;
    this.#line = line;
  }

  /** Gives the guest, which stands still, another identifier, and tells it. */
  async change(identifier: Uint8Array): Promise<MemoryError | undefined> {
    for (;;) {
      try {
        this.#write(identifier);
        break;
      } catch (absent) {
        if (!(absent instanceof PageAbsent)) throw absent;
        const failed = await this.#paging.pager?.bringIn(absent.page as Mfn, absent.write);
        if (failed) return failed;
      }
    }
    this.#line.set(true);
    this.#line.set(false);
    return undefined;
  }

  #write(identifier: Uint8Array): void {
    const { space } = this.#paging;
    const page = (Physical.generation >> PAGE_SHIFT) as Mfn;
    space.requireWritable(page);
    const address = this.#paging.addressOf(Physical.generation as GuestPhysical);
    space.pool.memory.u8.set(identifier, address);
    const frame = space.frameOf(page);
    this.#invalidator.frameWritten(frame, address - space.pool.addressOf(frame), identifier.length);
  }
}
