import type { HostAddress } from '../x86/brand.ts';

/** Where the bytes stand that records were decoded from: blocks in the order of their records. */
export class RecordPlaces {
  #records = new Uint32Array(4096);
  #places = new Uint32Array(4096);
  #count = 0;

  /** The records of a block begin behind all others. */
  add(record: HostAddress, place: HostAddress): void {
    if (this.#count === this.#records.length) {
      this.#records = twiceAsLong(this.#records);
      this.#places = twiceAsLong(this.#places);
    }
    this.#records[this.#count] = record;
    this.#places[this.#count++] = place;
  }

  /** The first byte of the block that a record belongs to. */
  of(record: HostAddress): HostAddress {
    let low = 0;
    for (let high = this.#count; high - low > 1; ) {
      const middle = (low + high) >>> 1;
      if ((this.#records[middle] as number) <= record) low = middle;
      else high = middle;
    }
    return this.#places[low] as HostAddress;
  }

  clear(): void {
    this.#count = 0;
  }
}

function twiceAsLong(words: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const longer = new Uint32Array(words.length * 2);
  longer.set(words);
  return longer;
}
