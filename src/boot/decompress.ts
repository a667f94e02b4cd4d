import { decompressGzip } from './gzip.ts';
import { InputError } from './input-error.ts';
import { decompressLz4 } from './lz4.ts';
import { MAXIMUM_UNPACKED_SIZE } from './output-buffer.ts';
import { decompressXz } from './xz.ts';
import { decompressZstd } from './zstd.ts';

/** How a kernel is packed. The names are those of Linux's CONFIG_KERNEL_* options, in lower case. */
export type Compression = 'gzip' | 'bzip2' | 'lzma' | 'xz' | 'lzo' | 'lz4' | 'zstd';

/** What each packed stream begins with. */
const SIGNATURES: readonly (readonly [Compression, readonly number[]])[] = [
  ['gzip', [0x1f, 0x8b]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['lzma', [0x5d, 0x00, 0x00]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ['lzo', [0x89, 0x4c, 0x5a]],
  ['lz4', [0x02, 0x21, 0x4c, 0x18]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
];

export function detectCompression(bytes: Uint8Array): Compression | undefined {
  return SIGNATURES.find(([, signature]) => signature.every((byte, index) => bytes[index] === byte))?.[0];
}

/**
 * Unpacks a kernel.
 * @param bytes begins with the packed stream. Nothing may follow it, except behind gzip.
 * @param size the unpacked size where the container tells it; a result of another size is refused.
 * @throws InputError if the data is damaged, too large, or packed in a way that is not supported.
 */
export function decompress(bytes: Uint8Array, compression: Compression, size?: number): Uint8Array {
  if (size !== undefined && size > MAXIMUM_UNPACKED_SIZE) {
    throw new InputError(`the kernel says that it unpacks to ${size} bytes, which no kernel does; the file is damaged`);
  }
  const unpacked = unpack(bytes, compression, size);
  if (size !== undefined && unpacked.length !== size) {
    throw new InputError(
      `the kernel unpacks to ${unpacked.length} bytes instead of ${size}; the file is damaged, give an intact one`,
    );
  }
  return unpacked;
}

function unpack(bytes: Uint8Array, compression: Compression, size: number | undefined): Uint8Array {
  // Kernels shrink to a fourth or less.
  const expected = size ?? Math.min(bytes.length * 5, MAXIMUM_UNPACKED_SIZE);
  switch (compression) {
    case 'gzip':
      return decompressGzip(bytes, expected);
    case 'xz':
      return decompressXz(bytes, expected);
    case 'lz4':
      return decompressLz4(bytes, expected);
    case 'zstd':
      return decompressZstd(bytes, expected);
    default:
      throw new InputError(
        `the kernel is packed with ${compression}, which is not supported; unpack it first (extract-vmlinux) and give the ELF file`,
      );
  }
}
