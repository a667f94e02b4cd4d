import type { HostMemory } from '../../memory/host-memory.ts';
import { type HostAddress, PAGE_SIZE } from '../../x86/brand.ts';
import type { CodeCache } from '../code-cache.ts';
import { RegionWord } from '../interpreter/record.ts';
import type { Semantics } from '../semantics/context.ts';
import { DEFAULT_GATHERING, Gatherer, type GatheringOptions } from './gatherer.ts';
import type { GeneratorOptions } from './generate.ts';
import { type CodedRegion, LiveRegions, type RegionParts } from './live-regions.ts';
import { endsInCall } from './region.ts';
import { candidateKey, RegionBatch } from './region-batch.ts';
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
 *   region-batch.ts    the regions of one module, while it is compiled
 *   live-regions.ts    the regions that there are
 *   gatherer.ts        which of them are hot, and gathering.ts: those are put side by side
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
  /** Modules are compiled while the guest goes on, but for those of one region, which are made where modules are cheap. */
  readonly isAside: boolean;
  /** Modules alive at a time; the oldest goes first. V8 11 ends the process above some 30,000. */
  readonly maximumModules: number;
  /** Regions that there is room for, below `RegionWord.slotMask`. */
  readonly regionSlots: number;
  /** When hot regions move into one module. */
  readonly gathering: GatheringOptions;
  /** Told when regions were gathered: the modules that they were in are garbage. */
  readonly onGathered?: () => void;
}

export const DEFAULT_JIT: JitOptions = {
  threshold: 4000,
  regionsPerModule: 8,
  isAside: true,
  maximumModules: 2000,
  regionSlots: 16384,
  gathering: DEFAULT_GATHERING,
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

export interface JitCounters {
  /** Regions that were made, moved by gatherings, and given up for want of room. */
  compiled: number;
  gathered: number;
  evicted: number;
  /** Modules, their bytes, the guest's instructions in them. */
  modules: number;
  bytes: number;
  instructions: number;
  /** Time that guests waited. */
  milliseconds: number;
}

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
  readonly #regionParts: RegionParts;
  readonly #queue = new Map<number, Candidate>();
  /** The queue is to become regions. */
  #isDue = false;
  /** The regions that are being compiled. */
  #batch: RegionBatch | undefined;
  readonly #gatherer: Gatherer;
  readonly #counters = { compiled: 0, evicted: 0, modules: 0, instructions: 0, bytes: 0, milliseconds: 0 };

  constructor(parts: JitParts, options: JitOptions) {
    if (options.regionSlots >= RegionWord.slotMask) throw new RangeError('more regions than a region word can name');
    this.options = options;
    this.#parts = parts;
    const { memory, code, table, tlbEntries, meaningOf } = parts;
    this.#generator = { memoryPages: memory.size / 0x1_0000, tlbEntries, meaningOf };
    this.#planner = new RegionPlanner(memory, code, this.#generator);
    this.#live = new LiveRegions(memory, code, table);
    this.#regionParts = {
      code,
      generator: this.#generator,
      live: this.#live,
      instantiate: (module) => this.#instantiate(module),
    };
    this.#gatherer = new Gatherer(
      this.#regionParts,
      options.regionSlots,
      options.gathering,
      options.isAside,
      (regions) => this.#makeRoom(regions),
      options.onGathered,
    );
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

  /** What was made so far. */
  get counters(): Readonly<JitCounters> {
    const { gathered, bytes, milliseconds } = this.#gatherer;
    return {
      ...this.#counters,
      gathered,
      bytes: this.#counters.bytes + bytes,
      milliseconds: this.#counters.milliseconds + milliseconds,
    };
  }

  /** Regions that were given up, but for those that were made again. */
  get dropped(): number {
    return this.#live.dropped - this.#gatherer.gathered;
  }

  /** A block was executed often. */
  request(candidate: Candidate): Answer {
    if (this.#batch?.has(candidate)) return Answer.later;
    const key = candidateKey(candidate);
    // Asked again before there were enough to make a module of: it is hot indeed.
    this.#isDue ||= this.#queue.has(key);
    this.#queue.set(key, candidate);
    this.#isDue ||= this.#queue.size >= this.options.regionsPerModule;
    if (!this.#isDue || this.#batch) return Answer.later;
    this.#takeTime(() => this.#compileQueue());
    if (this.#batch) return Answer.later;
    return this.#parts.code.regionAt(candidate.place, candidate.mode) ? Answer.compiled : Answer.never;
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
    this.#isDue = false;
    if (planned.length === 0) return;
    this.#makeRoom(planned.length);
    const isAside = this.options.isAside && this.options.regionsPerModule > 1;
    this.#batch = new RegionBatch(this.#regionParts, planned, isAside);
    for (const region of planned) this.#startCountingAgain(region);
    this.#counters.compiled += planned.length;
    this.#counters.bytes += this.#batch.bytes;
    this.#counters.instructions += planned.reduce((sum, { nodes }) => sum + instructionsOf(nodes), 0);
    this.#completeBatch();
  }

  #completeBatch(): void {
    if (!this.#batch?.isCompiled) return;
    this.#batch.complete();
    this.#batch = undefined;
  }

  #takeTime(work: () => void): void {
    const start = performance.now();
    work();
    this.#counters.milliseconds += performance.now() - start;
  }

  #instantiate(module: WebAssembly.Module): WebAssembly.Exports {
    this.#counters.modules++;
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
      this.#counters.evicted++;
      this.#parts.code.dropRegion(region);
    }
  }

  /** Between runs: what does not have to be done at once. */
  work(): void {
    if (this.#batch?.isCompiled) {
      this.#takeTime(() => {
        this.#completeBatch();
        if (this.#isDue) this.#compileQueue();
      });
    }
    this.#gatherer.work(this.#counters.compiled);
  }
}

function instructionsOf(nodes: readonly Node[]): number {
  return nodes.reduce((sum, { block }) => sum + block.instructions.length, 0);
}
