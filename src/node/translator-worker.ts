/** The thread of translator-thread.ts. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { Translator } from '../cpu/jit/translator.ts';
import { meaningOf } from '../cpu/semantics/index.ts';
import type { TranslatorAnswer, TranslatorData, TranslatorRequest } from './translator-thread.ts';

/** By the entries of the TLBs that code is made for. */
const translators = new Map<number, Translator>();

function translatorFor(tlbEntries: number): Translator {
  const known = translators.get(tlbEntries);
  if (known) return known;
  const translator = new Translator({ tlbEntries, meaningOf });
  translators.set(tlbEntries, translator);
  return translator;
}

function carryOut({ number, tlbEntries, sources }: TranslatorRequest): void {
  const translations = translatorFor(tlbEntries).translateAll(sources);
  const pages = sources.map(({ bytes }) => bytes as Uint8Array<ArrayBuffer>);
  const bodies = translations.flatMap((translation) => translation?.code.body.bytes ?? []);
  const answer: TranslatorAnswer = { number, translations, pages };
  parentPort?.postMessage(
    answer,
    [...pages, ...bodies].map(({ buffer }) => buffer as ArrayBuffer),
  );
}

/**
 * There is no event loop: while V8's one thread for collecting garbage is compiling, the loop of a thread whose garbage
 * is to be collected asks for it without end.
 */
const { requests } = workerData as TranslatorData;
for (let done = 0; ; done++) {
  Atomics.wait(requests, 0, done);
  const received = receiveMessageOnPort(parentPort as NonNullable<typeof parentPort>);
  if (received) carryOut(received.message);
}
