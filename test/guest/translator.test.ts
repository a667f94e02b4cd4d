import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import type { CodeStatistics } from '../../src/inspect/code-statistics.ts';
import { hasPackageArchive } from '../debian-kernel.ts';
import { command } from './console.ts';

const directory = mkdtempSync(join(tmpdir(), 'ring1-translator-'));
afterAll(() => rmSync(directory, { recursive: true }));

/** Figures of the JIT after a boot. */
async function jitAfterBoot(...options: string[]): Promise<CodeStatistics['jit']> {
  const stats = join(directory, 'stats.json');
  const args = ['run', '--interface', 'kvm', '--append', 'quiet ring1.run=true', '--stats', stats, ...options];
  const { status } = spawnSync(await command(), args, { encoding: 'utf8' });
  expect(status).toBe(0);
  return (JSON.parse(readFileSync(stats, 'utf8')) as { host: CodeStatistics }).host.jit;
}

test.skipIf(!hasPackageArchive)(
  'the command translates on another thread',
  async () => {
    const jit = await jitAfterBoot();
    expect(jit?.regionsTranslatedAside).toBeGreaterThan(100);
    expect(jit?.regionsTranslatedAside).toBe(jit?.regionsCompiled);
  },
  200_000,
);
