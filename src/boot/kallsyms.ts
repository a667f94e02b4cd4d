import { ByteReader } from './byte-reader.ts';
import { InputError } from './input-error.ts';

/**
 * Names for a kernel's addresses, from the tables that the kernel carries for itself (CONFIG_KALLSYMS; written by
 * scripts/kallsyms.c of the Linux source). No symbol marks them, so they are found by their shape. In order of address,
 * each aligned to 8 bytes in a 64-bit kernel and to 4 in a 32-bit one:
 *
 *   offsets         one i32 for each symbol      up to 6.3; from 6.4 on behind token_index.
 *   relative_base   word that they relate to     Before 4.6: one address for each symbol instead of both
 *   num_syms        number of symbols
 *   names           for each symbol a length (one byte, two from 128 on) and as many token numbers
 *   markers         where in `names` every 256th entry begins; words before 4.20, u32 since
 *   seqs_of_names   order of the symbols by name, 3 bytes each; in 6.2 and 6.3, and in Debian's 6.1. Not used here
 *   token_table     256 strings, each with a NUL
 *   token_index     where in `token_table` each begins, 256 u16
 *
 * A name's first character is the symbol's type as nm prints it. Tokens that stand for a single character have that
 * character's number, and every kernel has names with each of the digits: hence the bytes "0\0 1\0 … 9\0", with which
 * the search begins. All other places are derived from there and have to agree with each other.
 *
 * With per-CPU symbols at absolute addresses (x86-64) an offset ≥ 0 is such an address, and −1 − n means base + n.
 */

export interface SymbolAddress {
  readonly name: string;
  /** Bytes from the symbol's beginning. */
  readonly offset: number;
  /** Whether it is a symbol of code. */
  readonly isCode: boolean;
}

export interface SymbolExtent {
  /** Virtual address; of several symbols with one name, of the first. */
  readonly address: bigint;
  /** Bytes up to the next symbol, which is the most that this one can have. */
  readonly room: number;
}

/** Types of code as nm prints them: local, global, weak. */
const CODE_TYPES = 'tTwW';

export interface Symbolizer {
  /** The symbol that covers a virtual address; undefined outside the kernel's own image, as in modules. */
  lookup(address: bigint | number): SymbolAddress | undefined;
  /** Where symbols lie, of those names that there are. Takes long: it reads all names. */
  find(names: readonly string[]): ReadonlyMap<string, SymbolExtent>;
  readonly symbolCount: number;
}

/** A kernel's image, as loadKernel gives it. */
export interface SymbolSource {
  readonly bits: 32 | 64;
  readonly segments: readonly { readonly data: Uint8Array }[];
}

/** Debian's kernels have 130,000. Together with the file's size it bounds the work on a hostile image. */
const MAXIMUM_SYMBOLS = 4_000_000;
const NAMES_PER_MARKER = 256;
const TOKENS = 256;
/** KSYM_NAME_LEN, and the two bytes of the length. */
const LONGEST_NAME = 514;
const DIGIT_ZERO = 0x30;

/** Other tables of characters contain the digits, too; a hostile image could have thousands. */
const MAXIMUM_ATTEMPTS = 1000;
/** Places that look like markers, for one token table. */
const MAXIMUM_MARKER_TABLES = 64;

/** @returns undefined if the image has no such tables, or of a layout that is not known. */
export function createSymbolizer(source: SymbolSource): Symbolizer | undefined {
  let attempts = 0;
  for (const { data } of source.segments) {
    const reader = new ByteReader(data, 'the kernel image');
    for (let at = findDigits(data, 0); at >= 0 && attempts < MAXIMUM_ATTEMPTS; at = findDigits(data, at + 1)) {
      attempts++;
      const tables = readTables(reader, at, source.bits);
      if (tables !== undefined) return new KallsymsSymbolizer(withOwnNames(tables));
    }
  }
  return undefined;
}

/**
 * The same for a running guest. Reads all of [start, start + length), the virtual addresses of the kernel's image.
 * @param read gives bytes of guest memory within one page of 4 KiB, or null where nothing is mapped.
 */
