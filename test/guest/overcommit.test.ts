import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { initramfs, kernelModules } from '../../guests/recipes.ts';
import { createHost, type VirtualMachine } from '../../src/index.ts';
import { createSwapFile } from '../../src/node/swap-file.ts';
import { debianKernel, hasPackageArchive } from '../debian-kernel.ts';
import { MemoryStore } from '../mm-world.ts';
import { GuestConsole } from './console.ts';
import { outputOf } from './output.ts';

const MIB = 1 << 20;
const TIME_LIMIT = 900_000;

/**
 * What makes a small guest's kernel leave 200 MB of 256M to a program, and 10 MB besides. The files of tracefs alone
 * take 9 MB, which cannot be reclaimed.
 */
const LEAN =
  'quiet nr_cpus=1 cgroup_disable=memory,cpuset,io,pids audit=0 lsm= log_buf_len=16K ' +
  'dhash_entries=1024 ihash_entries=1024 thash_entries=64 uhash_entries=256 initcall_blacklist=tracer_init_tracefs';
const LEAVE_LITTLE = 'echo 256 >/proc/sys/vm/min_free_kbytes';

/** Hundredths of a second that the guest could have run and did not. */
const SHOW_STOLEN = 'read cpu user nice system idle iowait irq softirq steal rest </proc/stat; echo stolen $steal';

/** Bytes that a guest copies on its disk, from the first half to the second. */
const COPIED = MIB;

/**
 * Traffic on the disk while memory-fill runs: the first half is read, into other pages each time, compared with what the
 * host has written there, and copied to the second half.
 */
function diskTraffic(disk: string, sum: string): string {
  const copy = `dd if=/dev/${disk} of=/dev/${disk} bs=64k count=16 seek=16 conv=notrunc,fsync 2>/dev/null`;
  const check = `dd if=/dev/${disk} bs=64k count=16 2>/dev/null | sha256sum | grep -q ${sum}`;
  const round = `${copy}; ${check} || echo disk wrong; echo 3 >/proc/sys/vm/drop_caches`;
  return `for round in 1 2 3 4 5; do sleep 3; ${round}; done; echo disk copied; wait`;
}

let directory = '';
let initrd: Uint8Array = new Uint8Array(0);

