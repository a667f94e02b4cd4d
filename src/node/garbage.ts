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

/** The same at the end of the present task: what a WeakRef has led to stays until then. */
export function collectGarbageSoon(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(() => {
      collectGarbage();
      resolve();
    });
  });
}

let collect: (() => void) | undefined;

function findCollector(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc');
}
