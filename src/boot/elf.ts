import { ByteReader } from './byte-reader.ts';
import { InputError } from './input-error.ts';

/** ELF executables as far as a kernel loader needs them: header, program headers, section headers of notes. */

export type ElfMachine = 'i386' | 'x86-64';

export interface ElfSegment {
  /** Where the segment lies in guest-physical memory. */
  readonly paddr: number;
  /** The virtual address it is linked for. Some segments (per-CPU data) have 0. */
  readonly vaddr: bigint;
  /** What the file holds of it; the rest up to `memsz` is zero. A view of the file, not a copy. */
  readonly data: Uint8Array;
  readonly memsz: number;
  readonly flags: number;
}

export interface ElfImage {
  readonly bits: 32 | 64;
  readonly machine: ElfMachine;
  /** Address as the header gives it: physical for Linux's vmlinux. */
  readonly entry: bigint;
  /** The PT_LOAD segments, in file order. */
  readonly segments: readonly ElfSegment[];
  /** Contents of the PT_NOTE segments or, if there are none, of the note sections. */
  readonly noteAreas: readonly Uint8Array[];
}

const enum ElfClass {
  elf32 = 1,
  elf64 = 2,
}

const enum SegmentType {
  load = 1,
  note = 4,
}

const SECTION_TYPE_NOTE = 7;

/** Names of the machines that a user may have given by mistake (gABI, e_machine). */
const MACHINE_NAMES: Readonly<Record<number, string>> = {
  2: 'SPARC',
  8: 'MIPS',
  20: 'PowerPC',
  21: 'PowerPC 64',
  22: 'S/390',
  40: 'ARM',
  43: 'SPARC 64',
  50: 'Itanium',
  183: 'AArch64',
  243: 'RISC-V',
  258: 'LoongArch',
};

const MACHINES: Readonly<Record<number, ElfMachine>> = { 3: 'i386', 62: 'x86-64' };

/** Offsets of the fields that differ between the classes, and the sizes of the table entries. */
interface ElfLayout {
  readonly programHeaderOffset: number;
  readonly sectionHeaderOffset: number;
  readonly programHeaderCount: number;
  readonly sectionHeaderCount: number;
  readonly headerSize: number;
  readonly programHeader: {
    readonly size: number;
    readonly flags: number;
    readonly offset: number;
    readonly vaddr: number;
    readonly paddr: number;
    readonly filesz: number;
    readonly memsz: number;
  };
  readonly sectionHeader: { readonly size: number; readonly offset: number; readonly length: number };
}

const LAYOUT_32: ElfLayout = {
  programHeaderOffset: 0x1c,
  sectionHeaderOffset: 0x20,
  programHeaderCount: 0x2c,
  sectionHeaderCount: 0x30,
  headerSize: 0x34,
  programHeader: { size: 32, offset: 4, vaddr: 8, paddr: 12, filesz: 16, memsz: 20, flags: 24 },
  sectionHeader: { size: 40, offset: 16, length: 20 },
};

const LAYOUT_64: ElfLayout = {
  programHeaderOffset: 0x20,
  sectionHeaderOffset: 0x28,
  programHeaderCount: 0x38,
  sectionHeaderCount: 0x3c,
  headerSize: 0x40,
  programHeader: { size: 56, flags: 4, offset: 8, vaddr: 16, paddr: 24, filesz: 32, memsz: 40 },
  sectionHeader: { size: 64, offset: 24, length: 32 },
};

export function isElf(bytes: Uint8Array): boolean {
  return bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46;
}

