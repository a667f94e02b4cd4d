import type { VirtualMachine } from '../api.ts';

/** Milliseconds between two looks. */
const INTERVAL = 20;

/**
 * Waits until the date of a guest is that of its host, or the guest has ended.
 * @param limit milliseconds
 * @returns whether that was so before the time was over
 */
export async function catchesUp(machine: Pick<VirtualMachine, 'behind' | 'done'>, limit: number): Promise<boolean> {
  let hasEnded = false;
  void machine.done.then(() => {
    hasEnded = true;
  });
  const end = performance.now() + limit;
  while (machine.behind > 0 && !hasEnded) {
    if (performance.now() >= end) return false;
    await new Promise((later) => setTimeout(later, INTERVAL));
  }
  return true;
}
