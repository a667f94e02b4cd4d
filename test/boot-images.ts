/** Kernels made for tests: small ELF files and bzImages, whole in every respect that a loader looks at. */

export interface ElfRecipe {
  readonly bits?: 32 | 64;
  readonly machine?: number;
  readonly type?: number;
  readonly bigEndian?: boolean;
  readonly segments?: readonly SegmentRecipe[];
  readonly notes?: readonly NoteRecipe[];
  /** Bytes to leave out of the note area's end. */
  readonly cutNotes?: number;
}

export interface SegmentRecipe {
  readonly paddr: number;
  readonly vaddr: bigint;
  readonly data: Uint8Array;
  /** The default is what `data` has. */
  readonly memsz?: number;
}

export interface NoteRecipe {
  readonly name?: string;
  readonly type: number;
  readonly value: Uint8Array | string | bigint;
}

export const MACHINE_I386 = 3;
export const MACHINE_X86_64 = 62;
export const MACHINE_AARCH64 = 183;

const encoder = new TextEncoder();

export function concatenate(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export function numberBytes(value: bigint | number, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  let rest = BigInt.asUintN(64, BigInt(value));
  for (let index = 0; index < size; index++, rest >>= 8n) bytes[index] = Number(rest & 0xffn);
  return bytes;
}

function padded(bytes: Uint8Array): Uint8Array {
  return concatenate(bytes, new Uint8Array((4 - (bytes.length % 4)) % 4));
}

export function noteBytes(note: NoteRecipe): Uint8Array {
  const name = encoder.encode(`${note.name ?? 'Xen'}\0`);
  const { value } = note;
  const bytes =
    typeof value === 'string'
      ? encoder.encode(`${value}\0`)
      : typeof value === 'bigint'
        ? numberBytes(value, 8)
        : value;
  return concatenate(
    numberBytes(name.length, 4),
    numberBytes(bytes.length, 4),
    numberBytes(note.type, 4),
    padded(name),
    padded(bytes),
  );
}

export const XEN_NOTES: readonly NoteRecipe[] = [
  { type: 6, value: 'linux' },
  { type: 1, value: 0xffff_ffff_8100_0000n },
  { type: 3, value: 0xffff_ffff_8000_0000n },
  { name: 'Linux', type: 1, value: 7n },
  { type: 10, value: '!writable_page_tables|pae_pgdir_above_4gb' },
  { type: 16, value: numberBytes(1, 4) },
];

export const ONE_SEGMENT: readonly SegmentRecipe[] = [
  { paddr: 0x10_0000, vaddr: 0xffff_ffff_8010_0000n, data: new Uint8Array(5000).fill(0xcc) },
];

export function buildElf(recipe: ElfRecipe = {}): Uint8Array {
  const bits = recipe.bits ?? 64;
  const word = bits / 8;
  const segments = recipe.segments ?? ONE_SEGMENT;
  const wholeNotes = concatenate(...(recipe.notes ?? XEN_NOTES).map(noteBytes));
  const notes = wholeNotes.subarray(0, wholeNotes.length - (recipe.cutNotes ?? 0));
  const headerSize = bits === 64 ? 64 : 52;
  const programHeaderSize = bits === 64 ? 56 : 32;
  const parts = [...segments.map(({ data }) => data), notes];
  let offset = headerSize + parts.length * programHeaderSize;
  const programHeaders = parts.map((data, index) => {
    const segment = segments[index];
    const fields = {
      type: numberBytes(segment === undefined ? 4 : 1, 4),
      flags: numberBytes(7, 4),
      offset: numberBytes(offset, word),
      vaddr: numberBytes(segment?.vaddr ?? 0n, word),
      paddr: numberBytes(segment?.paddr ?? 0, word),
      filesz: numberBytes(data.length, word),
      memsz: numberBytes(segment?.memsz ?? data.length, word),
      align: numberBytes(4, word),
    };
    offset += data.length;
    const { type, flags, vaddr, paddr, filesz, memsz, align } = fields;
    return bits === 64
      ? concatenate(type, flags, fields.offset, vaddr, paddr, filesz, memsz, align)
      : concatenate(type, fields.offset, vaddr, paddr, filesz, memsz, flags, align);
  });
  const identification = Uint8Array.of(0x7f, 0x45, 0x4c, 0x46, bits === 64 ? 2 : 1, recipe.bigEndian ? 2 : 1, 1);
  const header = concatenate(
    concatenate(identification, new Uint8Array(9)),
    numberBytes(recipe.type ?? 2, 2),
    numberBytes(recipe.machine ?? (bits === 64 ? MACHINE_X86_64 : MACHINE_I386), 2),
    numberBytes(1, 4),
    numberBytes(0x10_0000, word),
    numberBytes(headerSize, word),
    numberBytes(0, word),
    numberBytes(0, 4),
    numberBytes(headerSize, 2),
    numberBytes(programHeaderSize, 2),
    numberBytes(parts.length, 2),
    new Uint8Array(6),
  );
  return concatenate(header, ...programHeaders, ...parts);
}

/** @param payload packed vmlinux, with the four bytes of its size where the format has them. */
export function buildBzImage(payload: Uint8Array, version = 0x020f): Uint8Array {
  const setupSectors = 2;
  const payloadOffset = 0x40;
  const code = concatenate(new Uint8Array(payloadOffset).fill(0x90), payload);
  const image = new Uint8Array((setupSectors + 1) * 512 + Math.ceil(code.length / 16) * 16);
  const put = (at: number, value: number | bigint, size: number): void => image.set(numberBytes(value, size), at);
  put(0x1f1, setupSectors, 1);
  put(0x1f4, Math.ceil(code.length / 16), 4);
  put(0x1fe, 0xaa55, 2);
  put(0x200, 0x6aeb, 2);
  image.set(encoder.encode('HdrS'), 0x202);
  put(0x206, version, 2);
  put(0x20e, 0x100, 2);
  put(0x211, 1, 1);
  put(0x214, 0x10_0000, 4);
  put(0x22c, 0x7fff_ffff, 4);
  put(0x230, 0x20_0000, 4);
  put(0x238, 2047, 4);
  put(0x248, payloadOffset, 4);
  put(0x24c, payload.length, 4);
  put(0x258, 0x10_0000n, 8);
  put(0x260, 0x10_0000, 4);
  image.set(encoder.encode('6.1.0-test (someone@somewhere) #1'), 0x300);
  image.set(code, (setupSectors + 1) * 512);
  return image;
}

/** What Linux's build does behind every compressor but gzip. */
export function withSize(packed: Uint8Array, size: number): Uint8Array {
  return concatenate(packed, numberBytes(size, 4));
}
