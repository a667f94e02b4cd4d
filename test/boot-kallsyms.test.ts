import { describe, expect, it } from 'vitest';
import { createSymbolizer, createSymbolizerFromMemory, type Symbolizer } from '../src/boot/kallsyms.ts';
import { loadKernel } from '../src/boot/kernel.ts';
import { buildKallsyms, imageSymbols, LAYOUTS } from './boot-kallsyms-image.ts';
import { debianKernel, hasPackageArchive } from './debian-kernel.ts';

const layoutNames = Object.keys(LAYOUTS) as (keyof typeof LAYOUTS)[];

function addressOf(symbols: Symbolizer | undefined, name: string): bigint {
  return symbols?.find([name]).get(name)?.address ?? 0n;
}

describe.each(layoutNames)('the symbol tables of Linux %s', (layout) => {
  const { bits, data, base } = buildKallsyms(layout);
  const symbols = createSymbolizer({ bits, segments: [{ data: new Uint8Array(100) }, { data }] });
  const kept = imageSymbols(LAYOUTS[layout]).filter(({ address }) => address >= base);

  it('give each symbol its address', () => {
    expect(symbols?.symbolCount).toBe(kept.length);
    const last = kept.slice(-8);
    const names = last.map(({ name }) => name.slice(1));
    const found = symbols?.find([...names, 'no_such_symbol']);
    expect([...(found ?? [])].map(([name, { address }]) => [name, address])).toEqual(
      last.map(({ address }, index) => [names[index], address]),
    );
  });

  it('give each address the symbol that covers it', () => {
    kept.slice(0, 700).forEach(({ name, address }) => {
      const isCode = /^[tw]/i.test(name);
      expect(symbols?.lookup(address)).toEqual({ name: name.slice(1), offset: 0, isCode });
      expect(symbols?.lookup(address + 0x3fn)).toEqual({ name: name.slice(1), offset: 0x3f, isCode });
    });
  });

  it('give the first of several symbols at one address', () => {
    const schedule = addressOf(symbols, 'schedule');
    expect(symbols?.lookup(schedule + 5n)).toMatchObject({ name: 'schedule', offset: 5 });
  });

  it('give nothing outside the kernel', () => {
    expect(symbols?.lookup(base - 1n)).toBeUndefined();
    expect(symbols?.lookup(0)).toBeUndefined();
    expect(symbols?.lookup(addressOf(symbols, '_end') + 1n)).toBeUndefined();
  });

  it('do not need the image any more', () => {
    const image = data.slice();
    const own = createSymbolizer({ bits, segments: [{ data: image }] });
    image.fill(0);
    expect(own?.lookup(base + 0x45n)).toEqual(symbols?.lookup(base + 0x45n));
  });

  it('are found in guest memory with pages missing', () => {
    const start = base + 0x123_4560n;
    const fromMemory = createSymbolizerFromMemory(bits, start, data.length + 9000, (address, length) => {
      const at = Number(address - start);
      expect((address & 0xfffn) + BigInt(length)).toBeLessThanOrEqual(0x1000n);
      return at >= data.length ? null : data.subarray(at, at + length);
    });
    expect(fromMemory?.lookup(base + 0x45n)).toEqual(symbols?.lookup(base + 0x45n));
  });
});

describe('createSymbolizer', () => {
  it('gives nothing for an image without tables', () => {
    expect(createSymbolizer({ bits: 64, segments: [{ data: new Uint8Array(10_000) }] })).toBeUndefined();
  });
});

describe.skipIf(!hasPackageArchive).each(['cloud-amd64', 'amd64'] as const)("the symbols of Debian's %s", (flavour) => {
  it('agree with what the image says in other ways', async () => {
    const kernel = loadKernel(await debianKernel(flavour));
    const symbols = createSymbolizer(kernel);
    const text = kernel.segments[0];
    if (symbols === undefined || text === undefined) throw new Error('no symbols, or no text');
    expect(symbols.symbolCount).toBeGreaterThan(50_000);
    expect(symbols.lookup(kernel.xenNotes?.entry ?? 0n)).toEqual({ name: 'startup_xen', offset: 0, isCode: true });
    expect(addressOf(symbols, '_text')).toBe(text.vaddr);
    const endOfText = addressOf(symbols, '_etext');
    expect(endOfText).toBeGreaterThan(text.vaddr);
    expect(endOfText).toBeLessThan(text.vaddr + BigInt(text.memsz));
    const last = kernel.segments[kernel.segments.length - 1];
    expect(addressOf(symbols, '_end')).toBeLessThanOrEqual((last?.vaddr ?? 0n) + BigInt(last?.memsz ?? 0));
    // The banner's symbol points to the text that the bzImage's header has as version, too.
    const banner = Number(addressOf(symbols, 'linux_banner') - text.vaddr);
    const release = kernel.setupHeader?.kernelVersion.split(' ')[0] ?? '';
    const found = new TextDecoder().decode(text.data.subarray(banner, banner + 14 + release.length));
    expect(found).toBe(`Linux version ${release}`);
  });
});
