import type { PteNotifier } from '../../mm/notifier.ts';
import type { Vma } from '../../mm/vma.ts';
import type { Frame, HostVirtual } from '../../x86/brand.ts';
import type { Pager } from '../pager.ts';
import { ShadowTables, type ShadowTablesOptions } from './shadow-tables.ts';

export interface FollowingShadowsOptions extends ShadowTablesOptions {
  readonly pager: Pager;
  /** Among the notifiers of the memory, behind the pager's. */
  readonly order: number;
}

/** Shadow tables that follow the host's memory. @throws OutOfFrames */
export async function followWithShadows(options: FollowingShadowsOptions): Promise<ShadowTables> {
  const { pager, order } = options;
  const tables = new ShadowTables(options);
  await pager.alsoTell(new ShadowFollower(tables, pager, order));
  return tables;
}

/**
 * Shadow tables as an external page table of the host's memory: entries go before the host's do. They are made out of
 * the machine space's, which follows the same memory and is told first; so what may be made is what stands there.
 */
class ShadowFollower implements PteNotifier {
  readonly order: number;
  readonly #tables: ShadowTables;
  readonly #pager: Pager;

  constructor(tables: ShadowTables, pager: Pager, order: number) {
    this.#tables = tables;
    this.#pager = pager;
    this.order = order;
  }

  #pageAt(address: HostVirtual): number {
    return this.#pager.numberAt(address);
  }

  clear(_vma: Vma, address: HostVirtual): void {
    this.#tables.pageGone(this.#pageAt(address));
  }

  writeProtect(_vma: Vma, address: HostVirtual): void {
    this.#tables.pageProtected(this.#pageAt(address));
  }

  change(_vma: Vma, address: HostVirtual): void {
    this.#tables.pageGone(this.#pageAt(address));
  }

  // A page that is used through a shadow is in a TLB, of which the machine space tells.
  testYoung(): boolean {
    return false;
  }

  testAndClearYoung(): boolean {
    return false;
  }

  close(): void {
    // Areas of a domain end with the domain.
  }

  // The machine space has no entry that the host's does not justify, so none can be made of it.
  lock(): void {}
  unlock(): void {}
  rangeStart(): void {}
  rangeEnd(): void {}

  release(): void {
    this.#tables.dropAll();
  }

  refersTo(frame: Frame): boolean {
    return this.#tables.refersTo(frame);
  }
}
