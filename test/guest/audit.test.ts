import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Audit } from '../../src/inspect/audit.ts';
import { hasPackageArchive } from '../debian-kernel.ts';
import { command } from './console.ts';

const directory = mkdtempSync(join(tmpdir(), 'ring1-audit-'));
afterAll(() => rmSync(directory, { recursive: true }));

/** Stores that the host carried out are `emulated`, those that it did not see are `plain`. */
type Access = 'reads' | 'operations' | 'emulated' | 'plain';

/** Functions of Debian's kernel by what they do to live page tables; where there are none, it does none of it there. */
const FUNCTIONS: Readonly<Record<string, Readonly<Record<Access, readonly string[]>>>> = {
  xen: {
    reads: ['lookup_address_in_pgd_attr', 'walk_pgd_range', 'copy_page_range', 'unmap_page_range'],
    operations: ['__xen_set_pte', 'xen_mc_flush'],
    emulated: ['ptep_clear_flush', 'copy_page_range', 'move_page_tables'],
    plain: [],
  },
  kvm: {
    reads: ['lookup_address_in_pgd_attr', 'walk_pgd_range', 'copy_page_range', 'unmap_page_range'],
    operations: [],
    emulated: [],
    plain: ['native_set_pte', 'unmap_page_range', 'ptep_clear_flush'],
  },
};

/** A program is started, whose space is copied and goes away again. */
const WORK = 'quiet ring1.run="cat /proc/self/maps"';

describe.skipIf(!hasPackageArchive).each(Object.entries(FUNCTIONS))("an audit of Debian's kernel on %s", (name, by) => {
  let result: ReturnType<typeof audit>;
  beforeAll(async () => {
    result = audit(await command(), name);
  }, 300_000);

  test.each(Object.entries(by) as [Access, readonly string[]][])(
    'names the functions that have %s',
    (access, functions) => {
      const places = result.audit.places.filter((place) => place[access] > 0);
      const found = places.map((place) => place.name.split('+')[0]);
      if (functions.length === 0) expect(found).toEqual([]);
      else expect(found).toEqual(expect.arrayContaining([...functions]));
    },
  );

  test('lets it work as ever', () => {
    expect(result.status).toBe(0);
    expect(result.audit.places.filter(({ refused }) => refused > 0)).toEqual([]);
  });

  test('says each place with its function and offset', () => {
    expect(result.stderr).toMatch(/^\d+ places: \d+ reads; writes: /m);
    expect(result.stderr).toMatch(/ lookup_address_in_pgd_attr\+0x[0-9a-f]+ \(0x[0-9a-f]+\)$/m);
  });
});

function audit(ring1: string, name: string): { status: number | null; stderr: string; audit: Audit } {
  const stats = join(directory, `${name}.json`);
  const args = ['audit', '--interface', name, '--append', WORK, '--stats', stats];
  const { status, stderr } = spawnSync(ring1, args, { encoding: 'utf8', timeout: 280_000 });
  return { status, stderr, ...(JSON.parse(readFileSync(stats, 'utf8')) as { readonly audit: Audit }) };
}
