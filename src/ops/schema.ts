import type { GuestVirtual, Mfn, Pfn } from '../x86/brand.ts';

/**
 * What a row of the operations catalogue looks like, and how rows become TypeScript types.
 *
 * A row speaks of an operation as the host carries it out. Where the guest's kernel has a pointer to an entry, the row
 * has the table's page and the index in it; where it has a memory descriptor, the row has the root of the address space.
 * The vCPU that asks comes first in every operation and is not repeated in the rows.
 */

/**
 * Number of a guest page as the guest's own page-table entries hold it: a machine frame number with direct paging, a
 * pseudo-physical one otherwise. Implementations fix which of the two they speak.
 */
export type TableNumber = Mfn | Pfn;

/** Stands for a table or an address space that the caller could not name. */
export const UNKNOWN_TABLE = -1 as Mfn & Pfn;

/** Operations put off between entering and leaving: none, those on page tables, or those of a context switch. */
export type LazyMode = 'none' | 'mmu' | 'cpu';

/** The closed set of types an argument can have, with the unit that the manual and the trace state. */
export const valueTypes = {
  virtual: 'linear address of the guest, canonical, signed',
  table: 'page that holds a page table, by the number that entries hold',
  page: 'any page of the guest, by the number that entries hold',
  pages: 'list of pages, by the numbers that entries hold',
  mfn: 'machine frame number',
  pfn: 'pseudo-physical frame number',
  index: 'index in a table, from 0',
  level: 'level of a page table: 1 holds pages, the highest is the root',
  pte: 'page-table entry of 64 bits: low half, high half (2-level tables: high half 0)',
  word: '32-bit value, unsigned',
  long: '64-bit value: low half, high half',
  descriptor: 'segment descriptor of 8 bytes: low half, high half',
  selector: 'segment selector of 16 bits',
  port: 'I/O port of 16 bits',
  count: 'number of things, from 0',
  flags: '32 bits with a meaning each',
  truth: 'true or false',
  vcpu: 'index of a virtual processor in its domain',
  vcpuSet: 'bit n is virtual processor n, 0–31',
  nanoseconds: 'time in nanoseconds; exact below 2^53',
  seconds: 'time in seconds since 1970',
  kilohertz: 'frequency in kHz',
  lazyMode: 'none, mmu or cpu',
  text: 'characters',
} as const;

export type ValueType = keyof typeof valueTypes;

/** The parameters that one value takes in a call; 64-bit values are two halves, so that no BigInt is made on a hot path. */
interface ParametersOf<N extends TableNumber> {
  virtual: [GuestVirtual];
  table: [N];
  page: [N];
  pages: [readonly N[]];
  mfn: [Mfn];
  pfn: [Pfn];
  index: [number];
  level: [number];
  pte: [low: number, high: number];
  word: [number];
  long: [low: number, high: number];
  descriptor: [low: number, high: number];
  selector: [number];
  port: [number];
  count: [number];
  flags: [number];
  truth: [boolean];
  vcpu: [number];
  vcpuSet: [number];
  nanoseconds: [number];
  seconds: [number];
  kilohertz: [number];
  lazyMode: [LazyMode];
  text: [string];
}

/** What an operation gives back. */
export const resultTypes = {
  nothing: 'nothing',
  status: '0, or a negative error number when the operation was refused and nothing was changed',
  virtual: valueTypes.virtual,
  table: valueTypes.table,
  word: valueTypes.word,
  selector: valueTypes.selector,
  flags: valueTypes.flags,
  truth: valueTypes.truth,
  seconds: valueTypes.seconds,
  nanoseconds: valueTypes.nanoseconds,
  kilohertz: valueTypes.kilohertz,
  count: valueTypes.count,
  text: valueTypes.text,
  /** Wider results are stored into the caller's array, the last parameter. */
  pte: 'page-table entry, stored into `out` as low and high half',
  long: '64-bit value, stored into `out` as low and high half',
  longOrFault:
    '64-bit value, stored into `out` as low and high half; 0, or a negative error number when it does not exist',
  registers: 'four 32-bit values, stored into `out`',
} as const;

export type ResultType = keyof typeof resultTypes;
export type WideResult = 'pte' | 'long' | 'longOrFault' | 'registers';

// biome-ignore lint/suspicious/noConfusingVoidType: stands for the return type of an operation, nowhere else
type Nothing = void;

