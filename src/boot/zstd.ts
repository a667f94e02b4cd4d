import { ByteReader } from './byte-reader.ts';
import { InputError } from './input-error.ts';
import { OutputBuffer } from './output-buffer.ts';
import {
  LARGEST_BLOCK,
  LITERAL_LENGTH_FIELD,
  LITERAL_LENGTHS,
  MAGIC,
  MATCH_LENGTH_FIELD,
  MATCH_LENGTHS,
  OFFSET_FIELD,
  type SequenceField,
} from './zstd-codes.ts';
import {
  BackwardBits,
  damagedZstd,
  decodeHuffman,
  type FseTable,
  type HuffmanTable,
  readFseTable,
  readHuffmanTable,
  singleSymbolTable,
} from './zstd-entropy.ts';

/**
 * Zstandard (RFC 8878). Section numbers below are that document's.
 *
 * All output lies in one array, so that windows of any size cost nothing: a match may reach back to the beginning of
 * its frame. Frame checksums (XXH64) are passed over; bzImages say how long the result must be, and the ELF inside is
 * checked again.
 */

/** The low 4 bits of the magic number of a skippable frame are free. */
const SKIPPABLE_MAGIC = 0x184d_2a50;

const enum BlockType {
  raw,
  repeatedByte,
  compressed,
}

const enum LiteralsType {
  raw,
  repeatedByte,
  compressed,
  /** With the Huffman table of the block before. */
  treeless,
}

const enum TableMode {
  predefined,
  singleSymbol,
  described,
  repeated,
}

/** @param expected the unpacked size if known, a hint. */
export function decompressZstd(bytes: Uint8Array, expected: number): Uint8Array {
  const reader = new ByteReader(bytes, 'the zstd data');
  // Room for a whole block is asked for before each, the last one too.
  const output = new OutputBuffer(expected + LARGEST_BLOCK);
  let at = 0;
  while (at < bytes.length) {
    const magic = reader.u32(at);
    if (magic === MAGIC) {
      at = new Frame(reader, output).decode(at);
    } else if ((magic & 0xffff_fff0) >>> 0 === SKIPPABLE_MAGIC) {
      at += 8 + reader.u32(at + 4);
    } else {
      throw damagedZstd(`0x${magic.toString(16)} at ${at} does not begin a frame`);
    }
  }
  return output.finish();
}

class Frame {
  readonly #reader: ByteReader;
  readonly #output: OutputBuffer;
  readonly #start: number;
  readonly #literalsBuffer = new Uint8Array(LARGEST_BLOCK);

  // What a block may take over from the one before it.
  #huffman: HuffmanTable | undefined;
  #literalLengths: FseTable | undefined;
  #offsets: FseTable | undefined;
  #matchLengths: FseTable | undefined;
  readonly #recent: [number, number, number] = [1, 4, 8];

  constructor(reader: ByteReader, output: OutputBuffer) {
    this.#reader = reader;
    this.#output = output;
    this.#start = output.length;
  }

  /** @returns where the frame ends. */
  decode(start: number): number {
    const reader = this.#reader;
    const descriptor = reader.u8(start + 4);
    if (descriptor & 8) throw damagedZstd('a reserved bit is set');
    const isSingleSegment = (descriptor & 0x20) !== 0;
    const dictionaryIdSize = [0, 1, 2, 4][descriptor & 3] as number;
    const contentSizeSize = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] as number;
    let at = start + 5 + (isSingleSegment ? 0 : 1);
    for (let index = 0; index < dictionaryIdSize; index++) {
      if (reader.u8(at + index) !== 0) {
        throw new InputError('the zstd data needs a dictionary, which kernels never do; give a plain file');
      }
    }
    at += dictionaryIdSize + contentSizeSize;

