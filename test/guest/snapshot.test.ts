import { describe, expect, it } from 'vitest';
import { hasPackageArchive } from '../debian-kernel.ts';
import { DISKS, SavedGuest } from '../saved-guest.ts';

/** Processes, pipes, compression and a disk: something is going on at any time. */
const load = (disk: string): string =>
  'i=0; while [ $i -lt 8 ]; do echo round $i; echo $i | gzip -c | sha256sum; ' +
  `dd if=/dev/urandom of=${disk} bs=4k seek=$i count=20 conv=fsync 2>/dev/null & i=$((i+1)); done; wait; sleep 1000`;

describe.skipIf(!hasPackageArchive)('a guest that is saved under load', () => {
  it.each([
    ['xen', 1],
    ['kvm', 2],
  ] as const)(
    'goes on as if nothing had been: %s, %i processors',
    async (name, vcpus) => {
      const original = await SavedGuest.boot(name, load(DISKS[name]), vcpus);
      await original.runUntil((console) => console.includes('round 3'));
      const saved = await original.save();
      const before = original.exits;
      const end = (console: string): boolean => console.includes('round 7');
      await original.runUntil(end);
      const expected = await original.trail();

      const resumed = await SavedGuest.resume(saved, 20);
      await resumed.runUntil(end);
      const found = await resumed.trail();

      expect(found.instructions).toBe(expected.instructions);
      expect(found.console).toContain('round 6');
      expect(expected.console.endsWith(found.console)).toBe(true);
      expect(resumed.exits).toEqual(original.exits.map((count, exit) => count - (before[exit] ?? 0)));
      expect(found.registers).toBe(expected.registers);
      expect(found.memory).toBe(expected.memory);
    },
    300_000,
  );
});
