import { ByteReader } from './byte-reader.ts';
import { crc32 } from './checksum.ts';
import { InputError } from './input-error.ts';
import { decodeLzma2 } from './lzma2.ts';
import { OutputBuffer } from './output-buffer.ts';
import { undoX86BranchFilter } from './x86-branch-filter.ts';

/**
 * The xz container ("The .xz File Format", version 1.1.0): streams of blocks, each with a chain of filters. Linux
 * packs kernels as x86 branch filter and LZMA2, so these two are understood.
 *
 * CRC-32 checks are verified, which is what Linux's build uses. CRC-64 and SHA-256 are passed over: LZMA2 itself
 * notices nearly all damage, and the ELF inside is checked again.
 */
const MAGIC = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00];
const STREAM_HEADER = 12;
const STREAM_FOOTER = 12;
/** "YZ", the footer's last two bytes. */
const FOOTER_MAGIC = 0x5a59;

const enum Filter {
  x86Branch = 0x04,
  lzma2 = 0x21,
}

const enum Check {
  crc32 = 1,
}

export function isXz(bytes: Uint8Array, at = 0): boolean {
  return MAGIC.every((byte, index) => bytes[at + index] === byte);
}

/** Bytes of the check behind each block, by the check's number (section 2.1.1.2). */
function checkSize(check: number): number {
  return check === 0 ? 0 : 4 << Math.floor((check - 1) / 3);
}

/**
 * Unpacks all streams of `bytes`; whatever follows the last one is ignored.
 * @param expected the unpacked size if known, a hint.
 */
export function decompressXz(bytes: Uint8Array, expected: number): Uint8Array {
  const reader = new ByteReader(bytes, 'the xz data');
  const output = new OutputBuffer(expected);
  let at = 0;
  while (isXz(bytes, at)) {
    at = decodeStream(reader, at, output);
    // Streams may be padded with zeros, in fours.
    while (reader.has(at, 4) && reader.u32(at) === 0) at += 4;
  }
  return output.finish();
}

function decodeStream(reader: ByteReader, start: number, output: OutputBuffer): number {
  const check = reader.u8(start + 7) & 0x0f;
  let at = start + STREAM_HEADER;
  // A block begins with its header's size; the index, which ends the stream, with 0.
  while (reader.u8(at) !== 0) at = decodeBlock(reader, at, check, output);
  at = skipIndex(reader, at);
  if (reader.u16(at + STREAM_FOOTER - 2) !== FOOTER_MAGIC) {
    throw new InputError('the xz data is damaged: a stream does not end where it should; give an intact file');
  }
  return at + STREAM_FOOTER;
}

function decodeBlock(reader: ByteReader, start: number, check: number, output: OutputBuffer): number {
  const headerSize = (reader.u8(start) + 1) * 4;
  if (crc32(reader.slice(start, headerSize - 4)) !== reader.u32(start + headerSize - 4)) {
    throw new InputError("the xz data is damaged: a block header's checksum is wrong; give an intact file");
  }
  const flags = reader.u8(start + 1);
  let at = start + 2;
  // The optional packed and unpacked sizes are not needed.
  if (flags & 0x40) at = readNumber(reader, at).next;
  if (flags & 0x80) at = readNumber(reader, at).next;

  let branchOffset: number | undefined;
  const filterCount = (flags & 3) + 1;
  for (let index = 1; index <= filterCount; index++) {
    const id = readNumber(reader, at);
    const propertiesSize = readNumber(reader, id.next);
    const properties = propertiesSize.next;
    const isLast = index === filterCount;
    if (isLast !== (id.value === Filter.lzma2) || (!isLast && (id.value !== Filter.x86Branch || index > 1))) {
      throw new InputError(
        `the xz data uses filter ${id.value}, which is not supported; repack the kernel with "xz --check=crc32 --x86 --lzma2" or without compression`,
      );
    }
    if (!isLast) branchOffset = propertiesSize.value === 4 ? reader.u32(properties) : 0;
    at = properties + propertiesSize.value;
  }

  const outputStart = output.length;
  const packedStart = start + headerSize;
  const packedEnd = decodeLzma2(reader.bytes, packedStart, output);
  const block = output.bytes.subarray(outputStart, output.length);
  if (branchOffset !== undefined) undoX86BranchFilter(block, branchOffset);

  // Blocks are padded to fours, counted from their own start, which is a multiple of four within the stream.
  at = packedStart + Math.ceil((packedEnd - packedStart) / 4) * 4;
  if (check === Check.crc32 && crc32(block) !== reader.u32(at)) {
    throw new InputError("the xz data is damaged: a block's checksum is wrong; give an intact file");
  }
  return at + checkSize(check);
}

function skipIndex(reader: ByteReader, start: number): number {
  const count = readNumber(reader, start + 1);
  let at = count.next;
  for (let record = 0; record < count.value; record++) {
    at = readNumber(reader, at).next;
    at = readNumber(reader, at).next;
  }
  const padded = start + Math.ceil((at - start) / 4) * 4;
  return padded + 4; // its CRC-32
}

/** Seven bits a byte, low ones first, at most nine bytes. Values beyond 2^53 lose precision and fail bounds checks. */
function readNumber(reader: ByteReader, start: number): { value: number; next: number } {
  let value = 0;
  for (let index = 0; index < 9; index++) {
    const byte = reader.u8(start + index);
    value += (byte & 0x7f) * 2 ** (7 * index);
    if (byte < 0x80) return { value, next: start + index + 1 };
  }
  throw new InputError('the xz data is damaged: a number has no end; give an intact file');
}