    for (let isLast = false; !isLast; ) {
      const header = reader.u16(at) | (reader.u8(at + 2) << 16);
      at += 3;
      isLast = (header & 1) !== 0;
      at += this.#block((header >> 1) & 3, at, header >> 3);
    }
    const hasChecksum = (descriptor & 4) !== 0;
    return at + (hasChecksum ? 4 : 0);
  }

  /** @returns the bytes that the block takes. */
  #block(type: number, at: number, size: number): number {
    if (size > LARGEST_BLOCK) throw damagedZstd(`a block has ${size} bytes`);
    const output = this.#output;
    output.reserve(LARGEST_BLOCK);
    switch (type) {
      case BlockType.raw:
        output.bytes.set(this.#reader.slice(at, size), output.length);
        output.length += size;
        return size;
      case BlockType.repeatedByte:
        output.bytes.fill(this.#reader.u8(at), output.length, output.length + size);
        output.length += size;
        return 1;
      case BlockType.compressed:
        this.#compressedBlock(new ByteReader(this.#reader.slice(at, size), 'a zstd block'));
        return size;
      default:
        throw damagedZstd(`${type} is no type of a block`);
    }
  }

  #compressedBlock(block: ByteReader): void {
    const { literals, size } = this.#literals(block);
    let at = size;
    let count = block.u8(at++);
    if (count === 255) {
      count = block.u16(at) + 0x7f00;
      at += 2;
    } else if (count >= 128) {
      count = ((count - 128) << 8) | block.u8(at++);
    }
    if (count === 0) {
      this.#output.bytes.set(literals, this.#output.length);
      this.#output.length += literals.length;
      return;
    }
    const modes = block.u8(at++);
    const field = (mode: number, kind: SequenceField, before: FseTable | undefined): FseTable => {
      const { table, size: taken } = readSequenceTable(block.slice(at, block.length - at), mode & 3, kind, before);
      at += taken;
      return table;
    };
    this.#literalLengths = field(modes >> 6, LITERAL_LENGTH_FIELD, this.#literalLengths);
    this.#offsets = field(modes >> 4, OFFSET_FIELD, this.#offsets);
    this.#matchLengths = field(modes >> 2, MATCH_LENGTH_FIELD, this.#matchLengths);
    this.#sequences(
      new BackwardBits(block.slice(at, block.length - at)),
      count,
      literals,
      this.#literalLengths,
      this.#offsets,
      this.#matchLengths,
    );
  }

  /** Section 3.1.1.3.1. */
  #literals(block: ByteReader): { literals: Uint8Array; size: number } {
    const first = block.u8(0);
    const type = first & 3;
    const format = (first >> 2) & 3;
    if (type === LiteralsType.raw || type === LiteralsType.repeatedByte) {
      const headerSize = format === 1 ? 2 : format === 3 ? 3 : 1;
      const length =
        headerSize === 1
          ? first >> 3
          : headerSize === 2
            ? block.u16(0) >> 4
            : (block.u16(0) | (block.u8(2) << 16)) >> 4;
      const literals = this.#literalsSpace(length);
      if (type === LiteralsType.repeatedByte) {
        literals.fill(block.u8(headerSize));
        return { literals, size: headerSize + 1 };
      }
      literals.set(block.slice(headerSize, length));
      return { literals, size: headerSize + length };
    }

    const headerSize = format < 2 ? 3 : format + 2;
    const lengthBits = format < 2 ? 10 : format === 2 ? 14 : 18;
    // Up to 40 bits of header; two lengths behind four bits.
    const header = block.u16(0) + block.u8(2) * 2 ** 16 + (headerSize > 3 ? block.u8(3) * 2 ** 24 : 0);
    const wide = headerSize > 4 ? header + block.u8(4) * 2 ** 32 : header;
    const length = Math.floor(wide / 16) % 2 ** lengthBits;
    let packedSize = Math.floor(wide / 2 ** (4 + lengthBits)) % 2 ** lengthBits;
    const size = headerSize + packedSize;
    let packedStart = headerSize;
    if (type === LiteralsType.compressed) {
      const tree = readHuffmanTable(block.slice(packedStart, packedSize));
      this.#huffman = tree.table;
      packedStart += tree.size;
      packedSize -= tree.size;
    }
    if (this.#huffman === undefined) throw damagedZstd('literals refer to a Huffman tree that is not there');
    const literals = this.#literalsSpace(length);
    const packed = new ByteReader(block.slice(packedStart, packedSize), 'a zstd block');
    if (format === 0) decodeHuffman(this.#huffman, packed.bytes, literals);
    else decodeFourStreams(this.#huffman, packed, literals);
    return { literals, size };
  }

  #literalsSpace(length: number): Uint8Array {
    if (length > LARGEST_BLOCK) throw damagedZstd(`a block has ${length} literals`);
    return this.#literalsBuffer.subarray(0, length);
  }

  /** Section 3.1.1.4: literals and matches take turns. */
  #sequences(
    stream: BackwardBits,
    count: number,
    literals: Uint8Array,
    literalLengths: FseTable,
    offsets: FseTable,
    matchLengths: FseTable,
  ): void {
    const output = this.#output;
    const bytes = output.bytes;
    const limit = output.length + LARGEST_BLOCK;
    let to = output.length;
    let from = 0;
    let literalState = stream.read(literalLengths.accuracy);
    let offsetState = stream.read(offsets.accuracy);
    let matchState = stream.read(matchLengths.accuracy);

    for (let sequence = 0; sequence < count; sequence++) {
      const offsetCode = offsets.symbols[offsetState] as number;
      const matchCode = matchLengths.symbols[matchState] as number;
      const literalCode = literalLengths.symbols[literalState] as number;
      // Extra bits: at most 31, read in two parts.
      const highBits = offsetCode > 16 ? offsetCode - 16 : 0;
      const offsetValue =
        2 ** offsetCode + stream.read(highBits) * 2 ** (offsetCode - highBits) + stream.read(offsetCode - highBits);
      const matchLength =
        (MATCH_LENGTHS.bases[matchCode] as number) + stream.read(MATCH_LENGTHS.bits[matchCode] as number);
      const literalLength =
        (LITERAL_LENGTHS.bases[literalCode] as number) + stream.read(LITERAL_LENGTHS.bits[literalCode] as number);
      if (sequence + 1 < count) {
        literalState =
          (literalLengths.bases[literalState] as number) + stream.read(literalLengths.bits[literalState] as number);
        matchState = (matchLengths.bases[matchState] as number) + stream.read(matchLengths.bits[matchState] as number);
        offsetState = (offsets.bases[offsetState] as number) + stream.read(offsets.bits[offsetState] as number);
      }
      if (stream.position < 0) throw damagedZstd('a block ends early');

      if (literalLength > literals.length - from) throw damagedZstd('a block has too few literals');
      if (literalLength + matchLength > limit - to) throw damagedZstd('a block is too long');
      for (const end = from + literalLength; from < end; ) bytes[to++] = literals[from++] as number;

      const distance = this.#distance(offsetValue, literalLength);
      if (distance <= 0 || distance > to - this.#start) throw damagedZstd('a match reaches back before its frame');
      if (distance >= matchLength && matchLength >= 32) {
        bytes.copyWithin(to, to - distance, to - distance + matchLength);
        to += matchLength;
      } else {
        for (const end = to + matchLength; to < end; to++) bytes[to] = bytes[to - distance] as number;
      }
    }
    if (stream.position !== 0) throw damagedZstd('a block does not end where it should');
    const rest = literals.subarray(from);
    if (rest.length > limit - to) throw damagedZstd('a block is too long');
    bytes.set(rest, to);
    output.length = to + rest.length;
  }

  /** Section 3.1.1.5: values up to 3 mean one of the last three distances. */
  #distance(value: number, literalLength: number): number {
    const recent = this.#recent;
    const [first, second, third] = recent;
    if (value > 3) {
      recent[2] = second;
      recent[1] = first;
      recent[0] = value - 3;
      return recent[0];
    }
    // Without literals the last distance would have been part of the match before, so the meanings move on.
    const which = literalLength === 0 ? value : value - 1;
    if (which === 0) return first;
    const distance = which === 1 ? second : which === 2 ? third : first - 1;
    if (which !== 1) recent[2] = second;
    recent[1] = first;
    recent[0] = distance;
    return distance;
  }
}

