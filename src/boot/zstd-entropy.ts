import { InputError } from './input-error.ts';

/** The entropy coders of Zstandard (RFC 8878, section 4): FSE tables, Huffman tables and the bits they are read from. */

export function damagedZstd(what: string): InputError {
  return new InputError(`the zstd data is damaged: ${what}; give an intact file`);
}

/** Position of the highest set bit of a positive number below 2^31. */
export function highestBit(value: number): number {
  return 31 - Math.clz32(value);
}

/**
 * Reads bits from the end of a stream to its beginning. The last byte's highest set bit marks the end. Bits before the
 * beginning are 0, but `position` is negative then, and whoever reads has to look at it.
 */
export class BackwardBits {
  /** Number of bits not read yet. */
  position: number;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    const last = bytes[bytes.length - 1];
    if (last === undefined || last === 0) throw damagedZstd('a bit stream has no end mark');
    this.#bytes = bytes;
    this.position = (bytes.length - 1) * 8 + highestBit(last);
  }

  /** @param count 0 to 24 */
  read(count: number): number {
    this.position -= count;
    return this.#at(this.position, count);
  }

  /** The next bits without reading them. @param count 0 to 24 */
  peek(count: number): number {
    return this.#at(this.position - count, count);
  }

  #at(position: number, count: number): number {
    if (position < 0) {
      const missing = -position;
      return missing >= count ? 0 : this.#at(0, count - missing) << missing;
    }
    const bytes = this.#bytes;
    const index = position >>> 3;
    // Bytes behind the end read as undefined, which counts as 0 here; their bits are cut off.
    const four =
      (bytes[index] as number) |
      ((bytes[index + 1] as number) << 8) |
      ((bytes[index + 2] as number) << 16) |
      ((bytes[index + 3] as number) << 24);
    return (four >>> (position & 7)) & ((1 << count) - 1);
  }
}

/** A decoding table: for each state the symbol, and how the next state is made. */
export interface FseTable {
  readonly accuracy: number;
  readonly symbols: Uint8Array;
  readonly bits: Uint8Array;
  readonly bases: Uint16Array;
}

/**
 * Reads an FSE table description (section 4.1.1) from the beginning of `bytes`.
 * @param maximumAccuracy log2 of the largest table allowed
 * @param symbolCount symbols are 0 to symbolCount − 1
 * @returns the table and the number of bytes it took.
 */
export function readFseTable(
  bytes: Uint8Array,
  maximumAccuracy: number,
  symbolCount: number,
): { table: FseTable; size: number } {
  let position = 0;
  const read = (count: number): number => {
    const index = position >>> 3;
    const three = (bytes[index] ?? 0) | ((bytes[index + 1] ?? 0) << 8) | ((bytes[index + 2] ?? 0) << 16);
    const value = (three >>> (position & 7)) & ((1 << count) - 1);
    position += count;
    return value;
  };

  const accuracy = read(4) + 5;
  if (accuracy > maximumAccuracy) throw damagedZstd(`${accuracy} is no accuracy of a table`);
  const counts: number[] = [];
  let remaining = 1 << accuracy;
  while (remaining > 0) {
    if (counts.length >= symbolCount) throw damagedZstd('a table has too many symbols');
    // Values run from 0 to remaining + 1; the low ones take a bit less.
    const length = highestBit(remaining + 1) + 1;
    const lowMask = (1 << (length - 1)) - 1;
    const threshold = (1 << length) - 1 - (remaining + 1);
    let value = read(length);
    if ((value & lowMask) < threshold) {
      position--;
      value &= lowMask;
    } else if (value > lowMask) {
      value -= threshold;
    }
    // −1 stands for "less than one".
    const count = value - 1;
    counts.push(count);
    remaining -= Math.abs(count);
    if (count !== 0) continue;
    for (let repeat = 3; repeat === 3; ) {
      repeat = read(2);
      for (let index = 0; index < repeat; index++) counts.push(0);
      if (counts.length > symbolCount) throw damagedZstd('a table has too many symbols');
    }
  }
  const size = Math.ceil(position / 8);
  if (size > bytes.length) throw damagedZstd('a table ends early');
  return { table: buildFseTable(counts, accuracy), size };
}

/** Section 4.1.1, "From normalized distribution to decoding tables". `counts` must add up to 2^accuracy. */
export function buildFseTable(counts: readonly number[], accuracy: number): FseTable {
  const size = 1 << accuracy;
  const symbols = new Uint8Array(size);
  const bits = new Uint8Array(size);
  const bases = new Uint16Array(size);
  // The next state number of each symbol.
  const next = counts.map((count) => (count === -1 ? 1 : count));

  // Symbols of less than one take the last places, the others are spread over the rest.
  let top = size;
  counts.forEach((count, symbol) => {
    if (count === -1) symbols[--top] = symbol;
  });
  const step = (size >> 1) + (size >> 3) + 3;
  let place = 0;
  counts.forEach((count, symbol) => {
    for (let index = 0; index < count; index++) {
      symbols[place] = symbol;
      do place = (place + step) & (size - 1);
      while (place >= top);
    }
  });

  for (let state = 0; state < size; state++) {
    const symbol = symbols[state] as number;
    const number = next[symbol] as number;
    next[symbol] = number + 1;
    const length = accuracy - highestBit(number);
    bits[state] = length;
    bases[state] = (number << length) - size;
  }
  return { accuracy, symbols, bits, bases };
}

