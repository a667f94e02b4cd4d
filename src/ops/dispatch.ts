import type { Mfn, Pfn } from '../x86/brand.ts';
import {
  type Group,
  type GroupOperations,
  type Implementation,
  type Operation,
  type OperationName,
  operationCount,
  operations,
} from './catalogue.ts';

/**
 * How the host carries out operations, and how they are watched.
 *
 * An interface translates what its guest asks for (a hypercall, a ROM call, a trapped instruction) into operations and
 * calls them on the object that `createOperations` returned. With nobody watching, that object is the implementation
 * itself: the same functions, no wrapper, no test of a flag. With watchers, each function is wrapped. To attach or detach
 * a watcher, an interface is given another object. This is the guest's patching (inline when native, call when not)
 * turned on the host.
 */

/** A parameter or a result at run time. */
export type Value = number | boolean | string | readonly number[] | Uint32Array;

/** Sees every operation before and after it is carried out. */
export interface OperationObserver {
  /** `values` are the parameters as passed, the vCPU first; they are only good during the call. */
  before?(operation: Operation, values: readonly Value[]): void;
  /** Called also for a refused operation; not when the implementation threw. */
  after?(operation: Operation, values: readonly Value[], result: Value | undefined): void;
}

export interface Watchers {
  /** One counter an operation, by `Operation.id`; see `createCounts`. */
  readonly counts?: Float64Array;
  readonly observers?: readonly OperationObserver[];
}

type AnyImplementation = Implementation<Mfn> | Implementation<Pfn>;
type NumberOf<I extends AnyImplementation> = I extends Implementation<Mfn> ? Mfn : Pfn;

/** The operations, and nothing else, that an implementation has, with the catalogue's parameters. */
export type OperationsOf<I extends AnyImplementation> = {
  readonly [G in keyof I & Group]: {
    readonly [O in keyof I[G] & OperationName<G>]: GroupOperations<G, NumberOf<I>>[O];
  };
};

export function createCounts(): Float64Array {
  return new Float64Array(operationCount);
}

/**
 * @param implementation groups with the operations that are carried out; members that the catalogue does not name are ignored
 * @returns the implementation itself when nobody watches, else an object of the same shape
 */
export function createOperations<I extends AnyImplementation>(
  implementation: I,
  watchers: Watchers = {},
): OperationsOf<I> {
  const observers = watchers.observers ?? [];
  if (watchers.counts === undefined && observers.length === 0) return implementation as unknown as OperationsOf<I>;
  const wrapped: Record<string, Record<string, AnyFunction>> = {};
  for (const group of Object.keys(implementation)) wrapped[group] = {};
  for (const operation of operations) {
    const group = implementation[operation.group] as Record<string, unknown> | undefined;
    const target = group?.[operation.name];
    const table = wrapped[operation.group];
    if (typeof target !== 'function' || table === undefined) continue;
    let carriedOut = target.bind(group) as AnyFunction;
    if (observers.length > 0) carriedOut = observed(operation, carriedOut, observers);
    if (watchers.counts !== undefined) carriedOut = counted(operation, carriedOut, watchers.counts);
    table[operation.name] = carriedOut;
  }
  return wrapped as unknown as OperationsOf<I>;
}

type AnyFunction = (...values: Value[]) => Value | undefined;

function observed(operation: Operation, target: AnyFunction, observers: readonly OperationObserver[]): AnyFunction {
  return (...values) => {
    for (const observer of observers) observer.before?.(operation, values);
    const result = target(...values);
    for (const observer of observers) observer.after?.(operation, values, result);
    return result;
  };
}

/**
 * Costs 3 ns a call, which is the addition itself: counting inside an implementation costs the same
 * (bench/ops-dispatch.bench.ts), and up to 20 ns where V8 does not inline it because a call site sees many operations.
 * Rest parameters make no array here; wrappers of fixed arity are not faster.
 */
function counted(operation: Operation, target: AnyFunction, counts: Float64Array): AnyFunction {
  const { id } = operation;
  return (...values) => {
    counts[id]! += 1; // id < operationCount, the length of every array of counts
    return target(...values);
  };
}
