import { CALL_COUNT, Call, Relocation } from './abi.ts';
import { Assembler, Condition, Reg } from './assembler.ts';
import { PrivateCall } from './host-call.ts';
import {
  CALL_CODE,
  type CallCode,
  callHost,
  DIRECT_CALL_CODE,
  DIRECT_ENTRY_CODE,
  ENTRY_CODE,
  type EntryCode,
  NATIVE_CALL_CODE,
  NO_CALL,
  PAGES,
  writeNumbers,
  writeSharedCode,
} from './rom-code.ts';
import { WINDOW } from './window.ts';

/**
 * The ROM that kernels look for between 0xC0000 and 0xE0000, in steps of 2 KiB (asm-x86/vmi.h, struct vrom_header). The
 * kernel calls it where its direct mapping has it, so that its code must not depend on its address.
 *
 *     00   header of an option ROM, then of a VMI ROM
 *     20   with direct paging: "GPxE", for kernels that read entries of page tables by GetPxELong (else 0, as in VMI 3.0)
 *     28   slot of UseMachineFrames, by which such a kernel says so behind VMI_Init; answers 0, or anything when it is too late
 *     80   slot of VMI_Init
 *     88   slot of GetRelocationInfo
 *     90   headers of PCI and PnP, names
 *          code of calls
 *          what GetRelocationInfo answers: offset and kind of each call
 */
const enum Header {
  signature = 0x00,
  units = 0x02,
  biosEntry = 0x03,
  checksum = 0x07,
  vmiSignature = 0x08,
  minor = 0x0c,
  major = 0x0d,
  jumpSlots = 0x0e,
  virtualTop = 0x10,
  license = 0x16,
  pciHeader = 0x18,
  pnpHeader = 0x1a,
  extension = 0x20,
  useMachineFrames = 0x28,
  initialise = 0x80,
  relocate = 0x88,
  free = 0x90,
}

/** PCI data structure (PCI Firmware Specification 3.0, 5.1.2). */
const enum PciHeader {
  vendor = 4,
  device = 6,
  size = 10,
  units = 16,
  minor = 18,
  major = 19,
  last = 21,
  bytes = 24,
}

/** Expansion header for PnP (Plug and Play BIOS Specification 1.0A, 3.1). */
const enum PnpHeader {
  revision = 4,
  units = 5,
  checksum = 9,
  manufacturer = 14,
  product = 16,
  bytes = 32,
}

const OPTION_ROM = 0xaa55;
/** In real mode there is nothing to initialise. */
const RETURN_FAR = 0xcb;
const UNIT = 512;
const API_MAJOR = 3;
const ROM_MAJOR = 1;
/** The numbers by which kernels know such a ROM. */
const VENDOR = 0x15ad;
const DEVICE = 0x0801;
const LAST_IMAGE = 0x80;
/** Says that there are a slot of UseMachineFrames and the draft's calls by which entries are read. */
const EXTENSION = 'GPxE';
/** Kernels refuse a ROM that does not say so. */
const LICENSE = 'GPL';
const MANUFACTURER = 'ring1';
const PRODUCT = 'VMI';

export interface Rom {
  readonly image: Uint8Array;
  /** The offset of each call's code, where it has some or says that nothing is to be done. */
  readonly calls: ReadonlyMap<number, number | 'nothing'>;
  readonly entryCode: readonly EntryPlace[];
  /** Offset of two words for the pages of the memory and the distance of their numbers; undefined where entries hold their own. */
  readonly numbers: number | undefined;
}

/** Where it touches entries for the kernel: offsets, and words on the stack above the return address. */
export interface EntryPlace extends Pick<EntryCode, 'pushed' | 'isRead'> {
  readonly from: number;
  readonly to: number;
}

/** What a ROM is for: tables that are shadowed or examined, or nothing, when the kernel keeps all but two of its native operations. */
export type RomKind = 'shadow' | 'direct' | 'native';

const CODE: Readonly<Record<RomKind, Readonly<Partial<Record<number, CallCode>>>>> = {
  shadow: CALL_CODE,
  direct: DIRECT_CALL_CODE,
  native: NATIVE_CALL_CODE,
};

const ENTRIES: Readonly<Record<RomKind, readonly EntryCode[]>> = {
  shadow: ENTRY_CODE,
  direct: DIRECT_ENTRY_CODE,
  native: [],
};