/** The table of a section that has one symbol only. */
export function singleSymbolTable(symbol: number): FseTable {
  return { accuracy: 0, symbols: Uint8Array.of(symbol), bits: new Uint8Array(1), bases: new Uint16Array(1) };
}

/** For the next `maximumBits` bits the symbol and how many of them it takes. */
export interface HuffmanTable {
  readonly maximumBits: number;
  readonly symbols: Uint8Array;
  readonly bits: Uint8Array;
}

const LONGEST_HUFFMAN_CODE = 11;
const LITERAL_SYMBOLS = 256;

/** Reads a Huffman tree description (section 4.2.1) from the beginning of `bytes`. */
export function readHuffmanTable(bytes: Uint8Array): { table: HuffmanTable; size: number } {
  const header = bytes[0];
  if (header === undefined) throw damagedZstd('a Huffman tree is missing');
  if (header < 128) {
    const size = 1 + header;
    if (size > bytes.length) throw damagedZstd('a Huffman tree ends early');
    return { table: buildHuffmanTable(readPackedWeights(bytes.subarray(1, size))), size };
  }
  const count = header - 127;
  const size = 1 + Math.ceil(count / 2);
  if (size > bytes.length) throw damagedZstd('a Huffman tree ends early');
  const weights = Array.from({ length: count }, (_, index) => {
    const pair = bytes[1 + (index >> 1)] as number;
    return index & 1 ? pair & 15 : pair >> 4;
  });
  return { table: buildHuffmanTable(weights), size };
}

/** Weights that are FSE-packed themselves, by two states that take turns until the bits are used up. */
function readPackedWeights(bytes: Uint8Array): number[] {
  const { table, size } = readFseTable(bytes, 6, LONGEST_HUFFMAN_CODE + 2);
  const stream = new BackwardBits(bytes.subarray(size));
  let current = stream.read(table.accuracy);
  let other = stream.read(table.accuracy);
  if (stream.position < 0) throw damagedZstd('a Huffman tree ends early');
  const weights: number[] = [];
  while (weights.length < LITERAL_SYMBOLS) {
    weights.push(table.symbols[current] as number);
    const next = (table.bases[current] as number) + stream.read(table.bits[current] as number);
    if (stream.position < 0) {
      // This state cannot go on; the other one's symbol is the last.
      weights.push(table.symbols[other] as number);
      return weights;
    }
    current = other;
    other = next;
  }
  throw damagedZstd('a Huffman tree has too many weights');
}

/** A weight w > 0 means a code of maximumBits + 1 − w bits. The last symbol's weight is what is left. */
function buildHuffmanTable(weights: number[]): HuffmanTable {
  const sum = weights.reduce((total, weight) => total + (weight > 0 ? 2 ** (weight - 1) : 0), 0);
  if (sum === 0 || sum >= 1 << LONGEST_HUFFMAN_CODE || weights.length >= LITERAL_SYMBOLS) {
    throw damagedZstd('a Huffman tree has impossible weights');
  }
  const maximumBits = highestBit(sum) + 1;
  const left = (1 << maximumBits) - sum;
  if ((left & (left - 1)) !== 0) throw damagedZstd('a Huffman tree is not complete');
  weights.push(highestBit(left) + 1);

  const symbols = new Uint8Array(1 << maximumBits);
  const bits = new Uint8Array(1 << maximumBits);
  // The longest codes come first, and among equals the lower symbols.
  let at = 0;
  for (let weight = 1; weight <= maximumBits; weight++) {
    weights.forEach((candidate, symbol) => {
      if (candidate !== weight) return;
      const end = at + (1 << (weight - 1));
      symbols.fill(symbol, at, end);
      bits.fill(maximumBits + 1 - weight, at, end);
      at = end;
    });
  }
  return { maximumBits, symbols, bits };
}

/** Decodes one stream into all of `output`. */
export function decodeHuffman(table: HuffmanTable, bytes: Uint8Array, output: Uint8Array): void {
  const { maximumBits, symbols, bits } = table;
  const stream = new BackwardBits(bytes);
  for (let at = 0; at < output.length; at++) {
    const code = stream.peek(maximumBits);
    output[at] = symbols[code] as number;
    stream.position -= bits[code] as number;
  }
  if (stream.position !== 0) throw damagedZstd('literals do not end where they should');
}
