/**
 * Address spaces are types. A number that names a thing in one space cannot be passed where another is meant.
 *
 * - `GuestVirtual`: a canonical linear address of a guest as a *signed* number, −2^47 … 2^47−1 (exact in a double).
 * - `Mfn`: a machine frame number as a direct guest sees it, in its domain's own machine space.
 * - `Pfn`: a pseudo-physical frame number of a direct guest.
 * - `GuestPhysical`: an address in the physical memory of a guest that knows no other, unsigned.
 * - `Gfn`: the number of a guest-physical page.
 * - `Frame`: a frame of the host's pool.
 * - `HostVirtual`: an address in a guest's host address space (src/mm), unsigned, below 2^48.
 * - `HostAddress`: a byte offset in the host's WebAssembly memory, unsigned.
 */
declare const space: unique symbol;
type In<Name extends string> = number & { readonly [space]: Name };

export type GuestVirtual = In<'guest virtual'>;
export type Mfn = In<'mfn'>;
export type Pfn = In<'pfn'>;
export type GuestPhysical = In<'guest physical'>;
export type Gfn = In<'gfn'>;
export type Frame = In<'frame'>;
export type HostAddress = In<'host'>;
export type HostVirtual = In<'host virtual'>;

export const PAGE_SHIFT = 12;
export const PAGE_SIZE = 4096;

/** Joins the halves of a 64-bit value to a signed number; exact for canonical addresses and any value below 2^53. */
export function joinSigned(low: number, high: number): number {
  return (high | 0) * 0x1_0000_0000 + (low >>> 0);
}

/** The low 32 bits, unsigned, of a signed safe integer. */
export function lowWord(value: number): number {
  return value >>> 0;
}

/** The high 32 bits, unsigned, of a signed safe integer. */
export function highWord(value: number): number {
  return Math.floor(value / 0x1_0000_0000) >>> 0;
}

/** Whether a 64-bit value given by halves is a canonical 48-bit address (bits 63–47 all equal). */
export function isCanonical(high: number): boolean {
  const top = (high | 0) >> 15;
  return top === 0 || top === -1;
}
