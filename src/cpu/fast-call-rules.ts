import type { GuestVirtual } from '../x86/brand.ts';
import { ARITHMETIC_FLAGS, Flag } from '../x86/registers.ts';
import type { Descriptor } from './processor-api.ts';

/**
 * What SYSCALL, SYSRET and IRET do alike wherever they are carried out (SDM vol. 2B): in generated code
 * (semantics/fast-calls.ts) or by the host (protection/fast-calls.ts, where SYSENTER and SYSEXIT are too, and
 * protection/returns.ts).
 */

/** Flags that SYSRET takes from R11. */
export const SYSRET_FLAGS = 0x3c_7fd7;

/** Flags that IRET takes from its frame in any ring; in ring 0 it takes IOPL and IF as well. */
export const IRET_FLAGS =
  ARITHMETIC_FLAGS |
  Flag.trap |
  Flag.direction |
  Flag.nestedTask |
  Flag.resume |
  Flag.alignmentCheck |
  Flag.identification;

const CODE_64: Descriptor = { low: 0xffff, high: 0x00af_9b00 };
const CODE_32: Descriptor = { low: 0xffff, high: 0x00cf_9b00 };
const DATA: Descriptor = { low: 0xffff, high: 0x00cf_9300 };
/** DPL 3. */
const USER = 0x6000;

function forUser({ low, high }: Descriptor): Descriptor {
  return { low, high: high | USER };
}

/** Hidden parts that segments get whatever stands in the tables, by the ring that is entered: from address 0, 4 GiB. */
export const CALL_SEGMENTS = {
  kernel: { code64: CODE_64, code32: CODE_32, data: DATA },
  user: { code64: forUser(CODE_64), code32: forUser(CODE_32), data: forUser(DATA) },
} as const;

/** What SYSCALL and SYSRET find in their registers. */
export interface FastCalls {
  readonly entry: GuestVirtual;
  /** Flags that SYSCALL clears. */
  readonly mask: number;
  /** The upper half of STAR: selectors to begin from, the kernel's in the lower 16 bits. */
  readonly selectors: number;
  /** Where the selectors' descriptors are, at a multiple of 8; undefined when IRET is not to rely on them. */
  readonly table: GuestVirtual | undefined;
}

/** What SYSRET to 64-bit code gives to CS and SS. @param selectors as of `FastCalls` */
export function userSelectors(selectors: number): { readonly code: number; readonly stack: number } {
  const first = selectors >>> 16;
  return { code: ((first + 16) | 3) & 0xffff, stack: ((first + 8) | 3) & 0xffff };
}