function readSequenceTable(
  bytes: Uint8Array,
  mode: number,
  field: SequenceField,
  before: FseTable | undefined,
): { table: FseTable; size: number } {
  switch (mode) {
    case TableMode.predefined:
      return { table: field.predefined, size: 0 };
    case TableMode.singleSymbol: {
      const symbol = bytes[0];
      if (symbol === undefined || symbol >= field.symbolCount) throw damagedZstd('a table has an unknown symbol');
      return { table: singleSymbolTable(symbol), size: 1 };
    }
    case TableMode.described:
      return readFseTable(bytes, field.maximumAccuracy, field.symbolCount);
    default:
      if (before === undefined) throw damagedZstd('a block refers to a table that is not there');
      return { table: before, size: 0 };
  }
}

/** Section 3.1.1.3.1.6: the sizes of the first three streams, then four streams of a fourth of the literals each. */
function decodeFourStreams(table: HuffmanTable, packed: ByteReader, literals: Uint8Array): void {
  const quarter = Math.ceil(literals.length / 4);
  if (quarter * 3 > literals.length) throw damagedZstd('there are too few literals for four streams');
  let at = 6;
  for (let stream = 0; stream < 4; stream++) {
    const size = stream < 3 ? packed.u16(stream * 2) : packed.length - at;
    const end = stream < 3 ? (stream + 1) * quarter : literals.length;
    decodeHuffman(table, packed.slice(at, size), literals.subarray(stream * quarter, end));
    at += size;
  }
}
