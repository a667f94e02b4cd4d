/**
 * Whether memory stays what it is when code comes and goes for long: a guest that keeps copying programs and starting the
 * copies, and keeps switching a static branch, for which its kernel patches its own code. Prints the resident memory of
 * the command's process once a minute, then figures of the JIT, and how the last minute compares with the fifth.
 *
 *     npm run build && npx tsx bench/soak.ts [--minutes 30] [--node PATH] [-- RING1-OPTIONS]
 *
 *   --minutes N  above 5
 *   --node PATH  the Node.js that runs ring1, a file of any name
 *
 * Ends with status 1 when memory differs by more than 5 %, and when the guest does not do its work up to the end. Linux
 * only.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { initramfs } from '../guests/recipes.ts';
import { InputError } from '../src/boot/input-error.ts';
import type { CodeStatistics } from '../src/inspect/code-statistics.ts';
import { BenchmarkFailure, parseOptions, runBenchmark } from './benchmark.ts';
import { openNode, ring1Command } from './command.ts';
import { ROUND, UNPATCHED, watchRounds } from './soak-watch.ts';

/** The minute whose memory is the measure: everything that is kept has been met by then. */
const SETTLED_MINUTE = 5;
const TOLERANCE = 0.05;
/** The guest is still there when the last sample is taken. */
const MARGIN_SECONDS = 30;
/** What `ring1 run` ends with at its timeout. */
const TIMEOUT_STATUS = 3;

/** Each round has eight programs in frames of their own. */
const SCRIPT = `
switch=/proc/sys/kernel/sched_schedstats
if [ ! -f $switch ]; then
  echo "${UNPATCHED}"
  exit 1
fi
while :; do
  for copy in 1 2 3 4 5 6 7 8; do
    cp /bin/busybox /tmp/program$copy
    echo $((copy % 2)) > $switch
    /tmp/program$copy sha256sum /tmp/program$copy > /tmp/sum
    /tmp/program$copy gzip -c /etc/passwd | /tmp/program$copy zcat | /tmp/program$copy md5sum > /tmp/sum
    /tmp/program$copy sh -c 'i=0; while [ $i -lt 300 ]; do i=$((i+1)); done'
    /tmp/program$copy awk 'BEGIN { for (i = 0; i < 2000; i++) s += i * i; print s }' > /tmp/sum
  done
  rm /tmp/program*
  echo "${ROUND}"
done
`;

function parseMinutes(text: string): number {
  const minutes = Number(text);
  if (Number.isInteger(minutes) && minutes > SETTLED_MINUTE) return minutes;
  throw new InputError(
    `--minutes ${text} is not a whole number above ${SETTLED_MINUTE}, the minute that the last one is compared with`,
  );
}

await runBenchmark(async () => {
  const { values, ring1Options } = parseOptions(process.argv.slice(2), {
    minutes: { type: 'string', default: '30' },
    node: { type: 'string', default: process.execPath },
  });
  const minutes = parseMinutes(values.minutes);
  const directory = mkdtempSync(join(tmpdir(), 'ring1-soak-'));
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
  const node = openNode(values.node, directory);
  const initrd = join(directory, 'initrd');
  const stats = join(directory, 'stats.json');
  const script = new TextEncoder().encode(SCRIPT);
  writeFileSync(
    initrd,
    await initramfs({ extra: [{ type: 'file', path: 'root/soak.sh', data: script, mode: 0o755 }] }),
  );

  const files = ['--initrd', initrd, '--stats', stats];
  const limits = ['--memory', '256M', '--timeout', String(minutes * 60 + MARGIN_SECONDS)];
  const run = ['run', ...files, ...limits, '--append', 'quiet ring1.run="sh /root/soak.sh"', ...ring1Options];
  const { program, args } = ring1Command(node, run);
  console.log(`ring1 on Node.js ${node.version}`);
  const guest = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(guest, 'close');
  let byMinute: number[];
  try {
    byMinute = await watchRounds(guest, minutes, console.log);
  } catch (error) {
    guest.kill('SIGKILL');
    throw error;
  }
  const [status] = await ended;
  if (status !== TIMEOUT_STATUS) {
    throw new BenchmarkFailure(`the guest ended by itself behind minute ${minutes}, with status ${status}`);
  }
  const { jit } = (JSON.parse(readFileSync(stats, 'utf8')) as { host: CodeStatistics }).host;
  console.log(JSON.stringify(jit));
  const settled = byMinute[SETTLED_MINUTE - 1] ?? Number.NaN;
  const last = byMinute.at(-1) ?? Number.NaN;
  const change = last / settled - 1;
  console.log(`minute ${minutes} against minute ${SETTLED_MINUTE}: ${(change * 100).toFixed(1)} %`);
  // What is no number is no success.
  if (!(Math.abs(change) <= TOLERANCE)) process.exitCode = 1;
});
