import { PAGE_SIZE } from '../../x86/brand.ts';
import type { Instruction } from '../decode/instruction.ts';
import { overlaps } from '../ranges.ts';
import type { Shape } from '../semantics/context.ts';
import { shapeKey } from '../semantics/shape-key.ts';
import type { Effects } from './effects.ts';
import { type GeneratorOptions, generateRegion, observeEffects, type RegionCode } from './generate.ts';
import { discoverRegion, endsInCall, MAXIMUM_INSTRUCTIONS, type RegionSource } from './region.ts';
import { longestPath, type Node, structureOf } from './structure.ts';

/** What becomes of a region's source, as plain data that threads can hand to each other. */
export interface Translation {
  readonly code: RegionCode;
  /** Instructions that may be executed between two looks at the budget. */
  readonly slack: number;
  /** Offsets in the page, start and end in turn, of the bytes there that the code was made from. */
  readonly ranges: readonly number[];
  /** What stood there, one range behind the other. */
  readonly guestBytes: Uint8Array;
  /** Offsets that control comes back to from calls inside of the region. */
  readonly returns: readonly number[];
  readonly instructions: number;
}

/**
 * What became of a source: undefined where generated code could not execute the first instruction, 'covered' where the
 * region of a source before has the code in it.
 */
export type Outcome = Translation | 'covered' | undefined;

/** Of several sources in turn. */
export type Translations = readonly Outcome[];

/**
 * Bytes of WebAssembly that a region has at most. A kernel and its programs stay below 30,000; some instructions have so many
 * that a guest could keep the engine busy for minutes with a few regions of them.
 */
const MAXIMUM_BYTES = 48 << 10;

/** Makes the code of regions. It knows nothing of the guest but what a source says, so it can work on any thread. */
export class Translator {
  readonly #generator: GeneratorOptions;
  readonly #effects = new Map<Shape, Effects>();
  /** Of instructions whose immediate decides what they do, as shifts. */
  readonly #effectsOfConstant = new Map<string, Effects>();

  constructor(generator: GeneratorOptions) {
    this.#generator = generator;
  }

  /**
   * A function's entry, its loops and where control comes back to from its calls become hot together. One region has all
   * of it; the others would be copies of its parts, and are left out where they come behind it.
   */
  translateAll(sources: readonly RegionSource[]): Translations {
    const covered = new Map<string, number[]>();
    return sources.map((source) => {
      const { page, mode, entry } = source;
      const key = `${page} ${mode}`;
      const ranges = covered.get(key) ?? [];
      if (overlaps(ranges, entry, entry + 1)) return 'covered';
      const translation = this.#translate(source);
      if (translation) covered.set(key, [...ranges, ...translation.ranges]);
      return translation;
    });
  }

  #translate(source: RegionSource): Translation | undefined {
    for (let limit = MAXIMUM_INSTRUCTIONS; limit > 0; ) {
      const translation = this.#translateAtMost(source, limit);
      const bytes = translation?.code.body.bytes.length ?? 0;
      if (!translation || bytes <= MAXIMUM_BYTES) return translation;
      limit = Math.floor((translation.instructions * MAXIMUM_BYTES) / bytes);
    }
    return undefined;
  }

  /** @param limit of instructions */
  #translateAtMost(source: RegionSource, limit: number): Translation | undefined {
    const [entry] = discoverRegion(source, this.#effectsOf, limit) ?? [];
    if (!entry) return undefined;
    const nodes = structureOf(entry);
    const slack = longestPath(nodes);
    const ranges = rangesOf(nodes);
    return {
      code: generateRegion(this.#generator, { nodes, slack }),
      slack,
      ranges,
      guestBytes: bytesOf(ranges, source.bytes),
      returns: nodes.flatMap(({ block, next }) => (next && endsInCall(block) ? [block.end] : [])),
      instructions: nodes.reduce((sum, { block }) => sum + block.instructions.length, 0),
    };
  }

  readonly #effectsOf = (instruction: Instruction, shape: Shape): Effects => {
    const { immediateLow } = instruction;
    const known = this.#effects.get(shape) ?? this.#effectsOfConstant.get(`${shapeKey(shape)} ${immediateLow}`);
    if (known) return known;
    const { effects, decidedByConstant } = observeEffects(this.#generator, instruction, shape);
    if (decidedByConstant) this.#effectsOfConstant.set(`${shapeKey(shape)} ${immediateLow}`, effects);
    else this.#effects.set(shape, effects);
    return effects;
  };
}

/** Start and end of each run of bytes that the blocks were made from. */
function rangesOf(nodes: readonly Node[]): number[] {
  const blocks = nodes.map(({ block }) => block).sort((a, b) => a.offset - b.offset);
  const ranges: number[] = [];
  for (const { offset, end: beyond } of blocks) {
    // What stands on the page behind is looked at whenever it is executed.
    const end = Math.min(beyond, PAGE_SIZE);
    const last = ranges.length - 1;
    if (last > 0 && offset <= (ranges[last] as number)) ranges[last] = Math.max(ranges[last] as number, end);
    else ranges.push(offset, end);
  }
  return ranges;
}

function bytesOf(ranges: readonly number[], page: Uint8Array): Uint8Array {
  const bytes: number[] = [];
  for (let index = 0; index < ranges.length; index += 2) bytes.push(...page.subarray(ranges[index], ranges[index + 1]));
  return Uint8Array.from(bytes);
}
