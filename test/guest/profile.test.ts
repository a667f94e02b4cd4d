import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import type { Profile } from '../../src/inspect/profile.ts';
import { hasPackageArchive } from '../debian-kernel.ts';
import { command } from './console.ts';

const directory = mkdtempSync(join(tmpdir(), 'ring1-profile-'));
afterAll(() => rmSync(directory, { recursive: true }));

/** A loop of the shell: most of what comes after the boot is in the program. */
const LOOP = 'ring1.run="i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"';

test.skipIf(!hasPackageArchive).each([
  ['xen', /^hypercall mmu_update$/],
  ['kvm', /^instruction wrmsr$/],
])(
  'a profile of a guest of %s names its kernel, its programs and what it asks for',
  async (name, work) => {
    const stats = join(directory, `${name}.json`);
    const args = ['profile', '--interface', name, '--append', `quiet ${LOOP}`, '--stats', stats];
    const { status, stderr } = spawnSync(await command(), args, { encoding: 'utf8' });
    expect(status).toBe(0);
    expect(stderr).toMatch(/^kernel .* user .* host /m);
    const { profile, domain, seconds } = JSON.parse(readFileSync(stats, 'utf8')) as {
      profile: Profile;
      domain: { instructions: number };
      seconds: number;
    };
    const functions = profile.places.filter(({ mode }) => mode === 'kernel').map((place) => place.name);
    expect(functions).toContain('unmap_page_range');
    const [program] = profile.places.filter(({ mode }) => mode === 'user');
    // busybox is linked to 4 MiB.
    expect(program?.name).toMatch(/^0x[45][0-9a-f]{5}$/);
    expect(profile.hostWork).toContainEqual(expect.objectContaining({ name: expect.stringMatching(work) }));
    expect(profile.instructions).toBeGreaterThan(domain.instructions * 0.95);
    expect(profile.instructions).toBeLessThanOrEqual(domain.instructions);
    expect(profile.guestSeconds + profile.hostSeconds).toBeLessThan(seconds);
  },
  400_000,
);
