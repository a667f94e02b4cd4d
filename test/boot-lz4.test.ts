import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decompressLz4 } from '../src/boot/lz4.ts';
import { concatenate, numberBytes } from './boot-images.ts';

/** Blocks of LZ4 made here, unpacked here byte by byte, and unpacked by the decoder, which copies in steps. */
interface Sequence {
  readonly literals: Uint8Array;
  /** Absent from the last one. */
  readonly match?: { readonly distance: number; readonly length: number };
}

const MAGIC = numberBytes(0x184c_2102, 4);
const MAXIMUM_BLOCK = 8 << 20;
const MINIMUM_MATCH = 4;

/** What follows the token for a length. */
function moreOf(length: number): Uint8Array {
  if (length < 15) return new Uint8Array(0);
  const more = new Uint8Array(Math.floor((length - 15) / 255) + 1).fill(255);
  more[more.length - 1] = (length - 15) % 255;
  return more;
}

function pack(sequences: readonly Sequence[]): Uint8Array {
  const parts = sequences.flatMap(({ literals, match }) => {
    const extra = match ? match.length - MINIMUM_MATCH : 0;
    const token = (Math.min(literals.length, 15) << 4) | Math.min(extra, 15);
    const start = [Uint8Array.of(token), moreOf(literals.length), literals];
    return match ? [...start, numberBytes(match.distance, 2), moreOf(extra)] : start;
  });
  return concatenate(...parts);
}

function frame(...blocks: readonly Uint8Array[]): Uint8Array {
  return concatenate(MAGIC, ...blocks.flatMap((block) => [numberBytes(block.length, 4), block]));
}

function unpacked(sequences: readonly Sequence[]): Uint8Array {
  const bytes: number[] = [];
  for (const { literals, match } of sequences) {
    bytes.push(...literals);
    for (let left = match?.length ?? 0; left > 0; left--) bytes.push(bytes.at(-(match?.distance ?? 0)) as number);
  }
  return Uint8Array.from(bytes);
}

const LENGTHS = [0, 1, 7, 8, 9, 14, 15, 16, 63, 64, 65, 269, 270, 271] as const;
const DISTANCES = [1, 2, 7, 8, 9, 15, 16, 63, 64, 65, 300, 65_535] as const;

/** Sequences whose matches stay in their block. */
const blocks = fc
  .array(
    fc.record({
      literals: fc.constantFrom(...LENGTHS).chain((length) => fc.uint8Array({ minLength: length, maxLength: length })),
      distance: fc.constantFrom(...DISTANCES),
      length: fc.constantFrom(...LENGTHS).map((length) => length + MINIMUM_MATCH),
    }),
    { maxLength: 12 },
  )
  .map((drawn): Sequence[] => {
    const sequences: Sequence[] = [{ literals: Uint8Array.of(1, 2, 3), match: { distance: 3, length: 5 } }];
    let length = 8;
    for (const { literals, distance, length: matched } of drawn) {
      length += literals.length;
      sequences.push({ literals, match: { distance: Math.min(distance, length), length: matched } });
      length += matched;
    }
    return [...sequences, { literals: Uint8Array.of(7, 8, 9, 10, 11) }];
  });

const unpack = (...packed: readonly Uint8Array[]) => decompressLz4(frame(...packed), 0);
const zeros = (length: number) => new Uint8Array(length);

describe('blocks of LZ4', () => {
  it('give what their sequences say, one after another', () => {
    fc.assert(
      fc.property(fc.array(blocks, { minLength: 1, maxLength: 3 }), (all) => {
        expect(unpack(...all.map(pack))).toEqual(concatenate(...all.map(unpacked)));
      }),
      { numRuns: 300 },
    );
  });

  it.each([
    ['of literals', [{ literals: zeros(MAXIMUM_BLOCK) }]],
    [
      'that ends with a match',
      [{ literals: zeros(8), match: { distance: 8, length: MAXIMUM_BLOCK - 8 } }, { literals: zeros(0) }],
    ],
  ])('may be of 8 MiB: one %s', (_name, sequences) => {
    expect(unpack(pack(sequences)).length).toBe(MAXIMUM_BLOCK);
  });

  it.each([
    ['literals', [{ literals: zeros(MAXIMUM_BLOCK + 1) }]],
    ['a match', [{ literals: zeros(8), match: { distance: 8, length: MAXIMUM_BLOCK - 7 } }, { literals: zeros(0) }]],
    [
      'a match of one byte',
      [{ literals: zeros(8), match: { distance: 1, length: MAXIMUM_BLOCK } }, { literals: zeros(0) }],
    ],
  ])('are refused when %s would make them longer', (_name, sequences) => {
    expect(() => unpack(pack(sequences))).toThrow('a block is too long');
  });

  it('are refused when they are longer than 8 MiB can be packed', () => {
    expect(() => unpack(zeros(MAXIMUM_BLOCK + (MAXIMUM_BLOCK >> 7)))).toThrow('a block is too long');
  });

  it.each([
    ['to before its block', 4],
    ['to itself', 0],
    ['far away', 65_535],
  ])('are refused when a match reaches %s, whatever a block before has left', (_name, distance) => {
    const before = pack([{ literals: zeros(100_000) }]);
    const block = pack([{ literals: zeros(3), match: { distance, length: 4 } }, { literals: zeros(5) }]);
    expect(() => unpack(before, block)).toThrow('a match reaches back before its block');
  });

  it.each([
    ['without a token', Uint8Array.of()],
    ['in a length', Uint8Array.of(0xf0, 255)],
    ['in literals', Uint8Array.of(0x40, 1, 2, 3)],
    ['in a distance', Uint8Array.of(0x40, 1, 2, 3, 4, 1)],
    ["in a match's length", Uint8Array.of(0x4f, 1, 2, 3, 4, 1, 0)],
    ['behind a match', Uint8Array.of(0x40, 1, 2, 3, 4, 1, 0)],
  ])('are refused when they end %s, whatever a block before has left', (_name, block) => {
    const before = Uint8Array.from(pack([{ literals: new Uint8Array(1000).fill(1) }]));
    expect(() => unpack(before, block)).toThrow('a block ends early');
  });
});
