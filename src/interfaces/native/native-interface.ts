import type { CpuidResult } from '../../cpu/cpuid.ts';
import { TSC_FREQUENCY } from '../../domain/clock.ts';
import { machineCpuid } from '../../microvm/cpuid.ts';
import type { MicrovmInterface } from '../../microvm/interface.ts';

/**
 * Plain hardware. There is nothing to measure a clock against, so the processor tells the frequencies of its counter and
 * of its timer by itself (SDM vol. 2A, CPUID, leaves 15H and 16H).
 */
const CLOCK_LEAF = 0x15;
const FREQUENCY_LEAF = 0x16;
const MEGAHERTZ = TSC_FREQUENCY / 1_000_000;

export function createNativeInterface(): MicrovmInterface {
  return {
    hypercallNames: [],
    cpuid(leaf, subleaf, vcpu): CpuidResult {
      switch (leaf) {
        case CLOCK_LEAF:
          // The counter runs as fast as the crystal.
          return [1, 1, TSC_FREQUENCY, 0];
        case FREQUENCY_LEAF:
          return [MEGAHERTZ, MEGAHERTZ, MEGAHERTZ, 0];
        default:
          return machineCpuid(leaf, subleaf, vcpu, FREQUENCY_LEAF);
      }
    },
    readMsr: () => false,
    writeMsr: () => undefined,
    hypercall: () => false,
    resume: () => {},
    suspend: () => {},
    refresh: () => {},
    acknowledged: () => {},
    reset: () => {},
    archive: () => {},
  };
}
