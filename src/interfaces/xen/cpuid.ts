import {
  type CpuidResult,
  bits as featureBits,
  NOTHING,
  PHYSICAL_BITS,
  cpuid as processorCpuid,
  word,
} from '../../cpu/cpuid.ts';
import { FREQUENCIES, FREQUENCY_LEAF, TSC_FREQUENCY } from '../../domain/clock.ts';
import { XEN_VERSION } from './abi.ts';

/** What CPUID tells a PV guest: the processor, and Xen's own leaves. */
const HYPERVISOR_BASE = 0x4000_0000;
const HYPERVISOR_LEAVES = 5;
/** A kernel that is not told the frequencies reads the port of a timer 100,000 times, and PV guests have no such timer. */
const MAXIMUM_LEAF = FREQUENCY_LEAF;

const EXTENDED_FEATURES = 0x8000_0001;
/** SYSCALL and long mode, EDX: what a 32-bit guest cannot get to. */
const LONG_MODE_ONLY = featureBits(11, 29);

/** @param vcpu number of the virtual processor, its APIC id is twice that as on Xen */
export function cpuid(leaf: number, subleaf: number, vcpu: number, bits: 64 | 32): CpuidResult {
  switch (leaf >>> 0) {
    case FREQUENCY_LEAF:
      return FREQUENCIES;
    case HYPERVISOR_BASE:
      return [HYPERVISOR_BASE + HYPERVISOR_LEAVES, word('XenV'), word('MMXe'), word('nVMM')];
    case HYPERVISOR_BASE + 1:
      return [XEN_VERSION, 0, 0, 0];
    case HYPERVISOR_BASE + 2:
      // One page of hypercall stubs through this MSR; updates that preserve accessed and dirty bits.
      return [1, 0x4000_0000, 1, 0];
    case HYPERVISOR_BASE + 3:
      if (subleaf === 0) return [2, 0, TSC_FREQUENCY / 1000, 0];
      return subleaf === 2 ? [TSC_FREQUENCY / 1000, 0, 0, 0] : NOTHING;
    case HYPERVISOR_BASE + 5:
      return [0, PHYSICAL_BITS, 0, 0];
    default: {
      const [eax, ebx, ecx, edx] = processorCpuid(leaf, subleaf, {
        maximumLeaf: MAXIMUM_LEAF,
        apicId: vcpu * 2,
        moreEcx: 0,
        moreEdx: 0,
        moreLeaf7Ebx: 0,
      });
      const hidden = bits === 32 && leaf >>> 0 === EXTENDED_FEATURES ? LONG_MODE_ONLY : 0;
      return [eax, ebx, ecx, (edx & ~hidden) >>> 0];
    }
  }
}
