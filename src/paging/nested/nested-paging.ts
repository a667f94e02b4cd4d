import type { FrameInvalidator, PhysicalDevices, TableFormat, Translation } from '../../cpu/translation.ts';
import { type FramePool, OutOfFrames } from '../../memory/frame-pool.ts';
import type { Frame, Gfn, GuestPhysical, HostAddress } from '../../x86/brand.ts';
import { PAGE_SIZE } from '../../x86/brand.ts';

/**
 * Nested paging: the guest's tables hold guest-physical frame numbers and are the guest's own affair; a second table leads
 * from these numbers to frames of the host's pool. It is consulted when a TLB entry is filled, and for each table that a
 * walk goes through.
 *
 * The second table may lose and gain entries while the guest runs. TLBs know frames only, so an entry that goes takes
 * every cached translation of its frame along.
 */
export class NestedPaging {
  /** Frame of each guest-physical page below the end of RAM, −1 where there is none at present. */
  readonly frames: Int32Array;
  readonly #pool: FramePool;
  readonly #invalidator: FrameInvalidator;

  /** @param pages one more than the highest page that can be RAM */
  constructor(pool: FramePool, invalidator: FrameInvalidator, pages: number) {
    this.#pool = pool;
    this.#invalidator = invalidator;
    this.frames = new Int32Array(pages).fill(-1);
  }

  /** What the walks of one processor go through, by format. @param devices all that is not RAM, as this processor sees it */
  translations(devices: PhysicalDevices): Readonly<Record<TableFormat, Translation>> {
    const { frames } = this;
    return {
      none: { format: 'none', frames, devices },
      'two-level': { format: 'two-level', frames, devices },
      pae: { format: 'pae', frames, devices },
      'four-level': { format: 'four-level', frames, devices },
    };
  }

  map(gfn: Gfn, frame: Frame): void {
    if (this.frames[gfn] !== -1) throw new RangeError(`guest-physical page ${gfn} cannot be mapped`);
    this.frames[gfn] = frame;
  }

  /** Takes the entry away and returns its frame, of which no processor has translations or decoded code then. */
  unmap(gfn: Gfn): Frame {
    const frame = this.frames[gfn] as Frame;
    this.#invalidator.invalidateFrame(frame);
    this.#invalidator.frameWritten(frame, 0, PAGE_SIZE);
    this.frames[gfn] = -1;
    return frame;
  }

  /** Host address of a byte of RAM, good within its page; −1 where there is no frame. */
  addressOf(physical: GuestPhysical): HostAddress {
    const frame = this.frames[Math.floor(physical / PAGE_SIZE)] ?? -1;
    if (frame < 0) return -1 as HostAddress;
    return (this.#pool.addressOf(frame as Frame) + (physical % PAGE_SIZE)) as HostAddress;
  }

  /** Gives every frame back to the pool. */
  destroy(): void {
    for (let gfn = 0; gfn < this.frames.length; gfn++) {
      if (this.frames[gfn] !== -1) this.#pool.release(this.unmap(gfn as Gfn));
    }
  }
}

/** Memory whose pages all have a frame of their own from the start. @throws OutOfFrames */
export function createResidentPaging(pool: FramePool, invalidator: FrameInvalidator, pages: number): NestedPaging {
  if (pool.available < pages) throw new OutOfFrames(pool.total);
  const paging = new NestedPaging(pool, invalidator, pages);
  for (let gfn = 0; gfn < pages; gfn++) paging.map(gfn as Gfn, pool.allocate());
  return paging;
}
