import type { HostMemory } from '../../memory/host-memory.ts';
import { type HostAddress, PAGE_SIZE } from '../../x86/brand.ts';
import type { CodeCache } from '../code-cache.ts';
import { RegionWord } from '../interpreter/record.ts';
import type { Semantics } from '../semantics/context.ts';
import { Gathering } from './gathering.ts';
import { buildModule, type GeneratorOptions, generateRegion } from './generate.ts';
import { type CodedRegion, LiveRegions } from './live-regions.ts';
import { endsInCall } from './region.ts';
import { RegionLife } from './region-context.ts';
import { type Candidate, type PlannedRegion, RegionPlanner } from './region-planner.ts';
import type { Node } from './structure.ts';

/**
 * Tier 1. Code that the interpreter meets often becomes WebAssembly of its own: a *region* is what control can do inside
 * one page without leaving it, from one entry.
 *
 *   region-planner.ts  what a region is made from: region.ts says which instructions belong to it, effects.ts what each
 *                      does to flags and whether it can leave, structure.ts has dominators and loops
 *   generate.ts        structured control flow around the instructions' meanings
 *   flag-liveness.ts   flags that nothing sees
 *   region-context.ts  one instruction: flags are locals, numbers are constants
 *   register-file.ts   registers are locals as well
 *   live-regions.ts    the regions that there are
 *   gathering.ts       regions that are made again, side by side
 *
 * A region is entered from the record in front of its first block and returns to the interpreter's loop, which finds the
 * next block or region. It leaves wherever something is not as usual (a TLB miss, a fault, a helper), with everything
 * exact, and the interpreter executes that instruction.
 */
export interface JitOptions {
  /** Executions of a block before a region is made from it; 0 leaves everything to the interpreter. */
  readonly threshold: number;
  /** Regions that become one WebAssembly module: above 1 where modules are expensive (V8 before 12). */
  readonly regionsPerModule: number;
  /** Modules alive at a time; the oldest goes first. V8 11 ends the process above some 30,000. */
  readonly maximumModules: number;
  /** Regions that there is room for, below `RegionWord.slotMask`. */
  readonly regionSlots: number;
}

export const DEFAULT_JIT: JitOptions = {
  threshold: 1500,
  regionsPerModule: 8,
  maximumModules: 2000,
  regionSlots: 16384,
};

/** What becomes of a block that was executed often. */
export const enum Answer {
  /** Nothing in it can be generated. */
  never,
  /** It waits for others. */
  later,
  /** It is the entry of a region. */
  compiled,
}

/** Regions that have to be new for a gathering, as a share of all and at least. */
const GATHER_NEW = 0.2;
const GATHER_AT_LEAST = 64;
/** Share of the slots that a gathering may fill. */
const GATHER_AT_MOST = 0.4;
/** Milliseconds of one piece of a gathering, between two pieces, and between two gatherings for each of the first. */
const GATHER_PIECE = 2;
const GATHER_PAUSE = 4;
const GATHER_REST = 8;

export interface JitParts {
  readonly memory: HostMemory;
  readonly code: CodeCache;
  readonly table: WebAssembly.Table;
  readonly imports: Readonly<Record<string, unknown>>;
  readonly tlbEntries: number;
  readonly meaningOf: (operation: string) => Semantics;
}

export class Jit {
  readonly options: JitOptions;
  readonly #parts: JitParts;
  readonly #generator: GeneratorOptions;
  readonly #planner: RegionPlanner;
  readonly #live: LiveRegions;
  readonly #queue = new Map<number, Candidate>();
  /** Regions that were made since the last gathering. */
  #new = 0;
  #gathering: Gathering | undefined;
  /** When the next piece of a gathering may be done, or the next one begin. */
  #gatherAt = 0;
  #gatheringTook = 0;
  readonly counters = { compiled: 0, gathered: 0, evicted: 0, modules: 0, instructions: 0, bytes: 0, milliseconds: 0 };

  constructor(parts: JitParts, options: JitOptions) {
    if (options.regionSlots >= RegionWord.slotMask) throw new RangeError('more regions than a region word can name');
    this.options = options;
    this.#parts = parts;
    const { memory, code, table, tlbEntries, meaningOf } = parts;
    this.#generator = { memoryPages: memory.size / 0x1_0000, tlbEntries, meaningOf };
    this.#planner = new RegionPlanner(memory, code, this.#generator, options.threshold);
    this.#live = new LiveRegions(memory, code, table);
  }

  /** Regions that can be entered. */
  get regions(): number {
    return this.#live.size;
  }

  get liveModules(): number {
    return this.#live.modules.size;
  }

