import { describe, expect, it } from 'vitest';
import { hasPackageArchive } from '../debian-kernel.ts';
import { GuestConsole } from './console.ts';

const MEBIBYTE = 1024 * 1024;
/** What the host may need for itself. */
const BEYOND = 200;
/** KiB that the guest keeps for its programs. */
const LEFT = 10_000;

/** A guest that has touched all of its memory, and worked with it as full as that. */
describe.skipIf(!hasPackageArchive)('the host of a guest that has filled its memory', () => {
  it.each([96, 256])(
    'has at most 200 MB beyond the %i MB of the guest',
    async (megabytes) => {
      const guest = await GuestConsole.boot('--memory', `${megabytes}M`);
      try {
        await guest.command('mkdir /fill; mount -t tmpfs -o size=100% none /fill');
        const free = Number(await guest.command("awk '/MemFree/ { print $2 }' /proc/meminfo"));
        const filled = free - LEFT;
        await guest.command(`dd if=/dev/zero of=/fill/file bs=1k count=${filled}`, 120);
        expect(await guest.command('stat -c %s /fill/file')).toBe(String(filled * 1024));
        await guest.command('i=0; while [ $i -lt 40 ]; do ls / | sed s/a/b/ | wc > /dev/null; i=$((i+1)); done', 120);
        expect(guest.peakMemory).toBeGreaterThan((megabytes - LEFT / 1024) * MEBIBYTE);
        expect(guest.peakMemory).toBeLessThan((megabytes + BEYOND) * MEBIBYTE);
        expect(guest.complaints).toEqual([]);
      } finally {
        await guest.kill();
      }
    },
    400_000,
  );
});
