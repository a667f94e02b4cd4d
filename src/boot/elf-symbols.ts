import { ByteReader } from './byte-reader.ts';
import type { SymbolAddress } from './kallsyms.ts';

/**
 * Names for a kernel's addresses, from the symbol table of its ELF file (gABI, "Symbol Table"). Linux's own files for
 * booting have none; smaller kernels do.
 */
export interface ElfSymbol {
  readonly name: string;
  readonly address: bigint;
  readonly isCode: boolean;
}

interface SymbolLayout {
  readonly sectionHeaders: number;
  readonly sectionHeaderSize: number;
  readonly sectionCount: number;
  /** In a section header. */
  readonly offset: number;
  readonly size: number;
  readonly link: number;
  /** In a symbol. */
  readonly symbolSize: number;
  readonly value: number;
  readonly info: number;
  readonly section: number;
}

const LAYOUT_64: SymbolLayout = {
  sectionHeaders: 0x28,
  sectionHeaderSize: 64,
  sectionCount: 0x3c,
  offset: 24,
  size: 32,
  link: 40,
  symbolSize: 24,
  value: 8,
  info: 4,
  section: 6,
};

const LAYOUT_32: SymbolLayout = {
  sectionHeaders: 0x20,
  sectionHeaderSize: 40,
  sectionCount: 0x30,
  offset: 16,
  size: 20,
  link: 24,
  symbolSize: 16,
  value: 4,
  info: 12,
  section: 14,
};

const SYMBOL_TABLE = 2;
/** Of a symbol's info: neither type nor object, object of data, function. */
const TYPE_MASK = 15;
const TYPE_FUNCTION = 2;
const TYPE_NONE = 0;
/** A section that stands for a number and no address. */
const ABSOLUTE = 0xfff1;
/** Debian's kernels have 130,000 symbols; a hostile file shall not make the host build many more. */
const MOST_SYMBOLS = 500_000;
const LONGEST_NAME = 512;

/** The symbols with an address, in order of address; none when the file has no table, or a damaged one. */
export function readElfSymbols(bytes: Uint8Array, bits: 32 | 64): readonly ElfSymbol[] {
  const reader = new ByteReader(bytes, 'the ELF file');
  const layout = bits === 64 ? LAYOUT_64 : LAYOUT_32;
  const word = (at: number): number => (bits === 64 ? Number(reader.u64(at)) : reader.u32(at));
  const start = word(layout.sectionHeaders);
  const section = (index: number): number => start + index * layout.sectionHeaderSize;
  const count = reader.u16(layout.sectionCount);
  for (let index = 0; index < count && reader.has(section(index), layout.sectionHeaderSize); index++) {
    if (reader.u32(section(index) + 4) !== SYMBOL_TABLE) continue;
    const names = section(reader.u32(section(index) + layout.link));
    if (!reader.has(names, layout.sectionHeaderSize)) return [];
    const table = { offset: word(section(index) + layout.offset), size: word(section(index) + layout.size) };
    return readTable(reader, layout, table, word(names + layout.offset), bits);
  }
  return [];
}

function readTable(
  reader: ByteReader,
  layout: SymbolLayout,
  { offset, size }: { readonly offset: number; readonly size: number },
  names: number,
  bits: 32 | 64,
): ElfSymbol[] {
  const symbols: ElfSymbol[] = [];
  const count = Math.min(MOST_SYMBOLS, Math.floor(size / layout.symbolSize));
  for (let index = 1; index < count && reader.has(offset + index * layout.symbolSize, layout.symbolSize); index++) {
    const at = offset + index * layout.symbolSize;
    const type = reader.u8(at + layout.info) & TYPE_MASK;
    const address = bits === 64 ? reader.u64(at + layout.value) : BigInt(reader.u32(at + layout.value));
    const name = names + reader.u32(at);
    const isPlace = type <= TYPE_FUNCTION && reader.u16(at + layout.section) !== ABSOLUTE;
    if (address === 0n || !isPlace || !reader.has(name, 1)) continue;
    const isCode = type === TYPE_FUNCTION || type === TYPE_NONE;
    symbols.push({ name: reader.text(name, LONGEST_NAME), address, isCode });
  }
  return symbols.sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0));
}

/** The symbol at or below an address, if it lies in the same half of the address space and not too far away. */
export function lookupElfSymbol(symbols: readonly ElfSymbol[], address: bigint | number): SymbolAddress | undefined {
  const wanted = BigInt.asUintN(64, BigInt(address));
  let low = 0;
  let high = symbols.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    // `middle` is below the length
    if (symbols[middle]!.address <= wanted) low = middle + 1;
    else high = middle;
  }
  const found = symbols[low - 1];
  if (!found || low === symbols.length) return undefined;
  return { name: found.name, offset: Number(wanted - found.address), isCode: found.isCode };
}
