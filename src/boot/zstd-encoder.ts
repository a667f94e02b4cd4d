import {
  type CodeTable,
  LARGEST_BLOCK,
  LITERAL_LENGTH_FIELD,
  LITERAL_LENGTHS,
  MAGIC,
  MATCH_LENGTH_FIELD,
  MATCH_LENGTHS,
  OFFSET_FIELD,
} from './zstd-codes.ts';
import { type FseTable, highestBit } from './zstd-entropy.ts';

/**
 * Packs bytes as Zstandard (RFC 8878), for data that is written and read again by the host itself: as fast as it can be
 * in JavaScript, and so with one look at a hash table for each match, literals as they are and the predefined tables.
 * Section numbers below are that document's.
 */

/** Content of up to 4 GiB in a single segment: its size stands in the header, in 4 bytes (3.1.1.1). */
const DESCRIPTOR = 0xa0;
const HEADER_BYTES = 9;
const BLOCK_HEADER_BYTES = 3;

const enum BlockType {
  raw = 0,
  compressed = 2,
}

/** Shortest match that is looked for: what the hash is of. */
const SHORTEST_MATCH = 4;
const HASH_BITS = 15;
/** After that many bytes without a match, a power of two, the next steps are longer by one. */
const PATIENCE_SHIFT = 6;
/** The end of a block is left to literals, so that four bytes can be read at any place where a match may begin. */
const TAIL = 8;

/** Codes for the lengths that occur most; the others are looked for. */
const SMALL_LENGTHS = 512;
const LITERAL_CODES = codesOf(LITERAL_LENGTHS);
const MATCH_CODES = codesOf(MATCH_LENGTHS);

function codesOf(table: CodeTable): Uint8Array {
  return Uint8Array.from({ length: SMALL_LENGTHS }, (_, length) => codeOf(table, length));
}

/** The last code whose base is not above a length. */
function codeOf({ bases }: CodeTable, length: number): number {
  let code = bases.length - 1;
  while (code > 0 && (bases[code] as number) > length) code--;
  return code;
}

/** Which state a decoder must have been in to give a symbol and go on to a state: the decoding table turned round. */
class StateTable {
  readonly accuracy: number;
  readonly #bits: Uint8Array;
  readonly #bases: Uint16Array;
  /** By symbol and following state. */
  readonly #states: Uint8Array;

  constructor({ accuracy, symbols, bits, bases }: FseTable) {
    this.accuracy = accuracy;
    this.#bits = bits;
    this.#bases = bases;
    const size = 1 << accuracy;
    this.#states = new Uint8Array(256 * size);
    for (let state = 0; state < size; state++) {
      const base = bases[state] as number;
      const place = (symbols[state] as number) * size;
      this.#states.fill(state, place + base, place + base + (1 << (bits[state] as number)));
    }
  }

  /** A state that gives a symbol, whatever comes after it. */
  last(symbol: number): number {
    return this.#states[symbol << this.accuracy] as number;
  }

  /** The state that gives `symbol` and then, by the bits that are written here, goes on to `following`. */
  before(symbol: number, following: number, output: ForwardBits): number {
    const state = this.#states[(symbol << this.accuracy) + following] as number;
    output.write(following - (this.#bases[state] as number), this.#bits[state] as number);
    return state;
  }
}

const LITERAL_STATES = new StateTable(LITERAL_LENGTH_FIELD.predefined);
const OFFSET_STATES = new StateTable(OFFSET_FIELD.predefined);
const MATCH_STATES = new StateTable(MATCH_LENGTH_FIELD.predefined);

/** Writes the bits that a decoder reads from their end to their beginning. */
class ForwardBits {
  readonly bytes: Uint8Array;
  /** Where the next byte goes. */
  at: number;
  #word = 0;
  #count = 0;

  constructor(bytes: Uint8Array, at: number) {
    this.bytes = bytes;
    this.at = at;
  }

  /** @param count 0 to 24 */
  write(value: number, count: number): void {
    this.#word |= value << this.#count;
    this.#count += count;
    while (this.#count >= 8) {
      this.bytes[this.at++] = this.#word;
      this.#word >>>= 8;
      this.#count -= 8;
    }
  }

  /** Marks the end. */
  finish(): void {
    this.write(1, 1);
    if (this.#count > 0) this.bytes[this.at++] = this.#word;
  }
}

/** Packs arrays one after another; what it works with is kept between them. */
export class ZstdEncoder {
  readonly #hashes = new Int32Array(1 << HASH_BITS);
  // Sequences of one block: literals, then a match.
  readonly #literalLengths = new Uint32Array(LARGEST_BLOCK / SHORTEST_MATCH);
  readonly #matchLengths = new Uint32Array(LARGEST_BLOCK / SHORTEST_MATCH);
  readonly #offsets = new Uint32Array(LARGEST_BLOCK / SHORTEST_MATCH);
  readonly #literals = new Uint8Array(LARGEST_BLOCK);
  /** Literals, and up to 66 bits for each sequence. */
  readonly #packed = new Uint8Array(4 * LARGEST_BLOCK);
  #count = 0;
  #literalCount = 0;

  /** @returns one frame; blocks of `LARGEST_BLOCK` stand for themselves, and are packed best */
  encode(bytes: Uint8Array): Uint8Array {
    const blocks = Math.max(1, Math.ceil(bytes.length / LARGEST_BLOCK));
    const output = new Uint8Array(HEADER_BYTES + blocks * BLOCK_HEADER_BYTES + bytes.length);
    const view = new DataView(output.buffer);
    view.setUint32(0, MAGIC, true);
    output[4] = DESCRIPTOR;
    view.setUint32(5, bytes.length, true);
    let at = HEADER_BYTES;
    for (let block = 0; block < blocks; block++) {
      const content = bytes.subarray(block * LARGEST_BLOCK, (block + 1) * LARGEST_BLOCK);
      at = this.#block(content, block === blocks - 1, output, at);
    }
    return output.slice(0, at);
  }

  /** @returns where the block ends */
  #block(content: Uint8Array, isLast: boolean, output: Uint8Array, start: number): number {
    const at = start + BLOCK_HEADER_BYTES;
    this.#findMatches(content);
    const packed = this.#count === 0 ? content : this.#packed.subarray(0, this.#writeSequences());
    const isPacked = packed.length < content.length;
    const written = isPacked ? packed : content;
    const type = isPacked ? BlockType.compressed : BlockType.raw;
    const header = (written.length << 3) | (type << 1) | (isLast ? 1 : 0);
    output[start] = header;
    output[start + 1] = header >> 8;
    output[start + 2] = header >> 16;
    output.set(written, at);
    return at + written.length;
  }

  #findMatches(content: Uint8Array): void {
    const hashes = this.#hashes.fill(-1);
    const last = content.length - TAIL;
    this.#count = 0;
    this.#literalCount = 0;
    let anchor = 0;
    for (let at = 0; at < last; ) {
      const four = fourAt(content, at);
      const hash = Math.imul(four, 0x9e37_79b1) >>> (32 - HASH_BITS);
      const candidate = hashes[hash] as number;
      hashes[hash] = at;
      if (candidate < 0 || fourAt(content, candidate) !== four) {
        at += 1 + ((at - anchor) >> PATIENCE_SHIFT);
        continue;
      }
      let length = SHORTEST_MATCH;
      while (at + length < content.length && content[candidate + length] === content[at + length]) length++;
      this.#literalLengths[this.#count] = at - anchor;
      this.#matchLengths[this.#count] = length;
      this.#offsets[this.#count++] = at - candidate;
      this.#takeLiterals(content, anchor, at);
      at += length;
      anchor = at;
    }
    this.#takeLiterals(content, anchor, content.length);
  }

  #takeLiterals(content: Uint8Array, from: number, to: number): void {
    this.#literals.set(content.subarray(from, to), this.#literalCount);
    this.#literalCount += to - from;
  }

