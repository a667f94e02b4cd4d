/**
 * The table by which kernels without ACPI find processors and interrupt controllers (Intel MultiProcessor Specification
 * 1.4, chapter 4).
 *
 *   floating pointer · header · processors · ISA bus · I/O APIC · lines of the bus · local lines
 */
export interface MultiprocessorOptions {
  /** Physical address of the floating pointer, where kernels look for it; a multiple of 16. */
  readonly address: number;
  readonly processors: number;
  /** Signature and features of a processor, as CPUID gives them. */
  readonly signature: number;
  readonly features: number;
  readonly localApic: number;
  readonly ioApic: { readonly identifier: number; readonly address: number; readonly version: number };
}

const POINTER_BYTES = 16;
const HEADER_BYTES = 44;
const PROCESSOR_BYTES = 20;
const ENTRY_BYTES = 8;
const REVISION = 4;

const enum EntryType {
  processor = 0,
  bus = 1,
  ioApic = 2,
  line = 3,
  localLine = 4,
}

const enum LineType {
  vectored = 0,
  nonMaskable = 1,
  external = 3,
}

const enum ProcessorFlag {
  enabled = 1,
  bootstrap = 2,
}

const LOCAL_APIC_VERSION = 0x14;
const ISA_LINES = 16;
/** The second interrupt controller asks by it, so that no device has it. */
const CASCADE = 2;
const ALL = 0xff;
const BUS = 0;

/** The bytes that are to stand at `options.address`. */
export function createMultiprocessorTable(options: MultiprocessorOptions): Uint8Array {
  const entries = [...processors(options), bus(), ioApic(options), ...lines(options), ...localLines()];
  const length = HEADER_BYTES + entries.reduce((sum, entry) => sum + entry.length, 0);
  const bytes = new Uint8Array(POINTER_BYTES + length);
  const pointer = bytes.subarray(0, POINTER_BYTES);
  const table = bytes.subarray(POINTER_BYTES);

  setText(pointer, 0, '_MP_');
  setWord(pointer, 4, options.address + POINTER_BYTES);
  pointer[8] = 1; // length in units of 16 bytes
  pointer[9] = REVISION;
  setChecksum(pointer, 10);

  setText(table, 0, 'PCMP');
  setHalf(table, 4, length);
  table[6] = REVISION;
  setText(table, 8, 'RING1   ');
  setText(table, 16, 'MICROVM     ');
  setHalf(table, 34, entries.length);
  setWord(table, 36, options.localApic);
  let at = HEADER_BYTES;
  for (const entry of entries) {
    table.set(entry, at);
    at += entry.length;
  }
  setChecksum(table, 7);
  return bytes;
}

function processors({ processors: count, signature, features }: MultiprocessorOptions): Uint8Array[] {
  return Array.from({ length: count }, (_, index) => {
    const entry = new Uint8Array(PROCESSOR_BYTES);
    const flags = ProcessorFlag.enabled | (index === 0 ? ProcessorFlag.bootstrap : 0);
    entry.set([EntryType.processor, index, LOCAL_APIC_VERSION, flags]);
    setWord(entry, 4, signature);
    setWord(entry, 8, features);
    return entry;
  });
}

function bus(): Uint8Array {
  const entry = new Uint8Array(ENTRY_BYTES);
  entry.set([EntryType.bus, BUS]);
  setText(entry, 2, 'ISA   ');
  return entry;
}

function ioApic({ ioApic: { identifier, address, version } }: MultiprocessorOptions): Uint8Array {
  const entry = new Uint8Array(ENTRY_BYTES);
  const ENABLED = 1;
  entry.set([EntryType.ioApic, identifier, version, ENABLED]);
  setWord(entry, 4, address);
  return entry;
}

/** Each line of the bus leads to the pin of its number, triggered as the bus does it. */
function lines({ ioApic: { identifier } }: MultiprocessorOptions): Uint8Array[] {
  return Array.from({ length: ISA_LINES }, (_, line) => line)
    .filter((line) => line !== CASCADE)
    .map((line) => Uint8Array.of(EntryType.line, LineType.vectored, 0, 0, BUS, line, identifier, line));
}

/** The two 8259A at the first local line of all processors, and what cannot be masked at the second. */
function localLines(): Uint8Array[] {
  return [LineType.external, LineType.nonMaskable].map((type, local) => {
    return Uint8Array.of(EntryType.localLine, type, 0, 0, BUS, 0, ALL, local);
  });
}

function setText(bytes: Uint8Array, offset: number, text: string): void {
  bytes.set(new TextEncoder().encode(text), offset);
}

function setHalf(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value & 0xff;
  bytes[offset + 1] = value >> 8;
}

function setWord(bytes: Uint8Array, offset: number, value: number): void {
  setHalf(bytes, offset, value & 0xffff);
  setHalf(bytes, offset + 2, value >>> 16);
}

/** All bytes together are 0, modulo 256. */
function setChecksum(bytes: Uint8Array, offset: number): void {
  bytes[offset] = -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;
}
