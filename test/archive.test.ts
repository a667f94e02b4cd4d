import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Archive, Archived } from '../src/archive/archive.ts';
import { decodeCbor, encodeCbor } from '../src/archive/cbor.ts';
import type { Plain } from '../src/archive/plain.ts';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';

const plain: fc.Arbitrary<Plain> = fc.letrec<{ value: Plain }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constantFrom(undefined, null, true, false, Number.POSITIVE_INFINITY, -0, 2 ** 53 - 1, 0xffff_ffff, -(2 ** 40)),
    fc.integer(),
    fc.double({ noNaN: true }),
    fc.string({ unit: 'binary' }),
    fc.uint8Array().map((bytes) => Uint8Array.from(bytes)),
    fc.array(tie('value')),
    fc.dictionary(
      fc.string().filter((name) => name !== '__proto__'),
      tie('value'),
      { noNullPrototype: true },
    ),
  ),
})).value;

describe('CBOR', () => {
  it('gives back all plain data', () => {
    fc.assert(
      fc.property(plain, (value) => {
        expect(decodeCbor(encodeCbor(value))).toStrictEqual(value);
      }),
    );
  });

  it('is the standard one', () => {
    const hexadecimal = (value: Plain): string => Buffer.from(encodeCbor(value)).toString('hex');
    // RFC 8949, appendix A.
    expect(hexadecimal(23)).toBe('17');
    expect(hexadecimal(100)).toBe('1864');
    expect(hexadecimal(1_000_000)).toBe('1a000f4240');
    expect(hexadecimal(1_000_000_000_000)).toBe('1b000000e8d4a51000');
    expect(hexadecimal(-100)).toBe('3863');
    expect(hexadecimal(1.1)).toBe('fb3ff199999999999a');
    expect(hexadecimal({ a: 1, b: [2, 3] })).toBe('a26161016162820203');
    expect(hexadecimal('ü')).toBe('62c3bc');
    expect(hexadecimal(undefined)).toBe('f7');
  });

  it('refuses bytes that are no value in one line', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        try {
          decodeCbor(bytes);
        } catch (error) {
          expect((error as Error).message).toMatch(/^the description of the guest is damaged: [^\n]+$/);
        }
      }),
    );
    expect(() => decodeCbor(new Uint8Array(1_000_000).fill(0x81))).toThrow('damaged');
    expect(() => decodeCbor(Uint8Array.of(0x9a, 0xff, 0xff, 0xff, 0xff))).toThrow('damaged');
  });
});

class Counter implements Archived {
  #count = 1;
  readonly levels = new Uint16Array([1, 2]);
  readonly place = { page: 3 };

  archive(archive: Archive): void {
    this.#count = archive.value('count', this.#count);
    archive.words('levels', this.levels);
    archive.record('place', this.place);
  }

  get count(): number {
    return this.#count;
  }
}

describe('an archive', () => {
  const saved = { count: 7, levels: Uint8Array.of(1, 2, 3, 4), place: { page: 9 } };

  it('gives each field what was saved under its name', () => {
    const counter = new Counter();
    const { place } = counter;
    restore(counter, saved);
    expect(counter.count).toBe(7);
    expect(counter.levels).toEqual(Uint16Array.of(0x0201, 0x0403));
    expect(counter.place).toBe(place);
    expect(place.page).toBe(9);
    expect(save(counter)).toEqual(saved);
  });

  it('shares nothing with what it was taken from', () => {
    const counter = new Counter();
    const before = save(counter);
    counter.levels.fill(9);
    counter.place.page = 10;
    expect(before).toEqual(save(new Counter()));
  });

  it.each([
    [{ levels: saved.levels, place: saved.place }, 'the guest.count is missing'],
    [{ ...saved, more: 1 }, 'the guest.more is unknown'],
    [{ ...saved, count: 'many' }, 'the guest.count is string and not number'],
    [{ ...saved, levels: Uint8Array.of(1) }, 'the guest.levels has 1 bytes and not 4'],
    [{ ...saved, place: {} }, 'the guest.place.page is missing'],
    [{ ...saved, place: { page: 1, offset: 2 } }, 'the guest.place.offset is unknown'],
  ])('refuses fields that do not fit: %#', (fields, message) => {
    expect(() => restore(new Counter(), fields as never)).toThrow(`the snapshot does not fit: ${message}`);
  });

  it('takes no data that has behaviour', () => {
    const component: Archived = { archive: (archive) => void archive.value('when', new Date()) };
    expect(() => save(component)).toThrow('when is no plain data');
  });
});
