import { InputError } from './input-error.ts';
import type { OutputBuffer } from './output-buffer.ts';

/**
 * LZMA2, the compression inside xz files. The format is that of "The .xz File Format" (LZMA2 chunks) and of the LZMA
 * specification in the LZMA SDK (range coder, models, state machine).
 *
 * The dictionary is the output itself: a match may reach back to the last dictionary reset and no farther. The whole
 * input lies in memory, so a chunk is decoded in one loop without suspension.
 *
 * Probabilities are 11-bit estimates that the next bit is 0. All models lie in one Uint16Array:
 *
 *   offset  length         model
 *      0    12 × 16        isMatch[state][posState]
 *    192    12             isRep[state]
 *    204    12             isRepG0[state]
 *    216    12             isRepG1[state]
 *    228    12             isRepG2[state]
 *    240    12 × 16        isRep0Long[state][posState]
 *    432    4 × 64         distance slot, by length class
 *    688    128            distance bits of slots 4…13, reverse trees packed end to end
 *    816    16             the 4 low bits of longer distances
 *    832    2 + 256 + 256  match length: two choices, low and mid trees by posState, high tree (2+128+128+256)
 *   1346    514            repeated-match length, same shape
 *   1860    768 × 2^(lc+lp) literals
 */
const enum Model {
  isMatch = 0,
  isRep = 192,
  isRepG0 = 204,
  isRepG1 = 216,
  isRepG2 = 228,
  isRep0Long = 240,
  distanceSlot = 432,
  distanceSpecial = 688,
  distanceAlign = 816,
  matchLength = 832,
  repLength = 1346,
  literal = 1860,
}

/** Offsets within a length model. */
const enum Length {
  choice = 0,
  choice2 = 1,
  low = 2,
  mid = 130,
  high = 258,
}

const LITERAL_MODEL = 0x300;
/** LZMA2 allows lc + lp ≤ 4. */
const MODEL_COUNT = Model.literal + (LITERAL_MODEL << 4);
const EVEN_ODDS = 1024;
/** Below this range the coder takes another byte. */
const TOP = 0x100_0000;

function damaged(what: string): InputError {
  return new InputError(`the xz data is damaged: ${what}; give an intact file`);
}

class Lzma2Decoder {
  readonly #input: Uint8Array;
  #position: number;
  readonly #output: OutputBuffer;
  readonly #models = new Uint16Array(MODEL_COUNT);

  // Range coder: both are unsigned 32-bit values kept as such (>>> 0).
  #range = 0;
  #code = 0;

  #state = 0;
  #rep0 = 0;
  #rep1 = 0;
  #rep2 = 0;
  #rep3 = 0;

  #literalContextBits = 0;
  #literalPositionMask = 0;
  #positionMask = 0;

  /** Where in the output the dictionary begins. */
  #dictionaryStart = 0;

  constructor(input: Uint8Array, position: number, output: OutputBuffer) {
    this.#input = input;
    this.#position = position;
    this.#output = output;
  }

