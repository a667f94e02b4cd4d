import type { Frame, HostAddress, Mfn } from '../x86/brand.ts';
import { type FramePool, NO_FRAME } from './frame-pool.ts';

/**
 * The machine frame numbers of one domain. A direct guest's page tables hold these numbers; they become frames of the
 * host's pool only here, when a TLB entry is filled or the host reads a table. A number of another domain cannot be
 * named at all.
 */
export class MachineSpace {
  readonly pool: FramePool;
  /** Frame of each machine frame number, or −1. */
  readonly frames: Int32Array;

  /** @param limit one more than the highest machine frame number */
  constructor(pool: FramePool, limit: number) {
    this.pool = pool;
    this.frames = new Int32Array(limit).fill(-1);
  }

  get limit(): number {
    return this.frames.length;
  }

  /** The frame behind a machine frame number; −1 for any number (however large) that names none. */
  frameOf(mfn: Mfn): Frame {
    return (this.frames[mfn] ?? NO_FRAME) as Frame;
  }

  /** First byte of the page behind a machine frame number, or −1. */
  addressOf(mfn: Mfn): HostAddress {
    const frame = this.frameOf(mfn);
    return frame < 0 ? (-1 as HostAddress) : this.pool.addressOf(frame);
  }

  attach(mfn: Mfn, frame: Frame): void {
    if (mfn >= this.limit || this.frames[mfn] !== -1) throw new RangeError(`machine frame ${mfn} cannot be attached`);
    this.frames[mfn] = frame;
  }

  /** Takes the number out of use and returns the frame that it named. */
  detach(mfn: Mfn): Frame {
    const frame = this.frameOf(mfn);
    this.frames[mfn] = -1;
    return frame;
  }
}
