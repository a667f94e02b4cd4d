import type { ByteWriter } from '../wasm/writer.ts';
import { done, type Pending, pending } from './pending.ts';

/**
 * @param wasm is copied before this returns, and released
 * @param isAside whether the engine compiles while the guest goes on
 */
export function compile(wasm: ByteWriter, isAside: boolean): Pending<WebAssembly.Module> {
  const bytes = wasm.result();
  const compilation = isAside ? pending(WebAssembly.compile(bytes)) : done(new WebAssembly.Module(bytes));
  wasm.release();
  return compilation;
}
