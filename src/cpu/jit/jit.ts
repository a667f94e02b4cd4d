import type { HostMemory } from '../../memory/host-memory.ts';
import type { ByteWriter } from '../../wasm/writer.ts';
import { type HostAddress, PAGE_SIZE } from '../../x86/brand.ts';
import { type CodeCache, UNLIMITED } from '../code-cache.ts';
import type { CodeMode } from '../code-mode.ts';
import { RegionWord } from '../interpreter/record.ts';
import { overlaps } from '../ranges.ts';
import type { Semantics } from '../semantics/context.ts';
import { compile } from './compilation.ts';
import { DEFAULT_GATHERING, Gatherer, type GatheringOptions } from './gatherer.ts';
import type { JitThread } from './jit-thread.ts';
import { type CodedRegion, LiveRegions, type RegionParts } from './live-regions.ts';
import { done, type Pending, pending } from './pending.ts';
import type { RegionSource } from './region.ts';
import { type BatchOwner, type Candidate, candidateKey, RegionBatch } from './region-batch.ts';
import { type Outcome, type Translations, Translator } from './translator.ts';

/**
 * Tier 1. Code that the interpreter meets often becomes WebAssembly of its own: a *region* is what control can do inside
 * one page without leaving it, from one entry.
 *
 *   translator.ts      from the guest's bytes to WebAssembly, on this thread or another one (jit-thread.ts): region.ts
 *                      says which instructions belong to a region, effects.ts what each does to flags and whether it
 *                      can leave, structure.ts has dominators and loops
 *   generate.ts        structured control flow around the instructions' meanings
 *   flag-liveness.ts   flags that nothing sees
 *   region-context.ts  one instruction: flags are locals, numbers are constants
 *   register-file.ts   registers are locals as well, and in vector-file.ts XMM registers
 *   windows.ts         pages that accesses went to
 *   region-batch.ts    the regions of one module, while they are translated and it is compiled
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
  /** Requests whose regions become one WebAssembly module: above 1 where modules are expensive (V8 before 12). */
  readonly regionsPerModule: number;
  /** Modules are compiled while the guest goes on, but for those of one region, which are made where modules are cheap. */
  readonly isAside: boolean;
  /** Modules alive at a time; the oldest goes first. V8 11 ends the process above some 30,000. */
  readonly maximumModules: number;
  /** Bytes of the modules alive, likewise: an engine takes several times as much for them. */
  readonly maximumBytes: number;
  /** Regions that there is room for, below `RegionWord.slotMask`. */
  readonly regionSlots: number;
  /** When hot regions move into one module. */
  readonly gathering: GatheringOptions;
  /** Translates, and compiles modules of several regions, while guests go on; without it they wait for the translation. */
  readonly thread?: JitThread;
  /** Told when regions were gathered: the modules that they were in are garbage. */
  readonly onGathered?: () => void;
}

export const DEFAULT_JIT: JitOptions = {
  threshold: 4000,
  // Of 8, 16, 32 and 64 the one that boots, and programs started again and again, were quickest with.
  regionsPerModule: 32,
  isAside: true,
  maximumModules: 2000,
  // Four times what a boot and all items of bench/peers.ts compile.
  maximumBytes: 32 << 20,
  regionSlots: 16384,
  gathering: DEFAULT_GATHERING,
};

/** Batches in work at a time: one that a thread works at, the next for it, and one whose result is to be looked at. */
const MOST_BATCHES = 3;

/** Candidates of one batch: so many pages are copied for another thread at a time. */
const MOST_CANDIDATES = 64;

