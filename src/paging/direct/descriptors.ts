/** Bits of a segment descriptor's high word (SDM vol. 3A, 3.4.5). */
const enum DescriptorHigh {
  type = 0xf00,
  callGate = 0xc00,
  /** Bits that are zero in a call gate, beside the parameter count. */
  gateReserved = 0xe0,
  codeOrData = 0x1000,
  privilegeShift = 13,
  privilege = 0x6000,
  present = 0x8000,
  longMode = 0x20_0000,
}

/**
 * Judges a descriptor that a guest wants in a table in use: absent ones, code and data, call gates and type 0 pass; what
 * the processor would take for a TSS, an LDT or another gate does not. A segment's privilege is raised to the kernel's.
 *
 * @param kernelPrivilege ring of the guest's kernel; a 32-bit kernel (ring 1) gets no 64-bit code segment
 * @returns the high word to be stored, unsigned, or −1
 */
export function judgeDescriptor(high: number, kernelPrivilege: 1 | 3): number {
  if ((high & DescriptorHigh.present) === 0) return high >>> 0;
  if ((high & DescriptorHigh.codeOrData) !== 0) {
    if (kernelPrivilege === 1 && (high & DescriptorHigh.longMode) !== 0) return -1;
    const privilege = (high & DescriptorHigh.privilege) >> DescriptorHigh.privilegeShift;
    if (privilege >= kernelPrivilege) return high >>> 0;
    return ((high & ~DescriptorHigh.privilege) | (kernelPrivilege << DescriptorHigh.privilegeShift)) >>> 0;
  }
  const type = high & DescriptorHigh.type;
  if (type === 0) return high >>> 0;
  return type === DescriptorHigh.callGate && (high & DescriptorHigh.gateReserved) === 0 ? high >>> 0 : -1;
}
