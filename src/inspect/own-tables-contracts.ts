import { Access } from '../cpu/exits.ts';
import type { Violation } from '../ops/contracts.ts';
import type { LiveTable } from '../paging/live-tables.ts';
import { TABLE_GEOMETRY } from '../x86/page-table.ts';
import type { TableAudit } from './audit.ts';
import { ContractChecker } from './contracts.ts';
import { type OwnTablesOptions, OwnTablesState, tableNumber } from './own-tables-state.ts';
import type { Symbolizer } from './text.ts';
import { formatViolation } from './violation-text.ts';

export interface OwnContractsOptions extends OwnTablesOptions {
  readonly running: () => number;
  readonly symbolize: Symbolizer;
  /**
   * Whether the kernel has promised to tell of each change in a page, and its host looks at nothing else: then a store that
   * it does not tell of is missed.
   */
  readonly isAnnounced?: (page: number) => boolean;
  /** Takes violations, and the guest goes on; without it, the first one ends the guest. */
  readonly audit?: TableAudit | undefined;
  readonly crash: (vcpu: number, reason: string) => void;
}

interface Entry {
  readonly table: number;
  readonly index: number;
  readonly low: number;
  readonly high: number;
}

/** The contracts of a guest that keeps its tables itself: what they are told of comes from its stores. */
export class OwnTablesContracts {
  readonly checker: ContractChecker;
  readonly #options: OwnContractsOptions;
  readonly #state: OwnTablesState;
  readonly #entry = new Uint32Array(2);
  /** Entries of the lowest level as they were before the store that is under way. */
  #before: Entry[] = [];

  constructor(options: OwnContractsOptions) {
    const { processors, symbolize } = options;
    this.#options = options;
    this.#state = new OwnTablesState(options);
    this.checker = new ContractChecker(this.#state, {
      ripOf: (vcpu) => (processors[vcpu] ?? processors[options.running()])!.rip, // the second one executes
      symbolize,
      report: (violation) => this.#report(violation),
    });
    for (const [vcpu, { memory }] of processors.entries()) {
      memory.onMiss = (address, access) => this.checker.tlbMissed(vcpu, address, access === Access.write);
    }
  }

  /**
   * The running instruction is about to store into bytes of tables.
   * @param isTold whether it is the host's own code, in carrying out what it was told
   */
  storing(tables: readonly LiveTable[], page: number, offset: number, bytes: number, isTold: boolean): void {
    for (const table of tables) {
      const { entryBytes } = TABLE_GEOMETRY[table.format];
      const first = Math.floor(Math.max(0, offset - table.start) / entryBytes);
      const last = Math.floor((Math.min(offset + bytes, table.end) - 1 - table.start) / entryBytes);
      if (table.level === 1) this.#remember(tableNumber(table), first, last);
      else if (!isTold && this.#options.isAnnounced?.(page) && this.#options.tables.isWalked(table)) {
        this.checker.directStore(this.#options.running(), page, first);
      }
    }
  }

  /** The running instruction has loaded from tables whose entries it ought to have read by an operation. */
  readPlainly(tables: readonly LiveTable[], page: number, offset: number): void {
    const table = tables.find((found) => this.#options.tables.isWalked(found));
    if (!table) return;
    const index = Math.floor((offset - table.start) / TABLE_GEOMETRY[table.format].entryBytes);
    this.checker.directRead(this.#options.running(), page, index, false);
  }

  /** Bytes of a page with tables have been stored. */
  written(page: number): void {
    const entries = this.#before.filter(({ table }) => table === page);
    if (entries.length === 0) return;
    this.#before = this.#before.filter(({ table }) => table !== page);
    for (const { table, index, low, high } of entries) {
      if (!this.#state.readEntry(table, index, this.#entry)) continue;
      const [newLow, newHigh] = this.#entry as unknown as [number, number];
      if (newLow === low && newHigh === high) continue;
      this.checker.entryChanged(this.#options.running(), table, index, low, high, newLow, newHigh);
    }
  }

  #remember(table: number, first: number, last: number): void {
    // One instruction executes at a time: what an earlier one left, it did not store.
    this.#before = this.#before.filter((entry) => entry.table !== table);
    for (let index = first; index <= last; index++) {
      if (!this.#state.readEntry(table, index, this.#entry)) continue;
      const [low, high] = this.#entry as unknown as [number, number];
      this.#before.push({ table, index, low, high });
    }
  }

  #report(violation: Violation): void {
    const { audit, crash } = this.#options;
    if (audit) audit.violated(violation);
    else crash(violation.vcpu, formatViolation(violation));
  }
}
