import { SystemResult } from '../../cpu/operands.ts';
import { plainCpuid } from '../../microvm/cpuid.ts';
import type { MicrovmInterface } from '../../microvm/interface.ts';

/** Plain hardware: a machine and nothing else. */
export function createNativeInterface(): MicrovmInterface {
  return {
    hypercallNames: [],
    cpuid: plainCpuid,
    readMsr: () => false,
    writeMsr: () => undefined,
    hypercall: () => SystemResult.interface,
    resume: () => {},
    suspend: () => {},
    refresh: () => {},
    acknowledged: () => {},
    reset: () => {},
    archive: () => {},
  };
}
