import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Decoder, DecoderOptions, Mnemonic } from 'iced-x86';
import { beforeAll, describe, expect, it } from 'vitest';
import { cellsOf } from '../bench/reference/settings.ts';
import {
  buildReference,
  COMPILER,
  IMAGES,
  type Image,
  imagePath,
  installedCompiler,
} from '../guests/reference/build.ts';
import type { InterfaceName, PagingName } from '../src/api.ts';
import { loadKernel } from '../src/boot/kernel.ts';
import { operations } from '../src/ops/catalogue.ts';
import { hashes, numberOf, type Printed, runReference, sitesOf } from './reference-guest.ts';

/** What the contents of all user pages come to, whatever the guest runs on: programs of both i386 images are the same. */
const HASHES: Readonly<Record<Image, string>> = {
  'x86-64': 'ac3b97e3c7642bee',
  i386: '4f94be216aa956bc',
  'i386-pae': '4f94be216aa956bc',
};
const HASH = HASHES['x86-64'];

type Run = readonly [Image, InterfaceName, PagingName, vcpus: number];

/**
 * Each cell that an image serves, with one processor or two: for most cells the other number is left out, since all of them
 * would take too long for every change. With RING1_ALL_CELLS=1 in the environment they run as well.
 */
const SHORT_LIST: readonly Run[] = [
  ['x86-64', 'xen', 'direct', 1],
  ['x86-64', 'xen', 'direct', 2],
  ['x86-64', 'xen', 'shadow', 2],
  ['x86-64', 'xen', 'translated', 2],
  ['x86-64', 'kvm', 'nested', 1],
  ['x86-64', 'kvm', 'nested', 2],
  ['x86-64', 'native', 'native', 1],
  ['x86-64', 'kvm', 'shadow', 1],
  ['x86-64', 'native', 'nested', 2],
  ['x86-64', 'native', 'shadow', 2],
  ['i386', 'native', 'native', 1],
  ['i386', 'native', 'nested', 2],
  ['i386', 'native', 'shadow', 2],
  ['i386', 'kvm', 'nested', 2],
  ['i386', 'kvm', 'shadow', 1],
  ['i386', 'vmi', 'native', 1],
  ['i386', 'vmi', 'shadow', 2],
  ['i386', 'lguest', 'shadow', 1],
  ['i386-pae', 'native', 'native', 2],
  ['i386-pae', 'native', 'nested', 1],
  ['i386-pae', 'native', 'shadow', 1],
  ['i386-pae', 'kvm', 'nested', 2],
  ['i386-pae', 'kvm', 'shadow', 2],
  ['i386-pae', 'vmi', 'native', 1],
  ['i386-pae', 'vmi', 'shadow', 2],
  ['i386-pae', 'vmi', 'direct', 1],
  ['i386-pae', 'vmi', 'direct', 2],
  ['i386-pae', 'lguest', 'shadow', 1],
  ['i386-pae', 'xen', 'direct', 1],
  ['i386-pae', 'xen', 'direct', 2],
  ['i386-pae', 'xen', 'shadow', 2],
  ['i386-pae', 'xen', 'translated', 1],
];

/** Guests of lguest have one processor. */
const ALL_RUNS: readonly Run[] = IMAGES.flatMap((image) =>
  cellsOf(image).flatMap(({ interface: name, paging }) =>
    (name === 'lguest' ? [1] : [1, 2]).map((vcpus): Run => [image, name, paging, vcpus]),
  ),
);
const RUNS = process.env.RING1_ALL_CELLS === '1' ? ALL_RUNS : SHORT_LIST;

it('runs in each cell that an image serves', () => {
  const cells = (runs: readonly Run[]) => new Set(runs.map(([image, name, paging]) => `${image} ${name}/${paging}`));
  expect(cells(SHORT_LIST)).toEqual(cells(ALL_RUNS));
});

/** As the images call themselves. */
const TITLES: Readonly<Record<Image, string>> = { 'x86-64': 'x86-64', i386: 'i386', 'i386-pae': 'i386 PAE' };

/** By which hypercall a guest changes entries of page tables. */
const TABLE_CALLS: Readonly<Record<string, string>> = {
  'xen direct': 'mmu_update',
  'xen shadow': 'mmu_update',
  'xen translated': 'mmu_update',
  'kvm shadow': 'mmu_op',
  'vmi shadow': 'AllocatePage',
  'vmi direct': 'SetPxELong',
  'lguest shadow': 'setPte',
};

const NAMES = { xen: 'Xen', kvm: 'KVM', native: 'bare hardware', vmi: 'VMI', lguest: 'lguest' } as const;

/** "setPteAt" → "set_pte_at", as the guest spells operations. */
const guestName = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

