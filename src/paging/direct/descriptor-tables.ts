import type { Mfn } from '../../x86/brand.ts';

/** Descriptors in a page, and GDT entries that are the guest's (the host's own follow). */
export const DESCRIPTORS_PER_PAGE = 512;
const GDT_ENTRIES_LIMIT = 7168;

/** Whether a table may have so many entries in so many pages. */
export function isGdtSize(pages: number, entries: number): boolean {
  return entries <= GDT_ENTRIES_LIMIT && pages === Math.ceil(entries / DESCRIPTORS_PER_PAGE);
}

/**
 * The pages that GDTs and LDTs of a Xen domain are in. What a segment register gets of them has been judged
 * (descriptors.ts), when it was stored or when it is loaded. Operations answer 0 or a `PagingError`.
 */
export interface DescriptorTables {
  /** Sets the frames of a virtual processor's GDT; `entries` at most 7168, one frame for each 512. */
  setGdt(processor: number, frames: readonly Mfn[], entries: number): number;
  /** Frames of a virtual processor's GDT. */
  gdtFrames(processor: number): readonly Mfn[];
  /** An LDT page comes into use, because a selector in it is loaded. */
  holdLdtFrame(mfn: Mfn): number;
  /** A processor's LDT changes: all LDT pages go out of use, and come back when their selectors are loaded again. */
  releaseLdt(): void;
  /** Stores one descriptor, by its machine address, into a page of descriptors or a plain page. */
  update(pointerLow: number, pointerHigh: number, low: number, high: number): number;
  /** The high word of a descriptor in such a page as a segment register gets it, unsigned; −1 for one that is none. */
  asLoaded(high: number): number;
}
