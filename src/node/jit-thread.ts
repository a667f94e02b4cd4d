import { Worker } from 'node:worker_threads';
import type { JitThread, TookTime } from '../cpu/jit/jit-thread.ts';
import type { RegionSource } from '../cpu/jit/region.ts';
import type { Translations } from '../cpu/jit/translator.ts';
import { PAGE_SIZE } from '../x86/brand.ts';

/** What the thread begins with. */
export interface JitThreadData {
  /** One word: how many requests there were so far. */
  readonly requests: Int32Array;
}

export interface TranslationRequest {
  readonly kind: 'translate';
  readonly number: number;
  readonly tlbEntries: number;
  readonly sources: readonly RegionSource[];
}

export interface CompilationRequest {
  readonly kind: 'compile';
  readonly number: number;
  readonly wasm: Bytes;
}

/** To the thread. */
export type JitRequest = TranslationRequest | CompilationRequest;

/** And back. */
export interface JitAnswer {
  readonly number: number;
  /** Undefined when there was no memory for a module. */
  readonly result: Translations | WebAssembly.Module | undefined;
  /** The pages of the request, which are used again: as garbage they would lie about for long. */
  readonly pages: readonly Bytes[];
  /** That passed while the thread worked at it. */
  readonly milliseconds: number;
}

type Bytes = Uint8Array<ArrayBuffer>;

/** Pages that are kept. */
const MOST_SPARE = 64;

/**
 * A thread that makes regions for guests, for as long as the process lives; it does not keep the process alive.
 * @param program jit-worker.ts, bundled
 */
export function startJitThread(program: URL): JitThread {
  const workerData: JitThreadData = { requests: new Int32Array(new SharedArrayBuffer(4)) };
  const worker = new Worker(program, { workerData });
  const waiting = new Map<number, Waiting>();
  const spare: Bytes[] = [];
  let failure: Error | undefined;
  let next = 0;

  worker.on('message', ({ number, result, pages, milliseconds }: JitAnswer) => {
    spare.push(...pages.slice(0, MOST_SPARE - spare.length));
    const asked = waiting.get(number);
    waiting.delete(number);
    asked?.tookTime(milliseconds);
    if (result) asked?.resolve(result);
    else asked?.reject(new Error('a module could not be compiled'));
  });
  const fail = (error: Error): void => {
    failure ??= error;
    for (const { reject } of waiting.values()) reject(failure);
    waiting.clear();
  };
  worker.on('error', fail);
  worker.on('messageerror', fail);
  worker.on('exit', () => fail(new Error('the thread has ended')));
  // Whoever listens to a worker's messages waits for them, unless it says afterwards that it does not.
  worker.unref();

  const copyOf = (bytes: Uint8Array): Bytes => {
    const page = spare.pop() ?? new Uint8Array(PAGE_SIZE);
    page.set(bytes);
    return page;
  };
  /** @param transferred what the request names and nobody else needs */
  const ask = <Result>(
    request: (number: number) => JitRequest,
    transferred: readonly Bytes[],
    tookTime: TookTime,
  ): Promise<Result> =>
    new Promise((resolve, reject) => {
      if (failure) return reject(failure);
      const number = next++;
      waiting.set(number, { resolve: resolve as Waiting['resolve'], reject, tookTime });
      worker.postMessage(
        request(number),
        transferred.map(({ buffer }) => buffer),
      );
      Atomics.add(workerData.requests, 0, 1);
      Atomics.notify(workerData.requests, 0);
    });
  return {
    translate: (tlbEntries, given, tookTime) => {
      const pages = given.map(({ bytes }) => copyOf(bytes));
      const sources = given.map((source, index) => ({ ...source, bytes: pages[index] as Bytes }));
      return ask((number) => ({ kind: 'translate', number, tlbEntries, sources }), pages, tookTime);
    },
    compile: (given, tookTime) => {
      const wasm = given.slice();
      return ask((number) => ({ kind: 'compile', number, wasm }), [wasm], tookTime);
    },
  };
}

interface Waiting {
  readonly resolve: (result: NonNullable<JitAnswer['result']>) => void;
  readonly reject: (error: Error) => void;
  readonly tookTime: TookTime;
}
