import { CodeMode } from '../code-mode.ts';
import type { Exit } from '../exits.ts';
import type { Shape } from '../semantics/context.ts';
import { type CodeKind, codeKindOf, parseShapeKey, shapeKey } from '../semantics/shape-key.ts';
import { State } from '../state.ts';
import { buildHandlers } from './cold-handlers.ts';
import { buildLoop, FIRST_COLD, TABLE_SIZE } from './dispatch-loop.ts';
import type { InterpreterOptions } from './options.ts';
import { PseudoHandler } from './record.ts';
import { buildSharedFunctions } from './shared-functions.ts';

type Loop = (state: number) => number;
type Handler = (state: number, record: number) => number;

/** Handlers of any kind that a record can name. */
export const HANDLER_LIMIT = 0x1_0000;
/**
 * Instructions of a kind that are executed before what it meets most is made for it: 64-bit kernels begin in 32-bit code,
 * and 32-bit ones with segments that are not flat.
 */
const PATIENCE: Readonly<Record<CodeKind, number>> = { long: 0, flat: 100_000, legacy: 100_000 };

/**
 * Tier 0. For each kind of code one generated function dispatches with a branch table over decoded records: the shapes
 * that programs execute most are part of it, all others are functions that are generated when they are first met, the
 * common ones at once. What changes the kind of code leaves the function.
 */
export class Interpreter {
  readonly #options: InterpreterOptions;
  readonly #table: WebAssembly.Table;
  /** Functions of regions (cpu/jit/), by slot. */
  readonly regions: WebAssembly.Table;
  /** What generated code of regions imports; WebAssembly all of it. */
  readonly regionImports: Readonly<Record<string, unknown>>;
  readonly #handlers = new Map<string, number>();
  readonly #handlerOf = new Map<Shape, number>();
  /** Executes any code whose records name no hot handler. */
  #plain: Loop | undefined;
  readonly #loops: Partial<Record<CodeKind, Loop>> = {};
  readonly #patience: Record<CodeKind, number> = { ...PATIENCE };
  readonly #flags: (state: number) => number;
  /** What loops and cold handlers import. */
  readonly #imports: Record<string, unknown>;
  readonly #common = new Map<CodeKind, ReadonlyMap<string, Handler>>();
  #cold = 0;

  constructor(options: InterpreterOptions) {
    this.#options = options;
    this.#table = new WebAssembly.Table({ element: 'anyfunc', initial: TABLE_SIZE });
    this.regions = new WebAssembly.Table({ element: 'anyfunc', initial: options.regionSlots });
    const { memory } = options.memory;
    const shared = instantiate(buildSharedFunctions(options), { memory, regions: this.regions, ...options.host });
    const { flags, carry, enterRegions } = shared;
    this.#flags = flags as (state: number) => number;
    this.#imports = { memory, table: this.#table, ...options.host, flags, carry, enterRegions };
    const { x87, compareStrings } = options.host;
    this.regionImports = { memory, x87, compareStrings, ...shared };
  }

  /** Executes from State.rip until an exit and returns its kind. */
  run(state: number): Exit {
    const mode = this.#options.memory.u32[(state + State.codeMode) >> 2];
    if (mode === CodeMode.bits64) return this.#loops.long?.(state) ?? this.#runEarly('long', state);
    if (mode === CodeMode.flat32) return this.#loops.flat?.(state) ?? this.#runEarly('flat', state);
    return this.#loops.legacy?.(state) ?? this.#runEarly('legacy', state);
  }

  /** As `run`, of a kind that has no loop yet. */
  #runEarly(kind: CodeKind, state: number): Exit {
    if (this.#patience[kind] <= 0) return this.#makeLoop(kind)(state);
    const { memory } = this.#options;
    const budget = (state + State.budget) >> 2;
    const before = memory.i32[budget] as number;
    const exit = this.#plainLoop(state);
    this.#patience[kind] -= before - (memory.i32[budget] as number);
    return exit;
  }

  get #plainLoop(): Loop {
    this.#plain ??= instantiate(buildLoop(this.#options, []), this.#imports).run as Loop;
    return this.#plain;
  }

  #makeLoop(kind: CodeKind): Loop {
    const { hotShapes, semantics } = this.#options;
    const hot = (hotShapes[kind] ?? []).filter((key) => semantics.has(parseShapeKey(key).operation));
    hot.forEach((key, index) => {
      this.#handlers.set(key, PseudoHandler.count + index);
    });
    this.#handlerOf.clear();
    const loop =
      hot.length > 0 ? (instantiate(buildLoop(this.#options, hot), this.#imports).run as Loop) : this.#plainLoop;
    this.#loops[kind] = loop;
    return loop;
  }

  /** The six arithmetic flags. */
  flags(state: number): number {
    return this.#flags(state);
  }

  get coldHandlers(): number {
    return this.#cold;
  }

  /** The handler of a shape, generated when it is met for the first time. An operation without a meaning raises #UD. */
  handlerFor(shape: Shape): number {
    const known = this.#handlerOf.get(shape);
    if (known !== undefined) return known;
    const handler = this.#findOrGenerate(shape);
    this.#handlerOf.set(shape, handler);
    return handler;
  }

  #findOrGenerate(shape: Shape): number {
    const key = shapeKey(shape);
    const known = this.#handlers.get(key);
    if (known !== undefined) return known;
    const handler = FIRST_COLD + this.#cold;
    if (handler === HANDLER_LIMIT) throw new RangeError(`more than ${HANDLER_LIMIT} shapes of instructions`);
    if (this.#cold === this.#table.length) this.#table.grow(TABLE_SIZE);
    const made = this.#commonHandlers(shape, key) ?? this.#generate([shape]);
    this.#table.set(this.#cold++, made.get(key));
    this.#handlers.set(key, handler);
    return handler;
  }

  /** Those of the shape's kind, when it is one of them. */
  #commonHandlers(shape: Shape, key: string): ReadonlyMap<string, Handler> | undefined {
    const kind = codeKindOf(shape);
    const keys = this.#options.commonShapes[kind] ?? [];
    if (this.#patience[kind] > 0 || !keys.includes(key)) return undefined;
    const made = this.#common.get(kind) ?? this.#generate(keys.map(parseShapeKey));
    this.#common.set(kind, made);
    return made;
  }

  #generate(shapes: readonly Shape[]): Map<string, Handler> {
    const exports = instantiate(buildHandlers(this.#options, shapes), this.#imports);
    return new Map(shapes.map((shape, index) => [shapeKey(shape), exports[index] as Handler]));
  }

  /** Every shape met so far with the slot of its handler, where none is hot: for the profile that chooses these. */
  *coldShapes(): IterableIterator<[key: string, slot: number]> {
    for (const [key, handler] of this.#handlers) yield [key, handler - FIRST_COLD];
  }
}

function instantiate(bytes: Uint8Array<ArrayBuffer>, host: Record<string, unknown>): WebAssembly.Exports {
  return new WebAssembly.Instance(new WebAssembly.Module(bytes), { host } as WebAssembly.Imports).exports;
}
