/** A small seeded generator (sfc32): the same seed gives the same cases on every machine. */
export class Random {
  private a: number;
  private b: number;
  private c: number;
  private counter = 1;

  /** Seeds from any numbers and names; equal keys give equal sequences. */
  constructor(...keys: readonly (number | string)[]) {
    let hash = 0x811c9dc5;
    for (const character of keys.join('/')) {
      hash = Math.imul(hash ^ character.charCodeAt(0), 0x01000193);
      hash ^= hash >>> 15;
    }
    this.a = hash;
    this.b = Math.imul(hash, 0x9e3779b1);
    this.c = hash ^ 0x85ebca6b;
    for (let i = 0; i < 12; i++) this.word();
  }

  /** 32 random bits, unsigned. */
  word(): number {
    const sum = (this.a + this.b + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = (((this.c << 21) | (this.c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** An integer from 0 to `limit` − 1; `limit` at most 2^32. */
  below(limit: number): number {
    return Math.floor((this.word() / 0x1_0000_0000) * limit);
  }

  /** An integer from `first` to `last`, both included. */
  between(first: number, last: number): number {
    return first + this.below(last - first + 1);
  }

  /** True in `percent` of a hundred draws. */
  chance(percent: number): boolean {
    return this.word() < percent * 42949672.96;
  }

  pick<Item>(items: ArrayLike<Item>): Item {
    if (items.length === 0) throw new RangeError('nothing to pick from');
    return items[this.below(items.length)] as Item;
  }

  bytes(count: number): Uint8Array {
    const words = new Uint32Array((count + 3) >> 2);
    for (let i = 0; i < words.length; i++) words[i] = this.word();
    return new Uint8Array(words.buffer, 0, count);
  }
}
