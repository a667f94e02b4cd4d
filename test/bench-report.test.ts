import { expect, test } from 'vitest';
import { curveOf } from '../bench/peers/cold.ts';
import { ITEMS, itemEntries, parseMark } from '../bench/peers/items.ts';
import { compare, comparisonTable, differingResults, geometricMean, median } from '../bench/peers/report.ts';
import type { Session } from '../bench/peers/session.ts';

function session(seconds: Record<string, number>, results: Record<string, string> = {}): Session {
  return { seconds: new Map(Object.entries(seconds)), results: new Map(Object.entries(results)), steps: [] };
}

test('a ratio above 1 means that the first peer is faster', () => {
  const measurements = new Map([
    ['ring1', [session({ boot: 2 }), session({ boot: 9 }), session({ boot: 1 })]],
    ['other', [session({ boot: 4 }), session({ boot: 3 }), session({ boot: 5 })]],
  ]);
  const [boot] = compare(measurements, ['boot']);
  expect(boot).toEqual({ item: 'boot', seconds: [2, 4], ratios: [2] });
});

test('the median of an even number of runs lies between the two in the middle', () => {
  expect(median([4, 1, 3, 100])).toBe(3.5);
});

test('the table ends with the geometric mean of the ratios', () => {
  const measurements = new Map([
    ['ring1', [session({ boot: 1, fork: 8 })]],
    ['other', [session({ boot: 4, fork: 2 })]],
  ]);
  const table = comparisonTable(['ring1', 'other'], compare(measurements, ['boot', 'fork']));
  expect(geometricMean([4, 0.25])).toBeCloseTo(1);
  expect(table.split('\n').map((line) => line.trim().split(/ {2,}/))).toEqual([
    ['seconds (medians)', 'ring1', 'other', 'ratio'],
    ['boot', '1.00', '4.00', '4.00×'],
    ['fork', '8.00', '2.00', '0.25×'],
    ['geometric mean', '1.00×'],
    [''],
  ]);
});

test('an item whose output differs between peers is named', () => {
  const measurements = new Map([
    ['ring1', [session({}, { sha256: 'a', gzip: '1' })]],
    ['other', [session({}, { sha256: 'b', gzip: '1' })]],
  ]);
  expect(differingResults(measurements, ['sha256', 'gzip'])).toEqual(['sha256']);
});

test('marks are read from the lines of a console, and nothing else is', () => {
  expect(parseMark('READY\r')).toEqual({ kind: 'ready' });
  expect(parseMark('peers: end sha256 abc -\r')).toEqual({ kind: 'end', name: 'sha256', result: 'abc -' });
  expect(parseMark('[    0.1] peers: end sha256')).toBeUndefined();
});

test('the program of the initramfs knows every item', () => {
  const [program] = itemEntries();
  for (const { name } of ITEMS) expect(program).toHaveProperty('data', expect.stringContaining(`\n${name}) result=$(`));
});

test('a program is at its peak when several steps in a row are near it', () => {
  const run = [8, 1, 8, 8, 8, 8, ...Array.from({ length: 94 }, () => 1)];
  const { peak, secondsToPeak, secondsLost } = curveOf([run]);
  expect(peak).toBe(1);
  // The quick second step alone is none; three of five are, from the fourth step on.
  expect(secondsToPeak).toBe(8 + 1 + 8 + 8);
  expect(secondsLost).toBe(5 * 7);
});
