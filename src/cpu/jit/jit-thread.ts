import type { RegionSource } from './region.ts';
import type { Translations } from './translator.ts';

/** Told how many milliseconds passed in the thread while it worked at a request; what waited before is not counted. */
export type TookTime = (milliseconds: number) => void;

/** Another thread that makes regions, so that no guest waits for them. Both reject when the thread is gone. */
export interface JitThread {
  /**
   * @param tlbEntries of each TLB, which the code is made for
   * @param sources are copied before this returns
   */
  translate(tlbEntries: number, sources: readonly RegionSource[], tookTime: TookTime): Promise<Translations>;
  /**
   * Compiles a module; rejects when there is no memory for it as well. The engine's own threads may be busy for long with
   * what they make quicker, and code that is not there yet is interpreted meanwhile.
   * @param wasm is copied before this returns
   */
  compile(wasm: Uint8Array, tookTime: TookTime): Promise<WebAssembly.Module>;
}
