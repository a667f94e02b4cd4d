import { isBzImage, parseBzImage, type SetupHeader, unpackPayload } from './bzimage.ts';
import { type Compression, decompress, detectCompression } from './decompress.ts';
import { type ElfMachine, type ElfSegment, isElf, parseElf } from './elf.ts';
import { type ElfSymbol, readElfSymbols } from './elf-symbols.ts';
import { InputError } from './input-error.ts';
import { readXenNotes, type XenNotes } from './notes.ts';

/** A kernel, unpacked and taken apart, whatever kind of file it came in. */
export interface KernelImage {
  readonly format: 'bzimage' | 'elf';
  readonly compression: Compression | 'none';
  readonly bits: 32 | 64;
  readonly machine: ElfMachine;
  /** The ELF header's entry: the physical address of the native 64- or 32-bit entry for Linux. */
  readonly entry: bigint;
  readonly segments: readonly ElfSegment[];
  /** What the file itself names, read each time; Linux's kernels carry their names elsewhere (kallsyms.ts). */
  readonly symbols: readonly ElfSymbol[];
  /** Undefined if the kernel has none and so is no Xen guest. */
  readonly xenNotes: XenNotes | undefined;
  /** Only for a bzImage. */
  readonly setupHeader: SetupHeader | undefined;
  /** Only for a bzImage: what a boot loader would load at code32Start. */
  readonly protectedModeCode: Uint8Array | undefined;
}

/** Enough for the setup header of a bzImage and for an ELF header. */
const SMALLEST_FILE = 0x40;

/**
 * Recognises, unpacks and takes apart a kernel: a bzImage or an ELF file, either of them compressed or not.
 * Segments are views of `bytes` or of what was unpacked from it.
 * @throws InputError with one line that says what is wrong with the file.
 */
export function loadKernel(bytes: Uint8Array): KernelImage {
  if (bytes.length === 0) {
    throw new InputError('the kernel file is empty; give a bzImage (vmlinuz) or an ELF kernel (vmlinux)');
  }
  const fileCompression = detectCompression(bytes);
  const file = fileCompression === undefined ? bytes : decompress(bytes, fileCompression);
  if (isBzImage(file)) {
    const bzImage = parseBzImage(file);
    const { vmlinux, compression } = unpackPayload(bzImage);
    return takeApart(vmlinux, 'bzimage', compression, bzImage.header, bzImage.protectedModeCode);
  }
  if (isElf(file)) return takeApart(file, 'elf', fileCompression ?? 'none', undefined, undefined);
  if (file.length < SMALLEST_FILE) {
    throw new InputError(
      `the kernel file has only ${file.length} bytes; give a whole bzImage (vmlinuz) or ELF kernel (vmlinux)`,
    );
  }
  throw new InputError(
    'the kernel file is neither a bzImage nor an ELF file; give a bzImage (vmlinuz) or an ELF kernel (vmlinux)',
  );
}

/** Bit of xloadflags: the kernel has a 64-bit entry. */
const XLF_KERNEL_64 = 1;

/** Whether a kernel's programs can be 64-bit ones, found out without unpacking it where its header tells. */
export function bitsOfKernel(bytes: Uint8Array): 32 | 64 {
  if (isElf(bytes)) return parseElf(bytes).bits;
  const flags = isBzImage(bytes) ? parseBzImage(bytes).header.xloadFlags : undefined;
  if (flags === undefined) return loadKernel(bytes).bits;
  return (flags & XLF_KERNEL_64) !== 0 ? 64 : 32;
}

function takeApart(
  vmlinux: Uint8Array,
  format: KernelImage['format'],
  compression: KernelImage['compression'],
  setupHeader: SetupHeader | undefined,
  protectedModeCode: Uint8Array | undefined,
): KernelImage {
  const elf = parseElf(vmlinux);
  return {
    format,
    compression,
    bits: elf.bits,
    machine: elf.machine,
    entry: elf.entry,
    segments: elf.segments,
    get symbols() {
      return readElfSymbols(vmlinux, elf.bits);
    },
    xenNotes: readXenNotes(elf),
    setupHeader,
    protectedModeCode,
  };
}
