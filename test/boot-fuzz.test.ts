import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decompress, detectCompression } from '../src/boot/decompress.ts';
import { InputError } from '../src/boot/input-error.ts';
import { createSymbolizer } from '../src/boot/kallsyms.ts';
import { loadKernel } from '../src/boot/kernel.ts';
import { buildBzImage, buildElf, withSize } from './boot-images.ts';
import { buildKallsyms, LAYOUTS } from './boot-kallsyms-image.ts';
import { packedSample, sample } from './boot-samples.ts';

/**
 * Whatever is done to a file, a parser gives a result or an InputError, and soon. Vitest's time limit catches loops;
 * fast-check prints the seed.
 */
const RUNS = { numRuns: 1500, endOnFailure: true };

type Mutation =
  | { readonly kind: 'set'; readonly at: number; readonly value: number }
  | { readonly kind: 'word'; readonly at: number; readonly value: number }
  | { readonly kind: 'cut'; readonly at: number }
  | { readonly kind: 'copy'; readonly at: number; readonly from: number; readonly length: number };

/** Values at which lengths and offsets go wrong. */
const EDGE_WORDS = [0, 1, 0x7f, 0x80, 0xffff, 0x10000, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff];

/** @param interesting where most of the mutations go: headers. */
function mutations(size: number, interesting: number): fc.Arbitrary<Mutation[]> {
  const place = fc.oneof({ arbitrary: fc.nat(Math.min(interesting, size) - 1), weight: 3 }, fc.nat(size - 1));
  const word = fc.oneof(fc.constantFrom(...EDGE_WORDS), fc.nat(0xffff_ffff));
  return fc.array(
    fc.oneof(
      { arbitrary: fc.record({ kind: fc.constant('set' as const), at: place, value: fc.nat(255) }), weight: 4 },
      { arbitrary: fc.record({ kind: fc.constant('word' as const), at: place, value: word }), weight: 4 },
      { arbitrary: fc.record({ kind: fc.constant('cut' as const), at: place }), weight: 1 },
      {
        arbitrary: fc.record({ kind: fc.constant('copy' as const), at: place, from: place, length: fc.nat(64) }),
        weight: 1,
      },
    ),
    { minLength: 1, maxLength: 6 },
  );
}

function mutate(original: Uint8Array, changes: readonly Mutation[]): Uint8Array {
  let bytes = original.slice();
  for (const change of changes) {
    const at = Math.min(change.at, bytes.length);
    if (change.kind === 'cut') bytes = bytes.slice(0, at);
    else if (change.kind === 'copy') bytes.copyWithin(at, change.from, change.from + change.length);
    else if (change.kind === 'set') bytes.set([change.value].slice(0, bytes.length - at), at);
    else bytes.set(new Uint8Array(Uint32Array.of(change.value).buffer).slice(0, Math.max(0, bytes.length - at)), at);
  }
  return bytes;
}

function resultOrInputError(action: () => unknown): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    expect(error.message).not.toContain('\n');
    expect(error.message).not.toMatch(/undefined|NaN|\[object/);
  }
}

function fuzz(original: Uint8Array, interesting: number, action: (bytes: Uint8Array) => unknown): void {
  fc.assert(
    fc.property(mutations(original.length, interesting), (changes) =>
      resultOrInputError(() => action(mutate(original, changes))),
    ),
    RUNS,
  );
}

describe('hostile files', () => {
  it('mutated ELF64 files', () => fuzz(buildElf(), 400, loadKernel));

  it('mutated ELF32 files', () => fuzz(buildElf({ bits: 32 }), 400, loadKernel));

  it('mutated bzImages', () => fuzz(buildBzImage(gzipSync(buildElf())), 0x280, loadKernel));

  it('mutated bzImages of an old protocol', () => fuzz(buildBzImage(gzipSync(buildElf()), 0x207), 0x280, loadKernel));

  it.each(['xz', 'lz4', 'zstd'] as const)('mutated bzImages packed with %s', (name) => {
    const image = buildBzImage(withSize(packedSample(name), 9000));
    fuzz(image, 0x280, loadKernel);
  });

  it.each(['gzip', 'xz', 'xz with two blocks and crc64', 'lz4', 'zstd', 'zstd fast'] as const)('mutated %s', (name) => {
    const packed = packedSample(name);
    const compression = detectCompression(packed) ?? 'xz';
    fuzz(packed, 64, (bytes) => {
      // Half of the mutations would only break the checksum of the header, so these two have their say at a size, too.
      decompress(bytes, compression);
      decompress(bytes, compression, sample().length);
    });
  });

  it('random bytes behind each signature', () => {
    const signatures = ['gzip', 'xz', 'lz4', 'zstd'] as const;
    fc.assert(
      fc.property(fc.constantFrom(...signatures), fc.uint8Array({ maxLength: 600 }), (name, random) => {
        const bytes = new Uint8Array([...packedSample(name).subarray(0, 30), ...random]);
        resultOrInputError(() => decompress(bytes, detectCompression(bytes) ?? 'xz'));
      }),
      RUNS,
    );
  });

  it.each(Object.keys(LAYOUTS) as (keyof typeof LAYOUTS)[])('mutated symbol tables of Linux %s', (layout) => {
    const { bits, data } = buildKallsyms(layout);
    fc.assert(
      fc.property(mutations(data.length, data.length), fc.bigInt(0n, 0xffff_ffff_ffff_ffffn), (changes, address) => {
        const symbols = createSymbolizer({ bits, segments: [{ data: mutate(data, changes) }] });
        symbols?.lookup(address);
        symbols?.find(['schedule']);
      }),
      RUNS,
    );
  });
});