export function createSymbolizerFromMemory(
  bits: 32 | 64,
  start: bigint,
  length: number,
  read: (address: bigint, length: number) => Uint8Array | null,
): Symbolizer | undefined {
  const data = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const address = start + BigInt(at);
    const count = Math.min(4096 - Number(address & 4095n), length - at);
    const bytes = read(address, count);
    if (bytes !== null) data.set(bytes.subarray(0, count), at);
    at += count;
  }
  return createSymbolizer({ bits, segments: [{ data }] });
}

interface Tables {
  readonly bytes: Uint8Array;
  /** Address of the lowest symbol that counts. */
  readonly base: bigint;
  /** Ascending distances of the symbols from `base`. */
  readonly deltas: Uint32Array;
  /** Where in `bytes` each symbol's name begins, in the same order. */
  readonly names: Uint32Array;
  readonly tokens: readonly string[];
}

/** With a copy of the names alone, so that the image need not be kept. */
function withOwnNames(tables: Tables): Tables {
  const { bytes, names } = tables;
  const start = names.reduce((least, at) => Math.min(least, at), bytes.length);
  const end = names.reduce((most, at) => {
    const extent = nameExtent(bytes, at);
    return Math.max(most, extent.start + extent.length);
  }, 0);
  return { ...tables, bytes: bytes.slice(start, end), names: names.map((at) => at - start) };
}

class KallsymsSymbolizer implements Symbolizer {
  readonly #tables: Tables;

  constructor(tables: Tables) {
    this.#tables = tables;
  }

  get symbolCount(): number {
    return this.#tables.deltas.length;
  }

  lookup(address: bigint | number): SymbolAddress | undefined {
    const { base, deltas, names } = this.#tables;
    const wide = BigInt(address) - base;
    const last = deltas[deltas.length - 1];
    if (last === undefined || wide < 0n || wide > BigInt(last)) return undefined;
    const delta = Number(wide);
    // The first symbol above the address, by halving; the one before it covers the address.
    let low = 0;
    let high = deltas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((deltas[middle] as number) <= delta) low = middle + 1;
      else high = middle;
    }
    let index = low - 1;
    if (index < 0) return undefined;
    // Of several names for one address the kernel, too, prints the first.
    while (index > 0 && deltas[index - 1] === deltas[index]) index--;
    const typed = this.#typedName(names[index] as number);
    return {
      name: typed.slice(1),
      offset: delta - (deltas[index] as number),
      isCode: CODE_TYPES.includes(typed.charAt(0)),
    };
  }

  find(wanted: readonly string[]): ReadonlyMap<string, SymbolExtent> {
    const { base, deltas, names } = this.#tables;
    const found = new Map<string, SymbolExtent>();
    for (let index = 0; index < names.length && found.size < wanted.length; index++) {
      const name = this.#typedName(names[index] as number).slice(1);
      if (!wanted.includes(name) || found.has(name)) continue;
      const delta = deltas[index] as number;
      const next = deltas.subarray(index).find((other) => other > delta) ?? delta;
      found.set(name, { address: base + BigInt(delta), room: next - delta });
    }
    return found;
  }

  /** The name behind the character of its type. */
  #typedName(at: number): string {
    const { bytes, tokens } = this.#tables;
    const { length, start } = nameExtent(bytes, at);
    let name = '';
    for (let index = start; index < start + length; index++) name += tokens[bytes[index] as number] as string;
    return name;
  }
}

function nameExtent(bytes: Uint8Array, at: number): { length: number; start: number } {
  const first = bytes[at] ?? 0;
  if (first < 0x80) return { length: first, start: at + 1 };
  return { length: (first & 0x7f) | ((bytes[at + 1] ?? 0) << 7), start: at + 2 };
}

/** The next place of "0\0 1\0 … 9\0" from `from` on, or −1. */
function findDigits(bytes: Uint8Array, from: number): number {
  search: for (let at = bytes.indexOf(DIGIT_ZERO, from); at >= 0; at = bytes.indexOf(DIGIT_ZERO, at + 1)) {
    for (let digit = 0; digit < 10; digit++) {
      if (bytes[at + 2 * digit] !== DIGIT_ZERO + digit || bytes[at + 2 * digit + 1] !== 0) continue search;
    }
    return at;
  }
  return -1;
}

