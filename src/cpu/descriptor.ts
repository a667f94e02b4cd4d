import type { Descriptor } from './processor-api.ts';

/** What the two words of a descriptor say (SDM vol. 3A, 3.4.5 and 3.5). */

/** Bits of the upper word. */
export const enum DescriptorBit {
  /** Of code and data: set by the processor when the segment is loaded. */
  accessed = 0x100,
  readableOrWritable = 0x200,
  /** Of code; of data the segment expands down. */
  conforming = 0x400,
  code = 0x800,
  /** Code or data; clear in system segments and gates. */
  notSystem = 0x1000,
  present = 0x8000,
  longCode = 0x20_0000,
  default32 = 0x40_0000,
  granular = 0x80_0000,
}

/** Types of system segments and gates (SDM vol. 3A, table 3-2). */
export const enum SystemType {
  task16 = 1,
  localTable = 2,
  busyTask16 = 3,
  callGate16 = 4,
  taskGate = 5,
  interruptGate16 = 6,
  trapGate16 = 7,
  /** In long mode the only kind of task. */
  task = 9,
  busyTask = 11,
  callGate = 12,
  interruptGate = 14,
  trapGate = 15,
}

export function baseOf({ low, high }: Descriptor): number {
  return ((high & 0xff00_0000) | ((high & 0xff) << 16) | (low >>> 16)) >>> 0;
}

/** The last offset of the segment, or the first below an expand-down segment. */
export function limitOf({ low, high }: Descriptor): number {
  const raw = (high & 0xf_0000) | (low & 0xffff);
  return (high & DescriptorBit.granular) !== 0 ? ((raw << 12) | 0xfff) >>> 0 : raw;
}

/** Bits 8–23 of the upper word, without those of the limit between them. */
export function attributesOf({ high }: Descriptor): number {
  return (high >>> 8) & 0xf0ff;
}

export function privilegeOf({ high }: Descriptor): number {
  return (high >>> 13) & 3;
}

/** Of a system segment or gate. */
export function systemTypeOf({ high }: Descriptor): SystemType {
  return ((high >>> 8) & 15) as SystemType;
}

export function isSystem({ high }: Descriptor): boolean {
  return (high & DescriptorBit.notSystem) === 0;
}

export function isPresent({ high }: Descriptor): boolean {
  return (high & DescriptorBit.present) !== 0;
}

export function isCode({ high }: Descriptor): boolean {
  const kind = DescriptorBit.notSystem | DescriptorBit.code;
  return (high & kind) === kind;
}

export function isConforming(descriptor: Descriptor): boolean {
  return isCode(descriptor) && (descriptor.high & DescriptorBit.conforming) !== 0;
}

/** Whether SS can hold it. */
export function isWritableData({ high }: Descriptor): boolean {
  const kind = DescriptorBit.notSystem | DescriptorBit.code | DescriptorBit.readableOrWritable;
  return (high & kind) === (DescriptorBit.notSystem | DescriptorBit.readableOrWritable);
}

/** Present, writable data that expands up and has 4 GiB: offsets need no check. */
export function needsNoCheck(limit: number, attributes: number): boolean {
  return limit === 0xffff_ffff && (attributes & 0x9e) === 0x92;
}

/** The same, from address 0. */
export function isPlainData(descriptor: Descriptor): boolean {
  return baseOf(descriptor) === 0 && needsNoCheck(limitOf(descriptor), descriptor.high >>> 8);
}

/** Whether code can be executed from it in a ring. */
export function isCodeOfRing(descriptor: Descriptor, ring: number): boolean {
  const privilege = privilegeOf(descriptor);
  const isPermitted = isConforming(descriptor) ? privilege <= ring : privilege === ring;
  return isCode(descriptor) && isPresent(descriptor) && isPermitted;
}

/** Whether SS can hold it in a ring. */
export function isStackOfRing(descriptor: Descriptor, ring: number): boolean {
  return isWritableData(descriptor) && isPresent(descriptor) && privilegeOf(descriptor) === ring;
}

/** Present, DPL 3, accessed; 16-bit, byte limit. */
const REAL_DATA = 0xf300;
const REAL_CODE = 0xfb00;

/** What a selector means in real and virtual-8086 mode (SDM vol. 3B, 21.1.1 and 21.2.1): base is selector × 16. */
export function realDescriptor(selector: number, kind: 'code' | 'data'): Descriptor {
  const base = selector << 4;
  const attributes = kind === 'code' ? REAL_CODE : REAL_DATA;
  return { low: ((base << 16) | 0xffff) >>> 0, high: (((base >>> 16) & 0xff) | attributes) >>> 0 };
}
