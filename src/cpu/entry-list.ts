/** Numbers of a TLB's entries, each once: those that may be valid, so that a flush touches no others. */
export class EntryList {
  readonly #entries: Uint16Array;
  readonly #isListed: Uint8Array;
  #count = 0;

  /** @param entries of the TLB, at most `MOST_ENTRIES` */
  constructor(entries: number) {
    this.#entries = new Uint16Array(entries);
    this.#isListed = new Uint8Array(entries);
  }

  visit(visit: (entry: number) => void): void {
    for (let position = 0; position < this.#count; position++) visit(this.#entries[position] as number);
  }

  add(entry: number): void {
    if (this.#isListed[entry] !== 0) return;
    this.#isListed[entry] = 1;
    this.#entries[this.#count++] = entry;
  }

  /** Takes out all entries for which the answer is false. */
  retain(keeps: (entry: number) => boolean): void {
    let kept = 0;
    for (let position = 0; position < this.#count; position++) {
      const entry = this.#entries[position] as number;
      if (keeps(entry)) this.#entries[kept++] = entry;
      else this.#isListed[entry] = 0;
    }
    this.#count = kept;
  }
}
