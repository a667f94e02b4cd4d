import type { FrameInvalidator } from '../cpu/translation.ts';
import type { MachineSpace } from '../memory/machine-space.ts';
import type { Frame } from '../x86/brand.ts';

/**
 * The log of written pages of a guest, whatever its paging: translations are what a processor writes through, so with them
 * every store can be known. Those that allow writing go when a page leaves the log, and come back with its next store.
 */
export class DirtyPages {
  readonly #space: MachineSpace;
  readonly #invalidator: Pick<FrameInvalidator, 'invalidateWritable'>;

  constructor(space: MachineSpace, invalidator: Pick<FrameInvalidator, 'invalidateWritable'>) {
    this.#space = space;
    this.#invalidator = invalidator;
  }

  /** Begins to log, with no page listed. */
  start(): void {
    const { log, frames, limit } = this.#space;
    log.start(limit);
    for (const frame of frames) if (frame >= 0) this.#invalidator.invalidateWritable(frame as Frame);
  }

  /** Numbers of the pages that were written since the start, or since this was last asked; none without a log. */
  read(): number[] {
    const { log, frames } = this.#space;
    const pages = log.take();
    for (const page of pages) {
      const frame = frames[page] as Frame;
      if (frame >= 0) this.#invalidator.invalidateWritable(frame);
    }
    return pages;
  }

  /** Ends the log. */
  stop(): void {
    this.#space.log.stop();
  }
}
