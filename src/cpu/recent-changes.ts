/** Changes that are remembered: many between two switches of a guest's processes, few for an array. */
const CAPACITY = 512;

/**
 * What was changed last, by the number of the change, counted from 1. Whoever looks again after few changes need not look
 * at everything that might have changed.
 */
export class RecentChanges {
  readonly #numbers = new Int32Array(CAPACITY);
  /** Changes so far. */
  count = 0;

  note(number: number): void {
    this.#numbers[++this.count % CAPACITY] = number;
  }

  /** Whether all changes after the one of that number are still remembered. */
  remembersSince(change: number): boolean {
    return this.count - change < CAPACITY;
  }

  /** What was changed. @param change one that is remembered */
  at(change: number): number {
    return this.#numbers[change % CAPACITY] as number;
  }
}