export function createRom(kind: RomKind): Rom {
  const rom = new Assembler();
  const reserve = (bytes: number): number => {
    const at = rom.length;
    rom.bytes(...new Array<number>(bytes).fill(0));
    return at;
  };
  const text = (value: string): number => {
    const at = rom.length;
    rom.bytes(...new TextEncoder().encode(`${value}\0`));
    return at;
  };

  reserve(Header.useMachineFrames);
  if (kind === 'direct') rom.jump('use machine frames');
  reserve(Header.initialise - rom.length);
  rom.jump('initialise');
  reserve(Header.relocate - rom.length);
  rom.jump('relocate');
  reserve(Header.free - rom.length);
  const pci = reserve(PciHeader.bytes);
  const pnp = reserve(PnpHeader.bytes);
  const license = text(LICENSE);
  const manufacturer = text(MANUFACTURER);
  const product = text(PRODUCT);

  rom.align(16);
  rom.label('initialise');
  callHost(rom, PrivateCall.initialise);
  const codeOf = (call: number): CallCode => CODE[kind][call] ?? NO_CALL;
  if (kind === 'direct') {
    rom.label('use machine frames');
    callHost(rom, PrivateCall.useMachineFrames);
  }
  writeRelocate(rom);
  writeCalls(rom, codeOf);
  writeTable(rom, codeOf);
  if (kind === 'direct') writeNumbers(rom);
  const units = Math.ceil(rom.length / UNIT);
  reserve(units * UNIT - rom.length);

  const image = rom.finish();
  const view = new DataView(image.buffer);
  view.setUint16(Header.signature, OPTION_ROM, true);
  image[Header.units] = units;
  image[Header.biosEntry] = RETURN_FAR;
  image.set(new TextEncoder().encode('cVmi'), Header.vmiSignature);
  image[Header.major] = API_MAJOR;
  image[Header.jumpSlots] = CALL_COUNT;
  view.setUint32(Header.virtualTop, kind === 'shadow' ? WINDOW : 0, true);
  view.setUint16(Header.license, license, true);
  view.setUint16(Header.pciHeader, pci, true);
  view.setUint16(Header.pnpHeader, pnp, true);

  if (kind === 'direct') image.set(new TextEncoder().encode(EXTENSION), Header.extension);

  image.set(new TextEncoder().encode('PCIR'), pci);
  view.setUint16(pci + PciHeader.vendor, VENDOR, true);
  view.setUint16(pci + PciHeader.device, DEVICE, true);
  view.setUint16(pci + PciHeader.size, PciHeader.bytes, true);
  view.setUint16(pci + PciHeader.units, units, true);
  image[pci + PciHeader.major] = ROM_MAJOR;
  image[pci + PciHeader.last] = LAST_IMAGE;

  image.set(new TextEncoder().encode('$PnP'), pnp);
  image[pnp + PnpHeader.revision] = 1;
  image[pnp + PnpHeader.units] = PnpHeader.bytes / 16;
  view.setUint16(pnp + PnpHeader.manufacturer, manufacturer, true);
  view.setUint16(pnp + PnpHeader.product, product, true);
  image[pnp + PnpHeader.checksum] = complement(image.subarray(pnp, pnp + PnpHeader.bytes));
  image[Header.checksum] = complement(image);
  const entryCode = ENTRIES[kind].map(({ from, to, pushed, isRead }) => {
    return { from: rom.offsetOf(from), to: rom.offsetOf(to), pushed, isRead };
  });
  const numbers = kind === 'direct' ? rom.offsetOf(PAGES) : undefined;
  return { image, calls: callOffsets(rom, codeOf), entryCode, numbers };
}

/** What makes the sum of all bytes 0, modulo 256. */
function complement(bytes: Uint8Array): number {
  return -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;
}

function labelOf(call: number): string {
  return `call ${call}`;
}

/** EAX is a call's number; the answer is where its code is, as the kernel sees it, and in EDX how to use it. */
function writeRelocate(rom: Assembler): void {
  rom.label('relocate');
  rom.compareRegister(Reg.eax, CALL_COUNT);
  rom.jumpIf(Condition.aboveOrEqual, 'no such call');
  rom.call('here');
  rom.label('here');
  rom.pop(Reg.ecx);
  rom.bytes(0x8b, 0x94, 0xc1); // mov edx, [ecx + eax * 8 + …]
  rom.distance('here', 'relocations');
  rom.bytes(0x8b, 0x84, 0xc1); // mov eax, [ecx + eax * 8 + …]
  rom.distance('here', 'places');
  rom.bytes(0x01, 0xc8); // add eax, ecx
  rom.return();
  rom.label('no such call');
  rom.bytes(0x31, 0xc0); // xor eax, eax
  rom.bytes(0x31, 0xd2); // xor edx, edx
  rom.return();
}

function writeCalls(rom: Assembler, codeOf: (call: Call) => CallCode): void {
  for (let call = 0; call < CALL_COUNT; call++) {
    const { write } = codeOf(call);
    if (!write) continue;
    rom.label(labelOf(call));
    write(rom);
  }
  if (codeOf(Call.setEntry) === CALL_CODE[Call.setEntry]) writeSharedCode(rom);
}

function callOffsets(rom: Assembler, codeOf: (call: Call) => CallCode): Rom['calls'] {
  const calls = new Map<number, number | 'nothing'>();
  for (let call = 0; call < CALL_COUNT; call++) {
    const { relocation, write } = codeOf(call);
    if (relocation === Relocation.nothing) calls.set(call, 'nothing');
    else if (write) calls.set(call, rom.offsetOf(labelOf(call)));
  }
  return calls;
}

/** For each call the distance of its code from `here`, and its relocation. */
function writeTable(rom: Assembler, codeOf: (call: Call) => CallCode): void {
  rom.align(8);
  for (let call = 0; call < CALL_COUNT; call++) {
    const { relocation, write } = codeOf(call);
    if (call === 0) rom.label('places');
    if (write) rom.distance('here', labelOf(call));
    else rom.word(0);
    if (call === 0) rom.label('relocations');
    rom.word(relocation);
  }
}
