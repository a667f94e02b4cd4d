import { InputError } from '../boot/input-error.ts';
import { isRecord, type Plain } from './plain.ts';

/**
 * Plain data as bytes: the part of CBOR (RFC 8949) that it needs. Whole numbers are integers and all others doubles; all
 * lengths are known in front.
 */
const enum Major {
  unsigned = 0,
  negative = 1,
  bytes = 2,
  text = 3,
  list = 4,
  map = 5,
  simple = 7,
}

/** Values of major type 7. */
const enum Simple {
  false = 20,
  true = 21,
  null = 22,
  undefined = 23,
  double = 27,
}

/** Arguments that follow in 1, 2, 4 or 8 bytes. */
const enum Argument {
  byte = 24,
  word16 = 25,
  word32 = 26,
  word64 = 27,
}

const WORD = 0x1_0000_0000;
/** Records and lists in each other: far more than any guest's state has. */
const DEEPEST = 64;

export function encodeCbor(value: Plain): Uint8Array {
  const encoder = new Encoder();
  encoder.write(value);
  return encoder.bytes.slice(0, encoder.length);
}

class Encoder {
  bytes = new Uint8Array(4096);
  length = 0;
  #view = new DataView(this.bytes.buffer);

  #reserve(count: number): number {
    const at = this.length;
    this.length += count;
    if (this.length > this.bytes.length) {
      const larger = new Uint8Array(Math.max(this.length, this.bytes.length * 2));
      larger.set(this.bytes.subarray(0, at));
      this.bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }

  write(value: Plain): void {
    if (typeof value === 'number') this.#number(value);
    else if (typeof value === 'string') this.#string(Major.text, new TextEncoder().encode(value));
    else if (value instanceof Uint8Array) this.#string(Major.bytes, value);
    else if (value === undefined) this.#head(Major.simple, Simple.undefined);
    else if (value === null) this.#head(Major.simple, Simple.null);
    else if (typeof value === 'boolean') this.#head(Major.simple, value ? Simple.true : Simple.false);
    else if (isRecord(value)) this.#map(Object.entries(value));
    else this.#list(value);
  }

  #head(major: Major, argument: number): void {
    const type = major << 5;
    if (argument < 24) {
      const at = this.#reserve(1);
      this.bytes[at] = type | argument;
    } else if (argument < 0x100) {
      const at = this.#reserve(2);
      this.bytes[at] = type | Argument.byte;
      this.bytes[at + 1] = argument;
    } else if (argument < WORD) {
      const at = this.#reserve(5);
      this.bytes[at] = type | Argument.word32;
      this.#view.setUint32(at + 1, argument);
    } else {
      const at = this.#reserve(9);
      this.bytes[at] = type | Argument.word64;
      this.#view.setUint32(at + 1, Math.floor(argument / WORD));
      this.#view.setUint32(at + 5, argument >>> 0);
    }
  }

  #number(value: number): void {
    if (Number.isSafeInteger(value) && !Object.is(value, -0)) {
      if (value >= 0) this.#head(Major.unsigned, value);
      else this.#head(Major.negative, -1 - value);
      return;
    }
    const at = this.#reserve(9);
    this.bytes[at] = (Major.simple << 5) | Simple.double;
    this.#view.setFloat64(at + 1, value);
  }

  #string(major: Major.bytes | Major.text, bytes: Uint8Array): void {
    this.#head(major, bytes.length);
    const at = this.#reserve(bytes.length);
    this.bytes.set(bytes, at);
  }

  #list(items: readonly Plain[]): void {
    this.#head(Major.list, items.length);
    for (const item of items) this.write(item);
  }

  #map(entries: readonly (readonly [string, Plain])[]): void {
    this.#head(Major.map, entries.length);
    for (const [name, value] of entries) {
      this.write(name);
      this.write(value);
    }
  }
}

/** @throws InputError when the bytes are not those of one value */
export function decodeCbor(bytes: Uint8Array): Plain {
  const decoder = new Decoder(bytes);
  const value = decoder.read(0);
  if (decoder.at !== bytes.length) throw damaged('something follows its end');
  return value;
}

function damaged(what: string): InputError {
  return new InputError(`the description of the guest is damaged: ${what}`);
}

class Decoder {
  at = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  /** Where `count` bytes begin, which are passed. */
  #take(count: number): number {
    const { at } = this;
    if (count > this.#bytes.length - at) throw damaged('it ends early');
    this.at += count;
    return at;
  }

  read(depth: number): Plain {
    if (depth > DEEPEST) throw damaged('it is too deep');
    const first = this.#bytes[this.#take(1)] as number;
    const major = first >> 5;
    const low = first & 31;
    if (major === Major.simple) return this.#simple(low);
    const argument = this.#argument(low);
    switch (major as Major) {
      case Major.unsigned:
        return argument;
      case Major.negative:
        return -1 - argument;
      case Major.bytes:
        return this.#string(argument).slice();
      case Major.text:
        return new TextDecoder('utf-8', { fatal: false }).decode(this.#string(argument));
      case Major.list:
        return this.#items(argument, () => this.read(depth + 1));
      case Major.map:
        return Object.fromEntries(this.#items(argument, () => this.#entry(depth)));
      default:
        throw damaged(`${major} is no type`);
    }
  }

  #simple(low: number): Plain {
    switch (low as Simple) {
      case Simple.false:
        return false;
      case Simple.true:
        return true;
      case Simple.null:
        return null;
      case Simple.undefined:
        return undefined;
      case Simple.double:
        return this.#view.getFloat64(this.#take(8));
      default:
        throw damaged(`${low} is no simple value`);
    }
  }

  #argument(low: number): number {
    if (low < 24) return low;
    switch (low as Argument) {
      case Argument.byte:
        return this.#view.getUint8(this.#take(1));
      case Argument.word16:
        return this.#view.getUint16(this.#take(2));
      case Argument.word32:
        return this.#view.getUint32(this.#take(4));
      case Argument.word64: {
        const at = this.#take(8);
        const value = this.#view.getUint32(at) * WORD + this.#view.getUint32(at + 4);
        if (!Number.isSafeInteger(value)) throw damaged('a number is too large');
        return value;
      }
      default:
        throw damaged(`${low} is no length`);
    }
  }

  #string(length: number): Uint8Array {
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  /** Each item has a byte at least, which bounds their number. */
  #items<Item>(count: number, item: () => Item): Item[] {
    if (count > this.#bytes.length - this.at) throw damaged('it ends early');
    return Array.from({ length: count }, item);
  }

  #entry(depth: number): [string, Plain] {
    const name = this.read(depth + 1);
    if (typeof name !== 'string') throw damaged('a name is no text');
    return [name, this.read(depth + 1)];
  }
}
