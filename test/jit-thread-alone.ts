import { startJitThread } from '../src/node/jit-thread.ts';

/** A process that has one request answered, and does nothing else from then on. `npm test` makes the bundle first. */
const { translate } = startJitThread(new URL('../dist/jit-worker.js', import.meta.url));
const waiting = setInterval(() => {}, 1000);
const translations = await translate(1024, []);
clearInterval(waiting);
process.stdout.write(`${translations.length} translations\n`);
