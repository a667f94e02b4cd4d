import { type Frame, lowWord, PAGE_SIZE } from '../x86/brand.ts';
import { Pte } from '../x86/registers.ts';

/**
 * Values of the host's own page-table entries, in the architecture's format as far as the host needs it:
 *
 *     51 … 12         11 … 0
 *     frame number    present, writable, accessed, dirty      a page of the pool
 *     swap slot       SWAPPED                                 a page of the swap store
 *     0               0                                       nothing yet
 *
 * A value is exact in a double. It is no number to calculate with: only this file knows the format.
 */
declare const host: unique symbol;
export type PteValue = number & { readonly [host]: 'page-table entry' };

/** In an entry that is not present: the rest is a swap slot. The bit is one that the architecture leaves to software. */
const SWAPPED = 0x200;
const FLAGS = PAGE_SIZE - 1;

export const NO_PTE = 0 as PteValue;

export function presentPte(frame: Frame, writable: boolean): PteValue {
  return (frame * PAGE_SIZE + (Pte.present | Pte.accessed) + (writable ? Pte.writable | Pte.dirty : 0)) as PteValue;
}

export function swapPte(slot: number): PteValue {
  return (slot * PAGE_SIZE + SWAPPED) as PteValue;
}

/** An entry that refers to a table of the level below. */
export function tablePte(table: Frame): PteValue {
  return (table * PAGE_SIZE + (Pte.present | Pte.writable)) as PteValue;
}

export function isPresent(value: PteValue): boolean {
  return (lowWord(value) & Pte.present) !== 0;
}

export function isSwapped(value: PteValue): boolean {
  return (lowWord(value) & (Pte.present | SWAPPED)) === SWAPPED;
}

export function isWritable(value: PteValue): boolean {
  return (lowWord(value) & Pte.writable) !== 0;
}

export function isYoung(value: PteValue): boolean {
  return (lowWord(value) & Pte.accessed) !== 0;
}

/** Frame of a present entry. */
export function frameOf(value: PteValue): Frame {
  return Math.floor(value / PAGE_SIZE) as Frame;
}

/** Slot of a swapped entry. */
export function slotOf(value: PteValue): number {
  return Math.floor(value / PAGE_SIZE);
}

export function asOld(value: PteValue): PteValue {
  return (isYoung(value) ? value - Pte.accessed : value) as PteValue;
}

export function asYoung(value: PteValue): PteValue {
  return (isYoung(value) ? value : value + Pte.accessed) as PteValue;
}

export function asReadOnly(value: PteValue): PteValue {
  return (value - (lowWord(value) & FLAGS & (Pte.writable | Pte.dirty))) as PteValue;
}
