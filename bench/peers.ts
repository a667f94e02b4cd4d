/**
 * Speed of ring1 beside its peers: one boot to a shell, and a list of items in that boot, the same kernel and the same
 * initramfs on each. The guest's console says when an item begins and ends, and this machine's clock says how long that
 * was; the guest's own clock is not asked. Peers take turns. Time for warming up is part of every item.
 *
 *     npm run build && npx tsx bench/peers.ts [--runs 3] [--only sha256,fork] [--node PATH] [-- RING1-OPTIONS]
 *
 *   --runs N          boots of each peer; the medians are printed
 *   --only LIST       these items alone, in the order of bench/peers/items.ts; the boot is always measured
 *   --cold            instead of the items: how a program comes up to speed that was never executed before
 *   --peers LIST      peers whose names contain one of these words; ring1 is always measured
 *   --flavour F       Debian's kernel: cloud-amd64 (default), amd64, 686-pae or 686
 *   --node PATH       the Node.js that runs ring1
 *   --clock cpu       processor time of each peer's process instead of the time that passes: for a busy machine (Linux)
 *   --v86 DIRECTORY   measure v86 as well; it knows 32-bit code only, so beside 64-bit kernels it has Debian's 686-pae
 *   --json FILE       write all figures there
 *   -- OPTIONS        further options of `ring1 run`, as in -- --interface kvm
 *
 * A ratio is ring1's speed over the peer's: above 1, ring1 is faster. QEMU is measured when `qemu-system-x86_64` is
 * installed. v86 (BSD licence) is no dependency because of its 18 MB; get it where you like:
 *
 *     npm install --prefix /tmp/v86 v86
 *     npx tsx bench/peers.ts --flavour 686-pae --v86 /tmp/v86/node_modules/v86 -- --interface kvm
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { ARCHITECTURES, initramfs, KERNEL_FLAVOURS, type KernelFlavour, kernel, seabios } from '../guests/recipes.ts';
import { coldTable, curveOf } from './peers/cold.ts';
import { BOOT, COLD, commandLineFor, ITEMS, itemEntries } from './peers/items.ts';
import { compare, comparisonTable, differingResults } from './peers/report.ts';
import type { Peer } from './peers/session.ts';
import { type GuestFiles, qemu, ring1, v86 } from './peers/systems.ts';
import { parseRuns, takeTurns } from './peers/turns.ts';

const { values, positionals: ring1Options } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string', default: '3' },
    only: { type: 'string' },
    cold: { type: 'boolean', default: false },
    peers: { type: 'string' },
    flavour: { type: 'string', default: 'cloud-amd64' },
    node: { type: 'string', default: process.execPath },
    clock: { type: 'string', default: 'wall' },
    v86: { type: 'string' },
    json: { type: 'string' },
  },
});

function chooseItems(list: string | undefined): string[] {
  const known = [BOOT, ...ITEMS.map(({ name }) => name)];
  const wanted = (list?.split(',') ?? known).map((name) => oneOf(known, name));
  return known.filter((name) => name !== BOOT && wanted.includes(name));
}

/** @throws Error when the name is none of those */
function oneOf<Name extends string>(names: readonly Name[], given: string): Name {
  const name = names.find((candidate) => candidate === given);
  if (name === undefined) throw new Error(`there is no ${given}; give ${names.join(', ')}`);
  return name;
}

async function prepareFiles(directory: string, flavour: KernelFlavour): Promise<GuestFiles> {
  const initrd = join(directory, `initrd-${flavour}`);
  writeFileSync(initrd, await initramfs({ architecture: ARCHITECTURES[flavour], extra: itemEntries() }));
  return { kernel: await kernel(flavour), initrd };
}

async function preparePeers(directory: string): Promise<Peer[]> {
  const flavour = oneOf(KERNEL_FLAVOURS, values.flavour);
  const files = await prepareFiles(directory, flavour);
  const others = qemu(files);
  if (values.v86 !== undefined) {
    const flavour32 = ARCHITECTURES[flavour] === 'i386' ? flavour : '686-pae';
    const files32 = { ...(await prepareFiles(directory, flavour32)), ...(await seabios()) };
    others.push(v86(resolve(values.v86), directory, flavour32, files32));
  }
  const words = values.peers?.split(',') ?? [''];
  const chosen = others.filter(({ name }) => words.some((word) => name.includes(word)));
  return [ring1(values.node, ring1Options, files), ...chosen];
}

const runs = parseRuns(values.runs);
const clock = oneOf(['wall', 'cpu'], values.clock);
const items = values.cold ? [COLD.name] : chooseItems(values.only);
const directory = mkdtempSync(join(tmpdir(), 'ring1-peers-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
const peers = await preparePeers(directory);

const measurements = await takeTurns(peers, { runs, items, commandLine: commandLineFor(items), clock });

const names = peers.map(({ name }) => name);
const comparisons = compare(measurements, [BOOT, ...items]);
process.stdout.write(values.cold ? coldTable(measurements) : comparisonTable(names, comparisons));
if (values.json !== undefined) {
  const sessions = names.map((name) => ({
    name,
    runs: (measurements.get(name) ?? []).map(({ seconds, results, steps }) => ({
      seconds: Object.fromEntries(seconds),
      results: Object.fromEntries(results),
      steps,
    })),
    ...(values.cold ? { curve: curveOf((measurements.get(name) ?? []).map(({ steps }) => steps)) } : {}),
  }));
  const figures = { clock, peers: sessions, comparisons };
  writeFileSync(values.json, `${JSON.stringify(figures, undefined, 2)}\n`);
}
const differing = differingResults(measurements, items);
if (differing.length > 0) {
  process.stdout.write(`not the same output everywhere: ${differing.join(', ')}\n`);
  process.exitCode = 1;
}
