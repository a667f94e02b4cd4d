import type { HostMemory } from '../../memory/host-memory.ts';
import { type HostAddress, PAGE_SIZE } from '../../x86/brand.ts';
import type { CodeCache, Region } from '../code-cache.ts';
import type { CodeSize, Instruction } from '../decode/instruction.ts';
import { RegionWord } from '../interpreter/record.ts';
import type { Semantics, Shape } from '../semantics/context.ts';
import { shapeKey } from '../semantics/shape-key.ts';
import type { Effects } from './effects.ts';
import { type GeneratorOptions, generateModule, observeEffects } from './generate.ts';
import { discoverRegion, endsInCall, type RegionSource } from './region.ts';
import { longestPath, type Node, structureOf } from './structure.ts';

/**
 * Tier 1. Code that the interpreter meets often becomes WebAssembly of its own: a *region* is what control can do inside
 * one page without leaving it, from one entry.
 *
 *   region.ts          which instructions belong to it
 *   effects.ts         what an instruction does to flags, and whether it can leave
 *   structure.ts       dominators and loops
 *   flag-liveness.ts   flags that nothing sees
 *   generate.ts        structured control flow around the instructions' meanings
 *   region-context.ts  one instruction: registers and flags are locals, numbers are constants
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
  regionSlots: 8192,
};

/** Share of the threshold that a block has left when it is warm. */
const WARM = 0.75;

/** What becomes of a block that was executed often. */
export const enum Answer {
  /** Nothing in it can be generated. */
  never,
  /** It waits for others. */
  later,
  /** It is the entry of a region. */
  compiled,
}

/** What the host keeps of one module. */
interface LiveModule {
  readonly regions: Set<Region>;
  readonly bytes: number;
}

interface Candidate {
  readonly place: HostAddress;
  readonly mode: CodeSize;
  /** Whether segments were flat when it was executed. */
  readonly flat: boolean;
}

interface Prepared {
  readonly candidate: Candidate;
  readonly nodes: readonly Node[];
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
  readonly #effects = new Map<Shape, Effects>();
  /** Of instructions whose immediate decides what they do, as shifts. */
  readonly #effectsOfConstant = new Map<string, Effects>();
  readonly #queue = new Map<number, Candidate>();
  readonly #modules = new Set<LiveModule>();
  readonly #moduleOf = new Map<Region, LiveModule>();
  readonly #freeSlots: number[] = [];
  readonly counters = { compiled: 0, dropped: 0, evicted: 0, modules: 0, instructions: 0, bytes: 0, milliseconds: 0 };

  constructor(parts: JitParts, options: JitOptions) {
    if (options.regionSlots >= RegionWord.slotMask) throw new RangeError('more regions than a region word can name');
    this.options = options;
    this.#parts = parts;
    const { memory, tlbEntries, meaningOf } = parts;
    this.#generator = { memoryPages: memory.size / 0x1_0000, tlbEntries, meaningOf };
    for (let slot = options.regionSlots - 1; slot >= 0; slot--) this.#freeSlots.push(slot);
    parts.code.onRegionDropped = (region) => this.#dropped(region);
  }

  /** Regions that can be entered. */
  get regions(): number {
    return this.#moduleOf.size;
  }

  get liveModules(): number {
    return this.#modules.size;
  }

