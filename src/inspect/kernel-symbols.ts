import { type ElfSymbol, lookupElfSymbol } from '../boot/elf-symbols.ts';
import { createSymbolizer, type SymbolAddress, type SymbolSource } from '../boot/kallsyms.ts';
import type { Symbolizer } from './text.ts';

/** Names for addresses of a guest's kernel: from the tables that it carries for itself, else from its ELF file. */
export function kernelSymbolizer(kernel: () => SymbolSource & { readonly symbols: readonly ElfSymbol[] }): Symbolizer {
  // Most guests end without a name having been asked for; the tables are views of the whole kernel.
  let lookup: ((address: bigint) => SymbolAddress | undefined) | undefined;
  return (address) => {
    lookup ??= readSymbols(kernel());
    const symbol = lookup(BigInt.asUintN(64, BigInt(address)));
    return symbol && { name: symbol.name, offset: symbol.offset, isData: !symbol.isCode };
  };
}

function readSymbols(kernel: SymbolSource & { readonly symbols: readonly ElfSymbol[] }) {
  const own = createSymbolizer(kernel);
  if (own) return (address: bigint) => own.lookup(address);
  const { symbols } = kernel;
  return (address: bigint) => lookupElfSymbol(symbols, address);
}
