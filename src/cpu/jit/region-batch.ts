import { type Compilation, compile } from './compilation.ts';
import { buildModule, generateRegion } from './generate.ts';
import type { CodedRegion, LiveModule, RegionParts } from './live-regions.ts';
import type { Candidate, PlannedRegion } from './region-planner.ts';

/** The same for candidates of the same region. */
export const candidateKey = ({ place, mode }: Candidate): number => place * 128 + mode;

/** Regions that become one module. What the guest writes over before the module is there is left out. */
export class RegionBatch {
  readonly #parts: RegionParts;
  readonly #module: LiveModule;
  readonly #regions: readonly CodedRegion[];
  readonly #compilation: Compilation;
  readonly #keys: ReadonlySet<number>;

  /** There must be slots for all of them. @param isAside whether to compile while the guest goes on */
  constructor(parts: RegionParts, planned: readonly PlannedRegion[], isAside: boolean) {
    const { live, code, generator } = parts;
    this.#parts = parts;
    this.#keys = new Set(planned.map(candidateKey));
    const module = live.open(planned.length, false);
    this.#module = module;
    this.#regions = planned.map(({ nodes, ...region }, index) => {
      return { ...region, slot: module.slots[index] as number, code: generateRegion(generator, { nodes, ...region }) };
    });
    const wasm = buildModule(generator, this.#regions, live, false);
    module.bytes = wasm.length;
    this.#compilation = compile(wasm, isAside);
    for (const region of this.#regions) {
      live.promise(module, region);
      code.watchRegion(region);
    }
  }

  get bytes(): number {
    return this.#module.bytes;
  }

  get isCompiled(): boolean {
    return this.#compilation.isDone;
  }

  has(candidate: Candidate): boolean {
    return this.#keys.has(candidateKey(candidate));
  }

  /** When it is compiled: its regions can be entered from here on. */
  complete(): void {
    const { live, code, instantiate } = this.#parts;
    const { module } = this.#compilation;
    const exports = module && instantiate(module);
    for (const [index, region] of this.#regions.entries()) {
      if (!live.has(region)) continue;
      if (exports) {
        live.add(this.#module, region, exports[String(index)]);
        code.addRegion(region);
      } else code.dropRegion(region);
    }
    live.complete(this.#module);
  }
}
