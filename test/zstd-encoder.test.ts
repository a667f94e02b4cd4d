import * as zlib from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decompressZstd } from '../src/boot/zstd.ts';
import { ZstdEncoder } from '../src/boot/zstd-encoder.ts';

const BLOCK = 128 * 1024;
/** Node's own decoder, in the versions that have one. */
const decompressByNode: ((bytes: Uint8Array) => Buffer) | undefined =
  'zstdDecompressSync' in zlib ? (zlib.zstdDecompressSync as (bytes: Uint8Array) => Buffer) : undefined;

function expectEqual(found: Uint8Array, expected: Uint8Array): void {
  expect(Buffer.compare(found, expected)).toBe(0);
}

function roundTrip(bytes: Uint8Array): Uint8Array {
  const packed = new ZstdEncoder().encode(bytes);
  expectEqual(decompressZstd(packed, bytes.length), bytes);
  if (decompressByNode) expectEqual(decompressByNode(packed), bytes);
  return packed;
}

/** Words of a small dictionary, with noise: matches of all lengths and distances. */
const texts = fc
  .array(fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.constantFrom('kernel', 'page', 'ring', '\0'.repeat(300))), {
    maxLength: 200,
  })
  .map((parts) => Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part))));

describe('the zstd encoder', () => {
  it('packs what the decoder gives back', () => {
    fc.assert(fc.property(texts, (bytes) => void roundTrip(bytes)));
  });

  it.each([0, 1, 8, 9, 127, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])('packs %i bytes', (length) => {
    roundTrip(new Uint8Array(length));
    roundTrip(new Uint8Array(length).map((_, index) => (index * index) >> 7));
  });

  it('makes room of a block without any repetition hardly larger', () => {
    const random = new Uint8Array(BLOCK);
    for (let index = 0; index < BLOCK; index += 65_536) crypto.getRandomValues(random.subarray(index, index + 65_536));
    expect(roundTrip(random).length).toBeLessThan(BLOCK + 16);
  });

  it('makes pages that repeat themselves much smaller', () => {
    const table = Uint8Array.from({ length: BLOCK }, (_, index) =>
      index % 8 === 1 ? index >> 9 : index % 8 === 0 ? 0x63 : 0,
    );
    expect(roundTrip(table).length).toBeLessThan(BLOCK / 20);
  });

  it('uses nothing of what it packed before', () => {
    const encoder = new ZstdEncoder();
    const text = Buffer.from('the same words again and again and again, the same words');
    const first = encoder.encode(text);
    encoder.encode(new Uint8Array(BLOCK).fill(7));
    expectEqual(encoder.encode(text), first);
  });
});
