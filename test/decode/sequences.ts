/**
 * Byte sequences for comparing decoders: enough of each kind to reach every row of the opcode tables many times.
 *
 * A sequence is 16 bytes, one more than an instruction can have, so that no decoder ever lacks bytes.
 */

export const sequenceLength = 16;

/** Uniform 32-bit numbers from a seed (Marsaglia's xorshift with period 2^32 - 1). */
export function createRandom(seed: number): () => number {
  let state = (Math.imul(seed, 0x9e3779b1) ^ 0x2545f491) | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

const legacyPrefixes = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];

/** Escape bytes of the four opcode maps. */
const escapes: readonly (readonly number[])[] = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]];

/** Prefixes under which every opcode with every ModRM byte is tried in turn. */
const enumeratedPrefixes: readonly (readonly number[])[] = [
  [],
  [0x66],
  [0xf3],
  [0xf2],
  [0xf0],
  [0x67],
  [0x48],
  [0x45],
  [0x66, 0x48],
  [0xf3, 0x4f],
  [0xf2, 0x48],
  [0x66, 0xf2],
  [0xf3, 0x66],
  [0x41],
  [0x66, 0xf0],
];

const enumeratedCount = enumeratedPrefixes.length * escapes.length * 256 * 256;

/** Fills sequences in turn: a third enumerated, a third random, a third mutations of earlier ones. */
export class SequenceGenerator {
  readonly #random: () => number;
  /** Sequences worth mutating: earlier valid ones. */
  readonly #pool = new Uint8Array(sequenceLength * 4096);
  #pooled = 0;
  #serial = 0;
  #enumerated: number;

  constructor(seed: number) {
    this.#random = createRandom(seed);
    this.#enumerated = this.#random() % enumeratedCount;
  }

  /** Fills `bytes` from `offset` with one sequence. */
  next(bytes: Uint8Array, offset: number): void {
    const random = this.#random;
    for (let index = 0; index < sequenceLength; index += 4) {
      const value = random();
      bytes[offset + index] = value;
      bytes[offset + index + 1] = value >>> 8;
      bytes[offset + index + 2] = value >>> 16;
      bytes[offset + index + 3] = value >>> 24;
    }
    switch (this.#serial++ % 3) {
      case 0:
        this.#enumerate(bytes, offset);
        break;
      case 1:
        this.#randomize(bytes, offset);
        break;
      case 2:
        this.#mutate(bytes, offset);
        break;
    }
  }

  /** Remembers a sequence that turned out to be a valid instruction. */
  keep(bytes: Uint8Array, offset: number): void {
    const slot = this.#pooled < 4096 ? this.#pooled : this.#random() % 4096;
    this.#pool.set(bytes.subarray(offset, offset + sequenceLength), slot * sequenceLength);
    this.#pooled++;
  }

  #enumerate(bytes: Uint8Array, offset: number): void {
    // A step coprime to the count visits all of them, in an order that mixes opcodes early.
    this.#enumerated = (this.#enumerated + 1_000_003) % enumeratedCount;
    let rest = this.#enumerated;
    const modRm = rest & 0xff;
    rest >>= 8;
    const opcode = rest & 0xff;
    rest >>= 8;
    const leading = escapes[rest & 3] ?? [];
    const prefixes = enumeratedPrefixes[rest >> 2] ?? [];
    bytes.set([...prefixes, ...leading, opcode, modRm], offset);
  }

  #randomize(bytes: Uint8Array, offset: number): void {
    const random = this.#random;
    let position = offset;
    // Mostly few prefixes, now and then so many that the instruction gets too long.
    const prefixCount = [0, 0, 1, 1, 1, 2, 2, 3, 4, random() % 14][random() % 10] ?? 0;
    for (let count = 0; count < prefixCount; count++) {
      bytes[position++] = random() % 4 === 0 ? 0x40 | (random() % 16) : (legacyPrefixes[random() % 11] ?? 0);
    }
    if (random() % 3 === 0) bytes[position++] = 0x40 | (random() % 16);
    const leading = escapes[[0, 0, 0, 1, 1, 1, 2, 3][random() % 8] ?? 0] ?? [];
    for (const byte of leading) if (position < offset + sequenceLength) bytes[position++] = byte;
  }

  #mutate(bytes: Uint8Array, offset: number): void {
    if (this.#pooled === 0) return;
    const random = this.#random;
    const slot = random() % Math.min(this.#pooled, 4096);
    const copy = this.#pool.subarray(slot * sequenceLength, (slot + 1) * sequenceLength);
    bytes.set(copy, offset);
    for (let count = 1 + (random() % 3); count > 0; count--) {
      // Prefixes, opcode and ModRM are at the front.
      const position = offset + (random() % 6);
      switch (random() % 5) {
        case 0:
          bytes[position] = (bytes[position] ?? 0) ^ (1 << (random() % 8));
          break;
        case 1:
          bytes[position] = random();
          break;
        case 2:
          bytes.copyWithin(position, position + 1, offset + sequenceLength);
          break;
        case 3:
          bytes.copyWithin(position + 1, position, offset + sequenceLength - 1);
          bytes[position] = random();
          break;
        case 4:
          bytes.copyWithin(offset + 1, offset, offset + sequenceLength - 1);
          bytes[offset] = legacyPrefixes[random() % 11] ?? 0;
          break;
      }
    }
  }
}
