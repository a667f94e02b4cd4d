/** The thread of jit-thread.ts. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { Translator } from '../cpu/jit/translator.ts';
import { meaningOf } from '../cpu/semantics/index.ts';
import { collectGarbage } from './garbage.ts';
import type { CompilationRequest, JitAnswer, JitRequest, JitThreadData, TranslationRequest } from './jit-thread.ts';

/** By the entries of the TLBs that code is made for. */
const translators = new Map<number, Translator>();

function translatorFor(tlbEntries: number): Translator {
  const known = translators.get(tlbEntries);
  if (known) return known;
  const translator = new Translator({ tlbEntries, meaningOf });
  translators.set(tlbEntries, translator);
  return translator;
}

function translate({ number, tlbEntries, sources }: TranslationRequest): void {
  const start = performance.now();
  const translations = translatorFor(tlbEntries).translateAll(sources);
  const pages = sources.map(({ bytes }) => bytes as Uint8Array<ArrayBuffer>);
  const bodies = translations.flatMap((outcome) => (typeof outcome === 'object' ? outcome.code.body.bytes : []));
  const transferred = [...pages, ...bodies].map(({ buffer }) => buffer as ArrayBuffer);
  answer({ number, result: translations, pages, milliseconds: performance.now() - start }, transferred);
}

function compile({ number, wasm }: CompilationRequest): void {
  const start = performance.now();
  const result = compiled(wasm);
  answer({ number, result, pages: [], milliseconds: performance.now() - start });
  sinceCollection++;
}

/**
 * Modules are shared with the thread of the guests. Their code is freed when neither has them any longer, and here there is
 * too little garbage for V8 to look for it.
 */
const COLLECTION = 32;
let sinceCollection = 0;

function compiled(wasm: Uint8Array<ArrayBuffer>): WebAssembly.Module | undefined {
  try {
    return new WebAssembly.Module(wasm);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

function answer(given: JitAnswer, transferred: ArrayBuffer[] = []): void {
  parentPort?.postMessage(given, transferred);
}

/**
 * There is no event loop: while V8's one thread for collecting garbage is compiling, the loop of a thread whose garbage
 * is to be collected asks for it without end.
 */
const { requests } = workerData as JitThreadData;
for (let seen = 0; ; ) {
  Atomics.wait(requests, 0, seen);
  seen = Atomics.load(requests, 0);
  for (let request = nextRequest(); request; request = nextRequest()) {
    if (request.kind === 'translate') translate(request);
    else compile(request);
  }
  if (sinceCollection >= COLLECTION) {
    sinceCollection = 0;
    collectGarbage();
  }
}

function nextRequest(): JitRequest | undefined {
  return receiveMessageOnPort(parentPort as NonNullable<typeof parentPort>)?.message as JitRequest | undefined;
}
