/**
 * Time from the start of the process to READY, of the same kernel and initramfs on ring1 and on QEMU's translator, in
 * turns and stamped by this machine's clock: ring1 with the interpreter alone, and as it comes. Prints medians in seconds,
 * and how many times as long as QEMU ring1 takes; bench/peers.ts measures more than the boot.
 *
 *     npm run build && npx tsx bench/boot.ts [--runs 3]
 *
 *   --runs N           boots of each
 *   --jit-threshold N  ring1 with this threshold only, as `ring1 run` takes it
 *   --clock cpu        processor time instead of the time that passes: for a busy machine (Linux)
 *
 * QEMU is measured when `qemu-system-x86_64` is installed.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { initramfs, kernel } from '../guests/recipes.ts';
import { openNode } from './command.ts';
import { BOOT } from './peers/items.ts';
import { alignColumns, median } from './peers/report.ts';
import type { Peer } from './peers/session.ts';
import { qemu, ring1 } from './peers/systems.ts';
import { parseRuns, takeTurns } from './peers/turns.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    'jit-threshold': { type: 'string' },
    clock: { type: 'string', default: 'wall' },
  },
});
const { 'jit-threshold': threshold, clock } = values;
if (clock !== 'wall' && clock !== 'cpu') throw new Error(`there is no clock ${clock}; give wall or cpu`);

const directory = mkdtempSync(join(tmpdir(), 'ring1-boot-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
const files = { kernel: await kernel('cloud-amd64'), initrd: join(directory, 'initrd') };
writeFileSync(files.initrd, await initramfs());

const node = openNode(process.execPath, directory);
const named = (name: string, options: readonly string[]): Peer => ({
  ...ring1(node, options, files),
  name,
});
const own =
  threshold === undefined
    ? [named('ring1, tier 0 alone', ['--jit-threshold', '0']), named('ring1, both tiers', [])]
    : [named(`ring1, threshold ${threshold}`, ['--jit-threshold', threshold])];
const others = qemu(files);
const turns = { runs: parseRuns(values.runs), items: [], commandLine: '', clock } as const;
const measurements = await takeTurns([...own, ...others], turns);

const seconds = (peer: Peer): number =>
  median((measurements.get(peer.name) ?? []).map((session) => session.seconds.get(BOOT) ?? Number.NaN));
const rows = own.map((peer) => [
  peer.name,
  seconds(peer).toFixed(2),
  ...others.flatMap((other) => [seconds(other).toFixed(2), `${(seconds(peer) / seconds(other)).toFixed(2)}×`]),
]);
const heading = ['seconds to READY', 'ring1', ...others.flatMap(({ name }) => [name, 'as long'])];
process.stdout.write(alignColumns([heading, ...rows]));
