/** Why a queue was drained: a flush or another root, the end of a lazy section, no room, a fault, the end of a turn. */
export type DrainReason = 'flush' | 'lazy' | 'full' | 'fault' | 'turn';

/** Batches are counted by the power of two that their size does not exceed. */
const SIZES = 9;

/** What the queues of a guest did, as `--stats` has it. */
export class QueueStatistics {
  #records = 0;
  readonly #reasons: Record<DrainReason, number> = { flush: 0, lazy: 0, full: 0, fault: 0, turn: 0 };
  readonly #sizes = new Array<number>(SIZES).fill(0);

  /** @param records of the batch, 1 or more */
  drained(reason: DrainReason, records: number): void {
    this.#records += records;
    this.#reasons[reason] += 1;
    const size = Math.min(32 - Math.clz32(records - 1), SIZES - 1);
    this.#sizes[size] = (this.#sizes[size] as number) + 1;
  }

  report(): object {
    const batchesBySize = Object.fromEntries(
      this.#sizes.flatMap((count, size) => (count === 0 ? [] : [[`to ${2 ** size}`, count]])),
    );
    return { records: this.#records, batches: { ...this.#reasons }, batchesBySize };
  }
}
