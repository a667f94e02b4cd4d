import type { Mfn } from '../x86/brand.ts';
import { apicOperations } from './apic.ts';
import { cpuOperations } from './cpu.ts';
import { initOperations } from './init.ts';
import { irqOperations } from './irq.ts';
import { miscOperations } from './misc.ts';
import { mmuOperations } from './mmu.ts';
import type {
  GroupTable,
  OperationRow,
  ParametersOfRow,
  ResultOfRow,
  TableNumber,
  ValueType,
  WideResult,
} from './schema.ts';
import { timeOperations } from './time.ts';

/**
 * The catalogue: every operation that a paravirtual kernel can ask for, with its contract.
 *
 * The groups and names are those of the 2007 split of one `paravirt_ops` into small `pv_*_ops`, spelt in camel case;
 * later additions that guests reach stand beside them. From this table come the types below, the contract checks, the
 * trace's schema and docs/operations.md. One file a group; schema.ts says what a row means.
 */
export const catalogue = {
  init: initOperations,
  time: timeOperations,
  irq: irqOperations,
  cpu: cpuOperations,
  apic: apicOperations,
  misc: miscOperations,
  mmu: mmuOperations,
} as const satisfies Readonly<Record<string, GroupTable>>;

export type Catalogue = typeof catalogue;
export type Group = keyof Catalogue;
export type OperationName<G extends Group> = keyof Catalogue[G] & string;
/** An operation with its group, as the trace and the statistics name it. */
export type FullName = { [G in Group]: `${G}.${OperationName<G>}` }[Group];

type Row<G extends Group, O extends OperationName<G>> = Catalogue[G][O] extends infer R extends OperationRow
  ? R
  : never;

/**
 * Parameters of an operation: the vCPU that asks, the arguments of its row (64-bit values as two halves), and `out` where
 * the result is wide. `N` is the numbering that page-table entries hold.
 */
export type ArgumentsOf<G extends Group, O extends OperationName<G>, N extends TableNumber = Mfn> = ParametersOfRow<
  Row<G, O>,
  N
>;
export type ResultOf<G extends Group, O extends OperationName<G>, N extends TableNumber = Mfn> = ResultOfRow<
  Row<G, O>,
  N
>;

/** All operations of one group as functions. */
export type GroupOperations<G extends Group, N extends TableNumber = Mfn> = {
  [O in OperationName<G>]: (...args: ArgumentsOf<G, O, N>) => ResultOf<G, O, N>;
};

/** All operations. */
export type Operations<N extends TableNumber = Mfn> = { readonly [G in Group]: GroupOperations<G, N> };

/** What an interface and a paging carry out together: some operations of some groups. */
export type Implementation<N extends TableNumber = Mfn> = { readonly [G in Group]?: Partial<GroupOperations<G, N>> };

/** One operation at run time. */
export interface Operation {
  /** Place in `operations` and in every array of counts. */
  readonly id: number;
  readonly group: Group;
  readonly name: string;
  readonly fullName: FullName;
  readonly row: OperationRow;
  /** Number of parameters, the vCPU and `out` included. */
  readonly parameters: number;
}

const wideResults: readonly string[] = ['pte', 'long', 'longOrFault', 'registers'] satisfies WideResult[];

export function hasWideResult(row: OperationRow): boolean {
  return wideResults.includes(row.result);
}

/** Parameters that a value of the type takes: two for 64-bit values. */
export function parametersOfType(type: ValueType): 1 | 2 {
  return type === 'pte' || type === 'long' || type === 'descriptor' ? 2 : 1;
}

function enumerate(): Operation[] {
  const list: Operation[] = [];
  for (const [group, table] of Object.entries(catalogue) as [Group, GroupTable][]) {
    for (const [name, row] of Object.entries(table)) {
      let parameters = hasWideResult(row) ? 2 : 1;
      for (const [, type] of row.arguments) parameters += parametersOfType(type);
      list.push({ id: list.length, group, name, fullName: `${group}.${name}` as FullName, row, parameters });
    }
  }
  return list;
}

/** Every operation, in the order of the catalogue. */
export const operations: readonly Operation[] = enumerate();
export const operationCount = operations.length;

type Ids = { readonly [G in Group]: { readonly [O in OperationName<G>]: number } };

/** The id of each operation, for arrays of counts: `counts[operationIds.mmu.setPteAt]`. */
export const operationIds: Ids = (() => {
  const ids: Record<string, Record<string, number>> = {};
  for (const operation of operations) {
    ids[operation.group] = { ...ids[operation.group], [operation.name]: operation.id };
  }
  return ids as unknown as Ids;
})();
