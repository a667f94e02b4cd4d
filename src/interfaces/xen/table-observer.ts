import type { ObservedPages } from '../../cpu/observed-pages.ts';
import type { FrameInvalidator } from '../../cpu/translation.ts';
import type { TableAudit } from '../../inspect/audit.ts';
import type { MmuEvents } from '../../ops/contracts.ts';
import { FrameType } from '../../paging/direct/frame-types.ts';
import type { Mfn } from '../../x86/brand.ts';
import type { XenDomain } from './domain.ts';

/** Observes a domain's live page tables for an audit: frame types say which they are. */
export class TableObserver implements ObservedPages {
  readonly #domain: XenDomain;
  readonly #audit: TableAudit;
  readonly #checker: () => MmuEvents | undefined;

  /** @param checker of the contracts, when they are checked */
  constructor(domain: XenDomain, audit: TableAudit, checker: () => MmuEvents | undefined) {
    this.#domain = domain;
    this.#audit = audit;
    this.#checker = checker;
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

  loaded(mfn: number, offset: number, _bytes: number, forUpdate: boolean): void {
    const rip = this.#rip;
    this.#audit.counts.add(rip, 'reads');
    const throughAccessor = this.#audit.isAccessor(rip);
    // What also stores is judged by that.
    if (throughAccessor === undefined || forUpdate) return;
    const { entryBytes } = this.#domain.paging.rules.geometry;
    const index = Math.floor(offset / entryBytes);
    this.#checker()?.directRead(this.#domain.running.index, mfn, index, throughAccessor);
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
