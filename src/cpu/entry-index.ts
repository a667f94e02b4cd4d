/** Ends a chain. */
export const NO_ENTRY = -1;

/** As many as 16 bits can number: a processor has dozens of these indexes, and most of a TLB's memory is theirs. */
export const MOST_ENTRIES = 0x8000;

/**
 * Which entries of a TLB may lead to a frame, or come through a table: to drop the translations of one must not cost a look
 * at all of them, or a host short of memory, and a kernel that changes its tables, do little else.
 *
 * Entries whose frames or tables have numbers with the same low bits form a chain. An entry that is dropped stays in its
 * chain until it is used again, because flushes drop thousands at a time; so who follows a chain looks at each entry again.
 */
export class EntryIndex {
  readonly #mask: number;
  // Numbers of entries are stored plus one, so that memory of arrays that are hardly used is never committed.
  readonly #heads: Uint16Array;
  readonly #next: Uint16Array;
  readonly #previous: Uint16Array;
  /** The chain of each entry, plus one. */
  readonly #chains: Uint16Array;

  /** @param entries a power of two, at most `MOST_ENTRIES` */
  constructor(entries: number) {
    this.#mask = entries - 1;
    this.#heads = new Uint16Array(entries);
    this.#next = new Uint16Array(entries);
    this.#previous = new Uint16Array(entries);
    this.#chains = new Uint16Array(entries);
  }

  /** The entry belongs to that frame or table from here on. */
  note(entry: number, number: number): void {
    const chain = number & this.#mask;
    const held = (this.#chains[entry] as number) - 1;
    if (held === chain) return;
    if (held >= 0) this.#leave(entry, held);
    const head = this.#heads[chain] as number;
    this.#next[entry] = head;
    this.#previous[entry] = 0;
    if (head !== 0) this.#previous[head - 1] = entry + 1;
    this.#heads[chain] = entry + 1;
    this.#chains[entry] = chain + 1;
  }

  #leave(entry: number, chain: number): void {
    const next = this.#next[entry] as number;
    const previous = this.#previous[entry] as number;
    if (previous === 0) this.#heads[chain] = next;
    else this.#next[previous - 1] = next;
    if (next !== 0) this.#previous[next - 1] = previous;
  }

  /** The first entry that may belong to a frame or table, or `NO_ENTRY`. */
  first(number: number): number {
    return (this.#heads[number & this.#mask] as number) - 1;
  }

  /** The one after it, or `NO_ENTRY`. */
  after(entry: number): number {
    return (this.#next[entry] as number) - 1;
  }
}