function readTables(reader: ByteReader, digits: number, bits: 32 | 64): Tables | undefined {
  try {
    const word = bits / 8;
    const tokenTable = readTokens(reader, digits, word);
    if (tokenTable === undefined) return undefined;
    for (const markers of markerTables(reader, tokenTable.start, word)) {
      const found = findNames(reader, markers, word);
      if (found === undefined) continue;
      const addresses = readAddresses(reader, found, tokenTable.end, word);
      if (addresses === undefined) continue;
      return { bytes: reader.bytes, tokens: tokenTable.tokens, ...addresses };
    }
    return undefined;
  } catch (error) {
    // Tables that reach beyond the image: the digits were something else.
    if (error instanceof InputError) return undefined;
    throw error;
  }
}

interface TokenTable {
  readonly start: number;
  /** Behind token_index. */
  readonly end: number;
  readonly tokens: readonly string[];
}

function readTokens(reader: ByteReader, digits: number, alignment: number): TokenTable | undefined {
  // From "0" on there are 256 − 48 strings; the index follows the last.
  let at = digits;
  for (let token = DIGIT_ZERO; token < TOKENS; token++) {
    const end = reader.bytes.indexOf(0, at);
    if (end < 0) return undefined;
    at = end + 1;
  }
  const index = alignUp(at, alignment);
  const start = digits - reader.u16(index + 2 * DIGIT_ZERO);
  const tokens: string[] = [];
  let next = 0;
  for (let token = 0; token < TOKENS; token++) {
    if (reader.u16(index + 2 * token) !== next) return undefined;
    const text = reader.text(start + next, LONGEST_NAME);
    tokens.push(text);
    next += text.length + 1;
  }
  return { start, end: index + 2 * TOKENS, tokens };
}

interface Names {
  /** Where num_syms lies. */
  readonly countAt: number;
  /** Where each symbol's name begins. */
  readonly names: Uint32Array;
}

interface Markers {
  readonly start: number;
  readonly count: number;
  readonly size: number;
}

/** Places before the token table where markers may lie: they begin with 0 and ascend. */
function* markerTables(reader: ByteReader, tokenTable: number, word: number): Generator<Markers> {
  for (const size of word === 8 ? [4, 8] : [4]) {
    // An odd number of 32-bit markers in a 64-bit kernel is padded.
    const last = tokenTable - size;
    yield* ascendingFromZero(reader, reader.u32(last) === 0 ? last - size : last, size);
  }
  // With seqs_of_names between, its size tells the number of symbols to within a few, and so that of markers.
  let attempts = 0;
  for (let end = tokenTable - word; tokenTable - end <= 3 * MAXIMUM_SYMBOLS; end -= word) {
    const count = Math.ceil(Math.floor((tokenTable - end) / 3) / NAMES_PER_MARKER);
    const start = end - alignUp(4 * count, word);
    if (start < 0) return;
    if (reader.u32(start) !== 0 || reader.u32(start + 4) === 0) continue;
    if (attempts++ === MAXIMUM_MARKER_TABLES) return;
    const markers = [...ascendingFromZero(reader, start + 4 * (count - 1), 4)];
    yield* markers.filter((found) => found.count === count);
  }
}

/** Goes back from the last marker to the first, which is 0. */
function* ascendingFromZero(reader: ByteReader, last: number, size: number): Generator<Markers> {
  let start = last;
  while (start >= size && reader.u32(start) !== 0) {
    if (reader.u32(start - size) >= reader.u32(start)) return;
    start -= size;
  }
  if (start >= 0 && reader.u32(start) === 0) yield { start, size, count: (last - start) / size + 1 };
}

/** The names end where the markers begin. How long they are is not said, but everything has to agree. */
function findNames(reader: ByteReader, markers: Markers, alignment: number): Names | undefined {
  const marker = (index: number): number => reader.u32(markers.start + index * markers.size);
  const lastMarker = marker(markers.count - 1);
  // The names behind the last marker are 1 to 256.
  const latest = alignDown(markers.start - lastMarker - 2, alignment);
  const earliest = markers.start - lastMarker - NAMES_PER_MARKER * LONGEST_NAME;
  for (let start = latest; start >= earliest && start >= alignment; start -= alignment) {
    const countAt = start - alignment;
    const count = reader.u32(countAt);
    if (count > MAXIMUM_SYMBOLS || Math.ceil(count / NAMES_PER_MARKER) !== markers.count) continue;
    const names = walkNames(reader, start, count, marker);
    if (names !== undefined && alignUp(names.end, alignment) === markers.start) return { countAt, names: names.starts };
  }
  return undefined;
}

