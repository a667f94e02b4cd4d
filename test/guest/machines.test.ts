import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { hasPackageArchive } from '../debian-kernel.ts';
import { GuestConsole, PROMPT, seconds } from './console.ts';

const TIME_LIMIT = 240_000;

/** Has the kernel jump to the BIOS at a reboot. */
const BY_BIOS = ['--append', 'reboot=bios'];

/** The kernel that boots as a Xen guest in the other tests, on machines that it finds by itself. */
describe.skipIf(!hasPackageArchive).each([
  ['kvm', 'nested', BY_BIOS, /Hypervisor detected: KVM/, /Booting paravirtualized kernel on KVM/],
  ['native', 'native', [], /DMI not present/, /Booting paravirtualized kernel on bare hardware/],
  ['native', 'nested', BY_BIOS, /DMI not present/, /Booting paravirtualized kernel on bare hardware/],
] as const)("Debian's cloud kernel on %s with %s paging", (name, paging, options, detected, booting) => {
  let guest: GuestConsole;

  beforeAll(async () => {
    guest = await GuestConsole.boot('--interface', name, '--paging', paging, ...options);
  }, TIME_LIMIT);

  afterAll(() => guest?.kill());

  it('says where it is', () => {
    expect(guest.text).toMatch(detected);
    expect(guest.text).toMatch(booting);
  });

  it('uses under 2 % of a processor when it has nothing to do', async () => {
    expect(await guest.comesToRest(0.02)).toBe(true);
  });

  it('computes', async () => {
    expect(await guest.command('seq 1 100 | sha256sum')).toBe(
      '93d4e5c77838e0aa5cb6647c385c810a7c2782bf769029e6c420052048ab22bb  -',
    );
    expect(await guest.command("awk 'BEGIN { print 1 / 3, 2 / 3 }'")).toBe('0.333333 0.666667');
  });

  it('needs no mitigation', async () => {
    expect(await guest.command('grep ^bugs /proc/cpuinfo')).toMatch(/^bugs\s*:\s*$/);
  });

  it('interrupts with Ctrl-C', async () => {
    for (const line of ['sleep 1000', 'while :; do :; done']) {
      guest.send(line);
      await seconds(1);
      guest.type('\x03');
      await guest.waitFor(/\^C/);
      await guest.waitFor(PROMPT);
      expect(await guest.command('echo $?'), line).toBe('130');
    }
  });

  it('takes what is typed faster than it reads', async () => {
    const digits = '0123456789'.repeat(40);
    expect(await guest.command(`echo ${digits} | wc -c`)).toBe(String(digits.length + 1));
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
    expect(await guest.command(`sh -c '${loop}'`, 120)).toBe('100');
  });

  it(
    `boots again at a reboot${options === BY_BIOS ? ' by the BIOS' : ''}`,
    async () => {
      guest.send('reboot -f');
      await guest.waitForShell();
      expect(guest.text.match(/^READY$/gm)).toHaveLength(2);
    },
    TIME_LIMIT,
  );

  it('ends with 0 at a power off', async () => {
    guest.send('poweroff -f');
    expect(await guest.ended).toEqual({ status: 0, stderr: '' });
    expect(guest.complaints).toEqual([]);
  });
});

describe.skipIf(!hasPackageArchive).each(['kvm', 'native'])('a guest on %s', (name) => {
  let guest: GuestConsole | undefined;
  afterEach(() => guest?.kill());

  it(
    'ends with 2 at a kernel panic, with reason, registers and a symbolised stack',
    async () => {
      guest = await GuestConsole.boot('--interface', name);
      guest.send('echo c >/proc/sysrq-trigger');
      const { status, stderr } = await guest.ended;
      expect(status).toBe(2);
      expect(guest.text).toContain('Kernel panic - not syncing: sysrq triggered crash');
      expect(stderr).toMatch(/^ring1: the guest crashed: .*panic/);
      for (const frame of ['panic', 'sysrq_handle_crash', 'write_sysrq_trigger', 'vfs_write', 'do_syscall_64']) {
        expect(stderr).toMatch(new RegExp(` ffffffff[0-9a-f]{8} ${frame}\\+0x`));
      }
    },
    TIME_LIMIT,
  );
});
