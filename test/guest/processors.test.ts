import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { initramfs } from '../../guests/recipes.ts';
import { hasPackageArchive } from '../debian-kernel.ts';
import { GuestConsole } from './console.ts';

const TIME_LIMIT = 240_000;

let directory = '';
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** @returns the path of an initramfs that has shootdown.c as a program. */
async function initramfsWithProgram(): Promise<string> {
  directory = mkdtempSync(join(tmpdir(), 'ring1-processors-'));
  const program = join(directory, 'shootdown');
  const source = fileURLToPath(new URL('shootdown.c', import.meta.url));
  execFileSync('gcc', ['-static', '-O1', '-pthread', '-o', program, source]);
  const path = join(directory, 'initrd');
  const extra = [{ type: 'file', path: 'bin/shootdown', data: readFileSync(program), mode: 0o755 }] as const;
  writeFileSync(path, await initramfs({ extra }));
  return path;
}

/** How /proc/interrupts names the interrupts of timers. */
const XEN_TIMER = 'virq +timer';
const APIC_TIMER = '^ *LOC:';

describe.skipIf(!hasPackageArchive).each([
  { count: 2, how: 'unobserved', options: [], timer: XEN_TIMER },
  { count: 4, how: 'with its contracts checked', options: ['--check'], timer: XEN_TIMER },
  { count: 2, how: 'on KVM', options: ['--interface', 'kvm'], timer: APIC_TIMER },
  {
    count: 2,
    how: 'on bare hardware with shadows of its tables and its contracts checked',
    options: ['--interface', 'native', '--paging', 'shadow', '--check'],
    timer: APIC_TIMER,
  },
])('a guest with $count processors, $how,', ({ count, options, timer }) => {
  let guest: GuestConsole;
  const each = Array.from({ length: count }, (_, index) => index);

  beforeAll(async () => {
    guest = await GuestConsole.boot('--vcpus', String(count), '--initrd', await initramfsWithProgram(), ...options);
  }, TIME_LIMIT);

  afterAll(() => guest?.kill());

  /** The counts of one row of /proc/interrupts, by processor. */
  const interrupts = async (name: string): Promise<number[]> => {
    const line = await guest.command(`grep -w ${name}: /proc/interrupts`);
    return line
      .split(/\s+/)
      .slice(1, 1 + count)
      .map(Number);
  };

  it('has all of them online', async () => {
    expect(await guest.command('cat /sys/devices/system/cpu/online')).toBe(`0-${count - 1}`);
    expect(await guest.command('grep -c "^processor" /proc/cpuinfo')).toBe(String(count));
  });

  it('runs work on the processor that it is pinned to', async () => {
    for (const index of each) {
      const mask = (1 << index).toString(16);
      // Field 39 of stat is the processor that a task last ran on.
      const program = 'i=0; while [ $i -lt 300 ]; do i=$((i+1)); done; cut -d" " -f39 /proc/self/stat';
      expect(await guest.command(`taskset ${mask} sh -c '${program}'`)).toBe(String(index));
    }
  });

  it('works on all of them at once', async () => {
    const job =
      'seq 1 200 | sha256sum; for i in 1 2 3 4 5 6 7 8 9 10; do (: ; /bin/true) | cat; done; seq 1 200 | sha256sum';
    const jobs = each.map((index) => `taskset ${(1 << index).toString(16)} sh -c '${job}' >/tmp/out${index} &`);
    await guest.command(`sh -c "${jobs.join(' ').replaceAll('"', '\\"')} wait"`, 120);
    const hashes = await guest.command('cat /tmp/out* | sort | uniq -c');
    expect(hashes).toMatch(new RegExp(`^${count * 2} [0-9a-f]{64}  -$`));
  });

  it('reaches all of them with timers, calls and wake-ups', async () => {
    const rows = (await guest.command(`grep -E "${timer}" /proc/interrupts`)).split('\n');
    // Xen has a row for each processor's timer; those of APICs have one together.
    const counts = each.map((index) => Number((rows[index] ?? rows[0] ?? '').trim().split(/\s+/)[1 + index]));
    for (const fired of counts) expect(fired).toBeGreaterThan(0);
    for (const called of await interrupts('CAL')) expect(called).toBeGreaterThan(0);
    for (const woken of await interrupts('RES')) expect(woken).toBeGreaterThan(0);
  });

  it('shows a changed mapping to a thread on another', async () => {
    expect(await guest.command('shootdown', 100)).toBe('0 wrong of 800');
  });

  it('takes one offline and brings it back', async () => {
    if (count !== 2) return;
    const cpu = '/sys/devices/system/cpu/cpu1/online';
    expect(await guest.command(`echo 0 >${cpu}; cat /sys/devices/system/cpu/online`)).toMatch(/^0$/m);
    expect(await guest.command(`echo 1 >${cpu}; cat /sys/devices/system/cpu/online`)).toMatch(/^0-1$/m);
  });

  it('powers off without complaints', async () => {
    guest.send('poweroff -f');
    expect(await guest.ended).toEqual({ status: 0, stderr: '' });
    expect(guest.complaints).toEqual([]);
  });
});
