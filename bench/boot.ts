/**
 * Time from the start of the process to READY of the same kernel and initramfs, ring1 beside QEMU's translator, in turns
 * and stamped by the host. Prints seconds and the ratio of the medians.
 *
 *     npx tsx bench/boot.ts [--runs 3] [--flavour cloud-amd64|amd64]
 *
 * QEMU is measured when `qemu-system-x86_64` is installed.
 */
import { spawn, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { initramfs, type KernelFlavour, kernel } from '../guests/recipes.ts';

const { values } = parseArgs({
  options: { runs: { type: 'string', default: '3' }, flavour: { type: 'string', default: 'cloud-amd64' } },
});
const runs = Number(values.runs);

/** Seconds until the program prints READY; it is killed then. */
function secondsToReady(command: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let seen = '';
    child.stdout.on('data', (bytes: Buffer) => {
      seen = (seen + bytes.toString('latin1')).slice(-4096);
      if (!/^READY/m.test(seen)) return;
      resolve((performance.now() - start) / 1000);
      child.kill('SIGKILL');
    });
    child.on('error', reject);
    child.on('exit', () => reject(new Error(`${command} ended before READY:\n${seen}`)));
  });
}

const median = (numbers: readonly number[]): number =>
  [...numbers].sort((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN;

const kernelFile = await kernel(values.flavour as KernelFlavour);
const initrdFile = join(tmpdir(), `ring1-bench-${process.pid}.img`);
writeFileSync(initrdFile, await initramfs());

const systems: Record<string, () => Promise<number>> = {
  ring1: () => secondsToReady('bin/ring1', ['run', '--kernel', kernelFile, '--initrd', initrdFile, '--memory', '256M']),
};
if (spawnSync('qemu-system-x86_64', ['--version']).status === 0) {
  systems['qemu tcg'] = () =>
    secondsToReady('qemu-system-x86_64', [
      ...['-M', 'microvm,acpi=off', '-accel', 'tcg', '-cpu', 'max', '-m', '256', '-display', 'none', '-no-reboot'],
      ...['-serial', 'stdio', '-kernel', kernelFile, '-initrd', initrdFile, '-append', 'console=ttyS0'],
    ]);
}
const seconds = new Map(Object.keys(systems).map((name): [string, number[]] => [name, []]));
for (let run = 0; run < runs; run++) {
  for (const [name, measure] of Object.entries(systems)) {
    const time = await measure();
    seconds.get(name)?.push(time);
    process.stdout.write(`${name.padEnd(9)} ${time.toFixed(2)} s\n`);
  }
}
const ring1 = median(seconds.get('ring1') ?? []);
process.stdout.write(`median: ring1 ${ring1.toFixed(2)} s`);
const qemu = seconds.get('qemu tcg');
process.stdout.write(
  qemu
    ? `, qemu tcg ${median(qemu).toFixed(2)} s, ratio ${(ring1 / median(qemu)).toFixed(2)}\n`
    : '; qemu is not installed\n',
);
