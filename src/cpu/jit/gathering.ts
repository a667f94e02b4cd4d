import type { CodeCache } from '../code-cache.ts';
import { buildModule, type GeneratorOptions } from './generate.ts';
import type { CodedRegion, LiveModule, LiveRegions } from './live-regions.ts';

export interface GatheringParts {
  readonly code: CodeCache;
  readonly generator: GeneratorOptions;
  readonly live: LiveRegions;
  readonly instantiate: (module: WebAssembly.Module) => WebAssembly.Exports;
}

/**
 * Puts the code of many regions into one module, where they stand side by side and lead directly to each other: caches
 * of the processor hold more of them, and control goes from one to the next without a search. The module is compiled
 * while the guest goes on with the regions that there are. Then they are exchanged, a few at a time; those that are gone
 * by then are left out.
 */
export class Gathering {
  readonly #parts: GatheringParts;
  /** Each tells whether there is something to wait for. */
  readonly #steps: Generator<boolean, void>;
  readonly #compile: typeof compileAside;
  isDone = false;
  gathered = 0;
  /** Size of the module. */
  bytes = 0;

  /** @param isAside whether to compile while the guest goes on */
  constructor(parts: GatheringParts, regions: readonly CodedRegion[], isAside: boolean) {
    this.#parts = parts;
    this.#compile = isAside ? compileAside : compileHere;
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
    const { generator, live } = this.#parts;
    if (live.freeSlots < regions.length) return;
    const module = live.open(regions.length, true);
    const moved = regions.map((region, index) => ({ ...region, slot: module.slots[index] as number }));
    try {
      const wasm = buildModule(generator, moved, live, true);
      yield false;
      const compilation = this.#compile(wasm);
      while (!compilation.isDone) yield true;
      if (!compilation.module) return;
      module.bytes = this.bytes = wasm.length;
      yield* this.#exchange(module, regions, moved, this.#parts.instantiate(compilation.module));
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

/** A compilation that somebody looks at from time to time. */
interface Compilation {
  readonly isDone: boolean;
  readonly module: WebAssembly.Module | undefined;
}

function compileAside(wasm: Uint8Array<ArrayBuffer>): Compilation {
  const compilation: Compilation = { isDone: false, module: undefined };
  const settle = (module?: WebAssembly.Module) => Object.assign(compilation, { isDone: true, module });
  // Without memory for it the regions stay as they are.
  WebAssembly.compile(wasm).then(settle, () => settle());
  return compilation;
}

function compileHere(wasm: Uint8Array<ArrayBuffer>): Compilation {
  return { isDone: true, module: new WebAssembly.Module(wasm) };
}
