import { startJitThread } from '../src/node/jit-thread.ts';
import { ModuleBuilder } from '../src/wasm/module.ts';

/**
 * A process that has requests answered, brings the thread to its end by something that is no module, and does nothing else
 * from then on. `npm test` makes the bundle first.
 */
const { translate, compile } = startJitThread(new URL('../dist/jit-worker.js', import.meta.url));
const waiting = setInterval(() => {}, 1000);
const wasm = new ModuleBuilder(1).build();
let took = 0;
const tookTime = (milliseconds: number): void => {
  took += milliseconds;
};
const outcome = (request: Promise<unknown>): Promise<string> =>
  request.then(
    (result) => (result instanceof WebAssembly.Module ? 'module' : 'translations'),
    () => 'refused',
  );

// Many at once: none may wait for one that comes later.
const requests = [
  translate(1024, [], tookTime),
  compile(wasm, tookTime),
  translate(1024, [], tookTime),
  compile(wasm, tookTime),
];
const outcomes = await Promise.all(requests.map(outcome));
outcomes.push(took > 0 ? 'time' : 'no time');
outcomes.push(await outcome(compile(new Uint8Array(8), tookTime)), await outcome(translate(1024, [], tookTime)));
clearInterval(waiting);
process.stdout.write(outcomes.join(', '));
