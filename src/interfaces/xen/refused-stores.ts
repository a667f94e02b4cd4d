import { afterStore } from '../../inspect/store-text.ts';
import { type Symbolizer, symbolText } from '../../inspect/text.ts';
import type { FrameType } from '../../paging/direct/frame-types.ts';
import type { GuestVirtual } from '../../x86/brand.ts';

interface RefusedStore {
  /** Known when the fault is delivered: until then the store may be executed in several ways. */
  readonly rip: GuestVirtual | undefined;
  readonly level: FrameType;
  readonly index: number;
}

/**
 * Stores of kernels into live tables above level 1. The host does not carry them out: the kernel gets a page fault, which
 * it seldom expects. When it ends over that, the reason of the crash says which operation the store should have been.
 */
export class RefusedStores {
  readonly #symbolize: Symbolizer;
  /** By virtual processor; a kernel that returns from the fault has dealt with it. */
  readonly #latest = new Map<number, RefusedStore>();

  constructor(symbolize: Symbolizer) {
    this.#symbolize = symbolize;
  }

  refused(vcpu: number, level: FrameType, index: number): void {
    this.#latest.set(vcpu, { rip: undefined, level, index });
  }

  /** A page fault is delivered to the processor. */
  faulted(vcpu: number, rip: GuestVirtual): void {
    const store = this.#latest.get(vcpu);
    if (store && store.rip === undefined) this.#latest.set(vcpu, { ...store, rip });
  }

  /** The processor has returned from an exception. */
  forget(vcpu: number): void {
    if (this.#latest.size > 0) this.#latest.delete(vcpu);
  }

  /** The reason of a crash, with what led to it. */
  explain(vcpu: number, reason: string): string {
    const store = this.#latest.get(vcpu);
    if (store?.rip === undefined) return reason;
    const place = symbolText(store.rip, this.#symbolize(store.rip));
    return afterStore(reason, store.level, store.index, ` at ${place}`);
  }
}
