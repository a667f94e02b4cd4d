import type { ObservedPages } from '../../cpu/observed-pages.ts';
import type { FrameInvalidator } from '../../cpu/translation.ts';
import type { TableAudit } from '../../inspect/audit.ts';
import { FrameType } from '../../paging/direct/frame-types.ts';
import type { Mfn } from '../../x86/brand.ts';
import type { XenDomain } from './domain.ts';

/** Observes a domain's live page tables for an audit: frame types say which they are. */
export class TableObserver implements ObservedPages {
  readonly #domain: XenDomain;
  readonly #audit: TableAudit;

  constructor(domain: XenDomain, audit: TableAudit) {
    this.#domain = domain;
    this.#audit = audit;
    audit.askedBy = (vcpu) => ({ address: domain.askingPlace(vcpu), touch: 'operations' });
    for (const { processor } of domain.vcpus) processor.memory.observed = this;
  }

  /** A frame is about to become a table; what is cached of it must go. */
  becomesTable(mfn: Mfn, invalidator: FrameInvalidator): void {
    invalidator.invalidateFrame(this.#domain.space.frameOf(mfn));
  }

  isObserved(mfn: number): boolean {
    const type = this.#domain.paging.types.type.get(mfn) as FrameType;
    return type >= FrameType.level1 && type <= FrameType.level4;
  }

  loaded(): void {
    this.#audit.counts.add(this.#rip, 'reads');
  }

  storing(): void {
    this.#audit.counts.add(this.#rip, 'plain');
  }

  storeCarriedOut(): void {
    this.#audit.counts.add(this.#rip, 'emulated');
  }

  storeRefused(): void {
    this.#audit.counts.add(this.#rip, 'refused');
  }

  get #rip(): number {
    return this.#domain.running.processor.rip;
  }
}
