import { ModuleBuilder } from '../src/cpu/wasm/module.ts';
import { startJitThread } from '../src/node/jit-thread.ts';

/** A process that has two requests answered, and does nothing else from then on. `npm test` makes the bundle first. */
const { translate, compile } = startJitThread(new URL('../dist/jit-worker.js', import.meta.url));
const waiting = setInterval(() => {}, 1000);
const translations = await translate(1024, []);
const module = await compile(new ModuleBuilder(1).build());
clearInterval(waiting);
process.stdout.write(`${translations.length} translations, ${module instanceof WebAssembly.Module}\n`);
