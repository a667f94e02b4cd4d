import type { JitOptions } from '../src/cpu/jit/jit.ts';
import { jitForEngine } from '../src/node/engine.ts';

/** How the command compiles guests' code; needs what `npm run build` makes. */
export const jitOfCommand = (): Partial<JitOptions> => jitForEngine(new URL('../dist/jit-worker.js', import.meta.url));