describe.each(RUNS)(
  'the reference guest for %s on %s with %s paging and %i processors',
  (image, name, paging, vcpus) => {
    const hash = HASHES[image];
    let printed: Printed;
    beforeAll(async () => {
      printed = await runReference({ interface: name, paging, vcpus }, '', image);
    });

    it('finds its interface and processors, and powers off', () => {
      expect(printed.lines).toContain(`ring1 reference guest, ${TITLES[image]}`);
      expect(printed.lines).toContain(`interface ${NAMES[name]}`);
      expect(numberOf(printed, 'processors')).toBe(vcpus);
      expect(printed.outcome).toEqual({ kind: 'poweroff' });
    });

    it('leaves the same user pages as everywhere, through the tables and patched', () => {
      expect(hashes(printed)).toEqual({ 'through the tables, counted': hash, patched: hash });
    });

    it('patches every call site', () => {
      const count = (what: string) => numberOf(printed, what) ?? 0;
      expect(count('sites')).toBeGreaterThan(100);
      expect(count('left')).toBe(0);
      expect(count('called') + count('inlined')).toBe(count('sites'));
    });

    it('calls operations of the catalogue', () => {
      const known = new Set(operations.map((operation) => `${operation.group}.${guestName(operation.name)}`));
      const called = printed.lines.flatMap((line) => /^operation (\S+) \d+$/.exec(line)?.[1] ?? []);
      expect(called.length).toBeGreaterThan(30);
      expect(called.filter((operation) => !known.has(operation))).toEqual([]);
    });

    it('puts off changes of page tables where that saves calls', () => {
      expect(numberOf(printed, 'lazy sections')).toBeGreaterThan(100);
      const batches = numberOf(printed, 'batches') ?? 0;
      const updates = numberOf(printed, 'updates') ?? 0;
      const tellsHost = name === 'xen' || name === 'lguest' || (name === 'kvm' && paging === 'shadow');
      if (tellsHost) expect(updates / batches).toBeGreaterThan(4);
      else expect([batches, updates]).toEqual([0, 0]);
    });

    it('makes hypercalls where its host has them', () => {
      const { hypercalls = {} } = printed.statistics ?? {};
      const expected = TABLE_CALLS[`${name} ${paging}`];
      // Without shadows VMI's ROM leaves everything to the kernel.
      const whenNone = name === 'vmi' ? { VMI_Init: 1 } : {};
      if (expected === undefined) expect(hypercalls).toEqual(whenNone);
      else expect(hypercalls[expected]).toBeGreaterThan(100);
    });
  },
);

describe('the reference guest for i386-pae on vmi with direct paging', () => {
  const hash = HASHES['i386-pae'];
  const worked = { 'through the tables, counted': hash, patched: hash };
  const run = (words: string, check: boolean) =>
    runReference({ interface: 'vmi', paging: 'direct', check }, words, 'i386-pae');

  it('has tables of machine frames when it reads entries by its ROM, which asks nobody', async () => {
    const { statistics } = await run('', true);
    expect(statistics?.hypercalls).toMatchObject({ UseMachineFrames: 1, SwapPxELongAtomic: expect.any(Number) });
    expect(statistics?.hypercalls).not.toHaveProperty('GetPxELong');
  });

  it('works as kernels of VMI 3.0 do, which read entries as memory', async () => {
    const printed = await run('nomachine', true);
    expect(hashes(printed)).toEqual(worked);
    expect(printed.statistics?.hypercalls).not.toHaveProperty('UseMachineFrames');
  });

  it('breaks a contract when it reads entries as memory where they hold machine frames', async () => {
    const { outcome } = await run('plainread', true);
    expect(outcome.kind === 'crash' && outcome.reason).toMatch(/mmu\.getP\w+ .*read-without-accessor/);
  });

  it('is led to other pages then, and ends', async () => {
    const { outcome } = await run('plainread', false);
    expect(outcome.kind).toBe('crash');
  });
});

