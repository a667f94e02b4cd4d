/**
 * Whether memory stays what it is when code comes and goes for long: a guest that keeps copying programs and starting the
 * copies, and keeps switching a static branch, for which its kernel patches its own code. Prints the resident memory of
 * the command's process once a minute, then figures of the JIT, and how the last minute compares with the fifth.
 *
 *     npm run build && npx tsx bench/soak.ts [--minutes 30] [--node PATH] [-- RING1-OPTIONS]
 *
 * Ends with status 1 when memory differs by more than 5 %. Linux only.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { initramfs } from '../guests/recipes.ts';
import type { CodeStatistics } from '../src/inspect/code-statistics.ts';
import { openNode, ring1Command } from './command.ts';

const { values, positionals: options } = parseArgs({
  allowPositionals: true,
  options: {
    minutes: { type: 'string', default: '30' },
    node: { type: 'string', default: process.execPath },
  },
});

const SAMPLE_SECONDS = 5;
const SAMPLES_PER_MINUTE = 60 / SAMPLE_SECONDS;
/** The minute whose memory is the measure: everything that is kept has been met by then. */
const SETTLED_MINUTE = 5;
const TOLERANCE = 0.05;
/** The guest is still there when the last sample is taken. */
const MARGIN_SECONDS = 30;
/** What `ring1 run` ends with at its timeout. */
const TIMEOUT_STATUS = 3;

/** Each round has eight programs in frames of their own; a kernel without the switch has none to patch. */
const SCRIPT = `
switch=/proc/sys/kernel/sched_schedstats
round=0
while :; do
  for copy in 1 2 3 4 5 6 7 8; do
    cp /bin/busybox /tmp/program$copy
    [ -f $switch ] && echo $((copy % 2)) > $switch
    /tmp/program$copy sha256sum /tmp/program$copy > /tmp/sum
    /tmp/program$copy gzip -c /etc/passwd | /tmp/program$copy zcat | /tmp/program$copy md5sum > /tmp/sum
    /tmp/program$copy sh -c 'i=0; while [ $i -lt 300 ]; do i=$((i+1)); done'
    /tmp/program$copy awk 'BEGIN { for (i = 0; i < 2000; i++) s += i * i; print s }' > /tmp/sum
  done
  rm /tmp/program*
  round=$((round+1))
  echo "round $round"
done
`;

function median(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[numbers.length >> 1] ?? 0;
}

/** MiB that a process has in memory. */
function residentOf(process: number): number {
  const kibibytes = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${process}/status`, 'utf8'))?.[1];
  return Number(kibibytes) / 1024;
}

const minutes = Number(values.minutes);
const directory = mkdtempSync(join(tmpdir(), 'ring1-soak-'));
process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
const node = openNode(values.node, directory);
const initrd = join(directory, 'initrd');
const stats = join(directory, 'stats.json');
const script = new TextEncoder().encode(SCRIPT);
writeFileSync(initrd, await initramfs({ extra: [{ type: 'file', path: 'root/soak.sh', data: script, mode: 0o755 }] }));

const files = ['--initrd', initrd, '--stats', stats];
const limits = ['--memory', '256M', '--timeout', String(minutes * 60 + MARGIN_SECONDS)];
const run = ['run', ...files, ...limits, '--append', 'quiet ring1.run="sh /root/soak.sh"', ...options];
const { program, args } = ring1Command(node, run);
console.log(`ring1 on Node.js ${node.version}`);
const guest = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
const ended = new Promise<number | null>((resolve) => guest.once('exit', resolve));
let rounds = 0;
guest.stdout.setEncoding('utf8').on('data', (text: string) => {
  rounds += text.match(/^round /gm)?.length ?? 0;
});

const start = performance.now();
const waitUntil = (seconds: number) =>
  new Promise((done) => setTimeout(done, start + seconds * 1000 - performance.now()));
const byMinute: number[] = [];
for (let minute = 1; minute <= minutes; minute++) {
  const samples: number[] = [];
  for (let sample = 1; sample <= SAMPLES_PER_MINUTE; sample++) {
    await waitUntil((minute - 1) * 60 + sample * SAMPLE_SECONDS);
    samples.push(residentOf(guest.pid as number));
  }
  const resident = median(samples);
  byMinute.push(resident);
  console.log(`minute ${minute}: resident ${resident.toFixed(0)} MiB, ${rounds} rounds`);
}
const status = await ended;
if (status !== TIMEOUT_STATUS) {
  console.log(`the guest ended by itself, with status ${status}`);
  process.exit(1);
}
const { jit } = (JSON.parse(readFileSync(stats, 'utf8')) as { host: CodeStatistics }).host;
console.log(JSON.stringify(jit));
const settled = byMinute[SETTLED_MINUTE - 1];
const last = byMinute.at(-1);
if (settled !== undefined && last !== undefined && minutes > SETTLED_MINUTE) {
  const change = last / settled - 1;
  console.log(`minute ${minutes} against minute ${SETTLED_MINUTE}: ${(change * 100).toFixed(1)} %`);
  if (Math.abs(change) > TOLERANCE) process.exitCode = 1;
}
