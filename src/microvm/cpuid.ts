import { bits, type CpuidResult, cpuid } from '../cpu/cpuid.ts';
import { FREQUENCIES, FREQUENCY_LEAF, TSC_FREQUENCY } from '../domain/clock.ts';

/** What CPUID reports of a processor whose kernel runs in ring 0, besides what every guest has. */
const FEATURES = {
  /** Leaf 1: process contexts, and a local timer that compares with the time-stamp counter. */
  moreEcx: bits(17, 24),
  /** Leaf 1: PSE, PGE. */
  moreEdx: bits(3, 13),
  /** Leaf 7: FSGSBASE; TSC_ADJUST, which kernels take for a sign that they need not watch the counter. */
  moreLeaf7Ebx: bits(0, 1),
} as const;

const POWER_LEAF = 6;
/** ARAT: the local timer never stops, so that kernels stop their ticks. */
const POWER: CpuidResult = [bits(2), 0, 0, 0];

/** @param vcpu number of the virtual processor, which is also its APIC's */
export function machineCpuid(leaf: number, subleaf: number, vcpu: number, maximumLeaf: number): CpuidResult {
  return leaf === POWER_LEAF ? POWER : cpuid(leaf, subleaf, { ...FEATURES, maximumLeaf, apicId: vcpu });
}

const CLOCK_LEAF = 0x15;

/**
 * What CPUID reports where no interface tells of a clock. Kernels that know better than to measure it are told the
 * frequencies of the counter and of the timer by the processor (SDM vol. 2A, CPUID, leaf 15H).
 */
export function plainCpuid(leaf: number, subleaf: number, vcpu: number): CpuidResult {
  switch (leaf) {
    case CLOCK_LEAF:
      // The counter runs as fast as the crystal.
      return [1, 1, TSC_FREQUENCY, 0];
    case FREQUENCY_LEAF:
      return FREQUENCIES;
    default:
      return machineCpuid(leaf, subleaf, vcpu, FREQUENCY_LEAF);
  }
}
