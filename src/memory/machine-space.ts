import type { Frame, HostAddress, Mfn } from '../x86/brand.ts';
import { DirtyLog } from './dirty-log.ts';
import { ABSENT_FRAME, type FramePool, NO_FRAME } from './frame-pool.ts';
import { PageAbsent } from './page-absent.ts';

/** Who has the pages behind numbers whose frames come and go. */
export interface PageSource {
  /** Whether the page at a number is this source's; frames at other numbers are the domain's own. */
  has(mfn: Mfn): boolean;
  /** Keeps a page that is there and may be written where it is. False when it must be brought in first. */
  pin(mfn: Mfn): boolean;
  /** Ends what one successful `pin` began. */
  unpin(mfn: Mfn): void;
  /** Keeps a page that is there, in whatever frame, so that reading it needs no wait. False when it must be brought in first. */
  retain(mfn: Mfn): boolean;
  letGo(mfn: Mfn): void;
  /** The domain gives the page back; the number has no page until `populate`. */
  giveBack(mfn: Mfn): void;
  /** Gives a number that has none a zeroed page. False when it cannot have one. */
  populate(mfn: Mfn): boolean;
}

/**
 * The machine frame numbers of one domain. A direct guest's page tables hold these numbers; they become frames of the
 * host's pool only here, when a TLB entry is filled or the host reads a table. A number of another domain cannot be
 * named at all.
 *
 * With a source of pages, frames come and go behind the numbers. Pages that a processor's walk or the host itself
 * depends on stay as long as they are in such use: descriptors and rings are pinned, tables retained.
 */
export class MachineSpace {
  readonly pool: FramePool;
  /** Frame of each machine frame number, −1 for none, −2 for a page that must be brought in. */
  readonly frames: Int32Array;
  /** 1 for each number whose page the host lets nobody write. */
  readonly writeProtected: Uint8Array;
  source: PageSource | undefined;
  readonly log = new DirtyLog();

  /** @param limit one more than the highest machine frame number */
  constructor(pool: FramePool, limit: number) {
    this.pool = pool;
    this.frames = new Int32Array(limit).fill(NO_FRAME);
    this.writeProtected = new Uint8Array(limit);
  }

  get limit(): number {
    return this.frames.length;
  }

  /** The frame behind a machine frame number; −1 for any number (however large) that names none. @throws PageAbsent */
  frameOf(mfn: Mfn): Frame {
    const frame = (this.frames[mfn] ?? NO_FRAME) as Frame;
    if (frame === ABSENT_FRAME) throw new PageAbsent(mfn, false);
    return frame;
  }

  /** First byte of the page behind a machine frame number, or −1; to be read. @throws PageAbsent */
  addressOf(mfn: Mfn): HostAddress {
    const frame = this.frameOf(mfn);
    return frame < 0 ? (-1 as HostAddress) : this.pool.addressOf(frame);
  }

  /** The same, to be written. @throws PageAbsent */
  writableAddressOf(mfn: Mfn): HostAddress {
    this.requireWritable(mfn);
    return this.addressOf(mfn);
  }

  /** The page is about to be written. @throws PageAbsent unless it is there and may be written, or there is none */
  requireWritable(mfn: Mfn): void {
    if (this.frames[mfn] === ABSENT_FRAME || this.writeProtected[mfn] === 1) throw new PageAbsent(mfn, true);
    this.log.note(mfn);
  }

  /** Keeps a page where it is, writable, until `unpin`. @throws PageAbsent */
  pin(mfn: Mfn): void {
    if (this.source?.has(mfn) && !this.source.pin(mfn)) throw new PageAbsent(mfn, true);
  }

  unpin(mfn: Mfn): void {
    if (this.source?.has(mfn)) this.source.unpin(mfn);
  }

  /** Keeps a page there until `letGo`; a clone may share it, until it is about to be written. @throws PageAbsent */
  retain(mfn: Mfn): void {
    if (this.source?.has(mfn) && !this.source.retain(mfn)) throw new PageAbsent(mfn, false);
  }

  letGo(mfn: Mfn): void {
    if (this.source?.has(mfn)) this.source.letGo(mfn);
  }

  attach(mfn: Mfn, frame: Frame): void {
    if (mfn >= this.limit || this.frames[mfn] !== NO_FRAME) {
      throw new RangeError(`machine frame ${mfn} cannot be attached`);
    }
    this.frames[mfn] = frame;
  }

  /** Gives a number a zeroed page that is the domain's. False when there is none to have. */
  populate(mfn: Mfn): boolean {
    this.log.note(mfn);
    if (this.source?.has(mfn)) return this.source.populate(mfn);
    if (this.pool.available === 0) return false;
    this.attach(mfn, this.pool.allocate());
    return true;
  }

  /** Takes the number out of use, and its page back. Nothing refers to the frame any more. */
  release(mfn: Mfn): void {
    if (this.source?.has(mfn)) {
      this.source.giveBack(mfn);
      return;
    }
    this.pool.release(this.detach(mfn));
  }

  /** Takes the number of a frame out of use, and returns the frame. */
  detach(mfn: Mfn): Frame {
    const frame = this.frameOf(mfn);
    this.frames[mfn] = NO_FRAME;
    return frame;
  }
}