describe('the reference guest, begun on the table that its host has examined', () => {
  it('ends when it copies an entry there as memory, and the reason names the operation for it', async () => {
    const { outcome } = await runReference({ interface: 'xen', check: false }, 'clone=plain');
    expect(outcome.kind === 'crash' && outcome.reason).toMatch(
      /kernel panic\); before that it stored into entry 0x1ff of a live level-4 page table at setup_paging\+0x\w+ .*mmu\.setPgd/,
    );
  });

  it('breaks a contract by it', async () => {
    const { outcome } = await runReference({ interface: 'xen' }, 'clone=plain');
    expect(outcome.kind === 'crash' && outcome.reason).toMatch(/mmu\.setPgd .*store-into-active-root/);
  });

  it.each(['accessors', 'skip'])('works when it copies it by %s', async (how) => {
    const printed = await runReference({ interface: 'xen' }, `clone=${how}`);
    expect(hashes(printed)).toEqual({ 'through the tables, counted': HASH, patched: HASH });
  });

  it('ends with PAE too, whose last entry of the highest table no operation changes', async () => {
    const { outcome } = await runReference({ interface: 'xen', check: false }, 'clone=plain', 'i386-pae');
    expect(outcome.kind === 'crash' && outcome.reason).toMatch(
      /it stored into entry 0x3 of a live level-3 page table at setup_paging\+0x\w+ .*mmu\.setPud/,
    );
    const { lines } = await runReference({ interface: 'xen', check: false }, 'clone=accessors', 'i386-pae');
    expect(lines.at(-1)).toBe('panic: Xen refused mmu_update: -22');
  });

  it('works with PAE when it copies nothing', async () => {
    const printed = await runReference({ interface: 'xen' }, 'clone=skip', 'i386-pae');
    const hash = HASHES['i386-pae'];
    expect(hashes(printed)).toEqual({ 'through the tables, counted': hash, patched: hash });
  });
});

describe('the reference guest, begun on swapper_pg_dir where its host keeps shadows', () => {
  const worked = { 'through the tables, counted': HASHES.i386, patched: HASHES.i386 };

  it('finds on VMI that its plain copy has not come to where the processor looks, and names the operation for it', async () => {
    const { lines, outcome } = await runReference({ interface: 'vmi', check: false }, 'clone=plain', 'i386');
    expect(lines.at(-1)).toMatch(/^panic: swapper_pg_dir is walked as it was: its entry 896 .* takes mmu\.set_pgd$/);
    expect(outcome.kind === 'crash' && outcome.reason).toMatch(
      /before that it stored into entry 0x380 of a live level-2 page table, page 0x\w+, .* takes mmu\.setPmd/,
    );
  });

  it('breaks a contract by that', async () => {
    const { outcome } = await runReference({ interface: 'vmi' }, 'clone=plain', 'i386');
    expect(outcome.kind === 'crash' && outcome.reason).toMatch(
      /mmu\.setPmd broken at setup_paging\+.* store-into-active-root/,
    );
  });

  it.each(['accessors', 'skip'])('works on VMI when it copies by %s', async (how) => {
    expect(hashes(await runReference({ interface: 'vmi' }, `clone=${how}`, 'i386'))).toEqual(worked);
  });

  it.each(['direct', 'shadow'] as const)(
    'works on VMI with PAE and %s paging, where its plain copy goes to no table in use',
    async (paging) => {
      const printed = await runReference({ interface: 'vmi', paging, audit: true }, 'clone=plain', 'i386-pae');
      const hash = HASHES['i386-pae'];
      expect(hashes(printed)).toEqual({ 'through the tables, counted': hash, patched: hash });
      const stores =
        printed.audit?.places.filter(({ emulated, plain, refused }) => emulated + plain + refused > 0) ?? [];
      expect(stores.length).toBeGreaterThan(0);
      expect(stores.filter(({ name }) => name.startsWith('setup_paging'))).toEqual([]);
    },
  );

  it.each(['plain', 'accessors', 'skip'])(
    'works on lguest, whose host sees each store, when it copies by %s',
    async (how) => {
      expect(hashes(await runReference({ interface: 'lguest' }, `clone=${how}`, 'i386'))).toEqual(worked);
    },
  );
});

