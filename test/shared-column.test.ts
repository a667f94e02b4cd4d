import { describe, expect, it } from 'vitest';
import { decodeCbor, encodeCbor } from '../src/archive/cbor.ts';
import type { PlainRecord } from '../src/archive/plain.ts';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { SharedColumn } from '../src/memory/shared-column.ts';

const LENGTH = 1000;

describe('a column of numbers', () => {
  const create = () => new SharedColumn(LENGTH);

  it('has zeroes, at indices that it does not have too', () => {
    const column = create();
    column.set(5, 7);
    const indices = [0, 4, LENGTH - 1, LENGTH, -1, 2 ** 32 + 5, 2 ** 40];
    expect(indices.map((index) => column.get(index))).toEqual(indices.map(() => 0));
  });

  it('keeps what is set, and adds to it', () => {
    const column = create();
    column.set(999, 2 ** 32 - 4);
    expect(column.add(999, 3)).toBe(2 ** 32 - 1);
    expect([column.get(998), column.get(999)]).toEqual([0, 2 ** 32 - 1]);
  });

  it('shares its pieces with a copy until either changes one', () => {
    const column = create();
    column.set(1, 10);
    column.set(300, 20);
    const copy = create();
    restore(copy, save(column));
    expect(copy.share().every((piece, place) => piece.buffer === column.share()[place]?.buffer)).toBe(true);
    copy.set(1, 11);
    column.set(300, 21);
    expect([column.get(1), column.get(300)]).toEqual([10, 21]);
    expect([copy.get(1), copy.get(300)]).toEqual([11, 20]);
  });

  it('comes back from a file', () => {
    const column = create();
    for (let index = 0; index < LENGTH; index += 3) column.set(index, index % 250);
    const copy = create();
    restore(copy, decodeCbor(encodeCbor(save(column))) as PlainRecord);
    for (let index = 0; index < LENGTH; index++) expect(copy.get(index)).toBe(column.get(index));
  });

  it('takes over no pieces of another column', () => {
    expect(() => restore(create(), save(new SharedColumn(LENGTH * 2)))).toThrow('has other pieces');
    const short = Array.from({ length: 4 }, () => new Uint8Array(1000));
    expect(() => restore(create(), { pieces: short })).toThrow('has other pieces');
    expect(() => restore(create(), { pieces: [1, 2, 3, 4] })).toThrow('has other pieces');
  });
});
