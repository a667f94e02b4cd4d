import { bits } from '../cpu/cpuid.ts';

/** What CPUID reports of a processor whose kernel runs in ring 0, besides what every guest has (leaf 1). */

/** A local timer that compares with the time-stamp counter. */
export const MACHINE_ECX = bits(24);
/** PSE, PGE. */
export const MACHINE_EDX = bits(3, 13);