  /** Bytes of the modules that are alive. */
  get liveBytes(): number {
    let bytes = 0;
    for (const module of this.#live.modules) bytes += module.bytes;
    return bytes;
  }

  /** Regions that were given up, but for those that were made again. */
  get dropped(): number {
    return this.#live.dropped - this.counters.gathered - (this.#gathering?.gathered ?? 0);
  }

  /** A block was executed often. */
  request(candidate: Candidate): Answer {
    const { place, mode } = candidate;
    const key = place * 128 + mode;
    // Asked again before there were enough to make a module of: it is hot indeed.
    const waiting = this.#queue.has(key);
    this.#queue.set(key, candidate);
    if (!waiting && this.#queue.size < this.options.regionsPerModule) return Answer.later;
    const start = performance.now();
    this.#compileQueue();
    this.counters.milliseconds += performance.now() - start;
    return this.#parts.code.regionAt(place, mode) ? Answer.compiled : Answer.never;
  }

  #compileQueue(): void {
    const planned: PlannedRegion[] = [];
    for (const candidate of this.#queue.values()) {
      // What was written since it was queued is no longer hot.
      if (!this.#parts.code.find(candidate.place, candidate.mode)) continue;
      const region = this.#planner.plan(candidate);
      if (region) planned.push(region);
    }
    this.#queue.clear();
    if (planned.length === 0) return;
    this.#makeRoom(planned.length);
    const module = this.#live.open(planned.length);
    const regions = planned.map(({ nodes, ...region }, index) => {
      const slot = module.slots[index] as number;
      return {
        ...region,
        slot,
        life: this.#live.life(slot),
        code: generateRegion(this.#generator, { nodes, ...region }),
      };
    });
    const wasm = buildModule(this.#generator, regions, this.#live.gone, false);
    module.bytes = wasm.length;
    const exports = this.#instantiate(new WebAssembly.Module(wasm));
    for (const [index, { life, ...region }] of regions.entries()) {
      // It is hot, and will be entered in a moment.
      this.#live.add(module, region, exports[String(index)], RegionLife.entered);
      this.#parts.code.addRegion(region);
    }
    this.#live.complete(module);
    for (const region of planned) this.#startCountingAgain(region);
    this.#new += regions.length;
    this.counters.compiled += regions.length;
    this.counters.bytes += wasm.length;
    this.counters.instructions += planned.reduce((sum, { nodes }) => sum + instructionsOf(nodes), 0);
  }

  #instantiate(module: WebAssembly.Module): WebAssembly.Exports {
    this.counters.modules++;
    return new WebAssembly.Instance(module, { host: this.#parts.imports } as WebAssembly.Imports).exports;
  }

  /** Control comes back from calls inside of the region. */
  #startCountingAgain({ place, mode, nodes }: PlannedRegion): void {
    const page = place - (place % PAGE_SIZE);
    for (const { block, next } of nodes) {
      if (!next || !endsInCall(block)) continue;
      const behind = (page + block.end) as HostAddress;
      this.#parts.code.startCountingAgain(behind, mode, this.options.threshold);
    }
  }

  /** The oldest modules go. */
  #makeRoom(regions: number): void {
    for (const { regions: oldest } of this.#live.modules) {
      if (this.#live.modules.size < this.options.maximumModules && this.#live.freeSlots >= regions) return;
      this.#evict(oldest);
    }
  }

  #evict(regions: Iterable<CodedRegion>): void {
    for (const region of [...regions]) {
      this.counters.evicted++;
      this.#parts.code.dropRegion(region);
    }
  }

  /** Between runs: a piece of what does not have to be done at once. */
  work(): void {
    if (!this.#gathering && this.#new < GATHER_AT_LEAST) return;
    const start = performance.now();
    if (start < this.#gatherAt) return;
    if (!this.#gathering && this.#new < this.regions * GATHER_NEW) return;
    const gathering = this.#gathering ?? this.#startGathering();
    gathering.work(start + GATHER_PIECE);
    const took = performance.now() - start;
    this.#gatheringTook += took;
    this.#gatherAt = start + took + GATHER_PAUSE;
    this.counters.milliseconds += took;
    if (gathering.isDone) this.#endGathering(gathering);
  }

  /** Of the regions that were entered since the last time. The others stay where they are, unless slots run short. */
  #startGathering(): Gathering {
    const idle: CodedRegion[] = [];
    const entered: CodedRegion[] = [];
    for (const region of this.#live) (this.#live.takeEntered(region) ? entered : idle).push(region);
    const most = Math.floor(this.options.regionSlots * GATHER_AT_MOST);
    if (this.#live.freeSlots < 2 * entered.length) this.#evict(idle);
    const kept = entered.slice(Math.max(entered.length - most, 0));
    this.#new = 0;
    const { code } = this.#parts;
    const instantiate = (module: WebAssembly.Module) => this.#instantiate(module);
    this.#gathering = new Gathering({ code, generator: this.#generator, live: this.#live, instantiate }, kept);
    return this.#gathering;
  }

  #endGathering({ gathered, bytes }: Gathering): void {
    this.counters.gathered += gathered;
    this.counters.bytes += bytes;
    this.#gatherAt += this.#gatheringTook * GATHER_REST;
    this.#gatheringTook = 0;
    this.#gathering = undefined;
  }
}

function instructionsOf(nodes: readonly Node[]): number {
  return nodes.reduce((sum, { block }) => sum + block.instructions.length, 0);
}
