/**
 * What programs do to page tables, as the reference guest asks for it: its operations, and the hypercalls, exits,
 * instructions and time of the host that they come to, per fork, exec, mmap of 16 pages, page fault and context switch,
 * in every cell, with lazy mode and without. What the same boot takes without any of them is subtracted.
 *
 *     npx tsx bench/reference.ts [--times 400] [--cells xen/direct,kvm/shadow] [--image x86-64]
 *
 *   --image NAME   x86-64, i386-pae or i386; VMI is for the last two
 *
 * The guest counts its operations itself, by stand-ins at unpatched call sites, so that those which are an instruction
 * natively count as well; conversions of entries (pte_val and the like) do not. The bench of Debian's kernel is
 * bench/paging.ts.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { IMAGES, type Image, imagePath } from '../guests/reference/build.ts';
import type { InterfaceName, PagingName } from '../src/api.ts';
import { createHost } from '../src/index.ts';
import type { StatisticsReport } from '../src/inspect/statistics.ts';
import { outputOf } from '../test/guest/output.ts';
import { alignColumns } from './peers/report.ts';

const ITEMS = ['fork', 'exec', 'mmap', 'fault', 'switch'] as const;
const CELLS: Readonly<Record<Image, readonly string[]>> = {
  'x86-64': ['native/native', 'native/shadow', 'kvm/nested', 'kvm/shadow', 'xen/direct', 'xen/translated'],
  'i386-pae': [
    'native/native',
    'native/shadow',
    'kvm/shadow',
    'vmi/native',
    'vmi/shadow',
    'vmi/direct',
    'lguest/shadow',
    'xen/direct',
  ],
  i386: ['native/native', 'native/shadow', 'kvm/shadow', 'vmi/native', 'vmi/shadow', 'lguest/shadow'],
};
const LAZY_MODES = ['', 'nolazy'] as const;
const MEMORY = 32 << 20;

interface Cost {
  readonly operations: number;
  readonly hypercalls: number;
  readonly batches: number;
  /** Of VMI: changes that waited in its queue, and how often the host took what waited. */
  readonly records: number;
  readonly drains: number;
  readonly exits: number;
  readonly instructions: number;
  readonly microseconds: number;
}

const ROWS: readonly (keyof Cost)[] = [
  'operations',
  'hypercalls',
  'batches',
  'records',
  'drains',
  'exits',
  'instructions',
  'microseconds',
];

type Report = StatisticsReport & {
  readonly vmiQueue?: { readonly records: number; readonly batches: Readonly<Record<string, number>> };
};

const { values } = parseArgs({
  options: {
    times: { type: 'string', default: '400' },
    cells: { type: 'string' },
    image: { type: 'string', default: 'x86-64' },
  },
});
const image = IMAGES.find((name) => name === values.image);
if (!image) throw new Error(`there is no image ${values.image}; give ${IMAGES.join(', ')}`);
const times = Number(values.times);
const cells = values.cells?.split(',') ?? CELLS[image];
const kernel = readFileSync(imagePath(image));

/** A whole boot that does an item so many times. */
async function boot(cell: string, words: string): Promise<Cost> {
  const [way, paging] = cell.split('/') as [InterfaceName, PagingName];
  const host = await createHost({ memory: MEMORY });
  try {
    const before = process.cpuUsage();
    const options = { kernel, memory: MEMORY, vcpus: 1, deterministic: true };
    const machine = await host.boot({ ...options, interface: way, paging, commandLine: words });
    const text = await outputOf(machine);
    const outcome = await machine.done;
    if (outcome.kind !== 'poweroff') throw new Error(`${cell} ${words}: the guest ended by ${JSON.stringify(outcome)}`);
    const { user, system } = process.cpuUsage(before);
    const report = machine.statistics() as Report;
    return {
      operations: operationsIn(text),
      hypercalls: sum(report.hypercalls),
      batches: Number(/^lazy batches (\d+)/m.exec(text)?.[1]),
      records: report.vmiQueue?.records ?? 0,
      drains: sum(report.vmiQueue?.batches ?? {}),
      exits: sum(report.exits),
      instructions: report.instructions,
      microseconds: user + system,
    };
  } finally {
    await host.close();
  }
}

const CONVERSION = /_val$|\.make_/;

function operationsIn(text: string): number {
  const found = [...text.matchAll(/^operation (\S+) (\d+)$/gm)];
  return found.reduce((total, [, name = '', count]) => total + (CONVERSION.test(name) ? 0 : Number(count)), 0);
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

async function costOf(cell: string, item: string, lazy: string): Promise<Cost> {
  const words = (count: number) => `bench=${item} times=${count} ${lazy}`;
  const idle = await boot(cell, words(0));
  const busy = await boot(cell, words(times));
  const per = (name: keyof Cost): number => (busy[name] - idle[name]) / times;
  return Object.fromEntries(ROWS.map((name) => [name, per(name)])) as unknown as Cost;
}

const digits = (number: number): string => (Math.abs(number) >= 100 ? number.toFixed(0) : number.toFixed(1));
for (const item of ITEMS) {
  const columns: { readonly title: string; readonly cost: Cost }[] = [];
  for (const cell of cells) {
    for (const lazy of LAZY_MODES) {
      // Where lazy mode is nothing, to leave it out changes nothing.
      if (lazy !== '' && !/^xen|^kvm.shadow|^vmi.shadow|^lguest/.test(cell)) continue;
      columns.push({ title: lazy === '' ? cell : `${cell} ${lazy}`, cost: await costOf(cell, item, lazy) });
    }
  }
  const table = [
    [`one ${item}`, ...columns.map(({ title }) => title)],
    ...ROWS.filter((name) => columns.some(({ cost }) => cost[name] !== 0)).map((name) => [
      name,
      ...columns.map(({ cost }) => digits(cost[name])),
    ]),
  ];
  process.stdout.write(`${alignColumns(table)}\n`);
}
