import { readFileSync } from 'node:fs';
import { type Image, imagePath } from '../../guests/reference/build.ts';
import { createHost } from '../../src/index.ts';
import type { StatisticsReport } from '../../src/inspect/statistics.ts';
import { outputOf } from '../../test/guest/output.ts';
import { jitOfCommand } from '../engine.ts';
import { median } from '../peers/report.ts';
import { type Course, followCourse, windowsOf } from './course.ts';
import type { Setting } from './settings.ts';

/** What the guest's `bench=` names, and how often it is done: so often that its time stands out of a boot's. */
export const ITEMS = { fork: 200, exec: 200, mmap: 300, fault: 4000, switch: 8000 } as const;
export type Item = keyof typeof ITEMS;

/** What is counted of an item. */
const COUNTED = [
  'operations',
  'hypercalls',
  /** What the host was asked for together: by the kernel itself, and of VMI's queue at the end of a lazy section. */
  'batches',
  /** Of VMI: changes that waited in its queue, and how often the host took what waited. */
  'records',
  'drains',
  'exits',
  'instructions',
] as const;
type Counted = (typeof COUNTED)[number];

/** What can be said of an item, in the order of the tables. */
export const FIGURES = [
  ...COUNTED,
  /** Processor time of the host's thread that guests run in: of the quickest boot, and of the slowest. */
  'microseconds',
  'slowest',
] as const;
export type Figure = (typeof FIGURES)[number];

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

interface Boot {
  readonly counted: Readonly<Record<Counted, number>>;
  readonly reasons: Counts;
  readonly sizes: Counts;
  readonly course: Course;
}

const MEMORY = 32 << 20;
/** The longer boot does an item this many times as often as the shorter one, whose counts are subtracted. */
const LONGER = 3;
/** So many times a boot's time of an item is looked at: two slices of the event loop each where items are cheapest. */
const WINDOWS = 8;

/**
 * What an item costs in the mean. What a boot takes, and what is done or compiled at the first times alone, is in both of
 * two boots and falls out of their counts' difference. Time is that of the longer boot alone, while it does what the
 * shorter one does not: the median of windows there, since what else the machine does comes and goes.
 */
export async function costOf(image: Image, setting: Setting, item: Item): Promise<Cost> {
  const times = ITEMS[item];
  const shorter = await boot(image, setting, item, times);
  const longer = await boot(image, setting, item, times * LONGER);
  const more = times * (LONGER - 1);
  const counted = difference(longer.counted, shorter.counted, more);
  const besides = shorter.counted.instructions - times * counted.instructions;
  const [from, to] = [shorter.counted.instructions, longer.counted.instructions - besides];
  const microseconds = counted.instructions * median(windowsOf(longer.course, from, to, WINDOWS));
  return {
    figures: { ...counted, microseconds, slowest: microseconds },
    reasons: difference(longer.reasons, shorter.reasons, more),
    sizes: difference(longer.sizes, shorter.sizes, more),
  };
}

/**
 * One cost of several that were measured: the median of exits, since when code is compiled is the host's affair, and with
 * it how often compiled code is left; the least and the greatest time.
 *
 * @throws when a figure differs between them that a deterministic guest decides
 */
export function together(costs: readonly Cost[], name: string): Cost {
  const [first] = costs;
  if (!first) throw new Error(`nothing was measured of ${name}`);
  for (const { figures } of costs) {
    const differing = COUNTED.find((each) => each !== 'exits' && figures[each] !== first.figures[each]);
    if (differing) throw new Error(`${name}: ${differing} differ from boot to boot`);
  }
  const times = costs.map(({ figures }) => figures.microseconds);
  const exits = median(costs.map(({ figures }) => figures.exits));
  return {
    ...first,
    figures: { ...first.figures, exits, microseconds: Math.min(...times), slowest: Math.max(...times) },
  };
}

function difference<Name extends string>(
  more: Readonly<Record<Name, number>>,
  less: Readonly<Record<Name, number>>,
  times: number,
): Record<Name, number> {
  const names = Object.keys(more) as Name[];
  const perItem = names.map((name) => [name, (more[name] - (less[name] ?? 0)) / times]);
  return Object.fromEntries(perItem) as Record<Name, number>;
}

/** A whole boot that does an item so many times. */
async function boot(image: Image, { lazy, ...cell }: Setting, item: Item, times: number): Promise<Boot> {
  const commandLine = `bench=${item} times=${times}${lazy ? '' : ' nolazy'}`;
  const host = await createHost({ memory: MEMORY, jit: jitOfCommand() });
  try {
    const kernel = readFileSync(imagePath(image));
    const machine = await host.boot({ ...cell, kernel, memory: MEMORY, vcpus: 1, deterministic: true, commandLine });
    const courseSoFar = followCourse(machine);
    const text = await outputOf(machine);
    const outcome = await machine.done;
    const course = courseSoFar();
    if (outcome.kind !== 'poweroff') {
      throw new Error(`${cell.interface}/${cell.paging} ${commandLine}: the guest ended by ${JSON.stringify(outcome)}`);
    }
    const { hypercalls, exits, instructions, vmiQueue } = machine.statistics() as Report;
    const counted = {
      operations: operationsIn(text),
      hypercalls: sum(hypercalls),
      batches: Number(/^lazy batches (\d+)/m.exec(text)?.[1]) + (vmiQueue?.batches.lazy ?? 0),
      records: vmiQueue?.records ?? 0,
      drains: sum(vmiQueue?.batches ?? {}),
      exits: sum(exits),
      instructions,
    };
    return { counted, reasons: vmiQueue?.batches ?? {}, sizes: vmiQueue?.batchesBySize ?? {}, course };
  } finally {
    await host.close();
  }
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
