import { ByteReader } from './byte-reader.ts';
import { InputError } from './input-error.ts';
import { OutputBuffer } from './output-buffer.ts';

/**
 * The legacy LZ4 frame, which is what Linux packs kernels with ("LZ4 Frame format", legacy frame; "LZ4 Block format"):
 * a magic number, then blocks of at most 8 MiB unpacked, each with its packed size before it. Blocks do not refer to
 * each other. There is no end marker and no checksum.
 */
const MAGIC = 0x184c_2102;
const MAXIMUM_BLOCK = 8 * 1024 * 1024;
const MINIMUM_MATCH = 4;

function damaged(what: string): InputError {
  return new InputError(`the LZ4 data is damaged: ${what}; give an intact file`);
}

/** @param expected the unpacked size if known, a hint. */
export function decompressLz4(bytes: Uint8Array, expected: number): Uint8Array {
  const reader = new ByteReader(bytes, 'the LZ4 data');
  // Room for a whole block is asked for before each, the last one too.
  const output = new OutputBuffer(expected + MAXIMUM_BLOCK);
  let at = 0;
  while (at < bytes.length) {
    const size = reader.u32(at);
    at += 4;
    // Frames may follow each other.
    if (size === MAGIC) continue;
    output.reserve(MAXIMUM_BLOCK);
    output.length = decodeBlock(reader.slice(at, size), output.bytes, output.length);
    at += size;
  }
  return output.finish();
}

/** Unpacks one block to `output` from `start` on, at most MAXIMUM_BLOCK bytes. Returns where it ended. */
function decodeBlock(input: Uint8Array, output: Uint8Array, start: number): number {
  const limit = start + MAXIMUM_BLOCK;
  let from = 0;
  let to = start;
  for (;;) {
    const token = input[from++];
    if (token === undefined) throw damaged('a block ends early');

    let literals = token >> 4;
    if (literals === 15) {
      let byte: number | undefined;
      do {
        byte = input[from++];
        if (byte === undefined) throw damaged('a block ends early');
        literals += byte;
      } while (byte === 255);
    }
    if (literals > input.length - from) throw damaged('a block ends early');
    if (literals > limit - to) throw damaged('a block is too long');
    if (literals < 32) {
      for (const end = from + literals; from < end; ) output[to++] = input[from++] as number;
    } else {
      output.set(input.subarray(from, from + literals), to);
      from += literals;
      to += literals;
    }
    // The last sequence has literals only.
    if (from === input.length) return to;

    const distance = (input[from] as number) | ((input[from + 1] ?? 0) << 8);
    from += 2;
    let length = (token & 15) + MINIMUM_MATCH;
    if (length === 15 + MINIMUM_MATCH) {
      let byte: number | undefined;
      do {
        byte = input[from++];
        if (byte === undefined) throw damaged('a block ends early');
        length += byte;
      } while (byte === 255);
    }
    if (distance === 0 || distance > to - start) throw damaged('a match reaches back before its block');
    if (length > limit - to) throw damaged('a block is too long');
    if (distance >= length && length >= 32) {
      output.copyWithin(to, to - distance, to - distance + length);
      to += length;
    } else {
      for (const end = to + length; to < end; to++) output[to] = output[to - distance] as number;
    }
  }
}
