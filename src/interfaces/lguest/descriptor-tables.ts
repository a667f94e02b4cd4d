import type { Archive, Archived } from '../../archive/archive.ts';
import { DescriptorBit } from '../../cpu/descriptor.ts';
import type { Descriptor } from '../../cpu/processor-api.ts';
import { DESCRIPTORS, HOST_DESCRIPTORS, KERNEL_CODE, KERNEL_DATA, KERNEL_RING } from './abi.ts';

export const VECTORS = 256;
const PRIVILEGE_SHIFT = 13;
const PRIVILEGE = 3 << PRIVILEGE_SHIFT;

/** Flat segments of the kernel's ring, 32 bits: code that can be read, data that can be written, both accessed. */
const FLAT_LOW = 0x0000_ffff;
const FLAT_CODE = 0x00cf_9b00 | (KERNEL_RING << PRIVILEGE_SHIFT);
const FLAT_DATA = 0x00cf_9300 | (KERNEL_RING << PRIVILEGE_SHIFT);

export const enum GateType {
  interrupt = 0xe,
  trap = 0xf,
}

/** Bits of a gate's flags: interrupts are off in the handler; there is a gate. */
export const GATE_MASKS_INTERRUPTS = 4;
const GATE_SET = 0x80;

/** How a vector is entered. The code segment is always the kernel's. */
export interface Gate {
  readonly handler: number;
  /** The least privilege that may use it by INT. */
  readonly privilege: number;
  /** Of `GateType`, unless the guest says something else. */
  readonly type: number;
}

/** Descriptors and gates as the guest has told them. The host keeps both tables; the guest's own memory is not looked at. */
export class DescriptorTables implements Archived {
  readonly #descriptors = new Uint32Array(2 * DESCRIPTORS);
  readonly #handlers = new Uint32Array(VECTORS);
  /** 0 where there is no gate. */
  readonly #gateFlags = new Uint8Array(VECTORS);

  constructor() {
    this.#descriptors.set([FLAT_LOW, FLAT_CODE], (KERNEL_CODE >>> 3) * 2);
    this.#descriptors.set([FLAT_LOW, FLAT_DATA], (KERNEL_DATA >>> 3) * 2);
  }

  archive(archive: Archive): void {
    archive.words('descriptors', this.#descriptors);
    archive.words('handlers', this.#handlers);
    archive.words('gateFlags', this.#gateFlags);
  }

  /** False for a selector beyond the table, or of a local one: there is none. */
  read(selector: number, out: Descriptor): boolean {
    const index = selector >>> 3;
    if ((selector & 4) !== 0 || index >= DESCRIPTORS) return false;
    out.low = this.#descriptors[index * 2] as number;
    out.high = this.#descriptors[index * 2 + 1] as number;
    return true;
  }

  /**
   * Ring 0 is the host's: descriptors for it become those of the kernel's ring. They count as accessed, because processors
   * mark them where they stand, and are never of 64-bit code.
   * @returns false beyond the table
   */
  setDescriptor(index: number, low: number, high: number): boolean {
    if (index >= DESCRIPTORS) return false;
    if (HOST_DESCRIPTORS.has(index)) return true;
    const ring = (high & PRIVILEGE) === 0 ? KERNEL_RING << PRIVILEGE_SHIFT : 0;
    this.#descriptors[index * 2] = low;
    this.#descriptors[index * 2 + 1] = (high | ring | DescriptorBit.accessed) & ~DescriptorBit.longCode;
    return true;
  }

  /** @param flags as the catalogue has them: the privilege, and whether interrupts are off on entry */
  setGate(vector: number, handler: number, flags: number): void {
    this.#handlers[vector] = handler;
    this.#gateFlags[vector] = GATE_SET | flags;
  }

  clearGate(vector: number): void {
    this.#gateFlags[vector] = 0;
  }

  /** Undefined while the guest has set none. */
  gate(vector: number): Gate | undefined {
    const flags = this.#gateFlags[vector] ?? 0;
    if (flags === 0) return undefined;
    return {
      handler: this.#handlers[vector] as number,
      privilege: flags & 3,
      type: (flags & GATE_MASKS_INTERRUPTS) !== 0 ? GateType.interrupt : GateType.trap,
    };
  }
}

/** What the two words of a gate say; undefined for one that is not present. */
export function gateOf(low: number, high: number): Gate | undefined {
  if ((high & DescriptorBit.present) === 0) return undefined;
  return {
    handler: ((high & 0xffff_0000) | (low & 0xffff)) >>> 0,
    privilege: (high & PRIVILEGE) >>> PRIVILEGE_SHIFT,
    type: (high >>> 8) & 0xf,
  };
}