  /** Decodes chunks up to the end marker. Returns the input position behind it. */
  decode(): number {
    let needsDictionary = true;
    let needsProperties = true;
    for (;;) {
      const control = this.#byte();
      if (control === 0) return this.#position;
      if (control >= 0xe0 || control === 1) {
        needsDictionary = false;
        this.#dictionaryStart = this.#output.length;
      } else if (needsDictionary) {
        throw damaged('the first chunk does not reset the dictionary');
      }
      if (control < 0x80) {
        if (control > 2) throw damaged(`${control} is not a chunk type`);
        this.#copyStored(((this.#byte() << 8) | this.#byte()) + 1);
        continue;
      }
      const unpacked = (((control & 0x1f) << 16) | (this.#byte() << 8) | this.#byte()) + 1;
      const packed = ((this.#byte() << 8) | this.#byte()) + 1;
      if (control >= 0xc0) {
        needsProperties = false;
        this.#setProperties(this.#byte());
      } else if (needsProperties) {
        throw damaged('the first compressed chunk has no properties');
      }
      if (control >= 0xa0) this.#resetState();
      this.#decodeChunk(unpacked, packed);
    }
  }

  #byte(): number {
    const byte = this.#input[this.#position++];
    if (byte === undefined) throw damaged('it ends early');
    return byte;
  }

  #copyStored(size: number): void {
    const { length } = this.#output;
    if (this.#position + size > this.#input.length) throw damaged('it ends early');
    this.#output.reserve(size);
    this.#output.bytes.set(this.#input.subarray(this.#position, this.#position + size), length);
    this.#output.length = length + size;
    this.#position += size;
  }

  #setProperties(properties: number): void {
    const lc = properties % 9;
    const lp = Math.floor(properties / 9) % 5;
    const pb = Math.floor(properties / 45);
    if (pb > 4 || lc + lp > 4) throw damaged(`${properties} is not a set of properties`);
    this.#literalContextBits = lc;
    this.#literalPositionMask = (1 << lp) - 1;
    this.#positionMask = (1 << pb) - 1;
  }

  #resetState(): void {
    this.#state = 0;
    this.#rep0 = this.#rep1 = this.#rep2 = this.#rep3 = 0;
    this.#models.fill(EVEN_ODDS);
  }

  #decodeChunk(unpacked: number, packed: number): void {
    const end = this.#position + packed;
    if (packed < 5 || end > this.#input.length) throw damaged('it ends early');
    this.#range = 0xffff_ffff;
    this.#code = 0;
    this.#position++; // the coder's first byte is always 0
    for (let i = 0; i < 4; i++) this.#code = ((this.#code << 8) | this.#byte()) >>> 0;

    const output = this.#output;
    output.reserve(unpacked);
    const bytes = output.bytes;
    const dictionaryStart = this.#dictionaryStart;
    const limit = output.length + unpacked;
    let at = output.length;
    let state = this.#state;

    while (at < limit) {
      // A damaged chunk may make the coder run past its bytes; input past the end reads as 0, so this is enough.
      if (this.#position > end) throw damaged('a chunk is shorter than it says');
      const posState = (at - dictionaryStart) & this.#positionMask;

      if (this.#bit(Model.isMatch + (state << 4) + posState) === 0) {
        bytes[at] = this.#literal(bytes, at, state);
        at++;
        state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
        continue;
      }

      let length: number;
      if (this.#bit(Model.isRep + state) === 0) {
        length = this.#newMatch(posState);
        state = state < 7 ? 7 : 10;
      } else {
        length = this.#repeatedMatch(state, posState);
        state = state < 7 ? (length === 1 ? 9 : 8) : 11;
      }

      const distance = this.#rep0 + 1;
      if (distance > at - dictionaryStart) throw damaged('a match reaches back before the data');
      if (length > limit - at) throw damaged('a match reaches past its chunk');
      if (distance >= length) {
        bytes.copyWithin(at, at - distance, at - distance + length);
        at += length;
      } else {
        for (const stop = at + length; at < stop; at++) bytes[at] = bytes[at - distance] as number;
      }
    }

    this.#normalize();
    if (this.#position !== end || this.#code !== 0) throw damaged('a chunk does not end where it says');
    this.#state = state;
    output.length = at;
  }

  /** A match at a distance not used lately: sets rep0 and returns the length. */
  #newMatch(posState: number): number {
    this.#rep3 = this.#rep2;
    this.#rep2 = this.#rep1;
    this.#rep1 = this.#rep0;
    const length = this.#length(Model.matchLength, posState);
    const slot = this.#tree(Model.distanceSlot + (Math.min(length - 2, 3) << 6), 6);
    if (slot < 4) {
      this.#rep0 = slot;
      return length;
    }
    const footerBits = (slot >> 1) - 1;
    const base = (2 | (slot & 1)) << footerBits;
    if (slot < 14) {
      // The trees of all slots lie end to end, so that slot's tree begins at base - slot.
      this.#rep0 = base + this.#reverseTree(Model.distanceSpecial + base - slot, footerBits);
    } else {
      const high = this.#directBits(footerBits - 4);
      this.#rep0 = (base + (high << 4) + this.#reverseTree(Model.distanceAlign, 4)) >>> 0;
    }
    return length;
  }

  /** A match at one of the last four distances, which moves to the front. Length 1 occurs only here. */
  #repeatedMatch(state: number, posState: number): number {
    if (this.#bit(Model.isRepG0 + state) === 0) {
      if (this.#bit(Model.isRep0Long + (state << 4) + posState) === 0) return 1;
      return this.#length(Model.repLength, posState);
    }
    let distance: number;
    if (this.#bit(Model.isRepG1 + state) === 0) {
      distance = this.#rep1;
    } else {
      if (this.#bit(Model.isRepG2 + state) === 0) {
        distance = this.#rep2;
      } else {
        distance = this.#rep3;
        this.#rep3 = this.#rep2;
      }
      this.#rep2 = this.#rep1;
    }
    this.#rep1 = this.#rep0;
    this.#rep0 = distance;
    return this.#length(Model.repLength, posState);
  }

  #length(model: number, posState: number): number {
    if (this.#bit(model + Length.choice) === 0) return 2 + this.#tree(model + Length.low + (posState << 3), 3);
    if (this.#bit(model + Length.choice2) === 0) return 10 + this.#tree(model + Length.mid + (posState << 3), 3);
    return 18 + this.#tree(model + Length.high, 8);
  }

  #literal(bytes: Uint8Array, at: number, state: number): number {
    const position = at - this.#dictionaryStart;
    const previous = position > 0 ? (bytes[at - 1] as number) : 0;
    const context =
      ((position & this.#literalPositionMask) << this.#literalContextBits) +
      (previous >> (8 - this.#literalContextBits));
    const model = Model.literal + LITERAL_MODEL * context;
    let symbol = 1;
    if (state >= 7) {
      // After a match: the byte that the last distance points to predicts this one, until the first bit that differs.
      const distance = this.#rep0 + 1;
      if (distance > position) throw damaged('a match reaches back before the data');
      let predicted = bytes[at - distance] as number;
      do {
        const predictedBit = (predicted >> 7) & 1;
        predicted <<= 1;
        const bit = this.#bit(model + ((1 + predictedBit) << 8) + symbol);
        symbol = (symbol << 1) | bit;
        if (bit !== predictedBit) break;
      } while (symbol < 0x100);
    }
    while (symbol < 0x100) symbol = (symbol << 1) | this.#bit(model + symbol);
    return symbol & 0xff;
  }

  #tree(model: number, bits: number): number {
    let symbol = 1;
    for (let i = 0; i < bits; i++) symbol = (symbol << 1) | this.#bit(model + symbol);
    return symbol - (1 << bits);
  }

  /** A tree whose least significant bit comes first. */
  #reverseTree(model: number, bits: number): number {
    let symbol = 1;
    let value = 0;
    for (let i = 0; i < bits; i++) {
      const bit = this.#bit(model + symbol);
      symbol = (symbol << 1) | bit;
      value |= bit << i;
    }
    return value;
  }

  /** Bits without a model, each as likely 0 as 1. */
  #directBits(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i++) {
      this.#normalize();
      this.#range >>>= 1;
      let bit = 0;
      if (this.#code >= this.#range) {
        this.#code -= this.#range;
        bit = 1;
      }
      value = (value << 1) | bit;
    }
    return value;
  }

  #bit(model: number): number {
    const models = this.#models;
    let range = this.#range;
    if (range < TOP) {
      range = (range << 8) >>> 0;
      this.#code = ((this.#code << 8) | (this.#input[this.#position++] as number)) >>> 0;
    }
    const odds = models[model] as number;
    const bound = (range >>> 11) * odds;
    if (this.#code < bound) {
      this.#range = bound;
      models[model] = odds + ((2048 - odds) >> 5);
      return 0;
    }
    this.#range = range - bound;
    this.#code -= bound;
    models[model] = odds - (odds >> 5);
    return 1;
  }

  #normalize(): void {
    if (this.#range >= TOP) return;
    this.#range = (this.#range << 8) >>> 0;
    this.#code = ((this.#code << 8) | (this.#input[this.#position++] as number)) >>> 0;
  }
}

/**
 * Decodes LZMA2 data that begins at `position` of `input`, appending to `output`.
 * @returns the input position behind the end marker.
 * @throws InputError when the data is damaged or ends early.
 */
export function decodeLzma2(input: Uint8Array, position: number, output: OutputBuffer): number {
  return new Lzma2Decoder(input, position, output).decode();
}
