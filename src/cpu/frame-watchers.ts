import type { Frame } from '../x86/brand.ts';
import { FrameMark, type FrameMarks } from './frame-marks.ts';

/** Sees each store to a frame that it watches, right after it; from a processor, a device or the host itself. */
export interface FrameWatcher {
  /** @param page what the watcher calls the frame; `offset` and `length` in it */
  written(page: number, offset: number, length: number): void;
}

/** By whom stores can be watched. */
export interface FrameWatching {
  /** Begins to show a watcher all stores to a frame. */
  watch(frame: Frame, watcher: FrameWatcher, page: number): void;
  /** Ends what one `watch` with the same arguments began. */
  unwatch(frame: Frame, watcher: FrameWatcher, page: number): void;
}

interface Watch {
  readonly watcher: FrameWatcher;
  readonly page: number;
}

/** Who watches which frame. Guests that share a frame can watch it at the same time. */
export class FrameWatchers {
  readonly #marks: FrameMarks;
  /** The arrays are replaced and never changed: a watcher may watch others, or stop, while it is told. */
  readonly #watches = new Map<Frame, readonly Watch[]>();

  constructor(marks: FrameMarks) {
    this.#marks = marks;
  }

  /** The caller has removed all writable translations of the frame. */
  add(frame: Frame, watcher: FrameWatcher, page: number): void {
    this.#watches.set(frame, [...(this.#watches.get(frame) ?? []), { watcher, page }]);
    this.#marks.set(frame, FrameMark.watched);
  }

  remove(frame: Frame, watcher: FrameWatcher, page: number): void {
    const left = this.#watches.get(frame)?.filter((watch) => watch.watcher !== watcher || watch.page !== page) ?? [];
    if (left.length > 0) {
      this.#watches.set(frame, left);
      return;
    }
    this.#watches.delete(frame);
    this.#marks.clear(frame, FrameMark.watched);
  }

  /** Bytes of a frame that is marked as watched were written. */
  written(frame: Frame, offset: number, length: number): void {
    for (const { watcher, page } of this.#watches.get(frame) ?? []) watcher.written(page, offset, length);
  }
}
