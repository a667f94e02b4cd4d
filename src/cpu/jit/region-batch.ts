import type { ByteWriter } from '../../wasm/writer.ts';
import { PAGE_SIZE } from '../../x86/brand.ts';
import type { Region } from '../code-cache.ts';
import { buildModule } from './generate.ts';
import type { CodedRegion, LiveModule, RegionParts } from './live-regions.ts';
import type { Pending } from './pending.ts';
import type { Outcome, Translation, Translations } from './translator.ts';

/** What a region is to be made from. */
export type Candidate = Pick<Region, 'place' | 'mode' | 'linear'>;

/** The same for candidates of the same region. */
export const candidateKey = ({ place, mode }: Candidate): number => place * 128 + mode;

/** What a batch asks of its owner, besides what all regions are made from. */
export interface BatchOwner {
  readonly parts: RegionParts;
  /** Compiles a module, which is released. */
  compile(wasm: ByteWriter): Pending<WebAssembly.Module>;
  /** Gives up old regions when there is no room for these. */
  makeRoom(regions: readonly Pick<CodedRegion, 'code'>[]): void;
  /** Told what became of a candidate whose code still stands there. */
  onTranslated(candidate: Candidate, outcome: Outcome): void;
  /** Told the size of the module. */
  onBuilt(bytes: number): void;
}

/**
 * Regions that become one module: they are translated, then compiled, both perhaps while the guest goes on. What it
 * writes over meanwhile is left out.
 */
export class RegionBatch {
  readonly #owner: BatchOwner;
  readonly #candidates: ReadonlyMap<number, Candidate>;
  readonly #translations: Pending<Translations>;
  #module: ModuleInWork | undefined;
  isDone = false;

  constructor(owner: BatchOwner, candidates: readonly Candidate[], translations: Pending<Translations>) {
    this.#owner = owner;
    this.#candidates = new Map(candidates.map((candidate) => [candidateKey(candidate), candidate]));
    this.#translations = translations;
  }

  has(candidate: Candidate): boolean {
    return this.#candidates.has(candidateKey(candidate));
  }

  /** Whether there is something to do. */
  get isDue(): boolean {
    return this.#module ? this.#module.compilation.isDone : this.#translations.isDone;
  }

  /** Between runs: does what can be done. */
  work(): void {
    if (!this.#module && this.#translations.isDone) this.#build(this.#translations.value);
    if (this.#module?.compilation.isDone) this.#complete(this.#module);
  }

  /** @param translations undefined when they were not made: the candidates are asked for again */
  #build(translations: Translations | undefined): void {
    const { parts, makeRoom } = this.#owner;
    const { live, code, memory } = parts;
    const candidates = translations ? [...this.#candidates.values()] : [];
    const taken = candidates.flatMap((candidate, index) => this.#take(candidate, translations?.[index]));
    this.isDone = taken.length === 0;
    if (this.isDone) return;
    makeRoom(taken);
    const module = live.open(taken.length, false);
    const regions = taken.map((region, index) => ({ ...region, slot: module.slots[index] as number }));
    const wasm = buildModule(memory.wasmPages, regions, live, false);
    module.bytes = wasm.length;
    this.#owner.onBuilt(wasm.length);
    const compilation = this.#owner.compile(wasm);
    for (const region of regions) {
      live.promise(module, region);
      code.watchRegion(region);
    }
    this.#module = { module, regions, compilation };
  }

  /** The region of a candidate, unless there is none or its code is another one by now. */
  #take(candidate: Candidate, outcome: Outcome): Omit<CodedRegion, 'slot'>[] {
    const { place, mode, linear } = candidate;
    const { code, memory } = this.#owner.parts;
    if (!code.find(place, mode)) return [];
    const isRegion = typeof outcome === 'object';
    if (isRegion && !isUnchanged(memory.u8, place, outcome)) return [];
    this.#owner.onTranslated(candidate, outcome);
    if (!isRegion) return [];
    const { code: regionCode, slack, ranges } = outcome;
    return [{ place, mode, linear, slack, ranges, code: regionCode }];
  }

  /** Its regions can be entered from here on. */
  #complete({ module, regions, compilation }: ModuleInWork): void {
    const { live, code, instantiate } = this.#owner.parts;
    const exports = compilation.value && instantiate(compilation.value);
    for (const [index, region] of regions.entries()) {
      if (!live.has(region)) continue;
      if (exports) {
        live.add(module, region, exports[String(index)]);
        code.addRegion(region);
      } else code.dropRegion(region);
    }
    live.complete(module);
    this.isDone = true;
  }
}

interface ModuleInWork {
  readonly module: LiveModule;
  readonly regions: readonly CodedRegion[];
  readonly compilation: Pending<WebAssembly.Module>;
}

/** Whether the page of a place still has the bytes that were translated. */
function isUnchanged(memory: Uint8Array, place: number, { ranges, guestBytes }: Translation): boolean {
  const page = place - (place % PAGE_SIZE);
  let compared = 0;
  for (let index = 0; index < ranges.length; index += 2) {
    const end = ranges[index + 1] as number;
    for (let offset = ranges[index] as number; offset < end; offset++) {
      if (memory[page + offset] !== guestBytes[compared++]) return false;
    }
  }
  return true;
}