/** @returns undefined if an entry is empty or not where its marker says. */
function walkNames(
  reader: ByteReader,
  start: number,
  count: number,
  marker: (index: number) => number,
): { starts: Uint32Array; end: number } | undefined {
  const starts = new Uint32Array(count);
  let at = start;
  for (let index = 0; index < count; index++) {
    if (index % NAMES_PER_MARKER === 0 && at - start !== marker(index / NAMES_PER_MARKER)) return undefined;
    const name = nameExtent(reader.bytes, at);
    if (name.length === 0 || name.start + name.length > reader.length) return undefined;
    starts[index] = at;
    at = name.start + name.length;
  }
  return { starts, end: at };
}

/** Tries the three layouts; only the right one gives ascending addresses in the kernel's half of the address space. */
function readAddresses(
  reader: ByteReader,
  { countAt, names }: Names,
  tokenIndexEnd: number,
  word: number,
): Pick<Tables, 'base' | 'deltas' | 'names'> | undefined {
  const count = names.length;
  const readWord = (at: number): bigint => (word === 8 ? reader.u64(at) : BigInt(reader.u32(at)));
  const offsetsBehind = alignUp(tokenIndexEnd, word);
  const candidates = [
    { base: countAt - word, offsets: alignDown(countAt - word - 4 * count, word) },
    { base: alignUp(offsetsBehind + 4 * count, word), offsets: offsetsBehind },
  ];
  for (const { base, offsets } of candidates) {
    if (!reader.has(base, word) || !reader.has(offsets, 4 * count)) continue;
    const baseAddress = readWord(base);
    if (!isKernelAddress(baseAddress, word)) continue;
    const relative = ascending(relativeDeltas(reader, offsets, count), names);
    if (relative !== undefined) return { base: baseAddress, ...relative };
  }
  const table = alignDown(countAt - word * count, word);
  if (!reader.has(table, word * count)) return undefined;
  const addresses = Array.from({ length: count }, (_, index) => readWord(table + index * word));
  // Per-CPU symbols are not in the kernel's half.
  const lowest = addresses.find((address) => isKernelAddress(address, word));
  if (lowest === undefined) return undefined;
  const absolute = ascending(
    addresses.map((address) => Number(address - lowest)),
    names,
  );
  return absolute === undefined ? undefined : { base: lowest, ...absolute };
}

/** Distances from the base; negative for symbols that have an absolute address instead. */
function relativeDeltas(reader: ByteReader, offsets: number, count: number): number[] {
  const values = Array.from({ length: count }, (_, index) => reader.u32(offsets + 4 * index));
  const hasAbsolute = values.some((value) => value >= 0x8000_0000);
  return hasAbsolute ? values.map((value) => -1 - (value | 0)) : values;
}

/** Leaves out negative distances. @returns undefined if the others do not ascend, or none is left. */
function ascending(all: readonly number[], names: Uint32Array): Pick<Tables, 'deltas' | 'names'> | undefined {
  const kept = all.flatMap((delta, index) => (delta >= 0 && delta <= 0xffff_ffff ? [index] : []));
  const deltas = Uint32Array.from(kept, (index) => all[index] as number);
  for (let index = 1; index < deltas.length; index++) {
    if ((deltas[index] as number) < (deltas[index - 1] as number)) return undefined;
  }
  if (deltas.length < all.length / 2) return undefined;
  return { deltas, names: Uint32Array.from(kept, (index) => names[index] as number) };
}

/** Linux lives in the upper half, or with the usual 3:1 split in the last gigabyte; 2:2 begins at 0x80000000. */
function isKernelAddress(address: bigint, word: number): boolean {
  return address >= (word === 8 ? 0xffff_8000_0000_0000n : 0x8000_0000n);
}

function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}

function alignDown(value: number, alignment: number): number {
  return Math.floor(value / alignment) * alignment;
}
