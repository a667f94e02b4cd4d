import { alignColumns } from '../peers/report.ts';
import { type Cost, type Counts, FIGURES, type Item } from './measure.ts';

/** What each item costs in a setting, by the setting's name. */
export type Costs = ReadonlyMap<string, Readonly<Record<Item, Cost>>>;

/** A line for each setting. What is seen in no item of any setting has no column. */
export function costTable(item: Item, costs: Costs): string {
  const everything = [...costs.values()].flatMap((items) => Object.values(items));
  const columns = FIGURES.filter((name) => everything.some(({ figures }) => isSeen(figures[name])));
  const rows = [...costs].map(([setting, items]) => [
    setting,
    ...columns.map((name) => figureText(items[item].figures[name])),
  ]);
  return indented([[`one ${item}`, ...columns], ...rows]);
}

const WAITING = /^vmi\/(?!native)/;

/** Batches of VMI's queue for one of each item: how many are of each size, and why they were taken. '' without VMI. */
export function batchTable(item: Item, costs: Costs): string {
  const settings = [...costs].filter(([setting]) => WAITING.test(setting));
  if (settings.length === 0) return '';
  const everything = settings.flatMap(([, items]) => Object.values(items));
  const sizes = keysOf(everything.map((cost) => cost.sizes)).sort((a, b) => sizeOf(a) - sizeOf(b));
  const reasons = keysOf(everything.map((cost) => cost.reasons));
  const rows = settings.map(([setting, items]) => {
    const cost = items[item];
    return [
      setting,
      ...sizes.map((size) => figureText(cost.sizes[size] ?? 0)),
      ...reasons.map((reason) => figureText(cost.reasons[reason] ?? 0)),
    ];
  });
  return indented([[`one ${item}`, ...sizes, ...reasons], ...rows]);
}

/** Names under which any of the counts is seen. */
function keysOf(counts: readonly Counts[]): string[] {
  return [...new Set(counts.flatMap((each) => Object.keys(each).filter((name) => isSeen(each[name] ?? 0))))];
}

/** What comes of one boot's beginning or end alone is less than a digit of each item's share. */
const isSeen = (figure: number): boolean => Math.abs(figure) >= 0.05;

const sizeOf = (name: string): number => Number(name.replace('to ', ''));

function figureText(figure: number): string {
  if (!isSeen(figure)) return '0.0';
  return Math.abs(figure) >= 100 ? figure.toFixed(0) : figure.toFixed(1);
}

/** As Markdown has code blocks. */
function indented(rows: readonly (readonly string[])[]): string {
  return alignColumns(rows).replace(/^/gm, '    ').trimEnd();
}
