import { afterEach, describe, expect, it } from 'vitest';
import { kernel } from '../../guests/recipes.ts';
import { hasPackageArchive } from '../debian-kernel.ts';
import { GuestConsole, seconds } from './console.ts';

const TIME_LIMIT = 240_000;

let guest: GuestConsole | undefined;
afterEach(() => guest?.kill());

describe.skipIf(!hasPackageArchive)("Debian's general kernel", () => {
  it(
    'reaches the shell, works there, and powers off',
    async () => {
      guest = await GuestConsole.boot('--kernel', await kernel('amd64'));
      expect(await guest.command('uname -r')).toMatch(/^6\.\S+-amd64$/);
      expect(await guest.command('seq 1 100 | sha256sum')).toBe(
        '93d4e5c77838e0aa5cb6647c385c810a7c2782bf769029e6c420052048ab22bb  -',
      );
      expect(await guest.command("awk 'BEGIN { print 1 / 3, 2 / 3 }'")).toBe('0.333333 0.666667');
      guest.send('sleep 1000');
      await seconds(1);
      guest.type('\x03');
      expect(await guest.command('')).not.toBeUndefined();
      guest.send('poweroff -f');
      expect(await guest.ended).toEqual({ status: 0, stderr: '' });
      expect(guest.complaints).toEqual([]);
    },
    TIME_LIMIT,
  );
});

describe.skipIf(!hasPackageArchive)('a guest that fails', () => {
  const registers = /^rax [0-9a-f]{16} {2}rcx [0-9a-f]{16} /m;

  it(
    'ends with 2 at a kernel panic, with reason, registers and a symbolised stack',
    async () => {
      guest = await GuestConsole.boot();
      guest.send('echo c >/proc/sysrq-trigger');
      const { status, stderr } = await guest.ended;
      expect(status).toBe(2);
      expect(guest.text).toContain('Kernel panic - not syncing: sysrq triggered crash');
      expect(stderr).toMatch(/^ring1: the guest crashed: .*panic/);
      expect(stderr).toMatch(/^RIP: ffffffff[0-9a-f]{8} xen_hypercall/m);
      expect(stderr).toMatch(registers);
      for (const name of ['panic', 'sysrq_handle_crash', 'write_sysrq_trigger', 'vfs_write', 'do_syscall_64']) {
        expect(stderr).toMatch(new RegExp(` ffffffff[0-9a-f]{8} ${name}\\+0x`));
      }
    },
    TIME_LIMIT,
  );

  it(
    'ends with 2 when its init ends',
    async () => {
      guest = await GuestConsole.start('--append', 'rdinit=/bin/busybox quiet');
      const { status, stderr } = await guest.ended;
      expect(status).toBe(2);
      expect(guest.text).toContain('Attempted to kill init! exitcode=0x00000000');
      expect(stderr).toMatch(registers);
    },
    TIME_LIMIT,
  );

  it(
    'ends with 3 at the timeout',
    async () => {
      guest = await GuestConsole.start('--timeout', '2', '--append', 'quiet');
      const { status, stderr } = await guest.ended;
      expect(status).toBe(3);
      expect(stderr).toBe('ring1: stopped after 2 seconds (--timeout)\n');
    },
    TIME_LIMIT,
  );
});
