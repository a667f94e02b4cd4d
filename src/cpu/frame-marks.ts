import type { Frame } from '../x86/brand.ts';
import { RecentChanges } from './recent-changes.ts';

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

/**
 * One byte of marks a frame, for all processors of a host. Marks say "maybe"; they make scans rare. Invalidations have
 * numbers, and each frame remembers its last ones: TLBs that are not in use catch up by them when they come back.
 */
export class FrameMarks {
  readonly #marks: Uint8Array;
  readonly #removed: Float64Array;
  readonly #protected: Float64Array;
  /** Frames that were invalidated. */
  readonly invalidations = new RecentChanges();

  constructor(frames: number) {
    this.#marks = new Uint8Array(frames);
    this.#removed = new Float64Array(frames);
    this.#protected = new Float64Array(frames);
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

  /** Records that entries of a frame are no longer good, or no longer for writing. */
  invalidated(frame: Frame, writableOnly: boolean): void {
    this.invalidations.note(frame);
    (writableOnly ? this.#protected : this.#removed)[frame] = this.invalidations.count;
    this.clear(frame, writableOnly ? FrameMark.cachedWritable : FrameMark.cached | FrameMark.cachedWritable);
  }

  /** Whether all entries of a frame were invalidated after the invalidation of that number. */
  removedSince(frame: number, number: number): boolean {
    return (this.#removed[frame] as number) > number;
  }

  /** Whether entries that allow writing were. */
  protectedSince(frame: number, number: number): boolean {
    return (this.#protected[frame] as number) > number;
  }
}
