import { countInstructions, Statistics, sumTlbCounters } from '../../inspect/statistics.ts';
import { PAGE_SIZE } from '../../x86/brand.ts';
import { HYPERCALL_NAMES } from './abi.ts';
import type { XenDomain } from './domain.ts';

/** @param wallSeconds host time since the domain was made */
export function createStatistics(domain: XenDomain, wallSeconds: () => number): Statistics {
  const { clock, paging } = domain;
  return new Statistics(
    {
      wallSeconds,
      guestSeconds: () => clock.now() / 1e9,
      instructions: () => countInstructions(domain.vcpus),
      tlb: () => sumTlbCounters(domain.vcpus),
      framesByType: () => paging.statistics(),
      memoryInUse: () => (paging.frameCount + (paging.machineToPhysical?.pages ?? 0)) * PAGE_SIZE,
      ...(paging.shadow ? { shadow: paging.shadow } : {}),
    },
    HYPERCALL_NAMES,
  );
}
