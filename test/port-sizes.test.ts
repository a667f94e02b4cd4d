import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { countPorts, documentPath, readPorts } from '../scripts/port-sizes.ts';

/** Changes of a few lines need no change of the document. */
const TOLERANCE = 0.05;
/** A file more or less, or as many lines, is no difference to a small part either. */
const LEAST = { files: 1, lines: 10 };

describe('the sizes of ports in docs/sizes.md', () => {
  const counted = countPorts();
  const told = readPorts(readFileSync(documentPath, 'utf8'));

  it('are those of all the parts that are counted', () => {
    const parts = (sizes: typeof counted) => [...sizes].map(([side, rows]) => [side, rows.map(({ what }) => what)]);
    expect(parts(told)).toEqual(parts(counted));
  });

  it.each(['files', 'lines'] as const)('say how many %s the sources have, to a twentieth', (column) => {
    const off = [...counted].flatMap(([side, rows]) =>
      rows.flatMap((row, index) => {
        const found = told.get(side)?.[index]?.[column] ?? 0;
        const isClose = Math.abs(found - row[column]) <= Math.max(row[column] * TOLERANCE, LEAST[column]);
        return isClose ? [] : [`${side}, ${row.what}: ${found} told, ${row[column]} counted`];
      }),
    );
    expect(off).toEqual([]);
  });

  it('are found in every part', () => {
    for (const rows of counted.values()) for (const { what, lines } of rows) expect(lines, what).toBeGreaterThan(0);
  });
});
