import { afterAll, expect, it } from 'vitest';
import { hasPackageArchive } from '../debian-kernel.ts';
import { GuestConsole, PROMPT, seconds } from './console.ts';

let guest: GuestConsole | undefined;
afterAll(() => guest?.kill());

it.skipIf(!hasPackageArchive)(
  'a guest that is told so has its shell on a virtio console',
  async () => {
    guest = await GuestConsole.boot('--interface', 'kvm', '--append', 'console=hvc0');
    expect(await guest.command('tty')).toBe('/dev/hvc0');
    expect(await guest.command('cat /sys/class/tty/console/active')).toBe('hvc0');
    expect(await guest.command('seq 1 20000 | tail -n 1')).toBe('20000');
    guest.send('sleep 1000');
    await seconds(1);
    guest.type('\x03');
    await guest.waitFor(/\^C/);
    await guest.waitFor(PROMPT);
    expect(await guest.command('echo $?')).toBe('130');
    guest.send('poweroff -f');
    expect(await guest.ended).toEqual({ status: 0, stderr: '' });
    expect(guest.complaints).toEqual([]);
  },
  240_000,
);
