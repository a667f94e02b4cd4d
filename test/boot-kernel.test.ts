import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { loadKernel } from '../src/boot/kernel.ts';
import { refuseHopelessMemory, requireMemory, requireXenNotes } from '../src/boot/requirements.ts';
import {
  buildBzImage,
  buildElf,
  concatenate,
  MACHINE_AARCH64,
  MACHINE_I386,
  MACHINE_X86_64,
  numberBytes,
  ONE_SEGMENT,
  XEN_NOTES,
} from './boot-images.ts';

describe('loadKernel', () => {
  it('takes apart an ELF64 file with its segments and notes', () => {
    const kernel = loadKernel(buildElf());
    expect(kernel).toMatchObject({ format: 'elf', compression: 'none', bits: 64, machine: 'x86-64', entry: 0x100000n });
    expect(kernel.segments).toEqual([{ ...ONE_SEGMENT[0], memsz: 5000, flags: 7 }]);
    expect(kernel.xenNotes).toMatchObject({
      entry: 0xffff_ffff_8100_0000n,
      virtBase: 0xffff_ffff_8000_0000n,
      hypercallPage: undefined,
      guestOs: 'linux',
      features: ['!writable_page_tables', 'pae_pgdir_above_4gb'],
      modStartPfn: true,
      suspendCancel: false,
    });
  });

  it('takes apart an ELF32 file', () => {
    const segments = [{ paddr: 0x10_0000, vaddr: 0xc010_0000n, data: new Uint8Array(16), memsz: 0x4000 }];
    const kernel = loadKernel(
      buildElf({ bits: 32, segments, notes: [{ type: 1, value: numberBytes(0xc0100000, 4) }] }),
    );
    expect(kernel).toMatchObject({ bits: 32, machine: 'i386' });
    expect(kernel.segments[0]).toMatchObject({ vaddr: 0xc010_0000n, memsz: 0x4000 });
    expect(kernel.xenNotes?.entry).toBe(0xc010_0000n);
  });

  it('unpacks an ELF file', () => {
    const kernel = loadKernel(gzipSync(buildElf()));
    expect(kernel).toMatchObject({ format: 'elf', compression: 'gzip', bits: 64 });
  });

  it('finds the kernel in a bzImage and reads its header', () => {
    const kernel = loadKernel(buildBzImage(gzipSync(buildElf())));
    expect(kernel).toMatchObject({ format: 'bzimage', compression: 'gzip' });
    expect(kernel.segments[0]?.data).toEqual(ONE_SEGMENT[0]?.data);
    expect(kernel.setupHeader).toMatchObject({
      version: 0x20f,
      kernelVersion: '6.1.0-test (someone@somewhere) #1',
      code32Start: 0x10_0000,
      initrdAddressMax: 0x7fff_ffff,
      preferredAddress: 0x10_0000n,
      commandLineSize: 2047,
    });
    // Up to the end that the jump at 0x200 gives.
    expect(kernel.setupHeader?.bytes.length).toBe(0x202 + 0x6a - 0x1f1);
  });

  it('takes an unpacked kernel in a bzImage', () => {
    expect(loadKernel(buildBzImage(buildElf()))).toMatchObject({ format: 'bzimage', compression: 'none' });
  });

  it('searches the kernel where the boot protocol is too old to tell, and leaves newer fields undefined', () => {
    const kernel = loadKernel(buildBzImage(gzipSync(buildElf()), 0x207));
    expect(kernel.segments.length).toBe(1);
    expect(kernel.setupHeader).toMatchObject({
      xloadFlags: undefined,
      preferredAddress: undefined,
      hardwareSubarch: 0,
    });
  });

  it('takes what there is of a cut last note', () => {
    const notes = [...XEN_NOTES, { type: 8, value: 'generic' }];
    expect(loadKernel(buildElf({ notes, cutNotes: 5 })).xenNotes).toMatchObject({ modStartPfn: true, loader: 'gen' });
  });

  it('does not take a number of which a part was cut', () => {
    const notes = [{ type: 1, value: 0xffff_ffff_8100_0000n }];
    expect(loadKernel(buildElf({ notes, cutNotes: 5 })).xenNotes?.entry).toBeUndefined();
  });

  const bzImage = buildBzImage(gzipSync(buildElf()));
  it.each([
    ['an empty file', new Uint8Array(), 'the kernel file is empty; give a bzImage'],
    ['a few bytes', new Uint8Array(10), 'has only 10 bytes'],
    ['no kernel', new Uint8Array(5000), 'neither a bzImage nor an ELF file'],
    ['a bzImage cut in its setup code', bzImage.subarray(0, 1000), 'is cut short: it has 1000 bytes, its header says'],
    ['a bzImage cut in its payload', bzImage.subarray(0, bzImage.length - 20), 'is cut short'],
    ['an ELF file cut in a segment', buildElf().subarray(0, 1000), 'is cut short: segment 0 ends at'],
    ['an ELF file cut in its header', buildElf().subarray(0, 70), 'is cut short'],
    ['an ELF file of another machine', buildElf({ machine: MACHINE_AARCH64 }), 'is for AArch64 (machine 183)'],
    ['an ELF file of an unknown machine', buildElf({ machine: 9999 }), 'is for another machine (machine 9999)'],
    ['a big-endian ELF file', buildElf({ bigEndian: true }), 'is for a big-endian machine'],
    ['an x32 ELF file', buildElf({ bits: 32, machine: MACHINE_X86_64 }), 'is 32-bit but for x86-64'],
    ['a kernel module', buildElf({ type: 1 }), 'is an object file or a kernel module'],
    ['an ELF file without segments', buildElf({ segments: [] }), 'has nothing to load'],
    ['a bzImage with a foreign payload', buildBzImage(new Uint8Array(100).fill(0x55)), 'begins with "55 55 55 55"'],
    ['a bzImage of Linux 2.6.24', buildBzImage(gzipSync(new Uint8Array(5000)), 0x207), 'holds no ELF file'],
    ['a bzImage of boot protocol 1.00', buildBzImage(gzipSync(buildElf()), 0x100), 'boot protocol 100, which is older'],
    [
      'an ELF file whose segment is smaller than its data',
      buildElf({ segments: [{ paddr: 0, vaddr: 0n, data: new Uint8Array(100), memsz: 50 }] }),
      'segment 0 has impossible sizes',
    ],
  ])('refuses %s with one line', (_name, bytes, message) => {
    expect(() => loadKernel(bytes)).toThrow(message);
    expect(() => loadKernel(bytes)).toThrow(/^[^\n]*; give [^\n]*$|unpack it/);
  });
});

