import type { ElfImage } from './elf.ts';

/** ELF notes of owner "Xen": what a kernel tells a domain builder. Xen's public/elfnote.h defines numbers and meaning. */

export const enum XenNote {
  info = 0,
  entry = 1,
  hypercallPage = 2,
  virtBase = 3,
  paddrOffset = 4,
  xenVersion = 5,
  guestOs = 6,
  guestVersion = 7,
  loader = 8,
  paeMode = 9,
  features = 10,
  bsdSymtab = 11,
  hvStartLow = 12,
  l1MfnValid = 13,
  suspendCancel = 14,
  initP2m = 15,
  modStartPfn = 16,
  supportedFeatures = 17,
  phys32Entry = 18,
  phys32Relocatable = 19,
}

/** Addresses are guest-virtual unless said otherwise. A note that the kernel does not have is undefined. */
export interface XenNotes {
  /** The first instruction of a paravirtual guest. */
  readonly entry: bigint | undefined;
  /** The page to fill with hypercall stubs. Kernels of late 2024 on have none. */
  readonly hypercallPage: bigint | undefined;
  /** The address that pseudo-physical 0 has in the initial mapping. */
  readonly virtBase: bigint | undefined;
  /** Subtracted from p_paddr to get the pseudo-physical address. */
  readonly paddrOffset: bigint | undefined;
  readonly xenVersion: string | undefined;
  readonly guestOs: string | undefined;
  readonly guestVersion: string | undefined;
  readonly loader: string | undefined;
  /** For 32-bit kernels: "yes", "yes[extended-cr3]", "bimodal" or "no". */
  readonly paeMode: string | undefined;
  /** Names as in "!writable_page_tables|pae_pgdir_above_4gb"; "!" marks what the kernel cannot do without. */
  readonly features: readonly string[];
  /** The same as a bitmap of what the kernel supports. */
  readonly supportedFeatures: bigint | undefined;
  readonly hvStartLow: bigint | undefined;
  /** Pairs of mask and value that tell a present entry. */
  readonly l1MfnValid: readonly { readonly mask: bigint; readonly value: bigint }[];
  readonly suspendCancel: boolean;
  /** Where the kernel wants its frame list mapped. */
  readonly initP2m: bigint | undefined;
  /** The kernel takes the initrd by frame number; it need not be mapped. */
  readonly modStartPfn: boolean;
  /** Guest-physical entry in 32-bit mode without paging (PVH). */
  readonly phys32Entry: bigint | undefined;
}

const NOTE_HEADER = 12;
/** Kernels have a few hundred bytes of notes in one place; a hostile file shall not make us read all of it many times. */
const MAXIMUM_AREAS = 16;
const MAXIMUM_AREA_SIZE = 64 * 1024;

/** @returns undefined when the image has no note of owner "Xen" at all. */
export function readXenNotes(elf: ElfImage): XenNotes | undefined {
  const notes = new Map<number, Uint8Array>();
  for (const area of elf.noteAreas.slice(0, MAXIMUM_AREAS)) {
    collectXenNotes(area.subarray(0, MAXIMUM_AREA_SIZE), notes);
  }
  if (notes.size === 0) return undefined;

  const number = (type: XenNote): bigint | undefined => {
    const value = notes.get(type);
    return value === undefined || value.length < 4 ? undefined : littleEndian(value);
  };
  const text = (type: XenNote): string | undefined => {
    const value = notes.get(type);
    return value === undefined ? undefined : asciiText(value);
  };
  return {
    entry: number(XenNote.entry),
    hypercallPage: number(XenNote.hypercallPage),
    virtBase: number(XenNote.virtBase),
    paddrOffset: number(XenNote.paddrOffset),
    xenVersion: text(XenNote.xenVersion),
    guestOs: text(XenNote.guestOs),
    guestVersion: text(XenNote.guestVersion),
    loader: text(XenNote.loader),
    paeMode: text(XenNote.paeMode),
    features: (text(XenNote.features) ?? '').split('|').filter((name) => name !== ''),
    supportedFeatures: number(XenNote.supportedFeatures),
    hvStartLow: number(XenNote.hvStartLow),
    l1MfnValid: maskedValues(notes.get(XenNote.l1MfnValid), elf.bits / 8),
    suspendCancel: (number(XenNote.suspendCancel) ?? 0n) !== 0n,
    initP2m: number(XenNote.initP2m),
    modStartPfn: (number(XenNote.modStartPfn) ?? 0n) !== 0n,
    phys32Entry: number(XenNote.phys32Entry),
  };
}

/**
 * Notes follow each other: sizes of name and value, type, name, value, both padded to fours. The last one may be cut;
 * what there is of its value counts. The first note of a type wins.
 */
function collectXenNotes(area: Uint8Array, notes: Map<number, Uint8Array>): void {
  const view = new DataView(area.buffer, area.byteOffset, area.length);
  for (let at = 0; at + NOTE_HEADER <= area.length; ) {
    const nameSize = view.getUint32(at, true);
    const valueSize = view.getUint32(at + 4, true);
    const type = view.getUint32(at + 8, true);
    const nameStart = at + NOTE_HEADER;
    const valueStart = nameStart + Math.ceil(nameSize / 4) * 4;
    const isXen =
      nameSize === 4 &&
      valueStart <= area.length &&
      area[nameStart] === 0x58 &&
      area[nameStart + 1] === 0x65 &&
      area[nameStart + 2] === 0x6e &&
      area[nameStart + 3] === 0;
    if (isXen && !notes.has(type)) notes.set(type, area.subarray(valueStart, valueStart + valueSize));
    at = valueStart + Math.ceil(valueSize / 4) * 4;
  }
}

/** Numbers are 4 bytes in 32-bit kernels and 8 in 64-bit ones, but builders take either. Less is a note that was cut. */
function littleEndian(bytes: Uint8Array): bigint {
  let value = 0n;
  for (let index = Math.min(bytes.length, 8) - 1; index >= 0; index--) {
    value = (value << 8n) | BigInt(bytes[index] as number);
  }
  return value;
}

function asciiText(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) {
    if (byte === 0) break;
    text += String.fromCharCode(byte);
  }
  return text;
}

function maskedValues(bytes: Uint8Array | undefined, size: number): { mask: bigint; value: bigint }[] {
  const pairs: { mask: bigint; value: bigint }[] = [];
  if (bytes === undefined) return pairs;
  for (let at = 0; at + 2 * size <= bytes.length; at += 2 * size) {
    pairs.push({
      mask: littleEndian(bytes.subarray(at, at + size)),
      value: littleEndian(bytes.subarray(at + size, at + 2 * size)),
    });
  }
  return pairs;
}
