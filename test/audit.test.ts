import { beforeAll, describe, expect, it } from 'vitest';
import { auditText } from '../src/cli/audit-text.ts';
import type { Audit } from '../src/inspect/audit.ts';
import { hashes, numberOf, type Printed, runReference } from './reference-guest.ts';

/** Of the reference guest on Xen, whose accesses to page tables are known from its sources. */
describe.each(['x86-64', 'i386-pae'] as const)('an audit of the image for %s', (image) => {
  let printed: Printed;
  let audit: Audit;
  beforeAll(async () => {
    printed = await runReference({ interface: 'xen', audit: true, check: false }, 'nopatch', image);
    audit = printed.audit ?? { places: [] };
  });

  const sum = (of: (place: Audit['places'][number]) => number) =>
    audit.places.reduce((total, place) => total + of(place), 0);

  it('changes nothing that the guest sees', () => {
    expect(new Set(Object.values(hashes(printed))).size).toBe(1);
    expect(printed.outcome).toEqual({ kind: 'poweroff' });
  });

  it('finds the reads by recorded accessors, by the functions that have them', () => {
    const readers = audit.places.filter(({ accessor }) => accessor).map(({ name }) => name.split('+')[0]);
    for (const name of ['read_pgd', 'read_pmd', 'fork_space', 'handle_fault', 'hash_space']) {
      expect(readers).toContain(name);
    }
  });

  it('finds no other reads but those of instructions that also store', () => {
    const others = audit.places.filter(({ accessor, reads }) => !accessor && reads > 0);
    expect(others.length).toBeGreaterThan(0);
    for (const { name, reads, emulated } of others) expect([name, reads]).toEqual([name, emulated]);
  });

  it('tells stores that were carried out from operations', () => {
    // Twice: each round does the same, and only one is counted by the guest.
    const updates = numberOf(printed, 'operation mmu.pte_update') ?? 0;
    expect(sum(({ emulated }) => emulated)).toBeGreaterThan(updates);
    expect(sum(({ operations }) => operations)).toBeGreaterThan(numberOf(printed, 'updates') ?? Number.NaN);
    expect(sum(({ refused }) => refused)).toBe(0);
  });

  it('finds the store that is refused', async () => {
    const { audit: found } = await runReference({ interface: 'xen', audit: true, check: false }, 'clone=plain', image);
    expect(found?.places.filter(({ refused }) => refused > 0)).toMatchObject([
      { name: expect.stringMatching(/^setup_paging\+0x/), refused: 1, emulated: 0 },
    ]);
  });

  it('is refused where the host does not see what touches page tables', async () => {
    await expect(runReference({ interface: 'kvm', audit: true }, '', image)).rejects.toThrow('give --interface xen');
  });
});

it('an audit as text says sums, places, and how many more there are', () => {
  const place = { address: 1, name: 'walk+0x1', reads: 3, accessor: true, operations: 0, emulated: 0, refused: 0 };
  const text = auditText(
    { places: [place, { ...place, name: 'set+0x2', reads: 1, accessor: false, emulated: 1 }, place] },
    2,
  );
  expect(text).toBe(
    [
      '3 places: 7 reads, 1 of them outside recorded accessors; writes: 0 by operations, 1 by stores carried out, 0 by stores refused',
      '',
      '    reads  operation   emulated    refused  where',
      '        3          0          0          0  walk+0x1, an accessor',
      '        1          0          1          0  set+0x2, no accessor',
      'and 1 places more',
      '',
    ].join('\n'),
  );
});
