import { buildFseTable, type FseTable } from './zstd-entropy.ts';

/** The numbers of Zstandard (RFC 8878) that its decoder and its encoder share. Section numbers are that document's. */

export const MAGIC = 0xfd2f_b528;
export const LARGEST_BLOCK = 128 * 1024;

/** The three kinds of symbols that a sequence is made of (section 3.1.1.3.2). */
export interface SequenceField {
  readonly maximumAccuracy: number;
  readonly symbolCount: number;
  readonly predefined: FseTable;
}

/** Base values and numbers of extra bits, by code. */
export interface CodeTable {
  readonly bases: Uint32Array;
  readonly bits: Uint8Array;
}

/** Codes below `first.length` stand for themselves plus `start`; the others' bits follow, bases continue. */
function codeTable(direct: number, start: number, extraBits: readonly number[]): CodeTable {
  const bits = Uint8Array.from([...Array<number>(direct).fill(0), ...extraBits]);
  const bases = new Uint32Array(bits.length);
  let base = start;
  bits.forEach((count, code) => {
    bases[code] = base;
    base += 2 ** count;
  });
  return { bases, bits };
}

export const LITERAL_LENGTHS = codeTable(16, 0, [1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
export const MATCH_LENGTHS = codeTable(32, 3, [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);

// Default distributions, section 3.1.1.3.2.2.
export const LITERAL_LENGTH_FIELD: SequenceField = {
  maximumAccuracy: 9,
  symbolCount: 36,
  predefined: buildFseTable(
    [4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1],
    6,
  ),
};
export const OFFSET_FIELD: SequenceField = {
  maximumAccuracy: 8,
  symbolCount: 32,
  predefined: buildFseTable(
    [1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1],
    5,
  ),
};
export const MATCH_LENGTH_FIELD: SequenceField = {
  maximumAccuracy: 9,
  symbolCount: 53,
  predefined: buildFseTable(
    [
      1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
      1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
    ],
    6,
  ),
};
