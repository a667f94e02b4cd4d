import type { Processor } from '../../cpu/processor.ts';
import { type GuestVirtual, highWord, lowWord } from '../../x86/brand.ts';

/** Longs of the largest frame: five and an error code, the data segments, RCX and R11. */
const LONGS = 12;

/** A frame that is pushed for an entry into a kernel, in longs of its width, and written at once. */
export class EntryFrame {
  readonly #words = new Uint32Array(LONGS * 2);
  readonly #bytes = new Uint8Array(this.#words.buffer);
  readonly #wordsOfLong: number;
  #first = 0;

  constructor(longSize: 8 | 4) {
    this.#wordsOfLong = longSize / 4;
    this.begin();
  }

  begin(): void {
    this.#first = LONGS * 2;
  }

  get bytes(): number {
    return (LONGS * 2 - this.#first) * 4;
  }

  push(low: number, high: number): void {
    this.#first -= this.#wordsOfLong;
    this.#words[this.#first] = low;
    if (this.#wordsOfLong === 2) this.#words[this.#first + 1] = high;
  }

  pushNumber(value: number): void {
    this.push(lowWord(value), highWord(value));
  }

  /** Writes the frame below an address; false when it cannot be. */
  writeBelow(top: number, { memory }: Processor): boolean {
    return memory.write((top - this.bytes) as GuestVirtual, this.#bytes.subarray(this.#first * 4));
  }
}