interface Results<N extends TableNumber> {
  nothing: Nothing;
  status: number;
  virtual: GuestVirtual;
  table: N;
  word: number;
  selector: number;
  flags: number;
  truth: boolean;
  seconds: number;
  nanoseconds: number;
  kilohertz: number;
  count: number;
  text: string;
  pte: Nothing;
  long: Nothing;
  longOrFault: number;
  registers: Nothing;
}

/** Name, type and, where the type does not say enough, meaning. */
export type ArgumentRow = readonly [name: string, type: ValueType, meaning?: string];

/** What the kernel's patcher makes of a recorded call site of the operation. */
export interface Patch {
  /**
   * With the native function.
   * - `inline`: its instructions replace the call; the rest of the site becomes no-ops.
   * - `nothing`: it is empty, the whole site becomes no-ops.
   * - `call`: the indirect call becomes a direct one of 5 bytes.
   * - `none`: there are no recorded sites, the operation is called through its pointer.
   */
  readonly native: 'inline' | 'nothing' | 'call' | 'none';
  /** Native instructions of an `inline` site. */
  readonly template?: string;
  /** With any other function: a direct call, or a direct jump where the site is entered by one. */
  readonly other: 'call' | 'jump' | 'none';
  /** Registers that what stands at the site may destroy. */
  readonly clobbers: string;
}

/** What a C call site saves around itself. */
const CALLER_SAVED = 'eax, ecx, edx; 64-bit: all caller-saved';

export const calledAt = { native: 'call', other: 'call', clobbers: CALLER_SAVED } as const satisfies Patch;
export const nothingAt = { native: 'nothing', other: 'call', clobbers: CALLER_SAVED } as const satisfies Patch;
export const notPatched = { native: 'none', other: 'none', clobbers: 'as a C function' } as const satisfies Patch;

/** @param clobbers defaults to what a C call site saves */
export function inlined(template: string, clobbers: string = CALLER_SAVED): Patch {
  return { native: 'inline', template, other: 'call', clobbers };
}

/** A site that is jumped to and never comes back. */
export function jumpedTo(template: string): Patch {
  return { native: 'inline', template, other: 'jump', clobbers: 'none' };
}

/** Where and when kernels have the operation. `since` '2006' is the accessor draft of that year, '2007' the split into groups. */
export interface Users {
  readonly since: '2006' | '2007' | '2.6.25' | '2.6.26' | '2.6.27' | '2.6.28' | '2.6.30' | '5.5';
  /** Present means that Linux 6.1 no longer has it. */
  readonly gone?: 'before 6.1';
  readonly where?:
    | 'i386'
    | 'i386 PAE'
    | 'i386 with page tables in high memory'
    | 'x86-64'
    | 'three levels or more'
    | 'four levels';
  /** Who calls it, in a phrase. */
  readonly by: string;
}

export interface OperationRow {
  readonly arguments: readonly ArgumentRow[];
  readonly result: ResultType;
  /** What plain hardware does. */
  readonly native: string;
  /** What must hold when it is called. */
  readonly before: string;
  /** What holds when it has returned. */
  readonly after: string;
  readonly users: Users;
  readonly xen: string;
  readonly vmi: string;
  readonly lguest: string;
  readonly kvm: string;
  readonly patch: Patch;
}

export type GroupTable = Readonly<Record<string, OperationRow>>;

type Flatten<Rows, N extends TableNumber> = Rows extends readonly [infer First, ...infer Rest]
  ? First extends readonly [string, infer Type extends ValueType, ...unknown[]]
    ? [...ParametersOf<N>[Type], ...Flatten<Rest, N>]
    : never
  : [];

/** Parameters of the operation that a row describes: the vCPU that asks, the arguments, and `out` for a wide result. */
export type ParametersOfRow<Row extends OperationRow, N extends TableNumber> = [
  vcpu: number,
  ...Flatten<Row['arguments'], N>,
  ...(Row['result'] extends WideResult ? [out: Uint32Array] : []),
];

export type ResultOfRow<Row extends OperationRow, N extends TableNumber> = Results<N>[Row['result']];

/** The phrase of an interface that leaves an operation to the hardware it emulates. */
export const AS_NATIVE = 'as native';
/** The phrase of an interface whose guests do not have the operation. */
export const ABSENT = 'not there';
