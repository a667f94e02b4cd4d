import { existsSync, readdirSync } from 'node:fs';
import { setPriority } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import type { JitOptions } from '../cpu/jit/jit.ts';
import type { JitThread } from '../cpu/jit/jit-thread.ts';
import { startJitThread } from './jit-thread.ts';

/**
 * The V8 of Node 20 gives functions as large as the interpreter's a quicker but weaker register allocator; with the full
 * one guests run 1.3 to 1.4 times as fast (bench/peers.ts). And it heeds the interpreter's branch hints only when asked,
 * which saves a boot 2 to 3 % of its time. So it does what modules say of how they are to be compiled: regions that are
 * gathered (cpu/jit/gathering.ts) go through no slow tier again. Later V8s have no such flags and would print an error.
 * Takes effect for what is compiled afterwards, so it comes first.
 */
export function tuneEngine(): void {
  preferGuests();
  if (process.versions.v8.startsWith('11.')) {
    setFlagsFromString('--no-turbo-use-mid-tier-regalloc-for-huge-functions');
    setFlagsFromString('--experimental-wasm-branch-hinting');
    setFlagsFromString('--experimental-wasm-compilation-hints');
    setFlagsFromString('--no-wasm-lazy-compilation');
  }
}

/**
 * V8 compiles and collects garbage in threads of its own: one in `ring1` (bin/ring1), else up to four. On few processors they
 * took most of the time from the one thread that guests run in; at a lower priority they take what is left. The thread that
 * makes regions begins later and has its full weight: what it makes is interpreted until it is there. Only Linux has
 * priorities of threads; elsewhere nothing is changed.
 */
function preferGuests(): void {
  const tasks = '/proc/self/task';
  if (!existsSync(tasks)) return;
  for (const thread of readdirSync(tasks).map(Number)) if (thread !== process.pid) setPriority(thread, NICENESS);
}

/** A tenth of the weight that threads have otherwise (sched(7): each step is a factor of 1.25). */
const NICENESS = 10;

/** Half of the regions that there is room for (DEFAULT_JIT): while some are gathered they take slots twice. */
const MOST_MODULES = 8192;

/**
 * How this engine compiles guests' code best. WebAssembly modules are cheap from V8 12 on: 0.02 ms each, against 0.3 ms
 * and more before, where pieces of code therefore share one. And while V8 11 ends the process above some 30,000 modules of
 * all its hosts, later ones have room for a module for each region: with fewer, a guest's programs push each other out,
 * and memory goes up and down with what V8 has not freed yet (bench/soak.ts).
 * @param worker the bundle dist/jit-worker.js; one thread is enough for all hosts of a process
 */
export function jitForEngine(worker: URL): Partial<JitOptions> {
  const areCheap = Number.parseInt(process.versions.v8, 10) >= 12;
  thread ??= startJitThread(worker);
  return {
    thread,
    ...(areCheap ? { regionsPerModule: 1, maximumModules: MOST_MODULES } : {}),
  };
}

let thread: JitThread | undefined;
