import { setFlagsFromString } from 'node:v8';

/**
 * V8 gives functions as large as the interpreter's a quicker but weaker register allocator; the full one makes guests
 * run 1.3 to 1.4 times as fast (bench/boot.ts). Takes effect for what is compiled afterwards, so it comes first. An
 * engine that does not know the flag ignores it.
 */
export function tuneEngine(): void {
  setFlagsFromString('--no-turbo-use-mid-tier-regalloc-for-huge-functions');
}
