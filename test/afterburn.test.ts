import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { imagePath } from '../guests/reference/build.ts';
import { KernelBytes, readRecordedSites, viewOf } from '../src/boot/call-sites.ts';
import { patchCallSites } from '../src/boot/patch-sites.ts';
import { patchingInterface } from '../src/host/afterburn.ts';
import { buildElf, MACHINE_I386 } from './boot-images.ts';
import { hashes, numberOf, type Printed, runReference, sitesOf } from './reference-guest.ts';

/** With one processor, so that no two runs differ in who is interrupted when. */
const CELLS = [
  ['x86-64', 'xen', 'direct'],
  ['x86-64', 'kvm', 'shadow'],
  ['i386', 'native', 'native'],
  ['i386', 'vmi', 'shadow'],
  ['i386-pae', 'vmi', 'direct'],
  ['i386-pae', 'lguest', 'shadow'],
] as const;

/** What Xen's part of the kernel puts something else for, as soon as it was called once. */
const CHANGED_LATER = 'mmu.write_cr3';

/** The kernel reads it while it measures how fast a loop is, which other code in the loop makes another number. */
const MEASURES = 'cpu.readTsc';
/** The kernel serialises by it once where it patches itself; a host that lets it be executed natively does not count it. */
const SERIALISES = 'cpu.cpuid';
/**
 * The kernel also calls it when it has cleared an accessed bit, and whether there was one depends on what the TLB held:
 * some in ten thousand.
 */
const CLEARS = 'mmu.pteUpdate';
const CLEARED_AT_MOST = 1 / 500;

function countsOf({ statistics }: Printed): Readonly<Partial<Record<string, number>>> {
  const { [MEASURES]: _measures, ...counts } = statistics?.operations ?? {};
  return counts;
}

describe.each(CELLS)(
  'call sites of the image for %s that the loader patched for %s with %s paging',
  (image, name, paging) => {
    let own: Printed;
    let loaded: Printed;
    beforeAll(async () => {
      const options = { interface: name, paging, check: false };
      own = await runReference(options, 'sites', image);
      loaded = await runReference({ ...options, afterburn: true }, 'sites', image);
    });

    it('serve the same work', () => {
      const [hash] = Object.values(hashes(own));
      expect(hashes(loaded)).toEqual({ 'patched by the loader': hash, 'patched by the loader, again': hash });
      expect(loaded.outcome).toEqual({ kind: 'poweroff' });
    });

    it('have the bytes that the kernel puts there itself, but where it changes its mind', () => {
      const isLeft = ({ operation }: { readonly operation: string }) => name === 'xen' && operation === CHANGED_LATER;
      const [wanted, found] = [sitesOf(own), sitesOf(loaded)];
      expect(found.filter((site) => !isLeft(site))).toEqual(wanted.filter((site) => !isLeft(site)));
      for (const { bytes } of found.filter(isLeft)) expect(bytes[0]).toBe(0xff);
    });

    it('ask the host for the same operations as often', () => {
      const { [CLEARS]: wantedClears = 0, [SERIALISES]: wantedSerials, ...wanted } = countsOf(own);
      const { [CLEARS]: foundClears = 0, [SERIALISES]: foundSerials = 0, ...found } = countsOf(loaded);
      expect(found).toEqual(wanted);
      expect(foundSerials).toBe(wantedSerials === undefined ? 0 : wantedSerials - 1);
      expect(Math.abs(foundClears - wantedClears)).toBeLessThanOrEqual(wantedClears * CLEARED_AT_MOST);
    });

    it('are counted as the kernel counts them', () => {
      const { counts } = patchCallSites(readFileSync(imagePath(image)), patchingInterface({ interface: name, paging }));
      const left = sitesOf(own).filter(({ operation }) => name === 'xen' && operation === CHANGED_LATER).length;
      const count = (what: string) => numberOf(own, what) ?? Number.NaN;
      expect(counts).toEqual({
        sites: count('sites'),
        called: count('called') - left,
        inlined: count('inlined'),
        left,
      });
    });
  },
);

it.each([
  ['i386', 'kvm', 'nested'],
  ['i386-pae', 'xen', 'direct'],
] as const)('the image for %s, patched for %s with %s paging, works on two processors', async (image, name, paging) => {
  const printed = await runReference({ interface: name, paging, vcpus: 2, check: false, afterburn: true }, '', image);
  expect(new Set(Object.values(hashes(printed))).size).toBe(1);
  expect(printed.outcome).toEqual({ kind: 'poweroff' });
});

/** Bits of the registers that a site lets be destroyed: of all that calls destroy, and of the result alone. */
const CALLS_DESTROY = 3;
const RESULT_ALONE = 1;
const CALL = 0xe8;

it.each([
  ['x86-64', 'kvm', 'shadow'],
  ['i386', 'vmi', 'shadow'],
] as const)(
  'a site of the image for %s that lets less be destroyed than a function does is left, by the loader and by the kernel',
  async (image, name, paging) => {
    const by = patchingInterface({ interface: name, paging });
    const kernel = new Uint8Array(readFileSync(imagePath(image)));
    const { file, counts } = patchCallSites(kernel, by);
    const [bytes, patched] = [new KernelBytes(kernel), new KernelBytes(file)];
    const called = readRecordedSites(bytes).sites.findIndex(
      ({ address, clobbers }) => clobbers === CALLS_DESTROY && patched.at(address, 1)[0] === CALL,
    );
    const record = bytes.symbol('sites') + called * 2 * bytes.wordBytes;
    viewOf(bytes.at(record + bytes.wordBytes, 4)).setUint16(2, RESULT_ALONE, true);
    const expected = { ...counts, called: counts.called - 1, left: counts.left + 1 };
    expect(patchCallSites(kernel, by).counts).toEqual(expected);
    const own = await runReference({ interface: name, paging, check: false }, '', kernel);
    expect([numberOf(own, 'called'), numberOf(own, 'left')]).toEqual([expected.called, expected.left]);
    expect(new Set(Object.values(hashes(own))).size).toBe(1);
    expect(own.outcome).toEqual({ kind: 'poweroff' });
  },
);

it('the loader leaves the kernel that it is given as it was', () => {
  const file = readFileSync(imagePath('i386'));
  const before = Uint8Array.from(file);
  patchCallSites(file, patchingInterface({ interface: 'native', paging: 'native' }));
  expect(Buffer.compare(file, before)).toBe(0);
});

describe('a kernel that the loader cannot patch', () => {
  it('is refused when it has no records', async () => {
    const segments = [{ paddr: 0x10_0000, vaddr: 0xc010_0000n, data: new Uint8Array(16) }];
    const kernel = buildElf({ bits: 32, machine: MACHINE_I386, segments });
    await expect(runReference({ interface: 'native', afterburn: true }, '', kernel)).rejects.toThrow(
      'no records of its call sites',
    );
  });

  it('is refused when its records lead out of it', () => {
    const file = new Uint8Array(readFileSync(imagePath('i386')));
    const bytes = new KernelBytes(file);
    viewOf(bytes.at(bytes.symbol('sites'), 4)).setUint32(0, 0x1000, true);
    expect(() => patchCallSites(file, patchingInterface({ interface: 'native', paging: 'native' }))).toThrow(
      'are damaged',
    );
  });
});
