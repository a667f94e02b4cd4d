import { type Frame, type HostAddress, PAGE_SHIFT, PAGE_SIZE } from '../x86/brand.ts';
import type { HostMemory } from './host-memory.ts';

export const NO_FRAME = -1 as Frame;
/** In place of a frame: there is a page, but the host must bring it in before it has one. */
export const ABSENT_FRAME = -2 as Frame;

/** The pool has no free frame left. */
export class OutOfFrames extends Error {
  /** @param run frames in a row that were asked for, of which some may be free */
  constructor(total: number, run?: number) {
    const pool = `${total} frames (${(total * PAGE_SIZE) >> 20} MiB) of the host's pool`;
    super(run === undefined ? `all ${pool} are in use` : `no ${run} in a row are free among the ${pool}`);
  }
}

/**
 * The machine frames of a host. A frame has one owner at a time (a domain, or the host itself); who that is, the
 * owner's machine space knows. Frames are handed out zeroed.
 */
export class FramePool {
  readonly memory: HostMemory;
  readonly total: number;
  readonly #base: HostAddress;
  readonly #free: Int32Array;
  #freeCount = 0;
  #fresh = 0;

  constructor(memory: HostMemory, frames: number) {
    this.memory = memory;
    this.total = frames;
    this.#base = memory.reserveHigh(frames * PAGE_SIZE, PAGE_SIZE);
    this.#free = new Int32Array(frames);
  }

  /** The only place where a frame number becomes an address. */
  addressOf(frame: Frame): HostAddress {
    return (this.#base + frame * PAGE_SIZE) as HostAddress;
  }

  /** The frame that holds an address of the pool. */
  frameAt(address: HostAddress): Frame {
    return ((address - this.#base) >>> PAGE_SHIFT) as Frame;
  }

  /** @throws OutOfFrames */
  allocate(): Frame {
    if (this.#freeCount > 0) {
      const frame = this.#free[--this.#freeCount] as Frame;
      const address = this.addressOf(frame);
      this.memory.u8.fill(0, address, address + PAGE_SIZE);
      return frame;
    }
    if (this.#fresh === this.total) throw new OutOfFrames(this.total);
    return this.#fresh++ as Frame;
  }

  /**
   * Frames with consecutive numbers. Returns the first.
   * @throws OutOfFrames when no run is long enough
   */
  allocateRun(count: number): Frame {
    const isFree = new Uint8Array(this.total).fill(1, this.#fresh);
    const free = this.#free.subarray(0, this.#freeCount);
    for (const frame of free) isFree[frame] = 1;
    let first = 0;
    for (let end = 0; end - first < count; end++) {
      if (end === this.total) throw new OutOfFrames(this.total, count);
      if (isFree[end] === 0) first = end + 1;
    }
    const end = first + count;
    const others = free.filter((frame) => frame < first || frame >= end);
    this.#free.set(others);
    this.#freeCount = others.length;
    this.memory.u8.fill(0, this.addressOf(first as Frame), this.addressOf(Math.min(end, this.#fresh) as Frame));
    this.#fresh = Math.max(this.#fresh, end);
    return first as Frame;
  }

  /** The caller has made sure that nothing refers to the frame: no TLB entry, no machine space, no decoded code. */
  release(frame: Frame): void {
    this.#free[this.#freeCount++] = frame;
  }

  get available(): number {
    return this.total - this.#fresh + this.#freeCount;
  }
}
