/** The part of an encoding that names memory: ModRM, SIB and displacement (SDM volume 2, 2.1.5 and 2.2.1). */
import { AddressRegister, type Instruction } from './instruction.ts';

/** Bits of a REX prefix. A whole prefix is nonzero, since its high digit is 4. */
export const enum Rex {
  b = 1,
  x = 2,
  r = 4,
  w = 8,
}

/** Base and index of 16-bit addressing by ModRM.rm; SDM volume 2, table 2-1. */
const base16 = Int8Array.of(3, 3, 5, 5, 6, 7, 5, 3);
const index16 = Int8Array.of(6, 7, 6, 7, -1, -1, -1, -1);

/**
 * A little-endian number of `size` (1, 2 or 4; else the low 4) bytes, sign-extended. The caller has compared
 * `position + size` with the limit, so each index is in range.
 */
export function readSigned(bytes: Uint8Array, position: number, size: number): number {
  if (size === 1) return (bytes[position]! << 24) >> 24;
  if (size === 2) return ((bytes[position]! << 16) | (bytes[position + 1]! << 24)) >> 16;
  return bytes[position]! | (bytes[position + 1]! << 8) | (bytes[position + 2]! << 16) | (bytes[position + 3]! << 24);
}

/**
 * Decodes the address in ModRM (not register form), SIB and displacement. `position` is that of the byte after ModRM.
 * Returns the position after the address, or that position negated if it is beyond `limit`.
 */
export function decodeAddress(
  bytes: Uint8Array,
  position: number,
  limit: number,
  modRm: number,
  rex: number,
  longMode: boolean,
  out: Instruction,
): number {
  const mod = modRm >> 6;
  const rm = modRm & 7;
  let displacementSize = mod;
  let base: number;
  let index: number = AddressRegister.none;
  let scale = 1;
  let next = position;
  if (out.addressSize === 2) {
    base = base16[rm]!;
    index = index16[rm]!;
    if (mod === 0 && rm === 6) {
      base = AddressRegister.none;
      displacementSize = 2;
    }
  } else {
    // mod 1 is one byte, mod 2 four.
    if (mod === 2) displacementSize = 4;
    if (rm === 4) {
      if (next >= limit) return -(next + 1);
      const sib = bytes[next++]!;
      index = ((sib >> 3) & 7) | ((rex & Rex.x) << 2);
      if (index === 4) index = AddressRegister.none;
      else scale = 1 << (sib >> 6);
      base = (sib & 7) | ((rex & Rex.b) << 3);
      if (mod === 0 && (sib & 7) === 5) {
        base = AddressRegister.none;
        displacementSize = 4;
      }
    } else if (mod === 0 && rm === 5) {
      base = longMode ? AddressRegister.rip : AddressRegister.none;
      displacementSize = 4;
    } else {
      base = rm | ((rex & Rex.b) << 3);
    }
  }
  if (displacementSize !== 0) {
    if (next + displacementSize > limit) return -(next + displacementSize);
    const displacement = readSigned(bytes, next, displacementSize);
    out.displacement = displacement;
    out.displacementHigh = displacement >> 31;
    next += displacementSize;
  } else {
    out.displacement = 0;
    out.displacementHigh = 0;
  }
  out.base = base;
  out.index = index;
  out.scale = scale;
  return next;
}
