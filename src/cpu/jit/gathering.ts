import { compile } from './compilation.ts';
import { buildModule } from './generate.ts';
import type { CodedRegion, LiveModule, RegionParts } from './live-regions.ts';

/**
 * Puts the code of many regions into one module, where they stand side by side and lead directly to each other: caches
 * of the processor hold more of them, and control goes from one to the next without a search. The module is compiled
 * while the guest goes on with the regions that there are. Then they are exchanged, a few at a time; those that are gone
 * by then are left out.
 */
export class Gathering {
  readonly #parts: RegionParts;
  /** Each tells whether there is something to wait for. */
  readonly #steps: Generator<boolean, void>;
  readonly #isAside: boolean;
  isDone = false;
  gathered = 0;
  /** Size of the module. */
  bytes = 0;

  /** @param isAside whether to compile while the guest goes on */
  constructor(parts: RegionParts, regions: readonly CodedRegion[], isAside: boolean) {
    this.#parts = parts;
    this.#isAside = isAside;
    this.#steps = this.#gather(regions);
  }

  /** @param until when to stop, as performance.now() says */
  work(until: number): void {
    for (let waits = false; !this.isDone && !waits && performance.now() < until; ) {
      const { done, value } = this.#steps.next();
      this.isDone = done === true;
      waits = value === true;
    }
  }

  *#gather(regions: readonly CodedRegion[]): Generator<boolean, void> {
    const { memory, live } = this.#parts;
    if (live.freeSlots < regions.length) return;
    const module = live.open(regions.length, true);
    const moved = regions.map((region, index) => ({ ...region, slot: module.slots[index] as number }));
    try {
      const wasm = buildModule(memory.wasmPages, moved, live, true);
      module.bytes = wasm.length;
      yield false;
      // Not on the thread of new regions, which would wait for hundreds of old ones to be made well.
      const compilation = compile(wasm, this.#isAside);
      while (!compilation.isDone) yield true;
      // Without memory for it the regions stay as they are.
      if (!compilation.value) return;
      this.bytes = module.bytes;
      yield* this.#exchange(module, regions, moved, this.#parts.instantiate(compilation.value));
    } finally {
      live.complete(module);
    }
  }

  *#exchange(
    module: LiveModule,
    regions: readonly CodedRegion[],
    moved: readonly CodedRegion[],
    exports: WebAssembly.Exports,
  ): Generator<boolean, void> {
    const { live, code } = this.#parts;
    for (const [index, region] of moved.entries()) {
      const old = regions[index] as CodedRegion;
      if (live.has(old)) {
        this.gathered++;
        live.add(module, region, exports[String(index)]);
        code.replaceRegion(old, region);
      }
      yield false;
    }
  }
}
