import { bits } from '../cpu/cpuid.ts';

/** What CPUID reports of a processor whose kernel runs in ring 0, besides what every guest has. */
export const MACHINE_FEATURES = {
  /** Leaf 1: a local timer that compares with the time-stamp counter. */
  moreEcx: bits(24),
  /** Leaf 1: PSE, PGE. */
  moreEdx: bits(3, 13),
  /** Leaf 7: TSC_ADJUST, which kernels take for a sign that they need not watch the counter. */
  moreLeaf7Ebx: bits(1),
} as const;
