/**
 * What changing page tables costs in each cell of interfaces and ways of paging, side by side: time, exits, operations,
 * TLB fills per fork, exec, mmap of 16 pages, page fault and context switch, with the same kernel and program. Beside the
 * ratios to plain hardware stand those of Xen on real processors, which were measured on other operations of these
 * names: their shape is what to compare.
 *
 *     npx tsx bench/paging.ts [--runs 3] [--cells xen/direct,kvm/shadow] [--scale 1] [--kernel FILE] [--json FILE]
 *
 *   --kernel FILE a 32-bit kernel in place of Debian's 64-bit one: for VMI, say. Its shell makes forks and execs then
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
import { type Cell, type Cost, type Guest, measure } from './paging/measure.ts';
import { alignColumns, median } from './peers/report.ts';

const CELLS = ['native/native', 'native/shadow', 'kvm/nested', 'kvm/shadow', 'xen/direct', 'xen/shadow'];
const CELLS_32 = ['native/native', 'native/shadow', 'vmi/native', 'vmi/shadow'];
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

/** What a shell does for an operation; where there is no C library for 32-bit programs, nothing more can be had. */
const SHELL: Readonly<Record<string, string>> = { fork: '( : )', exec: '/bin/busybox true' };

const ROWS: readonly (readonly [name: string, figure: keyof Cost])[] = [
  ['microseconds', 'microseconds'],
  ['instructions', 'instructions'],
  ['exits', 'exits'],
  ['operations', 'operations'],
  ['hypercalls', 'hypercalls'],
  ['TLB fills', 'tlbFills'],
  ['stores seen', 'storesSeen'],
  ['VMI records', 'records'],
  ['VMI batches', 'batches'],
];

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    cells: { type: 'string' },
    scale: { type: 'string', default: '1' },
    kernel: { type: 'string' },
    json: { type: 'string' },
  },
});

function cellOf(name: string): Cell {
  const [way, paging] = name.split('/') as [InterfaceName, PagingName];
  if (!available.includes(name)) throw new Error(`there is no cell ${name}; give ${available.join(', ')}`);
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

const available = values.kernel === undefined ? CELLS : CELLS_32;
const names = values.cells?.split(',') ?? available;
const cells = names.map(cellOf);
const times = new Map(
  Object.entries(ITEMS)
    .filter(([name]) => values.kernel === undefined || name in SHELL)
    .map(([name, item]) => [name, Math.max(1, Math.round(item.times * Number(values.scale)))]),
);
const guest = values.kernel === undefined ? await guestOf64Bits() : await guestOf32Bits(values.kernel);

async function guestOf64Bits(): Promise<Guest> {
  return {
    kernel: readFileSync(await kernel('cloud-amd64')),
    initrd: await initramfs({
      extra: [{ type: 'file', path: 'bin/paging-operations', data: compile(), mode: 0o755 }],
    }),
    memory: 256 << 20,
    program: `/bin/paging-operations ${[...times.values()].join(' ')}`,
  };
}

async function guestOf32Bits(path: string): Promise<Guest> {
  const items = [...times].map(([name, count]) => {
    const loop = `i=0; while [ $i -lt ${count} ]; do ${SHELL[name]}; i=$((i+1)); done`;
    return `echo begin ${name}; read x; ${loop}; echo end ${name}; read x`;
  });
  const initrd = await initramfs({ architecture: 'i386' });
  return { kernel: readFileSync(path), initrd, memory: 256 << 20, program: items.join('; ') };
}

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
