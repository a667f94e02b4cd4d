import { Worker } from 'node:worker_threads';
import type { RegionSource } from '../cpu/jit/region.ts';
import type { TranslateAside, Translations } from '../cpu/jit/translator.ts';
import { PAGE_SIZE } from '../x86/brand.ts';

/** What the thread begins with. */
export interface TranslatorData {
  /** One word: how many requests there were so far. */
  readonly requests: Int32Array;
}

/** To the thread. */
export interface TranslatorRequest {
  readonly number: number;
  readonly tlbEntries: number;
  readonly sources: readonly RegionSource[];
}

/** And back. */
export interface TranslatorAnswer {
  readonly number: number;
  readonly translations: Translations;
  /** The pages of the request, which are used again: as garbage they would lie about for long. */
  readonly pages: readonly Page[];
}

type Page = Uint8Array<ArrayBuffer>;

/** Pages that are kept. */
const MOST_SPARE = 64;

/**
 * A thread that translates the code of guests, for as long as the process lives; it does not keep the process alive.
 * @param program translator-worker.ts, bundled
 */
export function startTranslator(program: URL): TranslateAside {
  const workerData: TranslatorData = { requests: new Int32Array(new SharedArrayBuffer(4)) };
  const worker = new Worker(program, { workerData });
  const waiting = new Map<number, PromiseWithResolvers>();
  const spare: Page[] = [];
  let failure: Error | undefined;
  let next = 0;

  worker.on('message', ({ number, translations, pages }: TranslatorAnswer) => {
    spare.push(...pages.slice(0, MOST_SPARE - spare.length));
    waiting.get(number)?.resolve(translations);
    waiting.delete(number);
  });
  const fail = (error: Error): void => {
    failure ??= error;
    for (const { reject } of waiting.values()) reject(failure);
    waiting.clear();
  };
  worker.on('error', fail);
  worker.on('exit', () => fail(new Error('the translator has ended')));
  // Whoever listens to a worker's messages waits for them, unless it says afterwards that it does not.
  worker.unref();

  const copyOf = (bytes: Uint8Array): Page => {
    const page = spare.pop() ?? new Uint8Array(PAGE_SIZE);
    page.set(bytes);
    return page;
  };
  const send = (number: number, tlbEntries: number, given: readonly RegionSource[]): void => {
    const pages = given.map(({ bytes }) => copyOf(bytes));
    const sources = given.map((source, index) => ({ ...source, bytes: pages[index] as Page }));
    const request: TranslatorRequest = { number, tlbEntries, sources };
    worker.postMessage(
      request,
      pages.map(({ buffer }) => buffer),
    );
    Atomics.add(workerData.requests, 0, 1);
    Atomics.notify(workerData.requests, 0);
  };
  return (tlbEntries, sources) =>
    new Promise((resolve, reject) => {
      if (failure) return reject(failure);
      waiting.set(next, { resolve, reject });
      send(next++, tlbEntries, sources);
    });
}

interface PromiseWithResolvers {
  readonly resolve: (translations: Translations) => void;
  readonly reject: (error: Error) => void;
}
