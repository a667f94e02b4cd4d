import type { HostMemory } from '../../memory/host-memory.ts';
import { CodeMode } from '../code-mode.ts';
import { Exit } from '../exits.ts';
import { HOST_FUNCTIONS, type HostFunction, type Semantics, type Shape } from '../semantics/context.ts';
import { tlbEntry } from '../semantics/generating-context.ts';
import { type CodeKind, codeKindOf, parseShapeKey, shapeKey } from '../semantics/shape-key.ts';
import type { ShapeLists } from '../semantics/shapes/index.ts';
import { State } from '../state.ts';
import { CodeSlot, TlbEntry } from '../tlb-layout.ts';
import {
  add,
  and,
  eq,
  eqz,
  extendU,
  geS,
  geU,
  gtS,
  gtU,
  type I32,
  type I64,
  i32,
  i64,
  leS,
  load8U32,
  load16U32,
  load32,
  load64,
  loadInteger,
  select,
  shl,
  store32,
  store64,
  sub,
} from '../wasm/expression.ts';
import { CompilationHint, callIndirectOf, callOf, type FunctionBuilder, ModuleBuilder } from '../wasm/module.ts';
import { emitCarry, emitFlags, type Functions, RecordContext, type Ways } from './context.ts';
import { emitFindSlot } from './find-code.ts';
import { Link, PseudoHandler, RecordField, RegionAnswer } from './record.ts';
import { emitEnterRegions, emitRegionLoop, REGION, REGION_LOOP } from './region-loop.ts';

/** What a cold handler answers, besides 0 (go on) and a positive Exit (leave at the instruction). */
const enum Answer {
  /** Control goes to State.rip. */
  jump = -1,
  /** Taken direct branch of the record. */
  branch = -2,
  /** The same of a record that stands for two instructions. */
  fusedBranch = -3,
  /** Exits behind the instruction are −4 − exit. */
  leaveAfter = -4,
}

const STATE_TO_INTEGER = { parameters: ['i32'], result: 'i32' } as const;
type Loop = (state: number) => number;
type Handler = (state: number, record: number) => number;
const COLD_HANDLER = { parameters: ['i32', 'i32'], result: 'i32' } as const;

/** Indices of the imported tables. */
const COLD_TABLE = 0;
const REGION_TABLE = 1;

/** Cold handlers that the function table has room for before it grows; a kernel and its programs meet about a thousand. */
const TABLE_SIZE = 2048;
/** Handlers of any kind that a record can name. */
export const HANDLER_LIMIT = 0x1_0000;
/** Handlers that are not part of a loop begin here, so that those of all loops have room below. */
const FIRST_COLD = 1024;

/**
 * Instructions of a kind that are executed before what it meets most is made for it: 64-bit kernels begin in 32-bit code,
 * and 32-bit ones with segments that are not flat.
 */
const PATIENCE: Readonly<Record<CodeKind, number>> = { long: 0, flat: 100_000, legacy: 100_000 };

/** A host function takes as many numbers as HOST_FUNCTIONS says. */
type HostFunctionOf<Count extends number> = Count extends 1
  ? (state: number) => number
  : Count extends 2
    ? (state: number, a: number) => number
    : Count extends 3
      ? (state: number, a: number, b: number) => number
      : Count extends 4
        ? (state: number, a: number, b: number, c: number) => number
        : (state: number, a: number, b: number, c: number, d: number, e: number) => number;
export type HostFunctions = { readonly [Name in HostFunction]: HostFunctionOf<(typeof HOST_FUNCTIONS)[Name]> };

