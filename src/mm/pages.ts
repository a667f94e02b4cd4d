import { NO_FRAME } from '../memory/frame-pool.ts';
import type { Frame } from '../x86/brand.ts';
import { NO_SLOT } from './swap.ts';

/** What the memory manager uses a frame of the pool for. */
export const enum PageKind {
  /** Not the memory manager's: free, or a domain's or the host's own. */
  none = 0,
  table = 1,
  anonymous = 2,
  file = 3,
}

/**
 * One descriptor for each frame of the pool, as columns.
 *
 * The page lock is held across awaits, while a page is read in or written out; a page that is mapped is locked only
 * for the length of a synchronous step.
 */
export class Pages {
  readonly kind: Uint8Array;
  /** Entries of host page tables that map the page. */
  readonly mapCount: Int32Array;
  /** Pins: reasons to stay where it is. */
  readonly pins: Int32Array;
  /** Address spaces that map it and may not lose it; a writer of a shared page gets a copy none the less. */
  readonly retained: Int32Array;
  /** Of an anonymous page its swap slot, or −1; of a file's page its index in the file. Rmap stands elsewhere. */
  readonly private: Int32Array;
  /** The swap slot does not hold what the page holds. */
  readonly dirty: Uint8Array;
  /** Was used lately, though no entry says so: it was just read in. */
  readonly referenced: Uint8Array;
  readonly #locked: Uint8Array;
  readonly #waiting = new Map<Frame, (() => void)[]>();

  constructor(frames: number) {
    this.kind = new Uint8Array(frames);
    this.mapCount = new Int32Array(frames);
    this.pins = new Int32Array(frames);
    this.retained = new Int32Array(frames);
    this.private = new Int32Array(frames).fill(NO_SLOT);
    this.dirty = new Uint8Array(frames);
    this.referenced = new Uint8Array(frames);
    this.#locked = new Uint8Array(frames);
  }

  adopt(frame: Frame, kind: PageKind): void {
    this.kind[frame] = kind;
    this.mapCount[frame] = 0;
    this.pins[frame] = 0;
    this.retained[frame] = 0;
    this.private[frame] = NO_SLOT;
    this.dirty[frame] = 0;
    this.referenced[frame] = 0;
  }

  /** Whether a frame must not be taken away from those who map it. */
  mustStay(frame: Frame): boolean {
    return this.pins[frame] !== 0 || this.retained[frame] !== 0;
  }

  disown(frame: Frame): void {
    this.kind[frame] = PageKind.none;
  }

  /** The swap slot of an anonymous page, or −1. */
  slot(frame: Frame): number {
    return this.private[frame] ?? NO_SLOT;
  }

  clearSlot(frame: Frame): void {
    this.private[frame] = NO_SLOT;
  }

  isLocked(frame: Frame): boolean {
    return this.#locked[frame] !== 0;
  }

  tryLock(frame: Frame): boolean {
    if (frame === NO_FRAME || this.isLocked(frame)) return false;
    this.#locked[frame] = 1;
    return true;
  }

  unlock(frame: Frame): void {
    this.#locked[frame] = 0;
    const waiting = this.#waiting.get(frame);
    if (!waiting) return;
    this.#waiting.delete(frame);
    for (const resume of waiting) resume();
  }

  /** Settles when a page's lock is next given up; who waited looks at everything again. */
  whenUnlocked(frame: Frame): Promise<void> {
    return new Promise((resume) => {
      const waiting = this.#waiting.get(frame);
      if (waiting) waiting.push(resume);
      else this.#waiting.set(frame, [resume]);
    });
  }
}
