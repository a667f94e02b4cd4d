import type { ObservedFrames } from '../../cpu/observed-frames.ts';
import type { FrameInvalidator } from '../../cpu/translation.ts';
import type { TableAudit } from '../../inspect/audit.ts';
import { FrameType } from '../../paging/direct/frame-types.ts';
import type { Frame, GuestVirtual, Mfn } from '../../x86/brand.ts';
import type { XenDomain } from './domain.ts';

/** Bytes of the instruction by which a kernel asks. */
const SYSCALL_BYTES = 2;

/** Observes a domain's live page tables for an audit. Frames of the pool are told by the number that they had as a table. */
export class TableObserver implements ObservedFrames {
  readonly #domain: XenDomain;
  readonly #audit: TableAudit;
  readonly #numbers = new Map<Frame, Mfn>();

  constructor(domain: XenDomain, audit: TableAudit) {
    this.#domain = domain;
    this.#audit = audit;
    audit.askedFrom = (vcpu) => (domain.vcpus[vcpu]?.processor.rip ?? 0) - SYSCALL_BYTES;
    for (const { processor } of domain.vcpus) processor.memory.observed = this;
  }

  /** The processors are somebody else's from here on. */
  end(): void {
    for (const { processor } of this.#domain.vcpus) processor.memory.observed = undefined;
  }

  /** A frame is about to become a table; what is cached of it must go. */
  becomesTable(mfn: Mfn, invalidator: FrameInvalidator): void {
    const frame = this.#domain.space.frameOf(mfn);
    this.#numbers.set(frame, mfn);
    invalidator.invalidateFrame(frame);
  }

  isObserved(frame: Frame): boolean {
    const mfn = this.#numbers.get(frame);
    if (mfn === undefined) return false;
    const { paging, space } = this.#domain;
    const type = paging.types.type[mfn] as FrameType;
    if (type >= FrameType.level1 && type <= FrameType.level4 && space.frames[mfn] === frame) return true;
    this.#numbers.delete(frame);
    return false;
  }

  loaded(_address: GuestVirtual): void {
    this.#audit.touched(this.#rip, 'reads');
  }

  storeCarriedOut(): void {
    this.#audit.touched(this.#rip, 'emulated');
  }

  storeRefused(): void {
    this.#audit.touched(this.#rip, 'refused');
  }

  get #rip(): number {
    return this.#domain.running.processor.rip;
  }
}
