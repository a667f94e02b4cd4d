import { highWord, lowWord } from '../x86/brand.ts';

/** Name of the symbol that covers an address, and how far into it the address is. */
export type Symbolizer = (
  address: number,
) => { readonly name: string; readonly offset: number; readonly isData?: boolean } | undefined;

/** `0x` and the digits of a signed safe integer; a negative one as the 64-bit value that it stands for. */
export function hexadecimal(value: number): string {
  return value < 0 ? `0x${digits64(lowWord(value), highWord(value))}` : `0x${value.toString(16)}`;
}

/** The 16 digits of a 64-bit value. */
export function digits64(low: number, high: number): string {
  return digits32(high) + digits32(low);
}

export function digits32(value: number): string {
  return (value >>> 0).toString(16).padStart(8, '0');
}

/** `0x` and the digits of a 64-bit value, without leading zeros. */
export function hexadecimal64(low: number, high: number): string {
  return high >>> 0 === 0 ? `0x${(low >>> 0).toString(16)}` : `0x${(high >>> 0).toString(16)}${digits32(low)}`;
}

/** `name+0x12 (0xffffffff81000012)`, or the address alone. */
export function symbolText(address: number, symbol: ReturnType<Symbolizer>): string {
  if (symbol === undefined) return hexadecimal(address);
  return `${symbol.name}+0x${symbol.offset.toString(16)} (${hexadecimal(address)})`;
}
