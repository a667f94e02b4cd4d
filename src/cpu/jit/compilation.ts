import type { ByteWriter } from '../../wasm/writer.ts';
import type { JitThread, TookTime } from './jit-thread.ts';
import { done, type Pending, pending } from './pending.ts';

/** Another thread, and who is told how long it took. */
export interface TimedThread {
  readonly thread: JitThread;
  readonly tookTime: TookTime;
}

/**
 * @param wasm is copied before this returns, and released
 * @param isAside whether it is compiled while the guest goes on
 * @param on where; else in one of the engine's own
 */
export function compile(wasm: ByteWriter, isAside: boolean, on?: TimedThread): Pending<WebAssembly.Module> {
  const bytes = wasm.result();
  const compilation = isAside
    ? pending(on ? on.thread.compile(bytes, on.tookTime) : WebAssembly.compile(bytes))
    : done(new WebAssembly.Module(bytes));
  wasm.release();
  return compilation;
}
