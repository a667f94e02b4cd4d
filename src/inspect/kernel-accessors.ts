import type { ElfSegment } from '../boot/elf.ts';
import type { ElfSymbol } from '../boot/elf-symbols.ts';

/** Symbols around a kernel's record of the instructions by which it means to read page-table entries: their addresses. */
const BEGIN = 'accessors';
const END = 'accessors_end';

/** @returns undefined when the kernel has no such record, as Linux has none */
export function recordedAccessors(kernel: {
  readonly bits: 32 | 64;
  readonly symbols: readonly ElfSymbol[];
  readonly segments: readonly ElfSegment[];
}): ReadonlySet<number> | undefined {
  const { bits, symbols, segments } = kernel;
  const begin = symbols.find(({ name }) => name === BEGIN)?.address;
  const end = symbols.find(({ name }) => name === END)?.address;
  if (begin === undefined || end === undefined) return undefined;
  const segment = segments.find(({ vaddr, data }) => begin >= vaddr && end <= vaddr + BigInt(data.length));
  if (!segment || begin > end) return undefined;
  const { buffer, byteOffset } = segment.data;
  const view = new DataView(buffer, byteOffset + Number(begin - segment.vaddr), Number(end - begin));
  const found = new Set<number>();
  const bytes = bits / 8;
  for (let at = 0; at + bytes <= view.byteLength; at += bytes) {
    found.add(bits === 64 ? Number(view.getBigInt64(at, true)) : view.getUint32(at, true));
  }
  return found;
}
