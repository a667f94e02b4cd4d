import type { Session } from './session.ts';

/** Sessions of each peer, by name; the first peer is what the others are compared with. */
export type Measurements = ReadonlyMap<string, readonly Session[]>;

export interface Comparison {
  readonly item: string;
  /** Median of each peer's runs, in seconds, in the order of the measurements. */
  readonly seconds: readonly number[];
  /** Speed of the first peer over that of each other one; above 1 the first is faster. */
  readonly ratios: readonly number[];
}

export function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

export function geometricMean(numbers: readonly number[]): number {
  return Math.exp(numbers.reduce((sum, number) => sum + Math.log(number), 0) / numbers.length);
}

export function compare(measurements: Measurements, items: readonly string[]): Comparison[] {
  return items.map((item) => {
    const [first = Number.NaN, ...others] = [...measurements.values()].map((sessions) =>
      median(sessions.map(({ seconds }) => seconds.get(item) ?? Number.NaN)),
    );
    return { item, seconds: [first, ...others], ratios: others.map((other) => other / first) };
  });
}

/** Items whose output is not the same in all sessions: somebody computed something else. */
export function differingResults(measurements: Measurements, items: readonly string[]): string[] {
  const sessions = [...measurements.values()].flat();
  return items.filter((item) => new Set(sessions.map(({ results }) => results.get(item))).size > 1);
}

/** Medians in seconds and ratios side by side, with the geometric mean of the ratios. */
export function comparisonTable(peers: readonly string[], comparisons: readonly Comparison[]): string {
  const [first, ...others] = peers;
  const rows = [
    ['seconds (medians)', first ?? '', ...others.flatMap((name) => [name, 'ratio'])],
    ...comparisons.map(({ item, seconds: [own = Number.NaN, ...theirs], ratios }) => [
      item,
      own.toFixed(2),
      ...theirs.flatMap((time, index) => [time.toFixed(2), ratioText(ratios[index])]),
    ]),
    [
      'geometric mean',
      '',
      ...others.flatMap((_, index) => [
        '',
        ratioText(geometricMean(comparisons.map(({ ratios }) => ratios[index] ?? Number.NaN))),
      ]),
    ],
  ];
  return alignColumns(rows);
}

function ratioText(ratio = Number.NaN): string {
  return `${ratio.toFixed(2)}×`;
}

/** The first column to the left, numbers to the right. */
export function alignColumns(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const lines = rows.map((row) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))),
  );
  return lines.map((cells) => `${cells.join('  ').trimEnd()}\n`).join('');
}
