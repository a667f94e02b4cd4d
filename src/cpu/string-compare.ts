import { Flag } from '../x86/registers.ts';

/**
 * PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM (SDM vol. 2, 4.1): compare two strings of up to 16 bytes or 8 words.
 *
 * Operands lie in a block that generated code has filled:
 */
export const enum StringBlock {
  /** 16 bytes: destination and source operand of the instruction. */
  first = 0x00,
  second = 0x10,
  /** 16 bytes: receives the mask of the M forms. */
  mask = 0x20,
  immediate = 0x30,
  /** u32 lengths in elements, at most 16; `IMPLICIT_LENGTH` for strings that end at their first zero. */
  firstLength = 0x34,
  secondLength = 0x38,
}

export const IMPLICIT_LENGTH = 0xff;

/** Fields of the immediate byte. */
const enum Mode {
  words = 1 << 0,
  signed = 1 << 1,
  aggregationShift = 2,
  negative = 1 << 4,
  /** Only results that belong to elements of the second string are negated. */
  masked = 1 << 5,
  /** Index of the last result instead of the first; a mask of elements instead of bits. */
  expanded = 1 << 6,
}

const enum Aggregation {
  equalAny,
  ranges,
  equalEach,
  equalOrdered,
}

const first = new Int32Array(16);
const second = new Int32Array(16);

/**
 * @param block address of the operands
 * @returns the six arithmetic flags in bits 0–15, the index (for rCX) from bit 16
 */
export function compareStrings(view: DataView, block: number): number {
  const mode = view.getUint8(block + StringBlock.immediate);
  const count = (mode & Mode.words) !== 0 ? 8 : 16;
  const firstLength = readString(view, block + StringBlock.first, block + StringBlock.firstLength, mode, first);
  const secondLength = readString(view, block + StringBlock.second, block + StringBlock.secondLength, mode, second);

  let result = 0;
  for (let j = 0; j < count; j++) {
    if (aggregate((mode >> Mode.aggregationShift) & 3, j, count, firstLength, secondLength)) result |= 1 << j;
  }
  if ((mode & Mode.negative) !== 0) {
    result ^= (mode & Mode.masked) !== 0 ? (1 << secondLength) - 1 : (1 << count) - 1;
  }

  const expanded = (mode & Mode.expanded) !== 0;
  let index = count;
  if (result !== 0) index = expanded ? 31 - Math.clz32(result) : 31 - Math.clz32(result & -result);
  writeMask(view, block + StringBlock.mask, result, expanded, count);

  let flags = 0;
  if (result !== 0) flags |= Flag.carry;
  if (secondLength < count) flags |= Flag.zero;
  if (firstLength < count) flags |= Flag.sign;
  if ((result & 1) !== 0) flags |= Flag.overflow;
  return flags | (index << 16);
}

/** Reads all elements of one operand, and returns how many of them are valid. */
function readString(view: DataView, address: number, lengthAddress: number, mode: number, target: Int32Array): number {
  const words = (mode & Mode.words) !== 0;
  const signed = (mode & Mode.signed) !== 0;
  const count = words ? 8 : 16;
  let end = count;
  for (let i = count - 1; i >= 0; i--) {
    let value: number;
    if (words) value = signed ? view.getInt16(address + i * 2, true) : view.getUint16(address + i * 2, true);
    else value = signed ? view.getInt8(address + i) : view.getUint8(address + i);
    target[i] = value;
    if (value === 0) end = i;
  }
  const length = view.getUint32(lengthAddress, true);
  return length === IMPLICIT_LENGTH ? end : Math.min(length, count);
}

/** Bit j of the intermediate result, with the comparisons of invalid elements forced as SDM table 4-7 says. */
function aggregate(how: Aggregation, j: number, count: number, firstLength: number, secondLength: number): boolean {
  switch (how) {
    case Aggregation.equalAny:
      if (j >= secondLength) return false;
      for (let i = 0; i < firstLength; i++) if (first[i] === second[j]) return true;
      return false;
    case Aggregation.ranges: {
      if (j >= secondLength) return false;
      const value = second[j] as number;
      for (let i = 0; i + 1 < firstLength; i += 2) {
        if (value >= (first[i] as number) && value <= (first[i + 1] as number)) return true;
      }
      return false;
    }
    case Aggregation.equalEach:
      if (j >= firstLength || j >= secondLength) return j >= firstLength && j >= secondLength;
      return first[j] === second[j];
    case Aggregation.equalOrdered:
      // The needle matches where it runs beyond the operand's end, but not beyond the end of its string.
      for (let i = 0; i < firstLength && j + i < count; i++) {
        if (j + i >= secondLength || first[i] !== second[j + i]) return false;
      }
      return true;
  }
}

function writeMask(view: DataView, address: number, result: number, expanded: boolean, count: number): void {
  for (let i = 0; i < 16; i++) {
    let byte = 0;
    if (expanded) byte = (result & (1 << (count === 8 ? i >> 1 : i))) !== 0 ? 0xff : 0;
    else if (i < 2) byte = (result >> (8 * i)) & 0xff;
    view.setUint8(address + i, byte);
  }
}