  /** Writes the block's content (3.1.1.3) to `#packed`. @returns its length */
  #writeSequences(): number {
    const output = this.#packed;
    const count = this.#count;
    const literals = this.#literals.subarray(0, this.#literalCount);
    // Raw literals with 20 bits of length.
    const header = (literals.length << 4) | 0xc;
    output[0] = header;
    output[1] = header >> 8;
    output[2] = header >> 16;
    output.set(literals, 3);
    let at = 3 + literals.length;
    if (count < 128) {
      output[at++] = count;
    } else if (count < 0x7f00) {
      output[at++] = 0x80 | (count >> 8);
      output[at++] = count;
    } else {
      output[at++] = 255;
      output[at++] = count - 0x7f00;
      output[at++] = (count - 0x7f00) >> 8;
    }
    // All tables are the predefined ones.
    output[at++] = 0;
    const bits = new ForwardBits(output, at);
    this.#writeBits(bits);
    return bits.at;
  }

  /** Sequences from the last to the first, each part in the order opposite to that in which it is read (3.1.1.3.2.1). */
  #writeBits(bits: ForwardBits): void {
    let literalState = 0;
    let offsetState = 0;
    let matchState = 0;
    for (let sequence = this.#count - 1; sequence >= 0; sequence--) {
      const literalLength = this.#literalLengths[sequence] as number;
      const matchLength = this.#matchLengths[sequence] as number;
      const literalCode =
        literalLength < SMALL_LENGTHS
          ? (LITERAL_CODES[literalLength] as number)
          : codeOf(LITERAL_LENGTHS, literalLength);
      const matchCode =
        matchLength < SMALL_LENGTHS ? (MATCH_CODES[matchLength] as number) : codeOf(MATCH_LENGTHS, matchLength);
      // Values up to 3 stand for distances that were used before; these are written out as well.
      const offsetValue = (this.#offsets[sequence] as number) + 3;
      const offsetCode = highestBit(offsetValue);
      if (sequence === this.#count - 1) {
        literalState = LITERAL_STATES.last(literalCode);
        offsetState = OFFSET_STATES.last(offsetCode);
        matchState = MATCH_STATES.last(matchCode);
      } else {
        offsetState = OFFSET_STATES.before(offsetCode, offsetState, bits);
        matchState = MATCH_STATES.before(matchCode, matchState, bits);
        literalState = LITERAL_STATES.before(literalCode, literalState, bits);
      }
      bits.write(
        literalLength - (LITERAL_LENGTHS.bases[literalCode] as number),
        LITERAL_LENGTHS.bits[literalCode] as number,
      );
      bits.write(matchLength - (MATCH_LENGTHS.bases[matchCode] as number), MATCH_LENGTHS.bits[matchCode] as number);
      bits.write(offsetValue - 2 ** offsetCode, offsetCode);
    }
    bits.write(matchState, MATCH_STATES.accuracy);
    bits.write(offsetState, OFFSET_STATES.accuracy);
    bits.write(literalState, LITERAL_STATES.accuracy);
    bits.finish();
  }
}

function fourAt(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24)
  );
}
