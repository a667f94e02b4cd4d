import { operationIds } from '../ops/catalogue.ts';
import type { Violation } from '../ops/contracts.ts';
import type { OperationObserver } from '../ops/dispatch.ts';
import { type Symbolizer, symbolText } from './text.ts';
import { TouchCounts } from './touch-counts.ts';
import { formatViolation } from './violation-text.ts';

/** Which places of a kernel's code touched entries of live page tables, as plain JSON data. */
export interface Audit {
  /** Most accesses first. */
  readonly places: readonly AuditedPlace[];
  /** Contracts that were broken, if they were checked; each kind at each place once, in order. */
  readonly violations: readonly AuditedViolation[];
  /** How often a table was not observed because the guest had too many. */
  readonly tablesMissed: number;
  /** Accesses at further places, because there were too many of these. */
  readonly touchesMissed: number;
}

export interface AuditedPlace {
  readonly address: number;
  /** Symbol and offset, or the address alone. */
  readonly name: string;
  /** Loads, those of instructions that also store included. */
  readonly reads: number;
  /** Whether the kernel has recorded the place as an accessor; undefined when it records none. */
  readonly accessor: boolean | undefined;
  /** Writes that were asked for as operations of the catalogue. */
  readonly operations: number;
  /** Stores that the host carried out, after it had examined them, or saw because it keeps a second form of the table. */
  readonly emulated: number;
  /** Stores that the processor carried out as any other, because the tables are the guest's own affair. */
  readonly plain: number;
  /** Stores that the host did not carry out. */
  readonly refused: number;
}

export interface AuditedViolation {
  readonly rule: string;
  /** What breaks it, or should have been used. */
  readonly operation: string;
  readonly address: number;
  readonly name: string;
  readonly times: number;
  /** The first of them in a sentence. */
  readonly text: string;
}

/** Kinds of violations that are told apart. */
const MOST_VIOLATIONS = 1000;

const { mmu } = operationIds;
/** The operations that write entries. */
const WRITES: ReadonlySet<number> = new Set([
  mmu.setPte,
  mmu.setPteAt,
  mmu.setPmd,
  mmu.setPud,
  mmu.setPgd,
  mmu.setPteAtomic,
  mmu.setPtePresent,
  mmu.pteClear,
  mmu.pmdClear,
  mmu.ptepModifyProtCommit,
]);

export interface AuditOptions {
  readonly symbolize: Symbolizer;
  /** Addresses of instructions that the kernel has recorded as accessors; undefined when it has no such record. */
  readonly accessors: () => ReadonlySet<number> | undefined;
}

/**
 * Collects the places. An interface tells it what its guest's instructions touch; operations it sees as an observer, when
 * the interface says where the guest asks from.
 */
export class TableAudit implements OperationObserver {
  readonly #options: AuditOptions;
  readonly counts = new TouchCounts();
  readonly #violations = new Map<string, AuditedViolation>();
  /** The record, once it has been looked for. */
  #accessors: { readonly recorded: ReadonlySet<number> | undefined } | undefined;
  /** Where a virtual processor asks the host from for an operation, and whether it asks, or has stored instead. */
  askedBy: (vcpu: number) => { readonly address: number; readonly touch: 'operations' | 'emulated' } = () => {
    return { address: 0, touch: 'operations' };
  };
  /** Called before a report: tells what is still held back, and gives `Audit.tablesMissed`. */
  settle: () => number = () => 0;

  constructor(options: AuditOptions) {
    this.#options = options;
  }

  /** Whether the kernel has recorded an instruction as an accessor; undefined when it records none. */
  isAccessor(address: number): boolean | undefined {
    this.#accessors ??= { recorded: this.#options.accessors() };
    return this.#accessors.recorded?.has(address);
  }

  after(operation: { readonly id: number }, values: readonly unknown[]): void {
    if (!WRITES.has(operation.id)) return;
    const { address, touch } = this.askedBy(values[0] as number);
    this.counts.add(address, touch);
  }

  violated(violation: Violation): void {
    const { rule, operation, rip, symbol } = violation;
    const key = `${rule} ${operation} ${rip}`;
    const known = this.#violations.get(key);
    if (!known && this.#violations.size >= MOST_VIOLATIONS) return;
    this.#violations.set(key, {
      rule,
      operation,
      address: rip,
      name: symbolText(rip, symbol),
      times: (known?.times ?? 0) + 1,
      text: known?.text ?? formatViolation(violation),
    });
  }

  report(): Audit {
    const tablesMissed = this.settle();
    const places = [...this.counts.places].map(([address, counts]) => ({
      address,
      name: symbolText(address, this.#options.symbolize(address)),
      ...counts,
      accessor: this.isAccessor(address),
    }));
    places.sort((a, b) => accesses(b) - accesses(a));
    const violations = [...this.#violations.values()];
    return { places, violations, tablesMissed, touchesMissed: this.counts.missed };
  }
}

function accesses({ reads, operations, emulated, plain, refused }: AuditedPlace): number {
  return reads + operations + emulated + plain + refused;
}
