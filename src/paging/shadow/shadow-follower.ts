import type { PteNotifier } from '../../mm/notifier.ts';
import type { Vma } from '../../mm/vma.ts';
import type { Frame, HostVirtual, Mfn } from '../../x86/brand.ts';
import type { Pager } from '../pager.ts';
import { ShadowTables, type ShadowTablesOptions } from './shadow-tables.ts';

export interface FollowingShadowsOptions extends Omit<ShadowTablesOptions, 'mayRefer'> {
  readonly pager: Pager;
  /** Among the notifiers of the memory, behind the pager's. */
  readonly order: number;
}

/** Shadow tables that follow the host's memory. @throws OutOfFrames */
export async function followWithShadows(options: FollowingShadowsOptions): Promise<ShadowTables> {
  const follower = new ShadowFollower(options.pager, options.order);
  const mayRefer = (page: number, writable: boolean) => follower.mayRefer(page, writable);
  const tables = new ShadowTables({ ...options, mayRefer });
  await follower.start(tables);
  return tables;
}

/**
 * Shadow tables as an external page table of the host's memory: entries go before the host's do. They are made out of
 * the machine space's, which follows the same memory and is told first.
 */
class ShadowFollower implements PteNotifier {
  readonly order: number;
  readonly #pager: Pager;
  #tables: ShadowTables | undefined;

  constructor(pager: Pager, order: number) {
    this.#pager = pager;
    this.order = order;
  }

  /** Begins to follow, for tables that have no entries yet. */
  async start(tables: ShadowTables): Promise<void> {
    this.#tables = tables;
    await this.#pager.alsoTell(this);
  }

  /** Whether an entry that holds the frame behind a number may be made at present. */
  mayRefer(page: number, writable: boolean): boolean {
    return this.#pager.mayRefer(this, page as Mfn, writable);
  }

  #pageAt(address: HostVirtual): number {
    return this.#pager.numberAt(address);
  }

  clear(_vma: Vma, address: HostVirtual): void {
    this.#tables?.pageGone(this.#pageAt(address));
  }

  writeProtect(_vma: Vma, address: HostVirtual): void {
    this.#tables?.pageProtected(this.#pageAt(address));
  }

  change(_vma: Vma, address: HostVirtual): void {
    this.#tables?.pageGone(this.#pageAt(address));
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

  // Entries are only made in the step that looks the host's up, and the look fails while they may not be made.
  lock(): void {}
  unlock(): void {}
  rangeStart(): void {}
  rangeEnd(): void {}

  release(): void {
    this.#tables?.dropAll();
  }

  refersTo(frame: Frame): boolean {
    return this.#tables?.refersTo(frame) ?? false;
  }
}
