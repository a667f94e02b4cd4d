import { afterEach, describe, expect, it } from 'vitest';
import { kernel } from '../../guests/recipes.ts';
import { hasPackageArchive } from '../debian-kernel.ts';
import { GuestConsole } from './console.ts';

const TIME_LIMIT = 240_000;

/** Looking for ISA cards, there are none, these kernels wait for seconds without letting the processor rest. */
const QUICK = ['--append', 'noisapnp'];

let guest: GuestConsole | undefined;
afterEach(() => guest?.kill());

/** Three levels of page tables and two. */
describe.skipIf(!hasPackageArchive).each([
  ['686-pae', 'kvm', /Booting paravirtualized kernel on KVM/],
  ['686', 'native', /Booting paravirtualized kernel on bare hardware/],
] as const)("Debian's %s kernel on %s", (flavour, name, booting) => {
  it(
    'reaches the shell with two processors, works there, and powers off',
    async () => {
      guest = await GuestConsole.boot('--kernel', await kernel(flavour), '--interface', name, '--vcpus', '2', ...QUICK);
      expect(guest.text).toMatch(booting);
      expect(await guest.command('uname -rm')).toMatch(new RegExp(`-${flavour} i686$`));
      expect(await guest.command('nproc')).toBe('2');
      expect(await guest.command('seq 1 100 | sha256sum')).toBe(
        '93d4e5c77838e0aa5cb6647c385c810a7c2782bf769029e6c420052048ab22bb  -',
      );
      expect(await guest.command("awk 'BEGIN { print 1 / 3, 2 / 3 }'")).toBe('0.333333 0.666667');
      guest.send('poweroff -f');
      expect(await guest.ended).toEqual({ status: 0, stderr: '' });
      expect(guest.complaints).toEqual([]);
    },
    TIME_LIMIT,
  );
});

describe.skipIf(!hasPackageArchive)('a 32-bit guest that fails', () => {
  it(
    'ends with 2 at a kernel panic, with registers and a symbolised stack',
    async () => {
      guest = await GuestConsole.boot('--kernel', await kernel('686-pae'), '--interface', 'native', ...QUICK);
      guest.send('echo c >/proc/sysrq-trigger');
      const { status, stderr } = await guest.ended;
      expect(status).toBe(2);
      expect(stderr).toMatch(/^eax [0-9a-f]{8} {2}ecx [0-9a-f]{8} /m);
      for (const symbol of ['panic', 'sysrq_handle_crash', 'vfs_write']) {
        expect(stderr).toMatch(new RegExp(` c[0-9a-f]{7} ${symbol}\\+0x`));
      }
    },
    TIME_LIMIT,
  );
});