export interface JitCounters {
  /** Regions that were made, and of them translated on another thread, moved by gatherings, given up for want of room. */
  compiled: number;
  translatedAside: number;
  gathered: number;
  evicted: number;
  /** Modules, their bytes, the guest's instructions in them. */
  modules: number;
  bytes: number;
  instructions: number;
  /** Time that guests waited. */
  milliseconds: number;
  /** Time that another thread took, while guests went on. */
  millisecondsAside: number;
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
  readonly #translator: Translator;
  readonly #live: LiveRegions;
  readonly #batchOwner: BatchOwner;
  readonly #queue = new Map<number, Candidate>();
  /** The queue is to become regions. */
  #isDue = false;
  /** The regions that are being made. */
  readonly #batches = new Set<RegionBatch>();
  readonly #gatherer: Gatherer;
  #thread: JitThread | undefined;
  readonly #counters = {
    compiled: 0,
    translatedAside: 0,
    evicted: 0,
    modules: 0,
    instructions: 0,
    bytes: 0,
    milliseconds: 0,
    millisecondsAside: 0,
  };

  constructor(parts: JitParts, options: JitOptions) {
    if (options.regionSlots >= RegionWord.slotMask) throw new RangeError('more regions than a region word can name');
    this.options = options;
    this.#parts = parts;
    const { memory, code, table, tlbEntries, meaningOf } = parts;
    this.#translator = new Translator({ tlbEntries, meaningOf });
    this.#thread = options.thread;
    this.#live = new LiveRegions(memory, code, table);
    const regionParts: RegionParts = {
      memory,
      code,
      live: this.#live,
      instantiate: (module) => this.#instantiate(module),
    };
    const makeRoom = (regions: readonly Pick<CodedRegion, 'code'>[]) => this.#makeRoom(regions);
    this.#batchOwner = {
      parts: regionParts,
      compile: (wasm) => this.#compile(wasm),
      makeRoom,
      onTranslated: (candidate, outcome) => this.#settle(candidate, outcome),
      onBuilt: (bytes) => {
        this.#counters.bytes += bytes;
      },
    };
    this.#gatherer = new Gatherer(
      regionParts,
      { regions: options.regionSlots, bytes: options.maximumBytes },
      options.gathering,
      options.isAside,
      makeRoom,
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

  /** A block was executed often. @returns whether a region begins there now */
  request(candidate: Candidate): boolean {
    for (const batch of this.#batches) if (batch.has(candidate)) return false;
    const key = candidateKey(candidate);
    // Asked again before there were enough to make a module of: it is hot indeed.
    this.#isDue ||= this.#queue.has(key);
    this.#queue.set(key, candidate);
    this.#isDue ||= this.#queue.size >= this.options.regionsPerModule;
    if (!this.#isDue || this.#batches.size >= MOST_BATCHES) return false;
    this.#takeTime(() => this.#beginBatch());
    return this.#parts.code.regionAt(candidate.place, candidate.mode) !== undefined;
  }

  #beginBatch(): void {
    const candidates = this.#takeFromQueue();
    this.#isDue = this.#queue.size > 0;
    const sources = candidates.map((candidate) => this.#sourceOf(candidate));
    const batch = new RegionBatch(this.#batchOwner, candidates, this.#translate(sources));
    this.#batches.add(batch);
    this.#goOn(batch);
  }

  #takeFromQueue(): Candidate[] {
    const candidates: Candidate[] = [];
    for (const [key, candidate] of this.#queue) {
      if (candidates.length === MOST_CANDIDATES) break;
      this.#queue.delete(key);
      // What was written since it was queued is no longer hot.
      if (this.#parts.code.find(candidate.place, candidate.mode)) candidates.push(candidate);
    }
    // The entry of a function mostly stands before what its region covers; and code of one page lies together.
    return candidates.sort((a, b) => a.place - b.place);
  }

  #sourceOf({ place, mode }: Candidate): RegionSource {
    const entry = place % PAGE_SIZE;
    const page = (place - entry) as HostAddress;
    const { memory, code } = this.#parts;
    const bytes = memory.u8.subarray(page, page + PAGE_SIZE);
    const reached = code.offsetsOf(page, mode);
    return { page, bytes, behind: code.bytesBehind(page, mode), mode, entry, reached };
  }

  #translate(sources: readonly RegionSource[]): Pending<Translations> {
    if (!this.#thread) return done(this.#translator.translateAll(sources));
    // Without the thread, guests wait from then on.
    const onFailure = () => {
      this.#thread = undefined;
    };
    return pending(this.#thread.translate(this.#parts.tlbEntries, sources, this.#tookTimeAside), onFailure);
  }

  #compile(wasm: ByteWriter): Pending<WebAssembly.Module> {
    const { isAside, regionsPerModule } = this.options;
    const thread = this.#thread && { thread: this.#thread, tookTime: this.#tookTimeAside };
    return compile(wasm, isAside && regionsPerModule > 1, thread);
  }

  readonly #tookTimeAside = (milliseconds: number): void => {
    this.#counters.millisecondsAside += milliseconds;
  };

  #goOn(batch: RegionBatch): void {
    batch.work();
    if (batch.isDone) this.#batches.delete(batch);
  }

  #settle({ place, mode }: Candidate, outcome: Outcome): void {
    const { code } = this.#parts;
    const { threshold } = this.options;
    if (typeof outcome !== 'object') {
      code.startCountingAgain(place, mode, outcome === 'covered' ? threshold : UNLIMITED);
      return;
    }
    const page = (place - (place % PAGE_SIZE)) as HostAddress;
    // Control comes back from calls inside of the region.
    for (const offset of outcome.returns) code.startCountingAgain((page + offset) as HostAddress, mode, threshold);
    this.#leaveOut(page, mode, outcome.ranges);
    this.#counters.compiled++;
    if (this.#thread) this.#counters.translatedAside++;
    this.#counters.instructions += outcome.instructions;
  }

  /** What waits and is part of a region now counts from the start. */
  #leaveOut(page: HostAddress, mode: CodeMode, ranges: readonly number[]): void {
    for (const [key, waiting] of this.#queue) {
      const offset = waiting.place - page;
      if (waiting.mode !== mode || !overlaps(ranges, offset, offset + 1)) continue;
      this.#queue.delete(key);
      this.#parts.code.startCountingAgain(waiting.place, mode, this.options.threshold);
    }
    this.#isDue &&= this.#queue.size > 0;
  }

  #takeTime<Result>(work: () => Result): Result {
    const start = performance.now();
    const result = work();
    this.#counters.milliseconds += performance.now() - start;
    return result;
  }

  #instantiate(module: WebAssembly.Module): WebAssembly.Exports {
    this.#counters.modules++;
    return new WebAssembly.Instance(module, { host: this.#parts.imports } as WebAssembly.Imports).exports;
  }

  /** The oldest modules go. */
  #makeRoom(regions: readonly Pick<CodedRegion, 'code'>[]): void {
    const { maximumModules, maximumBytes } = this.options;
    const { modules } = this.#live;
    let bytes = regions.reduce((sum, { code }) => sum + code.body.bytes.length, this.liveBytes);
    for (const oldest of modules) {
      const hasSlots = this.#live.freeSlots >= regions.length;
      if (modules.size < maximumModules && bytes < maximumBytes && hasSlots) return;
      this.#evict(oldest.regions);
      if (!modules.has(oldest)) bytes -= oldest.bytes;
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
    for (const batch of this.#batches) {
      if (batch.isDue) this.#takeTime(() => this.#goOn(batch));
    }
    if (this.#isDue && this.#batches.size < MOST_BATCHES) this.#takeTime(() => this.#beginBatch());
    this.#gatherer.work(this.#counters.compiled);
  }
}
