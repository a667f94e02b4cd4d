import { operationIds } from '../ops/catalogue.ts';
import type { OperationObserver } from '../ops/dispatch.ts';
import { type Symbolizer, symbolText } from './text.ts';

/** Which places of a kernel's code touched entries of live page tables, as plain JSON data. */
export interface Audit {
  /** Most accesses first. */
  readonly places: readonly AuditedPlace[];
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
  /** Stores that the host carried out, after it had examined them. */
  readonly emulated: number;
  /** Stores that the host did not carry out. */
  readonly refused: number;
}

/** What can be seen at a place. */
export type Touch = 'reads' | 'operations' | 'emulated' | 'refused';

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
  readonly #places = new Map<number, Record<Touch, number>>();
  /** Address of the instruction by which a virtual processor asks the host. */
  askedFrom: (vcpu: number) => number = () => 0;

  constructor(options: AuditOptions) {
    this.#options = options;
  }

  touched(address: number, touch: Touch): void {
    let place = this.#places.get(address);
    if (!place) {
      place = { reads: 0, operations: 0, emulated: 0, refused: 0 };
      this.#places.set(address, place);
    }
    place[touch]++;
  }

  after(operation: { readonly id: number }, values: readonly unknown[]): void {
    if (WRITES.has(operation.id)) this.touched(this.askedFrom(values[0] as number), 'operations');
  }

  report(): Audit {
    const accessors = this.#options.accessors();
    const places = [...this.#places].map(([address, counts]) => ({
      address,
      name: symbolText(address, this.#options.symbolize(address)),
      ...counts,
      accessor: accessors?.has(address),
    }));
    return { places: places.sort((a, b) => accesses(b) - accesses(a)) };
  }
}

function accesses({ reads, operations, emulated, refused }: AuditedPlace): number {
  return reads + operations + emulated + refused;
}