export interface InterpreterOptions {
  readonly memory: HostMemory;
  readonly host: HostFunctions;
  /** Meaning of each operation. */
  readonly semantics: ReadonlyMap<string, Semantics>;
  /** Shapes whose handlers are part of the big functions. */
  readonly hotShapes: ShapeLists;
  /** Shapes whose handlers are made together when the first of their kind is met: a module for each costs more. */
  readonly commonShapes: ShapeLists;
  /** Entries of each TLB, a power of two. */
  readonly tlbEntries: number;
  /** Address of the table of decoded code by place. */
  readonly codeSlots: number;
  /** Regions that there is room for. */
  readonly regionSlots: number;
  /** Address of one 64-bit counter for each slot of the function table: executions of cold handlers, for the profile. */
  readonly profile?: number;
}

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
  readonly #plainLoop: Loop;
  readonly #loops: Partial<Record<CodeKind, Loop>> = {};
  readonly #patience: Record<CodeKind, number> = { ...PATIENCE };
  readonly #flags: (state: number) => number;
  readonly #imports: WebAssembly.Imports;
  readonly #common = new Map<CodeKind, ReadonlyMap<string, Handler>>();
  /** What the loops import. */
  readonly #shared: Record<string, unknown>;
  #cold = 0;

  constructor(options: InterpreterOptions) {
    this.#options = options;
    this.#table = new WebAssembly.Table({ element: 'anyfunc', initial: TABLE_SIZE });
    this.regions = new WebAssembly.Table({ element: 'anyfunc', initial: options.regionSlots });
    this.#shared = {
      memory: options.memory.memory,
      table: this.#table,
      regions: this.regions,
      ...options.host,
    };
    const main = this.#instantiate(buildMain(options, []));
    this.#plainLoop = main.run as Loop;
    this.#flags = main.flags as (state: number) => number;
    this.#imports = { host: { ...this.#shared, flags: main.flags, carry: main.carry } } as WebAssembly.Imports;
    this.regionImports = { memory: options.memory.memory, x87: options.host.x87, ...main };
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

  #makeLoop(kind: CodeKind): Loop {
    const { hotShapes, semantics } = this.#options;
    const hot = (hotShapes[kind] ?? []).filter((key) => semantics.has(parseShapeKey(key).operation));
    hot.forEach((key, index) => {
      this.#handlers.set(key, PseudoHandler.count + index);
    });
    this.#handlerOf.clear();
    const loop = hot.length > 0 ? (this.#instantiate(buildMain(this.#options, hot)).run as Loop) : this.#plainLoop;
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
    const module = new WebAssembly.Module(buildHandlers(this.#options, shapes));
    const { exports } = new WebAssembly.Instance(module, this.#imports);
    return new Map(shapes.map((shape, index) => [shapeKey(shape), exports[index] as Handler]));
  }

  /** Every shape met so far with the slot of its handler, where none is hot: for the profile that chooses these. */
  *coldShapes(): IterableIterator<[key: string, slot: number]> {
    for (const [key, handler] of this.#handlers) yield [key, handler - FIRST_COLD];
  }

  #instantiate(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Exports {
    const imports = { host: this.#shared } as WebAssembly.Imports;
    return new WebAssembly.Instance(new WebAssembly.Module(bytes), imports).exports;
  }
}

function importHost(module: ModuleBuilder): Record<HostFunction, number> {
  const host = {} as Record<HostFunction, number>;
  for (const name of Object.keys(HOST_FUNCTIONS) as HostFunction[]) {
    host[name] = module.importFunction(name, {
      parameters: new Array<'i32'>(HOST_FUNCTIONS[name]).fill('i32'),
      result: 'i32',
    });
  }
  return host;
}

/** A module with a function for each shape: `0`, `1` … */
function buildHandlers(options: InterpreterOptions, shapes: readonly Shape[]): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder(options.memory.size / 0x1_0000);
  // Most of many are never called.
  if (shapes.length > 1) module.hint = CompilationHint.lazily;
  const functions: Functions = {
    host: importHost(module),
    flags: module.importFunction('flags', STATE_TO_INTEGER),
    carry: module.importFunction('carry', STATE_TO_INTEGER),
  };
  for (const [index, shape] of shapes.entries()) {
    emitHandler(module.function(COLD_HANDLER, String(index)).builder, shape, functions, options);
  }
  return module.build();
}

function emitHandler(fn: FunctionBuilder, shape: Shape, functions: Functions, options: InterpreterOptions): void {
  const { semantics, tlbEntries } = options;
  const state = fn.parameter(0, 'i32');
  const ways: Ways = {
    next: () => fn.return(i32(0)),
    leave: (kind) => fn.return(kind),
    leaveAfter: (kind) => fn.return(sub(i32(Answer.leaveAfter), kind)),
    branch: () => fn.return(i32(shape.fused ? Answer.fusedBranch : Answer.branch)),
    jump: (target) => {
      fn.store(store64(state, target, State.rip));
      fn.return(i32(Answer.jump));
    },
  };
  const context = new RecordContext(fn, shape, state, fn.parameter(1, 'i32'), ways, functions, tlbEntries);
  emitMeaning(context, semantics.get(shape.operation) ?? (semantics.get('ud2') as Semantics));
  context.done();
  fn.unreachable();
}

function buildMain(options: InterpreterOptions, hot: readonly string[]): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder(options.memory.size / 0x1_0000);
  // Cold handlers do without the table: each instance that imports it costs time in proportion to its size.
  module.importTable('table', TABLE_SIZE);
  module.importTable('regions', options.regionSlots);
  const host = importHost(module);
  const flags = module.function(STATE_TO_INTEGER, 'flags');
  emitFlags(flags.builder);
  flags.builder.unreachable();
  const carry = module.function(STATE_TO_INTEGER, 'carry');
  emitCarry(carry.builder);
  carry.builder.unreachable();
  for (const name of ['sse', 'helper', 'loadSegment', 'timeStamp'] as const) emitForward(module, host, name);
  const loop = module.function(REGION_LOOP, 'regions');
  emitRegionLoop(loop.builder, options, { table: REGION_TABLE, region: module.type(REGION) });
  loop.builder.unreachable();
  const regions = module.function(COLD_HANDLER);
  emitEnterRegions(regions.builder, loop.index);
  regions.builder.unreachable();
  const functions = { host, flags: flags.index, carry: carry.index, regions: regions.index };
  const { builder: fn } = module.function(STATE_TO_INTEGER, 'run');
  emitRun(fn, options, functions, hot, module.type(COLD_HANDLER));
  return module.build();
}

/** A host function as one of WebAssembly, which other modules import at no cost. */
function emitForward(module: ModuleBuilder, host: Record<HostFunction, number>, name: HostFunction): void {
  const parameters = new Array<'i32'>(HOST_FUNCTIONS[name]).fill('i32');
  const { builder: fn } = module.function({ parameters, result: 'i32' }, name);
  fn.return(callOf('i32', host[name], ...parameters.map((type, index) => fn.parameter(index, type))));
  fn.unreachable();
}

/** An instruction, and the conditional jump behind it when the record stands for both. */
function emitMeaning(context: RecordContext, semantics: Semantics): void {
  semantics(context);
  const { fused } = context.shape;
  if (fused) context.fn.if(context.condition(fused), () => context.branch());
}

function emitRun(
  fn: FunctionBuilder,
  options: InterpreterOptions,
  functions: Functions & { readonly regions: number },
  hot: readonly string[],
  coldType: number,
): void {
  const state = fn.parameter(0, 'i32');
  const record = fn.local('i32');
  const target = fn.local('i64');
  const code = fn.local('i32');
  /** Non-zero when the record that is looked up must not lead into a region. */
  const interpreting = fn.local('i32');

  const pageBase = load64(state, State.pageBase);
  const budget = load32(state, State.budget);
  const index = load8U32(record, RecordField.index);
  const next = add(pageBase, extendU(load16U32(record, RecordField.next)));
  const start = sub(next, extendU(load8U32(record, RecordField.length)));
  const link = load32(record, RecordField.link);
  const spend = (count: I32) => fn.store(store32(state, sub(budget, count), State.budget));
  const setRip = (address: I64) => fn.store(store64(state, address, State.rip));

  fn.set(target, load64(state, State.rip));
  const again = fn.open(0x03);
  const jump = fn.open(0x02);
  fn.branchIf(eqz(record), jump);
  const leave = fn.open(0x02);
  const leaveAfter = fn.open(0x02);
  const branchSlow = fn.open(0x02);
  const dispatch = fn.open(0x03);

  /** Goes to the record of a direct branch's target; the slow way starts from `target`. */
  const followLink = () => {
    const known = fn.let(link);
    fn.if(gtU(known, i32(Link.unknownCall)), () => {
      fn.set(record, known);
      fn.branchIf(gtS(budget, i32(0)), dispatch);
      fn.set(code, i32(Exit.budget));
      fn.branch(leave);
    });
    fn.set(target, add(next, loadInteger(4, true, record, RecordField.target)));
    fn.branch(branchSlow);
  };
  const branch = (instructions: number) => {
    spend(add(index, i32(instructions)));
    followLink();
  };
  /** @param instructions that the record stands for */
  const waysOf = (instructions: number): Ways => ({
    next: () => {
      fn.set(record, add(record, i32(RecordField.size)));
      fn.branch(dispatch);
    },
    leave: (kind) => {
      fn.set(code, kind);
      fn.branch(leave);
    },
    leaveAfter: (kind) => {
      fn.set(code, kind);
      fn.branch(leaveAfter);
    },
    branch: () => branch(instructions),
    jump: (address) => {
      fn.set(target, address);
      spend(add(index, i32(instructions)));
      fn.branch(jump);
    },
  });
  const ways = waysOf(1);
  /** Past the record that leads into a region, if there is one. */
  const skipHead = () => {
    fn.set(interpreting, i32(0));
    const head = geU(sub(load16U32(record, RecordField.handler), i32(PseudoHandler.warming)), i32(2));
    fn.set(record, add(record, select(head, i32(0), i32(RecordField.size))));
  };

  const pseudo: (() => void)[] = [];
  pseudo[PseudoHandler.stale] = () => {
    spend(index);
    fn.set(target, start);
    fn.branch(jump);
  };
  pseudo[PseudoHandler.fallThrough] = () => {
    spend(index);
    followLink();
  };
  pseudo[PseudoHandler.guard] = () => {
    const following = fn.let(add(pageBase, i64(4096)));
    const entry = fn.let(tlbEntry(load32(state, State.tlb), following, options.tlbEntries));
    const same = and(
      eq(load64(entry, TlbEntry.executeTag), following),
      eq(load32(entry, TlbEntry.frame), load32(record, RecordField.displacement)),
    );
    fn.if(same, () => {
      ways.next();
    });
    fn.set(target, start);
    setRip(start);
    fn.set(record, fn.letAside(callOf('i32', functions.host.lookup, state, i32(0)), state));
    fn.branchIf(record, dispatch);
    fn.return(load32(state, State.exitKind));
  };
  pseudo[PseudoHandler.stop] = () => {
    spend(index);
    setRip(start);
    fn.return(i32(Exit.budget));
  };
  pseudo[PseudoHandler.warming] = () => {
    const left = fn.let(sub(load32(record, RecordField.displacement), i32(1)));
    fn.store(store32(record, left, RecordField.displacement));
    fn.if(eqz(left), () => {
      fn.if(fn.letAside(callOf('i32', functions.host.hot, state, record), state), () => {
        fn.set(target, start);
        fn.branch(jump);
      });
    });
    ways.next();
  };
  pseudo[PseudoHandler.region] = () => {
    fn.if(geS(budget, link), () => {
      const region = load32(record, RecordField.displacement);
      const answer = fn.letAside(callOf('i32', functions.regions, state, region), state);
      fn.if(gtS(answer, i32(0)), () => fn.return(answer));
      fn.set(interpreting, eq(answer, i32(RegionAnswer.interpret)));
      fn.set(target, load64(state, State.rip));
      fn.branch(jump);
    });
    ways.next();
  };

  const emitters = [
    ...pseudo,
    ...hot.map((key) => () => {
      const shape = parseShapeKey(key);
      const own = shape.fused ? waysOf(2) : ways;
      const context = new RecordContext(fn, shape, state, record, own, functions, options.tlbEntries);
      emitMeaning(context, options.semantics.get(shape.operation) as Semantics);
      context.done();
    }),
    () => {
      const slot = sub(load16U32(record, RecordField.handler), i32(FIRST_COLD));
      if (options.profile !== undefined) {
        const counter = fn.let(add(i32(options.profile), shl(slot, i32(3))));
        fn.store(store64(counter, add(load64(counter), i64(1))));
      }
      const answer = fn.letAside(callIndirectOf('i32', COLD_TABLE, coldType, slot, state, record), state);
      fn.if(eqz(answer), ways.next);
      fn.if(gtS(answer, i32(0)), () => ways.leave(answer));
      fn.if(eq(answer, i32(Answer.jump)), () => ways.jump(load64(state, State.rip)));
      fn.if(eq(answer, i32(Answer.branch)), ways.branch);
      fn.if(eq(answer, i32(Answer.fusedBranch)), waysOf(2).branch);
      ways.leaveAfter(sub(i32(Answer.leaveAfter), answer));
    },
  ];
  // The block opened last is closed first: it belongs to the first handler.
  const labels = emitters.map(() => fn.open(0x02)).reverse();
  const cold = labels.pop();
  if (!cold) throw new Error('the branch table needs handlers');
  fn.branchTable(load16U32(record, RecordField.handler), labels, cold);
  for (const emit of emitters) {
    fn.close();
    fn.scope(emit);
  }
  fn.unreachable();
  fn.close(); // dispatch

  fn.unreachable();
  fn.close(); // branchSlow: the target lies on another page or was not looked up yet
  fn.branchIf(eq(link, i32(Link.otherPage)), jump);
  fn.branchIf(leS(budget, i32(0)), jump);
  setRip(target);
  fn.set(record, fn.letAside(callOf('i32', functions.host.lookup, state, record), state));
  fn.branchIf(record, again);
  fn.return(load32(state, State.exitKind));
  fn.close(); // leaveAfter
  spend(add(index, i32(1)));
  setRip(next);
  fn.return(code);
  fn.close(); // leave
  fn.store(store32(state, load8U32(record, RecordField.length), State.exitLength));
  spend(index);
  setRip(start);
  fn.return(code);
  fn.close(); // jump
  fn.if(leS(budget, i32(0)), () => {
    setRip(target);
    fn.return(i32(Exit.budget));
  });
  emitFindSlot(fn, options, state, target, (slot, page) => {
    fn.set(record, load32(slot, CodeSlot.record));
    fn.store(store64(state, page, State.pageBase));
    fn.branchIf(eqz(interpreting), again);
    skipHead();
    fn.branch(again);
  });
  setRip(target);
  fn.set(record, fn.letAside(callOf('i32', functions.host.lookup, state, i32(0)), state));
  fn.if(record, () => {
    fn.branchIf(eqz(interpreting), again);
    skipHead();
    fn.branch(again);
  });
  fn.return(load32(state, State.exitKind));
  fn.close(); // again
  fn.unreachable();
}
