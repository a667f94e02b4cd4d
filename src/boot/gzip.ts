import { Inflate } from 'fflate';
import { ByteReader } from './byte-reader.ts';
import { crc32 } from './checksum.ts';
import { InputError } from './input-error.ts';
import { OutputBuffer } from './output-buffer.ts';

/** One gzip member (RFC 1952). Anything may follow it: old bzImages do not say where theirs ends. */

const enum Flag {
  headerChecksum = 2,
  extra = 4,
  name = 8,
  comment = 16,
}

const FIXED_HEADER = 10;
/** Deflate expands at most 1032-fold, so that a piece never makes more than the largest kernel at once. */
const PIECE = 256 * 1024;

/** @param expected the unpacked size if known, a hint. */
export function decompressGzip(bytes: Uint8Array, expected: number): Uint8Array {
  const start = dataStart(bytes);
  const output = new OutputBuffer(expected);
  let ended = false;
  const inflate = new Inflate((chunk, final) => {
    output.reserve(chunk.length);
    output.bytes.set(chunk, output.length);
    output.length += chunk.length;
    ended = final;
  });
  try {
    for (let at = start; at < bytes.length && !ended; at += PIECE) {
      inflate.push(bytes.subarray(at, at + PIECE), at + PIECE >= bytes.length);
    }
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`the gzip data is damaged (${(error as Error).message}); give an intact file`);
  }
  const unpacked = output.finish();
  if (!hasTrailer(bytes.subarray(start), crc32(unpacked), unpacked.length)) {
    throw new InputError('the gzip data is damaged: its checksum is wrong; give an intact file');
  }
  return unpacked;
}

function dataStart(bytes: Uint8Array): number {
  const reader = new ByteReader(bytes, 'the gzip data');
  if (reader.u8(2) !== 8) {
    throw new InputError(`the gzip data uses method ${reader.u8(2)}, which does not exist; give an intact file`);
  }
  const flags = reader.u8(3);
  const skipText = (from: number): number => {
    const end = bytes.indexOf(0, from);
    return end < 0 ? bytes.length : end + 1;
  };
  let at = FIXED_HEADER;
  if (flags & Flag.extra) at += 2 + reader.u16(at);
  if (flags & Flag.name) at = skipText(at);
  if (flags & Flag.comment) at = skipText(at);
  if (flags & Flag.headerChecksum) at += 2;
  return at;
}

/** Whether CRC-32 and size, which follow the packed data, occur in `bytes`. The last place is the likeliest. */
function hasTrailer(bytes: Uint8Array, checksum: number, size: number): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = bytes.length - 8; at >= 0; at--) {
    if (view.getUint32(at, true) === checksum && view.getUint32(at + 4, true) === size) return true;
  }
  return false;
}
