import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * Frees what is no longer in use in this thread at once. V8 itself waits until more is allocated, and what comes up while
 * a guest is built (the unpacked kernel above all) would stay for all of its life.
 */
export function collectGarbage(): void {
  collect ??= findCollector();
  collect();
}

let collect: (() => void) | undefined;

function findCollector(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc');
}