/** @throws InputError if it is not an ELF executable for an x86 processor, or parts of it lie outside the file. */
export function parseElf(bytes: Uint8Array): ElfImage {
  const reader = new ByteReader(bytes, 'the ELF file');
  if (!isElf(bytes)) throw new InputError('not an ELF file; give a bzImage (vmlinuz) or an ELF kernel (vmlinux)');
  const elfClass = reader.u8(4);
  if (elfClass !== ElfClass.elf32 && elfClass !== ElfClass.elf64) {
    throw new InputError(`the ELF file is damaged: ${elfClass} is not an ELF class; give an intact file`);
  }
  if (reader.u8(5) !== 1) {
    throw new InputError('the ELF file is for a big-endian machine; give a kernel for x86 (i386 or x86-64)');
  }
  const machineNumber = reader.u16(0x12);
  const machine = MACHINES[machineNumber];
  if (machine === undefined) {
    const name = MACHINE_NAMES[machineNumber];
    throw new InputError(
      `the ELF file is for ${name === undefined ? 'another machine' : name} (machine ${machineNumber}); give a kernel for x86 (i386 or x86-64)`,
    );
  }
  const is64 = elfClass === ElfClass.elf64;
  if (!is64 && machine === 'x86-64') {
    throw new InputError('the ELF file is 32-bit but for x86-64 (x32); give a 64-bit kernel');
  }
  const type = reader.u16(0x10);
  if (type !== 2 && type !== 3) {
    throw new InputError(
      `the ELF file is ${type === 1 ? 'an object file or a kernel module' : `of type ${type}`}, not an executable; give a kernel (vmlinux)`,
    );
  }

  const layout = is64 ? LAYOUT_64 : LAYOUT_32;
  const word = (offset: number): number => (is64 ? Number(reader.u64(offset)) : reader.u32(offset));
  const address = (offset: number): bigint => (is64 ? reader.u64(offset) : BigInt(reader.u32(offset)));

  const segments: ElfSegment[] = [];
  const noteAreas: Uint8Array[] = [];
  const tableStart = word(layout.programHeaderOffset);
  const count = reader.u16(layout.programHeaderCount);
  for (let index = 0; index < count; index++) {
    const fields = layout.programHeader;
    const header = tableStart + index * fields.size;
    const segmentType = reader.u32(header);
    if (segmentType !== SegmentType.load && segmentType !== SegmentType.note) continue;
    const offset = word(header + fields.offset);
    const filesz = word(header + fields.filesz);
    // A cut file still has most of its notes; the loader complains about segments.
    if (segmentType === SegmentType.note) {
      if (reader.has(offset, 0)) noteAreas.push(bytes.subarray(offset, offset + filesz));
      continue;
    }
    const memsz = word(header + fields.memsz);
    if (memsz === 0) continue;
    const paddr = word(header + fields.paddr);
    if (filesz > memsz || !Number.isSafeInteger(paddr + memsz)) {
      throw new InputError(`the ELF file is damaged: segment ${index} has impossible sizes; give an intact file`);
    }
    if (!reader.has(offset, filesz)) {
      throw new InputError(
        `the ELF file is cut short: segment ${index} ends at ${offset + filesz}, the file at ${bytes.length}; give a whole file`,
      );
    }
    segments.push({
      paddr,
      vaddr: address(header + fields.vaddr),
      data: bytes.subarray(offset, offset + filesz),
      memsz,
      flags: reader.u32(header + fields.flags),
    });
  }
  if (segments.length === 0) throw new InputError('the ELF file has nothing to load; give a kernel (vmlinux)');
  if (noteAreas.length === 0) noteAreas.push(...noteSections(reader, layout, word));
  return { bits: is64 ? 64 : 32, machine, entry: address(0x18), segments, noteAreas };
}

function noteSections(reader: ByteReader, layout: ElfLayout, word: (offset: number) => number): Uint8Array[] {
  const areas: Uint8Array[] = [];
  const tableStart = word(layout.sectionHeaderOffset);
  const count = reader.u16(layout.sectionHeaderCount);
  const { size, offset, length } = layout.sectionHeader;
  // Section headers may have been cut off; a kernel loads without them.
  for (let index = 0; index < count && reader.has(tableStart + index * size, size); index++) {
    const header = tableStart + index * size;
    if (reader.u32(header + 4) !== SECTION_TYPE_NOTE) continue;
    const start = word(header + offset);
    if (reader.has(start, 0)) areas.push(reader.bytes.subarray(start, start + word(header + length)));
  }
  return areas;
}
