/**
 * What changing page tables costs in each cell of interfaces and ways of paging, side by side: time, exits, operations,
 * TLB fills per fork, exec, mmap of 16 pages, page fault and context switch, with the same kernel and program. Beside the
 * ratios to plain hardware stand those of Xen on real processors, which were measured on other operations of these
 * names: their shape is what to compare.
 *
 *     npx tsx bench/paging.ts [--runs 3] [--cells xen/direct,kvm/shadow] [--scale 1] [--json FILE]
 *
 *   --runs N      boots of each cell, which take turns; medians are printed
 *   --scale X     this many times as often
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { initramfs, kernel } from '../guests/recipes.ts';
import type { InterfaceName, PagingName } from '../src/api.ts';
import { type Cell, type Cost, measure } from './paging/measure.ts';
import { alignColumns, median } from './peers/report.ts';

const CELLS = ['native/native', 'native/shadow', 'kvm/nested', 'kvm/shadow', 'xen/direct', 'xen/shadow'];
/** What the others are compared with. */
const PLAIN = 'native/native';

interface Item {
  readonly times: number;
  /** Xen 1.2 over Linux on the processor itself (Barham et al., "Xen and the Art of Virtualization", SOSP 2003). */
  readonly classic: number;
}

const ITEMS: Readonly<Record<string, Item>> = {
  fork: { times: 400, classic: 1.8 },
  exec: { times: 200, classic: 1.4 },
  mmap: { times: 2000, classic: 2.0 },
  fault: { times: 8000, classic: 1.9 },
  switch: { times: 4000, classic: 2.6 },
};

const ROWS: readonly (readonly [name: string, figure: keyof Cost])[] = [
  ['microseconds', 'microseconds'],
  ['instructions', 'instructions'],
  ['exits', 'exits'],
  ['operations', 'operations'],
  ['hypercalls', 'hypercalls'],
  ['TLB fills', 'tlbFills'],
  ['stores seen', 'storesSeen'],
];

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    cells: { type: 'string' },
    scale: { type: 'string', default: '1' },
    json: { type: 'string' },
  },
});

function cellOf(name: string): Cell {
  const [way, paging] = name.split('/') as [InterfaceName, PagingName];
  if (!CELLS.includes(name)) throw new Error(`there is no cell ${name}; give ${CELLS.join(', ')}`);
  return { interface: way, paging };
}

function compile(): Uint8Array {
  const directory = mkdtempSync(join(tmpdir(), 'ring1-paging-'));
  try {
    const program = join(directory, 'paging-operations');
    const source = fileURLToPath(new URL('paging/operations.c', import.meta.url));
    execFileSync('gcc', ['-O2', '-static', '-o', program, source]);
    return readFileSync(program);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const names = values.cells?.split(',') ?? CELLS;
const cells = names.map(cellOf);
const times = new Map(
  Object.entries(ITEMS).map(([name, item]) => [name, Math.max(1, Math.round(item.times * Number(values.scale)))]),
);
const guest = {
  kernel: readFileSync(await kernel('cloud-amd64')),
  initrd: await initramfs({
    extra: [{ type: 'file', path: 'bin/paging-operations', data: compile(), mode: 0o755 }],
  }),
  memory: 256 << 20,
};

const runs = new Map<string, Map<string, Cost>[]>(names.map((name) => [name, []]));
for (let run = 0; run < Number(values.runs); run++) {
  for (const [index, name] of names.entries()) {
    runs.get(name)?.push(await measure(cells[index] as Cell, guest, times));
  }
}

function figure(cell: string, item: string, name: keyof Cost): number {
  return median((runs.get(cell) ?? []).map((costs) => costs.get(item)?.[name] ?? Number.NaN));
}

const digits = (number: number): string => (number >= 100 ? number.toFixed(0) : number.toPrecision(2));
for (const item of times.keys()) {
  const table = [
    [`one ${item}`, ...names],
    ...ROWS.map(([title, name]) => [title, ...names.map((cell) => digits(figure(cell, item, name)))]),
  ];
  if (names.includes(PLAIN)) {
    const plain = figure(PLAIN, item, 'microseconds');
    table.push([`× ${PLAIN}`, ...names.map((cell) => (figure(cell, item, 'microseconds') / plain).toFixed(2))]);
    table.push(['Xen, 2003', ...names.map((cell) => (cell === 'xen/direct' ? String(ITEMS[item]?.classic) : ''))]);
  }
  process.stdout.write(`${alignColumns(table)}\n`);
}
if (values.json !== undefined) {
  const figures = Object.fromEntries(
    names.map((cell) => [cell, (runs.get(cell) ?? []).map((costs) => Object.fromEntries(costs))]),
  );
  writeFileSync(values.json, `${JSON.stringify(figures, undefined, 2)}\n`);
}
