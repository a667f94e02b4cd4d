import { ByteReader } from './byte-reader.ts';
import { InputError } from './input-error.ts';
import { buildBlockDecoder, DECODE_BLOCK, DecoderError, DecoderPlace } from './lz4-block.ts';
import { OutputBuffer } from './output-buffer.ts';

/**
 * The legacy LZ4 frame, which is what Linux packs kernels with ("LZ4 Frame format", legacy frame; "LZ4 Block format"):
 * a magic number, then blocks of at most 8 MiB unpacked, each with its packed size before it. Blocks do not refer to
 * each other. There is no end marker and no checksum.
 */
const MAGIC = 0x184c_2102;

/** @param expected the unpacked size if known, a hint. */
export function decompressLz4(bytes: Uint8Array, expected: number): Uint8Array {
  const reader = new ByteReader(bytes, 'the LZ4 data');
  const output = new OutputBuffer(expected);
  const decodeBlock = createBlockDecoder();
  let at = 0;
  while (at < bytes.length) {
    const size = reader.u32(at);
    at += 4;
    // Frames may follow each other.
    if (size === MAGIC) continue;
    const unpacked = decodeBlock(reader.slice(at, size));
    output.reserve(unpacked.length);
    output.bytes.set(unpacked, output.length);
    output.length += unpacked.length;
    at += size;
  }
  return output.finish();
}

const DAMAGES: Readonly<Record<DecoderError, string>> = {
  [DecoderError.endsEarly]: 'a block ends early',
  [DecoderError.tooLong]: 'a block is too long',
  [DecoderError.reachesBack]: 'a match reaches back before its block',
};

function damaged(error: DecoderError): InputError {
  return new InputError(`the LZ4 data is damaged: ${DAMAGES[error]}; give an intact file`);
}

let module: WebAssembly.Module | undefined;

/** Unpacks blocks one at a time; what it returns is there until the next one. */
function createBlockDecoder(): (packed: Uint8Array) => Uint8Array {
  module ??= new WebAssembly.Module(buildBlockDecoder());
  const memory = new WebAssembly.Memory({ initial: DecoderPlace.pages, maximum: DecoderPlace.pages });
  const { exports } = new WebAssembly.Instance(module, { host: { memory } });
  const decode = exports[DECODE_BLOCK] as (end: number) => number;
  const bytes = new Uint8Array(memory.buffer);
  return (packed) => {
    // No block of the size that is allowed becomes longer when it is packed.
    if (packed.length > DecoderPlace.packedLimit) throw damaged(DecoderError.tooLong);
    bytes.set(packed, DecoderPlace.packed);
    const length = decode(DecoderPlace.packed + packed.length);
    if (length < 0) throw damaged(length);
    return bytes.subarray(DecoderPlace.unpacked, DecoderPlace.unpacked + length);
  };
}
