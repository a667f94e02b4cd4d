/**
 * Whether memory stays what it is when code comes and goes for long: a guest that keeps copying programs and starting the
 * copies, and keeps switching a static branch, for which its kernel patches its own code. Prints the resident memory of
 * the process and figures of the JIT once a minute, and at the end how the last minute compares with the fifth.
 *
 *     npx tsx bench/soak.ts [--minutes 30] [--threshold N] [--interface xen]
 *     /path/to/another/node --import tsx bench/soak.ts …
 *
 * Ends with status 1 when memory differs by more than 5 %.
 */
import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { initramfs, kernel } from '../guests/recipes.ts';
import type { InterfaceName } from '../src/api.ts';
import { createHost } from '../src/index.ts';
import type { CodeStatistics } from '../src/inspect/code-statistics.ts';
import { moduleLimits } from '../src/node/engine.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    threshold: { type: 'string' },
    interface: { type: 'string', default: 'xen' },
  },
});

const MEMORY = 256 << 20;
const SAMPLE_SECONDS = 5;
const SAMPLES_PER_MINUTE = 60 / SAMPLE_SECONDS;
/** The minute whose memory is the measure: everything that is kept has been met by then. */
const SETTLED_MINUTE = 5;
const TOLERANCE = 0.05;

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

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

function median(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[numbers.length >> 1] ?? 0;
}

const minutes = Number(values.minutes);
const threshold = values.threshold === undefined ? {} : { threshold: Number(values.threshold) };
const host = await createHost({ memory: MEMORY, jit: { ...moduleLimits(), ...threshold } });
const script = new TextEncoder().encode(SCRIPT);
const machine = await host.boot({
  kernel: await readFile(await kernel('cloud-amd64')),
  initrd: await initramfs({ extra: [{ type: 'file', path: 'root/soak.sh', data: script, mode: 0o755 }] }),
  commandLine: `console=${values.interface === 'xen' ? 'hvc0' : 'ttyS0'} quiet ring1.run="sh /root/soak.sh"`,
  memory: MEMORY,
  vcpus: 1,
  interface: values.interface as InterfaceName,
});

let rounds = 0;
const decoder = new TextDecoder();
const reading = (async () => {
  for await (const bytes of machine.console.output) {
    const last = decoder.decode(bytes).match(/round (\d+)(?![\s\S]*round)/);
    if (last) rounds = Number(last[1]);
  }
})();

const wait = (seconds: number) => new Promise((done) => setTimeout(done, seconds * 1000));
const byMinute: number[] = [];
console.log(`Node ${process.version}, ${values.interface}`);
for (let minute = 1; minute <= minutes; minute++) {
  const samples: number[] = [];
  for (let sample = 0; sample < SAMPLES_PER_MINUTE; sample++) {
    await wait(SAMPLE_SECONDS);
    samples.push(process.memoryUsage().rss);
  }
  const resident = median(samples);
  byMinute.push(resident);
  const { heapUsed } = process.memoryUsage();
  const { jit } = host.statistics() as CodeStatistics;
  const code = jit
    ? `${jit.regions} regions in ${jit.modules} modules of ${mebibytes(jit.moduleBytes)}, ${jit.regionsCompiled} compiled, ${jit.regionsDropped} dropped, ${jit.regionsEvicted} evicted`
    : 'no regions';
  console.log(
    `minute ${minute}: resident ${mebibytes(resident)}, heap ${mebibytes(heapUsed)}, ${rounds} rounds, ${code}`,
  );
}
machine.stop();
const outcome = await machine.done;
await reading;
host.close();
if (outcome.kind !== 'stopped') {
  console.log(`the guest ended by itself: ${JSON.stringify(outcome)}`);
  process.exitCode = 1;
}
const settled = byMinute[SETTLED_MINUTE - 1];
const last = byMinute.at(-1);
if (settled !== undefined && last !== undefined && minutes > SETTLED_MINUTE) {
  const change = last / settled - 1;
  console.log(`minute ${minutes} against minute ${SETTLED_MINUTE}: ${(change * 100).toFixed(1)} %`);
  if (Math.abs(change) > TOLERANCE) process.exitCode = 1;
}
