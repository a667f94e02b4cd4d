import type { FrameInvalidator } from '../../cpu/translation.ts';
import type { Frame, Gfn } from '../../x86/brand.ts';
import { type DmaMemory, DmaMiss } from './memory.ts';

/** Guest memory that never leaves the host's: a fixed frame for each page of RAM. */
export class ResidentMemory implements DmaMemory {
  readonly isWaiting = false;
  readonly #frames: Int32Array;
  readonly #invalidator: Pick<FrameInvalidator, 'frameWritten'>;

  /** @param frames by guest-physical page, −1 where there is no RAM */
  constructor(frames: Int32Array, invalidator: Pick<FrameInvalidator, 'frameWritten'>) {
    this.#frames = frames;
    this.#invalidator = invalidator;
  }

  get pages(): number {
    return this.#frames.length;
  }

  map(gfn: Gfn): Frame | DmaMiss {
    const frame = this.#frames[gfn] ?? -1;
    return frame < 0 ? DmaMiss.refused : (frame as Frame);
  }

  fetch(gfn: Gfn): void {
    throw new Error(`guest-physical page ${gfn} of a resident memory is never absent`);
  }

  written(frame: Frame, offset: number, length: number): void {
    this.#invalidator.frameWritten(frame, offset, length);
  }
}