  /** Bytes of the modules that are alive. */
  get liveBytes(): number {
    let bytes = 0;
    for (const module of this.#modules) bytes += module.bytes;
    return bytes;
  }

  /** A block was executed often. @param flat as `State.flatSegments` says */
  request(place: HostAddress, mode: CodeSize, flat: boolean): Answer {
    const key = place * 128 + mode;
    // Asked again before there were enough to make a module of: it is hot indeed.
    const waiting = this.#queue.has(key);
    this.#queue.set(key, { place, mode, flat });
    if (!waiting && this.#queue.size < this.options.regionsPerModule) return Answer.later;
    this.#compileQueue();
    return this.#parts.code.regionAt(place, mode) ? Answer.compiled : Answer.never;
  }

  #compileQueue(): void {
    const start = performance.now();
    const prepared: Prepared[] = [];
    for (const candidate of this.#queue.values()) {
      // What was written since it was queued is no longer hot.
      if (!this.#parts.code.find(candidate.place, candidate.mode)) continue;
      const nodes = this.#prepare(candidate);
      if (nodes) prepared.push({ candidate, nodes });
    }
    this.#queue.clear();
    if (prepared.length > 0) this.#compile(prepared);
    this.counters.milliseconds += performance.now() - start;
  }

  #prepare({ place, mode }: Candidate): Node[] | undefined {
    const { memory, code } = this.#parts;
    const page = place - (place % PAGE_SIZE);
    const source: RegionSource = {
      bytes: memory.u8,
      page,
      mode,
      effectsOf: (instruction, shape) => this.#effectsOf(instruction, shape),
      wasReached: (offset) => code.find((page + offset) as HostAddress, mode) !== undefined,
      isWarm: (offset) => code.executionsLeft((page + offset) as HostAddress, mode) < this.options.threshold * WARM,
    };
    const blocks = discoverRegion(source, place % PAGE_SIZE);
    return blocks?.[0] && structureOf(blocks[0]);
  }

  #effectsOf(instruction: Instruction, shape: Shape): Effects {
    const { immediateLow } = instruction;
    const known = this.#effects.get(shape) ?? this.#effectsOfConstant.get(`${shapeKey(shape)} ${immediateLow}`);
    if (known) return known;
    const { effects, decidedByConstant } = observeEffects(this.#generator, instruction, shape);
    if (decidedByConstant) this.#effectsOfConstant.set(`${shapeKey(shape)} ${immediateLow}`, effects);
    else this.#effects.set(shape, effects);
    return effects;
  }

  #compile(prepared: readonly Prepared[]): void {
    const { table, imports, code } = this.#parts;
    this.#makeRoom(prepared.length);
    const bytes = generateModule(
      this.#generator,
      prepared.map(({ nodes, candidate: { flat } }) => ({ nodes, flat })),
    );
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), {
      host: imports,
    } as WebAssembly.Imports);
    const module: LiveModule = { regions: new Set(), bytes: bytes.length };
    this.#modules.add(module);
    prepared.forEach(({ candidate, nodes }, index) => {
      const slot = this.#freeSlots.pop() as number; // makeRoom saw to it
      table.set(slot, exports[String(index)] as () => number);
      const region: Region = { ...candidate, slot, slack: longestPath(nodes), ranges: rangesOf(nodes) };
      module.regions.add(region);
      this.#moduleOf.set(region, module);
      code.addRegion(region);
      this.#startCountingAgain(candidate, nodes);
      this.counters.instructions += nodes.reduce((sum, { block }) => sum + block.instructions.length, 0);
    });
    this.counters.compiled += prepared.length;
    this.counters.modules++;
    this.counters.bytes += bytes.length;
  }

  /** Control comes back from calls inside of the region. */
  #startCountingAgain({ place, mode }: Candidate, nodes: readonly Node[]): void {
    const page = place - (place % PAGE_SIZE);
    for (const { block, next } of nodes) {
      if (!next || !endsInCall(block)) continue;
      const behind = (page + block.end) as HostAddress;
      this.#parts.code.startCountingAgain(behind, mode, this.options.threshold);
    }
  }

  /** A module's memory is free only when all its regions are gone, so whole modules go. */
  #makeRoom(regions: number): void {
    for (const module of this.#modules) {
      if (this.#modules.size < this.options.maximumModules && this.#freeSlots.length >= regions) return;
      for (const region of [...module.regions]) {
        this.counters.evicted++;
        this.#parts.code.dropRegion(region);
      }
    }
  }

  #dropped(region: Region): void {
    this.#parts.table.set(region.slot, null);
    this.#freeSlots.push(region.slot);
    const module = this.#moduleOf.get(region);
    this.#moduleOf.delete(region);
    module?.regions.delete(region);
    if (module?.regions.size === 0) this.#modules.delete(module);
    this.counters.dropped++;
  }
}

/** Start and end of each run of bytes that the blocks were made from. */
function rangesOf(nodes: readonly Node[]): number[] {
  const blocks = nodes.map(({ block }) => block).sort((a, b) => a.offset - b.offset);
  const ranges: number[] = [];
  for (const { offset, end } of blocks) {
    const last = ranges.length - 1;
    if (last > 0 && offset <= (ranges[last] as number)) ranges[last] = Math.max(ranges[last] as number, end);
    else ranges.push(offset, end);
  }
  return ranges;
}
