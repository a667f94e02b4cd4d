/** Repeatable random operands, crowded around the places where floating point goes wrong. */

export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed | 0;
  }

  /** 32 random bits, signed (a counter through a mixing function). */
  word(): number {
    this.state = (this.state + 0x9e3779b9) | 0;
    let z = this.state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return z ^ (z >>> 15);
  }

  below(limit: number): number {
    return (this.word() >>> 0) % limit;
  }

  /** True once in so many times. */
  once(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)] as T;
  }

  long(): bigint {
    return (BigInt(this.word() >>> 0) << 32n) | BigInt(this.word() >>> 0);
  }

  /** An integer of `bits` whose ones stand in runs: ends, middles and carries of significands. */
  pattern(bits: number): bigint {
    const mask = (1n << BigInt(bits)) - 1n;
    const place = () => BigInt(this.below(bits + 1));
    switch (this.below(8)) {
      case 0:
        return 0n;
      case 1:
        return mask;
      case 2:
        return (1n << place()) & mask;
      case 3:
        return ((1n << place()) - 1n) & mask;
      case 4:
        return mask & ~((1n << place()) - 1n);
      case 5:
        return ((1n << place()) ^ (1n << place())) & mask;
      case 6:
        return (this.long() << place()) & mask;
      default:
        return this.long() & mask;
    }
  }

  /** An exponent field of `bits`; mostly near `center` so that operands meet, often at the ends. */
  exponent(bits: number, center: number): number {
    const top = (1 << bits) - 1;
    const bias = top >> 1;
    let value: number;
    switch (this.below(10)) {
      case 0:
        value = 0;
        break;
      case 1:
        value = top;
        break;
      case 2:
        value = 1 + this.below(3);
        break;
      case 3:
        value = top - 1 - this.below(3);
        break;
      case 4:
        value = this.below(top + 1);
        break;
      case 5:
        value = bias + this.below(70) - 4;
        break;
      default:
        value = center + this.below(9) - 4;
    }
    return Math.max(0, Math.min(top, value));
  }
}

/** Writes a random binary32; `center` is an exponent field to be near to. */
export function writeFloat32(random: Random, view: DataView, offset: number, center: number): void {
  const fraction = Number(random.pattern(23));
  view.setInt32(offset, (random.word() & 0x80000000) | (random.exponent(8, center) << 23) | fraction, true);
}

export function writeFloat64(random: Random, view: DataView, offset: number, center: number): void {
  const upper = BigInt(((random.word() & 0x80000000) | (random.exponent(11, center) << 20)) >>> 0);
  view.setBigUint64(offset, (upper << 32n) | random.pattern(52), true);
}

/** Writes a random 80-bit number, one in sixteen of them of the encodings that the processor rejects. */
export function writeFloat80(random: Random, view: DataView, offset: number, center: number): void {
  const exponent = random.exponent(15, center);
  let integerBit = exponent !== 0 ? 1n << 63n : 0n;
  if (random.once(16)) integerBit ^= 1n << 63n;
  // Half of the significands have the precision of a shorter format, so that halfway cases occur.
  let fraction = random.pattern(63);
  const short = random.below(6);
  if (short === 0) fraction &= ~((1n << 40n) - 1n);
  else if (short === 1) fraction &= ~((1n << 11n) - 1n);
  else if (short === 2) fraction &= ~((1n << 39n) - 1n);
  else if (short === 3) fraction &= ~((1n << 10n) - 1n);
  view.setBigUint64(offset, integerBit | fraction, true);
  view.setUint16(offset + 8, (random.word() & 0x8000) | exponent, true);
}
