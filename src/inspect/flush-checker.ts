import type { FullName } from '../ops/catalogue.ts';
import type { MmuState, RuleStates } from '../ops/contracts.ts';
import type { GuestVirtual } from '../x86/brand.ts';
import { frameOfEntry } from '../x86/page-table.ts';
import { Pte } from '../x86/registers.ts';
import {
  type Holder,
  losesOnlyWriting,
  needsFlush,
  type StaleRecord,
  StaleTranslations,
} from './stale-translations.ts';
import { type WalkEnd, walkTables } from './table-walk.ts';

export interface FlushCheckerOptions {
  /** Where the guest is, for the report. */
  ripOf(vcpu: number): GuestVirtual;
  /**
   * Whether an address belongs to the kernel alone, which may then flush it late: Linux gives the pages of a vmalloc
   * area back at once and flushes when many areas have come together. The addresses are not handed out before, so
   * nobody uses the old translations, and pages may be reused while they stand.
   */
  flushesLate?(address: GuestVirtual): boolean;
}

type Missing = RuleStates['missing-flush'];

/**
 * Decides the rule `missing-flush`: which translations became stale, who has flushed them, and whether anything relies
 * on one being gone. What is stale is taken out of the TLB, so that its use is not answered there but seen here.
 */
export class FlushChecker {
  readonly #state: MmuState;
  readonly #options: FlushCheckerOptions;
  readonly #report: (vcpu: number, operation: FullName, broken: Missing) => void;
  readonly #stale = new StaleTranslations();
  readonly #entry = new Uint32Array(2);

  /** @param report takes each flush that is missed, with the operation that made it necessary */
  constructor(
    state: MmuState,
    options: FlushCheckerOptions,
    report: (vcpu: number, operation: FullName, broken: Missing) => void,
  ) {
    this.#state = state;
    this.#options = options;
    this.#report = report;
  }

  /** Replaced entries whose flush is still to come. */
  get awaited(): number {
    return this.#stale.size;
  }

  /** As `StaleTranslations.flushed`. */
  flushed(vcpus: number, address: GuestVirtual | undefined, globalToo: boolean): void {
    this.#stale.flushed(vcpus, address, globalToo);
  }

  /** A vCPU leaves its work to do something else. */
  interrupt(vcpu: number): void {
    this.#stale.interrupt(vcpu);
  }

  /** A vCPU uses an address that its TLB does not answer. */
  missed(vcpu: number, address: GuestVirtual, write: boolean): void {
    for (const { record, holder } of this.#stale.at(vcpu, address)) {
      // Another vCPU may use the old translation until the one that changed the entry has finished its work.
      const mayUse = record.work === 'unknown' || (vcpu !== record.changedBy && record.work !== 'done');
      // By a translation that does not allow it, a store faults.
      if (mayUse || (write && !holder.writable)) continue;
      this.#relyOn('used', vcpu, record, holder, write);
    }
  }

  /** A page leaves the guest. */
  freed(vcpu: number, page: number): void {
    this.#reused('freed', vcpu, page);
    this.#stale.forgetPage(page);
  }

  /** A page gets another type. */
  retyped(vcpu: number, page: number, isTable: boolean): void {
    if (this.#state.removesWritable && isTable) this.#stale.writableRemoved(page);
    this.#reused('retyped', vcpu, page);
  }

  /** An entry of a level-1 table was replaced, by an operation or in place of it. */
  replaced(
    operation: FullName,
    vcpu: number,
    table: number,
    index: number,
    oldLow: number,
    oldHigh: number,
    newLow: number,
    newHigh: number,
  ): void {
    this.#stale.restored(table, index, newLow, newHigh);
    if (!needsFlush(oldLow, oldHigh, newLow, newHigh)) return;
    const page = frameOfEntry(oldLow, oldHigh);
    const holders: Holder[] = [];
    this.#state.cachedTranslations(page, (cachedBy, cached, root, writable) => {
      // The page may be mapped elsewhere too.
      const walk = this.#walk(cachedBy, root, cached);
      if (walk.table === table && walk.index === index) {
        holders.push({ vcpu: cachedBy, address: cached, root, writable });
      }
    });
    if (holders.length === 0) return; // a translation that is made from here on is made from the new entry
    this.#stale.add({
      table,
      index,
      oldLow,
      oldHigh,
      page,
      global: (oldLow & Pte.global) !== 0,
      writeOnly: losesOnlyWriting(oldLow, oldHigh, newLow, newHigh),
      holders,
      operation,
      changedBy: vcpu,
      changedAt: this.#options.ripOf(vcpu),
      thread: this.#state.threadOf?.(vcpu),
      work: 'begun',
    });
    this.#watch(holders);
  }

  #watch(holders: readonly Holder[]): void {
    for (const { vcpu, address } of holders) this.#state.watchTranslation(vcpu, address);
  }

  /** What a vCPU has begun is done: from here on, nobody may use what it made stale. */
  settle(vcpu: number): void {
    this.#watch(this.#stale.settle(({ changedBy }) => changedBy === vcpu));
  }

  /** A vCPU was seen: if it is in user mode, what its thread has begun in the kernel is done. */
  seen(vcpu: number): void {
    if (this.#stale.size === 0 || !this.#state.inUserMode(vcpu)) return;
    const found = this.#state.threadOf?.(vcpu);
    if (found !== undefined) this.#watch(this.#stale.settle(({ thread }) => thread === found));
  }

  /** The page gets another use, and every stale translation of it would reach that. */
  #reused(event: 'freed' | 'retyped', vcpu: number, page: number): void {
    const told = new Set<string>();
    for (const record of this.#stale.onPage(page)) {
      for (const holder of record.holders) {
        const { address, writable } = holder;
        // A writable translation of a table is wrong wherever it is.
        const mayStand = event === 'freed' || !writable || this.#state.removesWritable;
        if (mayStand && this.#options.flushesLate?.(address)) continue;
        const who = `${holder.vcpu} ${address}`;
        if (!told.has(who) && this.#relyOn(event, vcpu, record, holder, writable)) told.add(who);
      }
    }
  }

  /**
   * Something relies on a stale translation of the page being gone; one that the tables still justify is not stale.
   * @returns whether that broke the contract
   */
  #relyOn(
    event: RuleStates['missing-flush']['event'],
    vcpu: number,
    record: StaleRecord,
    holder: Holder,
    write: boolean,
  ): boolean {
    const { page } = record;
    if (this.#justified(holder, page, write)) return false;
    this.#report(vcpu, record.operation, {
      event,
      page,
      address: holder.address,
      cachedBy: holder.vcpu,
      changedBy: record.changedBy,
      changedAt: record.changedAt,
      table: record.table,
      index: record.index,
    });
    this.#stale.forget(record);
    return true;
  }

  #justified({ vcpu, root, address }: Holder, page: number, writable: boolean): boolean {
    const { level, isReadable } = this.#walk(vcpu, root, address);
    if (!isReadable) return true; // nobody can tell, and who uses the address waits for the table first
    const low = this.#entry[0]!; // two words
    if ((low & Pte.present) === 0 || (writable && (low & Pte.writable) === 0)) return false;
    const base = frameOfEntry(low, this.#entry[1]!);
    const size = 2 ** ((this.#state.geometry.shift[level] ?? 12) - 12); // pages that the entry maps
    return page >= base && page < base + size;
  }

  #walk(vcpu: number, root: number, address: GuestVirtual): WalkEnd {
    return walkTables(this.#state, root === -1 ? this.#state.currentRoot(vcpu) : root, address, this.#entry);
  }
}
