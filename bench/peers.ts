/**
 * Speed of ring1 beside its peers: one boot to a shell, and a list of items in that boot, the same kernel and the same
 * initramfs on each. The guest's console says when an item begins and ends, and this machine's clock says how long that
 * was; the guest's own clock is not asked. Peers take turns, so that what else the machine does falls on all. Time for
 * warming up is part of every item.
 *
 *     npm run build && npx tsx bench/peers.ts [--runs 3] [--only sha256,fork] [--node PATH]
 *
 *   --runs N      boots of each peer; the medians are printed
 *   --only LIST   these items alone, in the order of bench/peers/items.ts; the boot is always measured
 *   --peers LIST  peers whose names contain one of these words; ring1 xen is always measured
 *   --flavour F   Debian's kernel: cloud-amd64 (default) or amd64
 *   --node PATH   the Node.js that runs ring1
 *   --clock cpu   processor time of each peer's process instead of the time that passes: for a busy machine (Linux)
 *
 * A ratio is ring1's speed over the peer's: above 1, ring1 is faster. QEMU is measured when `qemu-system-x86_64` is
 * installed.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { initramfs, type KernelFlavour, kernel } from '../guests/recipes.ts';
import { BOOT, commandLineFor, ITEMS, itemEntries } from './peers/items.ts';
import { compare, comparisonTable, differingResults } from './peers/report.ts';
import { type ClockName, measure, type Session } from './peers/session.ts';
import { qemu, ring1 } from './peers/systems.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    only: { type: 'string' },
    peers: { type: 'string' },
    node: { type: 'string', default: process.execPath },
    flavour: { type: 'string', default: 'cloud-amd64' },
    clock: { type: 'string', default: 'wall' },
  },
});

/** @throws Error for a name that is not an item's */
function chooseItems(list: string | undefined): string[] {
  const known = [BOOT, ...ITEMS.map(({ name }) => name)];
  const wanted = list?.split(',') ?? known;
  const unknown = wanted.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Error(`${unknown} is not an item; give some of ${known.join(', ')}`);
  return known.filter((name) => name !== BOOT && wanted.includes(name));
}

function chooseFlavour(name: string): KernelFlavour {
  if (name !== 'cloud-amd64' && name !== 'amd64') throw new Error(`${name} is no kernel; give cloud-amd64 or amd64`);
  return name;
}

function chooseClock(name: string): ClockName {
  if (name !== 'wall' && name !== 'cpu') throw new Error(`${name} is not a clock; give wall or cpu`);
  return name;
}

const clock = chooseClock(values.clock);
const items = chooseItems(values.only);
const directory = mkdtempSync(join(tmpdir(), 'ring1-peers-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));

const files = { kernel: await kernel(chooseFlavour(values.flavour)), initrd: join(directory, 'initrd') };
writeFileSync(files.initrd, await initramfs({ extra: itemEntries() }));

const own = ring1(values.node, files);
const words = values.peers?.split(',') ?? [''];
const peers = [own, ...qemu(files).filter(({ name }) => words.some((word) => name.includes(word)))];
const measurements = new Map(peers.map(({ name }): [string, Session[]] => [name, []]));
for (let run = 1; run <= Number(values.runs); run++) {
  for (const peer of peers) {
    const session = await measure(peer, items, commandLineFor(items), clock);
    measurements.get(peer.name)?.push(session);
    const times = [...session.seconds].map(([name, seconds]) => `${name} ${seconds.toFixed(2)}`);
    process.stderr.write(`run ${run}, ${peer.name}: ${times.join(', ')}\n`);
  }
}

const names = peers.map(({ name }) => name);
process.stdout.write(comparisonTable(names, compare(measurements, [BOOT, ...items])));
const differing = differingResults(measurements, items);
if (differing.length > 0) {
  process.stdout.write(`not the same output everywhere: ${differing.join(', ')}\n`);
  process.exitCode = 1;
}
