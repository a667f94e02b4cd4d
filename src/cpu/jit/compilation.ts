import type { ByteWriter } from '../../wasm/writer.ts';
import type { JitThread } from './jit-thread.ts';
import { done, type Pending, pending } from './pending.ts';

/**
 * @param wasm is copied before this returns, and released
 * @param isAside whether it is compiled while the guest goes on
 * @param thread where; else in one of the engine's own
 */
export function compile(wasm: ByteWriter, isAside: boolean, thread?: JitThread): Pending<WebAssembly.Module> {
  const bytes = wasm.result();
  const compilation = isAside
    ? pending(thread ? thread.compile(bytes) : WebAssembly.compile(bytes))
    : done(new WebAssembly.Module(bytes));
  wasm.release();
  return compilation;
}
