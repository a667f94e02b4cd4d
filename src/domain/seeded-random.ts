import type { Archive, Archived } from '../archive/archive.ts';

/** A small generator (xorshift) for guests that must run the same way each time; not for secrets. */
export class SeededRandom implements Archived {
  #state = 1;

  constructor(seed: number) {
    this.seed(seed);
  }

  seed(seed: number): void {
    this.#state = (seed * 0x9e37_79b9) | 1;
  }

  archive(archive: Archive): void {
    this.#state = archive.value('state', this.#state);
  }

  fill(out: Uint32Array): void {
    let state = this.#state;
    for (let index = 0; index < out.length; index++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      out[index] = state;
    }
    this.#state = state;
  }
}
