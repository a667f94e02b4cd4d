import { type Operation, parametersOfType } from '../ops/catalogue.ts';
import type { OperationObserver, Value } from '../ops/dispatch.ts';
import type { ResultType, ValueType } from '../ops/schema.ts';
import type { GuestVirtual } from '../x86/brand.ts';
import { hexadecimal, hexadecimal64 } from './text.ts';

/**
 * The trace: JSON Lines, one event a line, in the order in which they ended.
 *
 *   {"t":1204560,"v":0,"k":"operation","n":"mmu.setPteAt","p":"0xffffffff81054f2a","a":{"space":"0x1234",…},"r":0}
 *   {"t":1204990,"v":0,"k":"hypercall","n":"mmu_update","p":"0xffffffff8100102a","a":["0xffffc90000003d60","0x1"],"r":0}
 *   {"t":1206021,"v":1,"k":"exit","n":"exception","p":"0xffffffff81a00e0d","a":{"detail":14,"error":2}}
 *
 * `t` guest time in nanoseconds, `v` vCPU, `k` kind, `n` name, `p` guest instruction pointer, `a` arguments, `r` result
 * (not there when there is none). Arguments of operations are named and formatted by the catalogue: addresses, page
 * numbers, entries and flags as hexadecimal text, because 64 bits do not fit a JSON number; counts, indexes and times as
 * numbers. With `t` in place of `ts` and `v` in place of `tid`, each line is an instant event of the Chrome trace format,
 * which Perfetto reads.
 */
export interface TraceLine {
  readonly t: number;
  readonly v: number;
  readonly k: TraceKind;
  readonly n: string;
  readonly p: string;
  readonly a: Readonly<Record<string, TraceValue>> | readonly TraceValue[];
  readonly r?: TraceValue;
}

export type TraceKind = 'operation' | 'hypercall' | 'exit';
export type TraceValue = string | number | boolean | readonly (string | number)[];

export interface TraceOptions {
  /** Takes whole lines, each with its line feed. */
  readonly sink: (text: string) => void;
  /** Guest time in nanoseconds. */
  now(): number;
  ripOf(vcpu: number): GuestVirtual;
  /** Characters that are held back before the sink is called; at most one line more is ever held. */
  readonly bufferSize?: number;
}

const DEFAULT_BUFFER = 65_536;

const hexadecimalTypes: ReadonlySet<ValueType | ResultType> = new Set([
  'virtual',
  'table',
  'page',
  'mfn',
  'pfn',
  'word',
  'selector',
  'port',
  'flags',
  'vcpuSet',
]);

/** Formats one value by its type; `high` is the second half of the types that have one. */
export function traceValue(type: ValueType | ResultType, value: Value | undefined, high?: Value): TraceValue {
  if (type === 'pte' || type === 'long' || type === 'descriptor') return hexadecimal64(Number(value), Number(high));
  if (type === 'pages') return Array.from(value as readonly number[], hexadecimal);
  if (hexadecimalTypes.has(type)) return value === -1 && type !== 'virtual' ? 'none' : hexadecimal(Number(value));
  return value as TraceValue;
}

/** The arguments of an operation by name. */
export function traceArguments(operation: Operation, values: readonly Value[]): Record<string, TraceValue> {
  const named: Record<string, TraceValue> = {};
  let next = 1; // the vCPU comes first and has its own field
  for (const [name, type] of operation.row.arguments) {
    named[name] = traceValue(type, values[next], values[next + 1]);
    next += parametersOfType(type);
  }
  return named;
}

/** The result of an operation, read out of the caller's array when it is wide; undefined when there is none. */
export function traceResult(
  operation: Operation,
  values: readonly Value[],
  result: Value | undefined,
): TraceValue | undefined {
  const type: ResultType = operation.row.result;
  const out = values[values.length - 1];
  switch (type) {
    case 'nothing':
      return undefined;
    case 'pte':
    case 'long':
      return out instanceof Uint32Array ? hexadecimal64(out[0] ?? 0, out[1] ?? 0) : undefined;
    case 'longOrFault':
      if (result !== 0) return Number(result);
      return out instanceof Uint32Array ? hexadecimal64(out[0] ?? 0, out[1] ?? 0) : undefined;
    case 'registers':
      return out instanceof Uint32Array ? Array.from(out.subarray(0, 4), hexadecimal) : undefined;
    default:
      return traceValue(type, result);
  }
}

/** Writes the trace. Attach it to operations as an observer; interfaces call `hypercall`, the domain's loop `exit`. */
export class TraceWriter implements OperationObserver {
  readonly #options: TraceOptions;
  readonly #bufferSize: number;
  #buffer = '';

  constructor(options: TraceOptions) {
    this.#options = options;
    this.#bufferSize = options.bufferSize ?? DEFAULT_BUFFER;
  }

  after(operation: Operation, values: readonly Value[], result: Value | undefined): void {
    const vcpu = Number(values[0]);
    this.#line(
      'operation',
      vcpu,
      operation.fullName,
      traceArguments(operation, values),
      traceResult(operation, values, result),
    );
  }

  /**
   * @param values the arguments, as many as the call takes
   * @param result undefined for a call that gives none: it set all registers itself
   */
  hypercall(vcpu: number, name: string, values: readonly TraceValue[], result: TraceValue | undefined): void {
    this.#line('hypercall', vcpu, name, values, result);
  }

  exit(vcpu: number, name: string, detail: Readonly<Record<string, TraceValue>> = {}): void {
    this.#line('exit', vcpu, name, detail, undefined);
  }

  /** Hands everything that is held back to the sink. */
  flush(): void {
    if (this.#buffer === '') return;
    const text = this.#buffer;
    this.#buffer = '';
    this.#options.sink(text);
  }

  #line(k: TraceKind, v: number, n: string, a: TraceLine['a'], r: TraceValue | undefined): void {
    const p = hexadecimal(this.#options.ripOf(v));
    const t = this.#options.now();
    const line: TraceLine = r === undefined ? { t, v, k, n, p, a } : { t, v, k, n, p, a, r };
    this.#buffer += `${JSON.stringify(line)}\n`;
    if (this.#buffer.length >= this.#bufferSize) this.flush();
  }
}