describe('what a Xen guest needs', () => {
  it('refuses a kernel without Xen notes', () => {
    const kernel = loadKernel(buildElf({ notes: [{ name: 'GNU', type: 3, value: 5n }] }));
    expect(kernel.xenNotes).toBeUndefined();
    expect(() => requireXenNotes(kernel)).toThrow('the kernel has no Xen notes');
  });

  it('refuses a kernel that has only a PVH entry', () => {
    const kernel = loadKernel(buildElf({ notes: [{ type: 18, value: 0x1000n }] }));
    expect(() => requireXenNotes(kernel)).toThrow('no paravirtual entry');
  });

  it('gives the notes of one that has an entry', () => {
    expect(requireXenNotes(loadKernel(buildElf())).entry).toBe(0xffff_ffff_8100_0000n);
  });

  const MIB = 1024 * 1024;

  it('refuses memory that kernel and initrd do not fit into, and says how much would be enough', () => {
    const kernel = loadKernel(
      buildElf({ segments: [{ paddr: 16 * MIB, vaddr: 0n, data: new Uint8Array(1), memsz: 10 * MIB }] }),
    );
    expect(() => requireMemory(kernel, 8 * MIB, 49 * MIB)).toThrow(
      '49M of memory are not enough: the kernel ends at 26M, the initrd has 8M, and 16M are needed to work in; give at least 50M',
    );
    expect(() => requireMemory(kernel, 8 * MIB, 50 * MIB)).not.toThrow();
    expect(() => requireMemory(kernel, 0, 42 * MIB)).not.toThrow();
  });

  it('refuses memory less than file and initrd without unpacking the kernel', () => {
    const cut = concatenate(buildBzImage(gzipSync(buildElf())));
    expect(() => refuseHopelessMemory(cut, 0, MIB)).toThrow('1M of memory are not enough');
    expect(() => refuseHopelessMemory(cut, 30 * MIB, 30 * MIB)).toThrow('the initrd has 30M');
    expect(() => refuseHopelessMemory(cut, 0, 64 * MIB)).not.toThrow();
  });

  it('knows an i386 kernel', () => {
    expect(loadKernel(buildElf({ bits: 32, machine: MACHINE_I386, segments: ONE_SEGMENT })).machine).toBe('i386');
  });
});
