import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { imagePath } from '../guests/reference/build.ts';
import { loadKernel } from '../src/boot/kernel.ts';
import { auditText } from '../src/cli/audit-text.ts';
import type { Audit } from '../src/inspect/audit.ts';
import { pushedByStub } from '../src/interfaces/xen/asking-place.ts';
import { hashes, numberOf, type Printed, runReference } from './reference-guest.ts';

function auditOf({ audit }: Printed): Audit {
  if (!audit) throw new Error('nothing was audited');
  return audit;
}

/** The same kernel with a record of accessors in which there is none. */
function withoutRecords(file: Uint8Array): Uint8Array {
  const changed = Uint8Array.from(file);
  const { symbols, segments } = loadKernel(changed);
  const [begin, end] = ['accessors', 'accessors_end'].map((name) => symbols.find((symbol) => symbol.name === name));
  if (!begin || !end) throw new Error('the image has no record');
  const segment = segments.find(
    ({ vaddr, data }) => begin.address >= vaddr && end.address <= vaddr + BigInt(data.length),
  );
  if (segment?.data.buffer !== changed.buffer) throw new Error('the record is not in the file');
  segment.data.fill(0, Number(begin.address - segment.vaddr), Number(end.address - segment.vaddr));
  return changed;
}

/** Of the reference guest on Xen, whose accesses to page tables are known from its sources. */
describe.each(['x86-64', 'i386-pae'] as const)('an audit of the image for %s', (image) => {
  let printed: Printed;
  let audit: Audit;
  beforeAll(async () => {
    printed = await runReference({ interface: 'xen', audit: true, check: false }, '', image);
    audit = auditOf(printed);
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

  it('finds the store that is refused, lists the contract that it breaks, and lets the guest go on', async () => {
    const { lines, audit: found } = await runReference({ interface: 'xen', audit: true }, 'clone=plain', image);
    const name = expect.stringMatching(/^setup_paging\+0x/);
    expect(found?.places.filter(({ refused }) => refused > 0)).toMatchObject([{ name, refused: 1, emulated: 0 }]);
    const operation = image === 'x86-64' ? 'mmu.setPgd' : 'mmu.setPud';
    expect(found?.violations).toMatchObject([{ rule: 'store-into-active-root', operation, name, times: 1 }]);
    expect(lines.at(-1)).toMatch(/^panic: page fault/);
  });

  it('lists reads that the kernel has not recorded as accessors among the contracts that are broken', async () => {
    const unrecorded = withoutRecords(readFileSync(imagePath(image)));
    const { audit: found } = await runReference({ interface: 'xen', audit: true }, '', unrecorded);
    expect(new Set(found?.violations.map(({ rule }) => rule))).toEqual(new Set(['read-without-accessor']));
    const reads = (places: Audit) => places.places.filter(({ accessor }) => accessor).map(({ name }) => name);
    expect(found?.violations.map(({ name }) => name).toSorted()).toEqual(reads(audit).toSorted());
    expect(new Set(found?.violations.map(({ operation }) => operation))).toContain('mmu.getPte');
  });

  it('finds the same where processors walk shadows of the tables', async () => {
    const shadowed = await runReference({ interface: 'xen', paging: 'shadow', audit: true, check: false }, '', image);
    expect(auditOf(shadowed)).toEqual(audit);
  });
});

const OWN_TABLES = [
  ['x86-64', 'xen', 'translated', 2],
  ['x86-64', 'native', 'native', 1],
  ['x86-64', 'kvm', 'shadow', 2],
  ['i386', 'vmi', 'shadow', 2],
  ['i386-pae', 'vmi', 'shadow', 1],
  ['i386-pae', 'vmi', 'direct', 1],
  ['i386-pae', 'native', 'nested', 2],
  ['i386-pae', 'lguest', 'shadow', 1],
] as const;

/** Where the tables are the guest's own: which pages they are follows from its roots. */
describe.each(OWN_TABLES)(
  'an audit of the image for %s on %s with %s paging and %i processors',
  (image, name, paging, vcpus) => {
    let printed: Printed;
    let audit: Audit;
    beforeAll(async () => {
      printed = await runReference({ interface: name, paging, vcpus, audit: true, check: false }, '', image);
      audit = auditOf(printed);
    });

    const sum = (of: (place: Audit['places'][number]) => number) =>
      audit.places.reduce((total, place) => total + of(place), 0);
    const functionOf = ({ name: place }: { readonly name: string }) => place.split('+')[0] ?? '';

    it('changes nothing that the guest sees', () => {
      expect(new Set(Object.values(hashes(printed))).size).toBe(1);
      expect(printed.outcome).toEqual({ kind: 'poweroff' });
      expect([audit.tablesMissed, audit.touchesMissed]).toEqual([0, 0]);
    });

    it('finds the reads by recorded accessors, by the functions that have them', () => {
      const readers = audit.places.filter(({ accessor }) => accessor).map(functionOf);
      for (const reader of ['read_pgd', 'fork_space', 'handle_fault', 'hash_space']) expect(readers).toContain(reader);
    });

    it('finds no other reads but of back ends, and of what also stores', () => {
      const others = audit.places.filter(
        ({ accessor, reads, emulated, plain }) => !accessor && reads > emulated + plain,
      );
      const isBackEnd = (place: string) => place.startsWith(`${name}_`) || place.startsWith('native_');
      expect(others.map(functionOf).filter((place) => !isBackEnd(place))).toEqual([]);
    });

    it("counts each store, and as the host's those that it saw", () => {
      // Twice: each round does the same, and only one is counted by the guest.
      const updates = numberOf(printed, 'operation mmu.pte_update') ?? Number.NaN;
      expect(sum(({ plain, emulated }) => plain + emulated)).toBeGreaterThanOrEqual(2 * updates);
      const hasShadows = paging === 'shadow' || paging === 'translated';
      const seesStores = name === 'vmi' ? paging === 'direct' : hasShadows;
      expect(sum(({ emulated }) => emulated) > 0).toBe(seesStores);
      expect(sum(({ refused }) => refused)).toBe(0);
    });

    it('says from where the host is asked', () => {
      const askers = audit.places.filter(({ operations }) => operations > 0).map(functionOf);
      expect([...new Set(askers)].sort()).toEqual(ASKERS[`${image} ${name} ${paging}`] ?? []);
    });
  },
);

/** What of the guest asks its host to change entries; where nothing is named, the guest asks for none. */
const ASKERS: Readonly<Record<string, readonly string[]>> = {
  'x86-64 xen translated': ['update', 'xen_begin_interrupts', 'xen_flush_updates'],
  'x86-64 kvm shadow': ['flush_queue'],
  'i386 vmi shadow': ['vmi_pte_clear', 'vmi_set_pgd', 'vmi_set_pte_at'],
  'i386-pae vmi shadow': ['vmi_pte_clear', 'vmi_set_pgd', 'vmi_set_pmd', 'vmi_set_pte_at'],
  'i386-pae vmi direct': ['vmi_modify_start', 'vmi_pte_clear', 'vmi_set_pgd', 'vmi_set_pmd', 'vmi_set_pte_at'],
  'i386-pae lguest shadow': ['lguest_call_lazily', 'lguest_set_lazy_mode'],
};

it.each([
  ['the hypercall page in 64 bits', [0x41, 0x5b, 0x59, 0xc3], 2],
  ['the hypercall page in 32 bits', [0xc3, 0xcc, 0xcc, 0xcc], 0],
  ['a function that asks in its midst', [0x5b, 0x5e, 0xc3, 0x90], undefined],
])('the caller of a hypercall is looked for above what was pushed by %s', (_stub, code, pushed) => {
  expect(pushedByStub(Uint8Array.from(code))).toBe(pushed);
});

it('an audit as text says sums, places, and how many more there are', () => {
  const place = {
    address: 1,
    name: 'walk+0x1',
    reads: 3,
    accessor: true,
    operations: 0,
    emulated: 0,
    plain: 0,
    refused: 0,
  };
  const text = auditText(
    {
      places: [place, { ...place, name: 'set+0x2', reads: 1, accessor: false, emulated: 1, plain: 2 }, place],
      violations: [{ rule: 'r', operation: 'o', address: 1, name: 'n', times: 5, text: 'contract of o broken' }],
      tablesMissed: 3,
      touchesMissed: 4,
    },
    2,
  );
  expect(text).toBe(
    [
      '3 places: 7 reads, 1 of them outside recorded accessors; writes: 0 by operations, 1 by stores carried out, 2 by plain stores, 0 by stores refused',
      '',
      '    reads  operation   emulated      plain    refused  where',
      '        3          0          0          0          0  walk+0x1, an accessor',
      '        1          0          1          2          0  set+0x2, no accessor',
      'and 1 places more',
      '',
      'contracts that were broken:',
      '        5  contract of o broken',
      'there were too many tables: 3 times one was not looked at',
      'there were too many places: 4 accesses are of others',
      '',
    ].join('\n'),
  );
});
