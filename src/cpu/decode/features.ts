/**
 * The processor level as policy: which groups of instructions the decoder knows, and which it reports as existing.
 *
 * Each opcode row belongs to one group. A row whose group is not reported is left out when the decoder's tables are
 * compiled. If a less specific row covers the same encoding, that one applies, just as on an older processor: F3 0F BC
 * is TZCNT with `tzcnt` and BSF without, F3 0F 1E FA is ENDBR64 with `cet` and a NOP without.
 * If none does, the encoding is an invalid opcode.
 *
 * What CPUID reports must agree with the set in use.
 */

/**
 * Groups of instructions in use: the level called x86-64-v2, with RDRAND, RDSEED, PREFETCHW, RDTSCP and SERIALIZE; and
 * FSGSBASE, which exists where the kernel may set CR4.FSGSBASE.
 */
const reported = [
  'base',
  'fpu',
  'cmov',
  'cmpxchg8b',
  'cmpxchg16b',
  'clflush',
  'fsgsbase',
  'fxsr',
  'hypercall',
  'lahf',
  'mmx',
  'monitor',
  'msr',
  'popcnt',
  'prefetchw',
  'rdpmc',
  'rdrand',
  'rdseed',
  'rdtscp',
  'serialize',
  'sse',
  'sse2',
  'sse3',
  'ssse3',
  'sse4.1',
  'sse4.2',
  'syscall',
  'sysenter',
  'tsc',
] as const;

/** Groups which the tables describe and which are switched on by passing them to `createDecoder`. */
const unreported = [
  'aes',
  'clflushopt',
  'clwb',
  'lzcnt',
  'movbe',
  'pclmulqdq',
  'rdpid',
  'smap',
  'tzcnt',
  'wbnoinvd',
  'xsave',
  'xsaveopt',
] as const;

export type Feature = (typeof reported)[number] | (typeof unreported)[number];

/** The level which guests see. */
export const reportedFeatures: ReadonlySet<Feature> = new Set<Feature>(reported);

/** Every group the tables describe. */
export const knownFeatures: ReadonlySet<Feature> = new Set<Feature>([...reported, ...unreported]);
