import type { Frame } from '../x86/brand.ts';

/** What the processors of a host have cached of a frame. */
export const enum FrameMark {
  /** Decoded code covers bytes of the frame; its write tags stay invalid. */
  code = 1,
  /** Some TLB may hold an entry of the frame. */
  cached = 2,
  /** Some TLB may hold an entry that allows writing. */
  cachedWritable = 4,
  /** Stores must be seen by the host (dirty log, watchpoint); write tags stay invalid. */
  watched = 8,
}

/** One byte of marks a frame, for all processors of a host. Marks say "maybe"; they make scans rare. */
export class FrameMarks {
  readonly #marks: Uint8Array;

  constructor(frames: number) {
    this.#marks = new Uint8Array(frames);
  }

  has(frame: Frame, mark: FrameMark): boolean {
    return ((this.#marks[frame] ?? 0) & mark) !== 0;
  }

  set(frame: Frame, mark: FrameMark): void {
    this.#marks[frame] = (this.#marks[frame] ?? 0) | mark;
  }

  clear(frame: Frame, mark: FrameMark): void {
    this.#marks[frame] = (this.#marks[frame] ?? 0) & ~mark;
  }
}
