import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { imagePath } from '../guests/reference/build.ts';
import { lookupElfSymbol, readElfSymbols } from '../src/boot/elf-symbols.ts';

const image = readFileSync(imagePath('x86-64'));

it('finds the symbol that an address lies behind', () => {
  const symbols = readElfSymbols(image, 64);
  const panic = symbols.find(({ name }) => name === 'panic');
  expect(panic?.isCode).toBe(true);
  const inside = (panic?.address ?? 0n) + 5n;
  expect(lookupElfSymbol(symbols, inside)).toEqual({ name: 'panic', offset: 5, isCode: true });
});

it('has no symbol for an address below all or above all', () => {
  const symbols = readElfSymbols(image, 64);
  expect(lookupElfSymbol(symbols, 0x1000n)).toBeUndefined();
  expect(lookupElfSymbol(symbols, -1)).toBeUndefined();
});

it('reads what there is of a file that was cut anywhere', () => {
  for (let length = 64; length < image.length; length += 997) {
    expect(() => readElfSymbols(image.subarray(0, length), 64)).not.toThrow();
  }
});
