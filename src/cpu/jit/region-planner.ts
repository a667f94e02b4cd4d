import type { HostMemory } from '../../memory/host-memory.ts';
import { type HostAddress, PAGE_SIZE } from '../../x86/brand.ts';
import type { CodeCache, Region } from '../code-cache.ts';
import type { Instruction } from '../decode/instruction.ts';
import type { Shape } from '../semantics/context.ts';
import { shapeKey } from '../semantics/shape-key.ts';
import type { Effects } from './effects.ts';
import { type GeneratorOptions, observeEffects, type RegionPlan } from './generate.ts';
import { discoverRegion, type RegionSource } from './region.ts';
import { longestPath, type Node, structureOf } from './structure.ts';

/** What a region is to be made from. */
export type Candidate = Pick<Region, 'place' | 'mode' | 'linear'>;

/** A region before there is code of it. */
export interface PlannedRegion extends Candidate, RegionPlan {
  readonly ranges: readonly number[];
}

/** Finds out what regions consist of, by the bytes of the guest and what the interpreter met. */
export class RegionPlanner {
  readonly #memory: HostMemory;
  readonly #code: CodeCache;
  readonly #generator: GeneratorOptions;
  readonly #effects = new Map<Shape, Effects>();
  /** Of instructions whose immediate decides what they do, as shifts. */
  readonly #effectsOfConstant = new Map<string, Effects>();

  constructor(memory: HostMemory, code: CodeCache, generator: GeneratorOptions) {
    this.#memory = memory;
    this.#code = code;
    this.#generator = generator;
  }

  /** Undefined when generated code could not execute the first instruction. */
  plan(candidate: Candidate): PlannedRegion | undefined {
    const { place, mode } = candidate;
    const page = place - (place % PAGE_SIZE);
    const at = (offset: number) => (page + offset) as HostAddress;
    const source: RegionSource = {
      bytes: this.#memory.u8,
      page,
      mode,
      effectsOf: (instruction, shape) => this.#effectsOf(instruction, shape),
      wasReached: (offset) => this.#code.find(at(offset), mode) !== undefined,
    };
    const [entry] = discoverRegion(source, place % PAGE_SIZE) ?? [];
    if (!entry) return undefined;
    const nodes = structureOf(entry);
    return {
      ...candidate,
      nodes,
      slack: longestPath(nodes),
      ranges: rangesOf(nodes),
    };
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
