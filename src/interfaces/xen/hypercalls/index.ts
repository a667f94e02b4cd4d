import type { Handler } from './call.ts';
import { CPU_HYPERCALLS } from './cpu.ts';
import { EVENT_HYPERCALLS } from './events.ts';
import { MEMORY_HYPERCALLS } from './memory.ts';
import { MISC_HYPERCALLS } from './misc.ts';
import { MMU_HYPERCALLS } from './mmu.ts';
import { SCHED_HYPERCALLS } from './sched.ts';

/** Handlers by hypercall number. Multicall is the domain's own; what is missing answers −ENOSYS. */
export const HYPERCALLS: readonly (Handler | undefined)[] = (() => {
  const table: (Handler | undefined)[] = [];
  const all = [
    ...CPU_HYPERCALLS,
    ...EVENT_HYPERCALLS,
    ...MEMORY_HYPERCALLS,
    ...MISC_HYPERCALLS,
    ...MMU_HYPERCALLS,
    ...SCHED_HYPERCALLS,
  ];
  for (const [number, handler] of all) table[number] = handler;
  return table;
})();
