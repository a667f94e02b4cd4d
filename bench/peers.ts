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
 *   --peers LIST      peers whose names contain one of these words; ring1 is always measured, alone with "ring1"
 *   --flavour F       Debian's kernel: cloud-amd64 (default), amd64, 686-pae or 686
 *   --node PATH       the Node.js that runs ring1, a file of any name
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
import { ARCHITECTURES, initramfs, type KernelFlavour, kernel, seabios } from '../guests/recipes.ts';
import { requireWritable, writeFileAtomically } from '../src/node/files.ts';
import { runBenchmark } from './benchmark.ts';
import { type NodeProgram, openNode } from './command.ts';
import { coldTable, curveOf } from './peers/cold.ts';
import { BOOT, commandLineFor, itemEntries } from './peers/items.ts';
import { choosePeers, type PeersOptions, parsePeersOptions } from './peers/options.ts';
import { compare, comparisonTable, differingResults } from './peers/report.ts';
import type { Peer } from './peers/session.ts';
import { type GuestFiles, qemu, requireV86, ring1, v86 } from './peers/systems.ts';
import { takeTurns } from './peers/turns.ts';

async function prepareFiles(directory: string, flavour: KernelFlavour): Promise<GuestFiles> {
  const initrd = join(directory, `initrd-${flavour}`);
  writeFileSync(initrd, await initramfs({ architecture: ARCHITECTURES[flavour], extra: itemEntries() }));
  return { kernel: await kernel(flavour), initrd };
}

/** @returns ring1 first */
async function preparePeers(options: PeersOptions, node: NodeProgram, directory: string): Promise<Peer[]> {
  const { flavour } = options;
  const files = await prepareFiles(directory, flavour);
  const own = ring1(node, options.ring1Options, files);
  const others = qemu(files);
  const missing = others.length > 0 ? [] : ['QEMU is measured when qemu-system-x86_64 is installed'];
  if (options.v86 === undefined) missing.push('v86 is measured with --v86');
  else {
    const flavour32 = ARCHITECTURES[flavour] === 'i386' ? flavour : '686-pae';
    const files32 = { ...(await prepareFiles(directory, flavour32)), ...(await seabios()) };
    others.push(v86(resolve(options.v86), directory, flavour32, files32));
  }
  const peers = [own, ...others];
  if (options.peers === undefined) return peers;
  const chosen = choosePeers(peers, options.peers, missing);
  return [own, ...chosen.filter((peer) => peer !== own)];
}

await runBenchmark(async () => {
  const options = parsePeersOptions(process.argv.slice(2));
  const { runs, items, clock, json } = options;
  if (options.v86 !== undefined) requireV86(options.v86);
  if (json !== undefined) await requireWritable(json, 'figures');
  const directory = mkdtempSync(join(tmpdir(), 'ring1-peers-'));
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
  const node = openNode(options.node, directory);
  const peers = await preparePeers(options, node, directory);

  const measurements = await takeTurns(peers, { runs, items, commandLine: commandLineFor(items), clock });

  const names = peers.map(({ name }) => name);
  const comparisons = compare(measurements, [BOOT, ...items]);
  process.stdout.write(`ring1 on Node.js ${node.version}\n`);
  process.stdout.write(options.isCold ? coldTable(measurements) : comparisonTable(names, comparisons));
  if (json !== undefined) {
    const sessions = names.map((name) => ({
      name,
      runs: (measurements.get(name) ?? []).map(({ seconds, results, steps }) => ({
        seconds: Object.fromEntries(seconds),
        results: Object.fromEntries(results),
        steps,
      })),
      ...(options.isCold ? { curve: curveOf((measurements.get(name) ?? []).map(({ steps }) => steps)) } : {}),
    }));
    const figures = { node: node.version, clock, peers: sessions, comparisons };
    await writeFileAtomically(json, `${JSON.stringify(figures, undefined, 2)}\n`);
  }
  const differing = differingResults(measurements, items);
  if (differing.length > 0) {
    process.stdout.write(`not the same output everywhere: ${differing.join(', ')}\n`);
    process.exitCode = 1;
  }
});
