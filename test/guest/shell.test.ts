import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hasPackageArchive } from '../debian-kernel.ts';
import { GuestConsole, PROMPT, seconds } from './console.ts';

/** Debian's kernel for virtual machines, to a shell and back. The tests follow one another on one console. */
describe.skipIf(!hasPackageArchive)("Debian's cloud kernel", () => {
  let guest: GuestConsole;

  beforeAll(async () => {
    guest = await GuestConsole.boot();
  }, 240_000);

  afterAll(() => guest?.kill());

  it('uses at most 200 MB beyond the memory of the guest', () => {
    expect(guest.peakMemory).toBeLessThan((256 + 200) * 1024 * 1024);
  });

  it('uses under 2 % of a processor when it has nothing to do', async () => {
    expect(await guest.comesToRest(0.02)).toBe(true);
  });

  it('says what it is', async () => {
    expect(await guest.command('uname -a')).toMatch(/^Linux ring1 6\.\S+-cloud-amd64 #1 SMP .* x86_64 GNU\/Linux$/);
    expect(await guest.command('ls /')).toMatch(/\bbin\b.*\bproc\b.*\btmp\b/s);
  });

  it('shows the processor that it is given', async () => {
    const cpuinfo = await guest.command('cat /proc/cpuinfo');
    expect(cpuinfo).toMatch(/^vendor_id\s*: GenuineIntel$/m);
    expect(cpuinfo).toMatch(/^model name\s*: ring1 virtual processor$/m);
    // Nothing to mitigate.
    expect(cpuinfo).toMatch(/^bugs\s*:\s*$/m);
    const flags = /^flags\s*: (.*)$/m.exec(cpuinfo)?.[1]?.split(' ');
    expect(flags).toEqual(expect.arrayContaining(['cx16', 'lahf_lm', 'popcnt', 'sse4_1', 'sse4_2', 'ssse3', 'pni']));
  });

  it('runs pipelines', async () => {
    expect(await guest.command('seq 1 100 | grep 7 | sort -rn | head -n 3 | tr "\\n" ,')).toBe('97,87,79,');
    expect(await guest.command('false | true; echo $?')).toBe('0');
  });

  it('computes with floating point', async () => {
    const program =
      'BEGIN { x = 1; for (i = 1; i < 20; i++) x += 1 / (i * i); printf "%.12f %.3e %d", x, 2 / 3e10, -7 / 2 }';
    let sum = 1;
    for (let i = 1; i < 20; i++) sum += 1 / (i * i);
    expect(await guest.command(`awk '${program}'`)).toBe(`${sum.toFixed(12)} 6.667e-11 -3`);
  });

  it('hashes and compresses', async () => {
    // The second example of FIPS 180-2.
    const input = 'abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq';
    const hash = '248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1';
    expect(await guest.command(`printf ${input} | sha256sum`)).toBe(`${hash}  -`);
    const roundTrip =
      'cp /bin/busybox /tmp/b; gzip /tmp/b; ls /tmp; gunzip /tmp/b.gz; cmp /tmp/b /bin/busybox; echo $?';
    expect(await guest.command(roundTrip)).toBe('b.gz\n0');
  });

  it('edits a file with vi', async () => {
    guest.send('vi /tmp/note');
    await guest.waitFor(/note/);
    await guest.waitFor(/~/);
    for (const keys of ['i', 'first lime\nsecond line', '\x1b', 'k0ft', 'x', '$h', 'rn', ':wq\n']) {
      guest.type(keys);
      // Escape alone and the beginning of a key's sequence differ in time.
      await seconds(0.4);
    }
    await guest.waitFor(PROMPT);
    expect(await guest.command('cat /tmp/note')).toBe('firs line\nsecond line');
  });

  it('interrupts with Ctrl-C', async () => {
    for (const line of ['sleep 1000', 'cat', 'while :; do :; done']) {
      guest.send(line);
      await seconds(1);
      guest.type('\x03');
      await guest.waitFor(/\^C/);
      await guest.waitFor(PROMPT);
      expect(await guest.command('echo $?'), line).toBe('130');
    }
  });

  it('stops and continues jobs', async () => {
    guest.send('sleep 1000');
    await seconds(1);
    guest.type('\x1a');
    await guest.waitFor(/\[1\]\+\s+Stopped\s+sleep 1000/);
    await guest.waitFor(PROMPT);
    expect(await guest.command('bg')).toContain('sleep 1000');
    expect(await guest.command('jobs')).toMatch(/\[1\]\+\s+Running\s+sleep 1000/);
    expect(await guest.command('kill %1; wait; jobs')).toMatch(/Terminated|^$/);
  });

  it('keeps time', async () => {
    const elapsed = await guest.command(
      'a=$(cut -d. -f1 /proc/uptime); sleep 3; b=$(cut -d. -f1 /proc/uptime); echo $((b-a))',
    );
    expect(Number(elapsed)).toBeGreaterThanOrEqual(3);
    expect(Number(elapsed)).toBeLessThanOrEqual(8);
    const difference = Number(await guest.command('date +%s')) - Date.now() / 1000;
    expect(Math.abs(difference)).toBeLessThan(30);
  });

  it('forks many processes and gives their memory back', async () => {
    const loop = 'i=0; while [ $i -lt 100 ]; do (echo $i; /bin/true) >/dev/null & i=$((i+1)); done; wait; echo $i';
    const before = Number(await guest.command('awk "/MemFree/ { print \\$2 }" /proc/meminfo'));
    expect(await guest.command(`sh -c '${loop}'`, 120)).toBe('100');
    const after = Number(await guest.command('awk "/MemFree/ { print \\$2 }" /proc/meminfo'));
    expect(before - after).toBeLessThan(8192);
  });

  it('boots again at a reboot, and ends with 0 at a power off', async () => {
    guest.send('reboot -f');
    await guest.waitForShell();
    guest.send('poweroff -f');
    expect(await guest.ended).toEqual({ status: 0, stderr: '' });
    expect(guest.text.match(/^READY$/gm)).toHaveLength(2);
  }, 240_000);

  it('has nothing to complain about', () => {
    expect(guest.complaints).toEqual([]);
  });
});
