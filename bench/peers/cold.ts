import { alignColumns, type Measurements, median } from './report.ts';

/** How one peer comes up to speed with a program that it has not seen. */
export interface Curve {
  /** Median over the runs of each step's time, in seconds. */
  readonly steps: readonly number[];
  /** A step's time at the end, when nothing is left to warm up. */
  readonly peak: number;
  /** From the program's beginning until steps stay near the peak. */
  readonly secondsToPeak: number;
  /** What being cold cost altogether: how much longer the steps took than as many at the peak. */
  readonly secondsLost: number;
}

/** A step this near the peak is at it; what else the machine does moves single steps by as much. */
const NEAR = 1.2;
/** Steps whose median is compared with the peak. */
const WINDOW = 5;

export function curveOf(runs: readonly (readonly number[])[]): Curve {
  const [first = []] = runs;
  const steps = first.map((_, index) => median(runs.map((run) => run[index] ?? Number.NaN)));
  const peak = median(steps.slice(-Math.ceil(steps.length / 4)));
  const isAtPeak = (index: number): boolean => median(steps.slice(index, index + WINDOW)) <= peak * NEAR;
  const arrival = steps.findIndex((_, index) => isAtPeak(index));
  const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);
  return {
    steps,
    peak,
    secondsToPeak: sum(steps.slice(0, arrival)),
    secondsLost: sum(steps) - peak * steps.length,
  };
}

/** The curves side by side, a line for each doubling of the number of steps. */
export function coldTable(measurements: Measurements): string {
  const curves = [...measurements].map(([name, sessions]) => ({
    name,
    ...curveOf(sessions.map(({ steps }) => steps)),
  }));
  const milliseconds = (seconds: number): string => (seconds * 1000).toFixed(1);
  const rows = [['milliseconds a step', ...curves.map(({ name }) => name)]];
  const count = curves[0]?.steps.length ?? 0;
  for (let from = 0; from < count; from = Math.max(1, from * 2)) {
    const to = Math.min(count, Math.max(1, from * 2));
    rows.push([
      to - from === 1 ? `step ${to}` : `steps ${from + 1} to ${to}`,
      ...curves.map(({ steps }) => milliseconds(median(steps.slice(from, to)))),
    ]);
  }
  rows.push(
    ['at the end', ...curves.map(({ peak }) => milliseconds(peak))],
    ['until near that', ...curves.map(({ secondsToPeak }) => milliseconds(secondsToPeak))],
    ['lost by being cold', ...curves.map(({ secondsLost }) => milliseconds(secondsLost))],
  );
  return alignColumns(rows);
}
