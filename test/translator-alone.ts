import { startTranslator } from '../src/node/translator-thread.ts';

/** A process that has one request answered, and does nothing else from then on. `npm test` makes the bundle first. */
const translate = startTranslator(new URL('../dist/translator-worker.js', import.meta.url));
const waiting = setInterval(() => {}, 1000);
const translations = await translate(1024, []);
clearInterval(waiting);
process.stdout.write(`${translations.length} translations\n`);