beforeAll(async () => {
  if (!hasPackageArchive) return;
  directory = mkdtempSync(join(tmpdir(), 'ring1-overcommit-'));
  const program = join(directory, 'memory-fill');
  execFileSync('gcc', [
    '-static',
    '-s',
    '-O1',
    '-o',
    program,
    fileURLToPath(new URL('memory-fill.c', import.meta.url)),
  ]);
  const extra = [{ type: 'file', path: 'bin/memory-fill', data: readFileSync(program), mode: 0o755 }] as const;
  initrd = await initramfs({ extra, modules: await kernelModules('cloud-amd64') });
  writeFileSync(join(directory, 'initrd'), initrd);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe.skipIf(!hasPackageArchive)('guests with more memory than their host', () => {
  it.each([
    ['xen', 'xvda'],
    ['kvm', 'vda'],
  ])(
    'keep what they have written, in memory and on disks: four of 256M, each with 200 MB in use, on 400M, as guests of %s',
    async (name, disk) => {
      const stats = join(directory, 'stats.json');
      const swap = join(directory, 'swap');
      const names = ['one', 'two', 'three', 'four'];
      const files = names.map((guest, index) => {
        const path = join(directory, `${guest}.cfg`);
        const image = join(directory, `${guest}.img`);
        const data = new Uint8Array(2 * COPIED);
        for (let place = 0; place < COPIED; place += 65_536)
          crypto.getRandomValues(data.subarray(place, place + 65_536));
        writeFileSync(image, data);
        const sum = createHash('sha256').update(data.subarray(0, COPIED)).digest('hex');
        const traffic = diskTraffic(disk, sum);
        const command = `${LEAVE_LITTLE}; memory-fill 200 ${index * 1000} 1 & ${traffic}; ${SHOW_STOLEN}`;
        const extra = `${LEAN} ring1.run="${command}"`;
        writeFileSync(path, `name = "${guest}"\nmemory = 256\ndisk = ["${image}"]\nextra = '${extra}'\n`);
        return path;
      });
      const run = await GuestConsole.start(
        ...['--interface', name, '--host-memory', '400M', '--swap', swap],
        ...['--initrd', join(directory, 'initrd'), '--stats', stats, ...files],
      );
      expect(await run.ended).toEqual({ status: 0, stderr: '' });
      for (const guest of names) {
        expect(run.text).toContain(`${guest}: filled 48828 pages, 0 words wrong`);
        expect(run.text).toContain(`${guest}: disk copied`);
        expect(run.text).not.toContain(`${guest}: disk wrong`);
        const image = readFileSync(join(directory, `${guest}.img`));
        expect(image.compare(image, COPIED, 2 * COPIED, 0, COPIED)).toBe(0);
        // It knows that the rest of the time was not its own: the others' turns, and the waits for its pages.
        expect(Number(new RegExp(`^${guest}: stolen (\\d+)`, 'm').exec(run.text)?.[1])).toBeGreaterThan(100);
      }
      expect(run.text).not.toContain('soft lockup');
      const { host, guests } = JSON.parse(readFileSync(stats, 'utf8'));
      // 800 MB of data in 400M: at least half of them had to go, and most of that came back to be checked.
      expect(host.swap.swappedOut).toBeGreaterThan(90_000);
      expect(host.swap.swappedIn).toBeGreaterThan(90_000);
      // Each disk reached its guest's memory through entries that the host took away meanwhile.
      for (const { domain } of guests) expect(domain.dma.taken).toBeGreaterThan(0);
      expect(guests.map(({ outcome }: { outcome: string }) => outcome)).toEqual(Array(4).fill('poweroff'));
      expect(existsSync(swap)).toBe(false);
    },
    TIME_LIMIT,
  );

  it(
    'have their contracts kept while pages come and go',
    async () => {
      const command = `${LEAVE_LITTLE}; memory-fill 60 7 2`;
      const run = await GuestConsole.start(
        ...['--memory', '128M', '--host-memory', '80M', '--initrd', join(directory, 'initrd'), '--check'],
        ...['--append', `${LEAN} ring1.run="${command}"`],
      );
      expect(await run.ended).toEqual({ status: 0, stderr: '' });
      expect(run.text).toContain('filled 14648 pages, 0 words wrong');
    },
    TIME_LIMIT,
  );

  it(
    'cannot tell: with virtual time, runs are equal however much memory the host has',
    async () => {
      const commands = 'dd if=/dev/zero of=/tmp/zeros bs=1M count=40; sha256sum /tmp/zeros; cat /proc/interrupts';
      const runs: { console: string; instructions: number; swappedOut: number }[] = [];
      for (const size of ['128M', '60M']) {
        const stats = join(directory, `stats-${size}.json`);
        const run = await GuestConsole.start(
          ...['--deterministic', '--memory', '128M', '--host-memory', size, '--vcpus', '2', '--stats', stats],
          ...['--append', `ring1.run="${commands}"`],
        );
        expect(await run.ended).toEqual({ status: 0, stderr: '' });
        const { host, domain } = JSON.parse(readFileSync(stats, 'utf8'));
        runs.push({ console: run.text, instructions: domain.instructions, swappedOut: host.swap.swappedOut });
      }
      const [ample, tight] = runs;
      expect(tight?.console).toBe(ample?.console);
      expect(tight?.instructions).toBe(ample?.instructions);
      expect(ample?.swappedOut).toBe(0);
      expect(tight?.swappedOut).toBeGreaterThan(1000);
    },
    TIME_LIMIT,
  );

  it(
    'end one at a time, with the reason, when the swap is full; others go on with what that leaves',
    async () => {
      const store = new MemoryStore(1 << 16);
      // Enough for the quiet one and one that is greedy.
      const host = await createHost({ memory: 170 * MIB, swap: store });
      const kernel = await debianKernel('cloud-amd64');
      const boot = (commands: string) =>
        host.boot({ kernel, initrd, memory: 128 * MIB, vcpus: 1, commandLine: `${LEAN} console=hvc0 ${commands}` });
      const quiet = await boot('');
      const quietText = collect(quiet);
      await quietText.waitFor('# ');
      const greedy = await Promise.all(
        [1, 2].map((seed) => boot(`ring1.run="${LEAVE_LITTLE}; memory-fill 60 ${seed} 6"`)),
      );
      const texts = greedy.map(collect);
      await Promise.all(texts.map((text) => text.waitFor('READY')));
      store.write = async () => {
        throw new Error('no space left on device');
      };
      const outcomes = await Promise.all(greedy.map((machine) => machine.done));
      expect(outcomes).toHaveLength(2);
      expect(outcomes).toContainEqual({ kind: 'poweroff' });
      expect(outcomes).toContainEqual(
        expect.objectContaining({
          kind: 'crash',
          reason: expect.stringContaining('swap cannot be written: no space left on device'),
        }),
      );
      quiet.console.write(new TextEncoder().encode('echo still $((40 + 2))\n'));
      await quietText.waitFor('still 42');
      await host.close();
    },
    TIME_LIMIT,
  );

  it(
    'end with the reason when the swap file has lost their pages; others find it as good as before',
    async () => {
      const path = join(directory, 'lost');
      const host = await createHost({ memory: 50 * MIB, swap: await createSwapFile(path, 256 * MIB) });
      const kernel = await debianKernel('cloud-amd64');
      const boot = (commands: string) => {
        const commandLine = `${LEAN} console=hvc0 ring1.run="${LEAVE_LITTLE}; ${commands}"`;
        return host.boot({ kernel, initrd, memory: 128 * MIB, vcpus: 1, commandLine });
      };
      const used = () => (host.statistics() as { swap: { used: number } }).swap.used;
      const greedy = await boot('memory-fill 60 1 1000');
      void collect(greedy);
      while (used() < 2000) await new Promise((resume) => setTimeout(resume, 20));
      await truncate(path, 0);
      expect(await greedy.done).toMatchObject({
        kind: 'crash',
        reason: expect.stringMatching(
          /cannot read a page back from swap: .*(lost ends before page|page \d+ of .*lost is not what was written)/,
        ),
      });
      const other = await boot('memory-fill 60 2 1');
      const text = outputOf(other);
      expect(await other.done).toEqual({ kind: 'poweroff' });
      expect(await text).toContain('filled 14648 pages, 0 words wrong');
      // A guest's memory is given back behind its end.
      await expect.poll(used).toBe(0);
      await host.close();
    },
    TIME_LIMIT,
  );
});

/** What a guest prints. */
function collect(machine: VirtualMachine) {
  let text = '';
  let changed = () => {};
  const decoder = new TextDecoder();
  void (async () => {
    const reader = machine.console.output.getReader();
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      text += decoder.decode(read.value, { stream: true });
      changed();
    }
  })();
  return {
    async waitFor(what: string): Promise<void> {
      while (!text.includes(what)) {
        await new Promise<void>((resolve) => {
          changed = resolve;
        });
      }
    },
  };
}
