import { readFileSync } from 'node:fs';
import { type Image, imagePath } from '../../guests/reference/build.ts';
import { createHost } from '../../src/index.ts';
import type { StatisticsReport } from '../../src/inspect/statistics.ts';
import { moduleLimits } from '../../src/node/engine.ts';
import { outputOf } from '../../test/guest/output.ts';
import { median } from '../peers/report.ts';
import { type Setting, settingName } from './settings.ts';

/** What the guest's `bench=` names, and how often it is done: so often that its time stands out of a boot's. */
export const ITEMS = { fork: 200, exec: 200, mmap: 300, fault: 4000, switch: 8000 } as const;
export type Item = keyof typeof ITEMS;

/** What can be said of an item, in the order of the tables. */
export const FIGURES = [
  'operations',
  'hypercalls',
  /** Lazy sections that held something. */
  'batches',
  /** Of VMI: changes that waited in its queue, and how often the host took what waited. */
  'records',
  'drains',
  'exits',
  'instructions',
  /** Processor time of the host's thread that guests run in. */
  'microseconds',
] as const;
export type Figure = (typeof FIGURES)[number];

/** When code is compiled is the host's affair, and with it how often compiled code is left. */
const DECIDED_BY_HOST: ReadonlySet<Figure> = new Set(['exits', 'microseconds']);

export interface Cost {
  readonly figures: Readonly<Record<Figure, number>>;
  /** Of VMI: why the queue was drained, and of how many records the batches were. Empty elsewhere. */
  readonly reasons: Counts;
  readonly sizes: Counts;
}

export type Counts = Readonly<Record<string, number>>;

type Report = StatisticsReport & {
  readonly vmiQueue?: { readonly records: number; readonly batches: Counts; readonly batchesBySize: Counts };
};

const MEMORY = 32 << 20;
/** The longer boot does an item this many times as often as the shorter one, whose figures are subtracted. */
const LONGER = 3;

/**
 * What an item costs in the mean. What a boot takes, and what is done or compiled at the first times alone, is in both of
 * two boots and falls out of their difference.
 *
 * @param runs pairs of boots, of which medians are taken
 * @throws when a figure differs between them that a deterministic guest decides
 */
export async function costOf(image: Image, setting: Setting, item: Item, runs: number): Promise<Cost> {
  const times = ITEMS[item];
  const costs: Cost[] = [];
  for (let run = 0; run < runs; run++) {
    const shorter = await boot(image, setting, item, times);
    const longer = await boot(image, setting, item, times * LONGER);
    costs.push(difference(longer, shorter, times * (LONGER - 1)));
  }
  const [first] = costs;
  if (!first) throw new Error(`${runs} runs measure nothing; give 1 or more`);
  for (const { figures } of costs) {
    const differing = FIGURES.find((name) => !DECIDED_BY_HOST.has(name) && figures[name] !== first.figures[name]);
    if (differing) throw new Error(`${settingName(setting)}: ${differing} of a ${item} differ from run to run`);
  }
  const medianOf = (name: Figure): number => median(costs.map(({ figures }) => figures[name]));
  return { ...first, figures: { ...first.figures, exits: medianOf('exits'), microseconds: medianOf('microseconds') } };
}

function difference(longer: Cost, shorter: Cost, times: number): Cost {
  const perItem = <Name extends string>(more: Readonly<Record<Name, number>>, less: Readonly<Record<Name, number>>) =>
    Object.fromEntries(
      (Object.keys(more) as Name[]).map((name) => [name, (more[name] - (less[name] ?? 0)) / times]),
    ) as Record<Name, number>;
  return {
    figures: perItem(longer.figures, shorter.figures),
    reasons: perItem(longer.reasons, shorter.reasons),
    sizes: perItem(longer.sizes, shorter.sizes),
  };
}

/** Figures of a whole boot that does an item so many times. */
async function boot(image: Image, { lazy, ...cell }: Setting, item: Item, times: number): Promise<Cost> {
  const commandLine = `bench=${item} times=${times}${lazy ? '' : ' nolazy'}`;
  const host = await createHost({ memory: MEMORY, jit: moduleLimits() });
  try {
    const kernel = readFileSync(imagePath(image));
    const machine = await host.boot({ ...cell, kernel, memory: MEMORY, vcpus: 1, deterministic: true, commandLine });
    const before = threadMicroseconds();
    const text = await outputOf(machine);
    const outcome = await machine.done;
    if (outcome.kind !== 'poweroff') {
      throw new Error(`${cell.interface}/${cell.paging} ${commandLine}: the guest ended by ${JSON.stringify(outcome)}`);
    }
    const microseconds = threadMicroseconds() - before;
    const { hypercalls, exits, instructions, vmiQueue } = machine.statistics() as Report;
    const figures = {
      operations: operationsIn(text),
      hypercalls: sum(hypercalls),
      batches: Number(/^lazy batches (\d+)/m.exec(text)?.[1]),
      records: vmiQueue?.records ?? 0,
      drains: sum(vmiQueue?.batches ?? {}),
      exits: sum(exits),
      instructions,
      microseconds,
    };
    return { figures, reasons: vmiQueue?.batches ?? {}, sizes: vmiQueue?.batchesBySize ?? {} };
  } finally {
    await host.close();
  }
}

/**
 * Linux alone tells it of a thread (Documentation/scheduler/sched-stats.rst). What V8's own threads compile would hide the
 * difference between two boots.
 */
function threadMicroseconds(): number {
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1000;
}

/** What an entry is converted or read by: no change of page tables. Only with PAE is reading an operation. */
const NO_CHANGE = /_val$|\.make_|\.get_p[tmg]/;

function operationsIn(text: string): number {
  const found = [...text.matchAll(/^operation (\S+) (\d+)$/gm)];
  return found.reduce((total, [, name = '', count]) => total + (NO_CHANGE.test(name) ? 0 : Number(count)), 0);
}

function sum(counts: Counts): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}
