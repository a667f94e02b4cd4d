import { describe, expect, it } from 'vitest';
import { crc32 } from '../src/boot/checksum.ts';
import { decompress, detectCompression } from '../src/boot/decompress.ts';
import { InputError } from '../src/boot/input-error.ts';
import { OutputBuffer } from '../src/boot/output-buffer.ts';
import { concatenate, numberBytes } from './boot-images.ts';
import { type PACKED_SAMPLES, packedSample, sample } from './boot-samples.ts';

const SUPPORTED = ['gzip', 'xz', 'xz with two blocks and crc64', 'lz4', 'zstd', 'zstd fast'] as const;

function unpack(name: keyof typeof PACKED_SAMPLES, packed = packedSample(name)): Uint8Array {
  const compression = detectCompression(packed);
  if (compression === undefined) throw new Error(`${name} is not recognised`);
  return decompress(packed, compression);
}

describe('decompression', () => {
  it.each(SUPPORTED)('%s gives what the reference program packed', (name) => {
    expect(unpack(name)).toEqual(sample());
  });

  it('unpacks several xz streams with padding between them', () => {
    const packed = packedSample('xz');
    expect(unpack('xz', concatenate(packed, new Uint8Array(8), packed))).toEqual(concatenate(sample(), sample()));
  });

  it('unpacks zstd frames and skips the skippable ones', () => {
    const packed = packedSample('zstd');
    const skippable = concatenate(numberBytes(0x184d2a53, 4), numberBytes(3, 4), Uint8Array.of(1, 2, 3));
    expect(unpack('zstd', concatenate(packed, skippable, packed))).toEqual(concatenate(sample(), sample()));
  });

  it('unpacks gzip data that something follows', () => {
    expect(unpack('gzip', concatenate(packedSample('gzip'), new Uint8Array(37)))).toEqual(sample());
  });

  it.each(['lzma', 'bzip2'] as const)('%s is refused by name with what to do', (name) => {
    expect(() => unpack(name)).toThrow(new RegExp(`packed with ${name}, which is not supported; unpack it first`));
  });

  it.each(SUPPORTED)('%s cut anywhere is an InputError', (name) => {
    const packed = packedSample(name);
    for (let length = 8; length < packed.length; length += 13) {
      // The size is given, since an LZ4 frame cut between two blocks is a shorter frame.
      expect(() => decompress(packed.subarray(0, length), detectCompression(packed) ?? 'xz', 9000)).toThrow(InputError);
    }
  });

  it.each(['xz', 'gzip'] as const)('%s with any byte of its data changed is noticed', (name) => {
    const packed = packedSample(name);
    for (let at = 40; at < packed.length - 40; at += 29) {
      const damaged = packed.slice();
      damaged[at] = (damaged[at] as number) ^ 0x10;
      expect(() => unpack(name, damaged), `byte ${at}`).toThrow(InputError);
    }
  });

  it('refuses a result of another size than the kernel says', () => {
    expect(() => decompress(packedSample('xz'), 'xz', 8999)).toThrow('unpacks to 9000 bytes instead of 8999');
  });

  it('refuses a size that no kernel has, before unpacking', () => {
    expect(() => decompress(packedSample('xz'), 'xz', 0xffff_ffff)).toThrow('which no kernel does');
  });

  it('does not let output grow beyond its limit', () => {
    const output = new OutputBuffer(0, 10_000);
    output.reserve(9000);
    output.length = 9000;
    output.reserve(1000);
    expect(output.bytes.length).toBe(10_000);
    expect(() => output.reserve(1001)).toThrow('unpacks to more than 10000 bytes');
  });

  it('computes the CRC-32 that the catalogue of checksums gives for its test string', () => {
    expect(crc32(new TextEncoder().encode('123456789'))).toBe(0xcbf43926);
    expect(crc32(new Uint8Array())).toBe(0);
  });
});