/** A host of lguest that is told of an entry drops its translation, so the guest need not ask for that. */
describe.each([
  ['x86-64', 'xen', 'direct'],
  ['x86-64', 'xen', 'translated'],
  ['x86-64', 'kvm', 'nested'],
  ['x86-64', 'kvm', 'shadow'],
  ['x86-64', 'native', 'native'],
  ['i386', 'vmi', 'shadow'],
  ['i386-pae', 'vmi', 'direct'],
] as const)(
  'the reference guest for %s on %s with %s paging, when it forgets to flush translations',
  (image, name, paging) => {
    it('breaks a contract as soon as it uses one', async () => {
      const { outcome } = await runReference({ interface: name, paging }, 'noflush', image);
      expect(outcome.kind === 'crash' && outcome.reason).toMatch(
        /missing-flush: .*\(event=used .*cachedBy=0 changedBy=0/,
      );
    });
  },
);

describe.each([
  ['x86-64', 'xen', 'direct'],
  ['i386', 'lguest', 'shadow'],
  ['i386-pae', 'vmi', 'direct'],
] as const)('the reference guest for %s on %s with %s paging', (image, name, paging) => {
  it('works with its call sites as they were built', async () => {
    const printed = await runReference({ interface: name, paging, check: false }, 'nopatch nolazy', image);
    const hash = HASHES[image];
    expect(hashes(printed)).toEqual({ 'through the tables, counted': hash, 'through the tables': hash });
    expect(numberOf(printed, 'sites')).toBeUndefined();
  });
});

const compiler = installedCompiler();
/** Another compiler makes other bytes. */
const skipped = compiler === COMPILER ? '' : `, skipped because ${compiler ?? 'no gcc'} is installed`;

describe.skipIf(compiler !== COMPILER).each(IMAGES)(`the image for %s, built by ${COMPILER}${skipped}`, (image) => {
  let native: Uint8Array;
  beforeAll(() => {
    native = buildReference(image, 'native');
  });

  it('is the image that is kept', () => {
    expect(Buffer.compare(buildReference(image, 'paravirt'), readFileSync(imagePath(image)))).toBe(0);
  });

  it('is the same code with accessors over plain memory as without accessors', () => {
    expect(Buffer.compare(textOf(native), textOf(buildReference(image, 'plain')))).toBe(0);
  });

  it('has at patched sites what a kernel without paravirtualization has there, and no-ops', async () => {
    const patched = sitesOf(await runReference({ interface: 'native' }, 'sites', image));
    const without = await runReference({ interface: 'native' }, 'sites', native);
    expect(hashes(without)).toEqual({ 'without paravirtualization': HASHES[image] });
    const wantedAt = new Map(sitesOf(without).map(({ operation, bytes }) => [operation, bytes]));
    expect(wantedAt.size).toBeGreaterThan(10);
    for (const { operation, bytes } of patched) {
      if (READS.has(operation)) {
        expect([operation, ...mnemonics(bytes, image)]).toEqual([operation, Mnemonic.Mov, Mnemonic.Mov, Mnemonic.Nop]);
        continue;
      }
      const wanted = wantedAt.get(operation) ?? Uint8Array.of();
      const isInline = wanted.length <= bytes.length && !isCall(bytes);
      const used = isInline ? wanted.length : CALL_BYTES;
      if (isInline) expect([operation, ...bytes.subarray(0, used)]).toEqual([operation, ...wanted]);
      else expect([operation, wantedAt.has(operation)]).toEqual([operation, wanted.length > bytes.length]);
      expect(areNoOps(bytes.subarray(used), image), operation).toBe(true);
    }
  });
});

it.each(['x86-64', 'i386-pae'] as const)(
  'the image for %s calls at patched sites what has taken the place of an operation before it patched them',
  async (image) => {
    const { lines } = await runReference({ interface: 'xen' }, 'sites', image);
    const { symbols } = loadKernel(readFileSync(imagePath(image)));
    const calls = lines.flatMap((line) => {
      const [, site, code] = /^site mmu\.write_cr3 ([0-9a-f]+) ([0-9a-f]+)/.exec(line) ?? [];
      if (site === undefined || code === undefined) return [];
      const [, digits = ''] = /^e8([0-9a-f]{8})/.exec(code) ?? [];
      const target = BigInt(`0x${site}`) + BigInt(CALL_BYTES + Buffer.from(digits, 'hex').readInt32LE());
      return [symbols.find(({ address }) => address === target)?.name];
    });
    // xen_first_write_cr3 stood there until it was called.
    expect(new Set(calls)).toEqual(new Set(['xen_write_cr3']));
  },
);

const CALL_BYTES = 5;

function isCall(bytes: Uint8Array): boolean {
  return bytes[0] === 0xe8;
}

/** Where reading an entry is an operation: a compiler has the two loads anywhere in a kernel without paravirtualization. */
const READS: ReadonlySet<string> = new Set(['mmu.get_pte', 'mmu.get_pmd', 'mmu.get_pgd']);

function mnemonics(bytes: Uint8Array, image: Image): Mnemonic[] {
  const decoder = new Decoder(image === 'x86-64' ? 64 : 32, bytes, DecoderOptions.None);
  const found: Mnemonic[] = [];
  while (decoder.canDecode) found.push(decoder.decode().mnemonic);
  return found;
}

function areNoOps(bytes: Uint8Array, image: Image): boolean {
  return mnemonics(bytes, image).every((mnemonic) => mnemonic === Mnemonic.Nop);
}

/** Contents of an ELF file's section of code. */
function textOf(file: Uint8Array): Uint8Array {
  const directory = mkdtempSync(join(tmpdir(), 'ring1-text-'));
  try {
    const [input, output] = [join(directory, 'elf'), join(directory, 'text')];
    writeFileSync(input, file);
    execFileSync('objcopy', ['-O', 'binary', '-j', '.text', input, output]);
    return readFileSync(output);
  } finally {
    rmSync(directory, { recursive: true });
  }
}
