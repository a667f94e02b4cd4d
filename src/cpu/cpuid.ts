/**
 * What CPUID tells of the processor under every interface: the level x86-64-v2 and what decode/features.ts adds to
 * it, so that kernels use FXSAVE and no mitigation.
 *
 * The model is one that Linux knows never to speculate (an in-order Atom): with another, each indirect call of the
 * kernel would become a return that is mispredicted on purpose. Bits are named after the Intel manual, vol. 2A, CPUID.
 */
export type CpuidResult = readonly [eax: number, ebx: number, ecx: number, edx: number];

/** A word with these bits set. */
export const bits = (...positions: number[]): number =>
  positions.reduce((value, position) => value | (1 << position), 0) >>> 0;

/** Family 6, model 0x1c, stepping 10. */
export const SIGNATURE = 0x0001_06ca;

/** SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT, RDRAND, hypervisor. */
const LEAF1_ECX = bits(0, 9, 13, 19, 20, 23, 30, 31);
/** FPU, DE, TSC, MSR, PAE, CX8, APIC, SEP, CMOV, PAT, CLFLUSH, MMX, FXSR, SSE, SSE2. */
const LEAF1_EDX = bits(0, 2, 4, 5, 6, 8, 9, 11, 15, 16, 19, 23, 24, 25, 26);
/** ERMS, RDSEED. */
const LEAF7_EBX = bits(9, 18);
/**
 * Fast short REP MOV; SERIALIZE, by which Linux makes code that it has patched visible to itself, some 110,000 times in a
 * boot. Without it each is an IRET.
 */
const LEAF7_EDX = bits(4, 14);
/** LAHF in 64-bit mode. */
const EXTENDED_ECX = bits(0);
/** SYSCALL, NX, RDTSCP, long mode. */
const EXTENDED_EDX = bits(11, 20, 27, 29);
const INVARIANT_TSC = bits(8);

export const PHYSICAL_BITS = 40;
const VIRTUAL_BITS = 48;
const CLFLUSH_LINE = 8;

/** Four ASCII characters as a little-endian word. */
export function word(text: string): number {
  return (
    (text.charCodeAt(0) | (text.charCodeAt(1) << 8) | (text.charCodeAt(2) << 16) | (text.charCodeAt(3) << 24)) >>> 0
  );
}

const BRAND = 'ring1 virtual processor'.padEnd(48, '\0');

function brand(leaf: number): CpuidResult {
  const at = (leaf - 0x8000_0002) * 16;
  const part = (offset: number) => word(BRAND.slice(at + offset, at + offset + 4));
  return [part(0), part(4), part(8), part(12)];
}

/**
 * Leaf 2, one byte a descriptor, as that Atom has it: TLBs (0x4f, 0x59, 0xba, 0xc0), a first level of 24 KiB for data
 * (0x0e) and 32 KiB for code (0x30), 512 KiB behind them (0x80). Programs choose how to copy memory by these sizes;
 * without them the GNU C library takes every large copy past the caches.
 */
const CACHE_DESCRIPTORS: CpuidResult = [0x4fba_5901, 0x0e30_80c0, 0, 0];

const enum CacheType {
  data = 1,
  code = 2,
  unified = 3,
}

/** A subleaf of leaf 4: a cache of one processor with lines of 64 bytes, as many as `ways` times `sets`. */
const cache = (type: CacheType, level: number, ways: number, sets: number): CpuidResult => [
  type | (level << 5) | (1 << 8),
  ((ways - 1) << 22) | (CLFLUSH_LINE * 8 - 1),
  sets - 1,
  0,
];

const CACHES: readonly CpuidResult[] = [
  cache(CacheType.data, 1, 6, 64),
  cache(CacheType.code, 1, 8, 64),
  cache(CacheType.unified, 2, 8, 1024),
];

export const NOTHING: CpuidResult = [0, 0, 0, 0];

/** What differs between interfaces. */
export interface CpuidOptions {
  /** The highest leaf below 0x40000000 that exists. */
  readonly maximumLeaf: number;
  readonly apicId: number;
  /** Features of leaf 1, ECX and EDX, besides those that every guest has. */
  readonly moreEcx: number;
  readonly moreEdx: number;
  /** The same of leaf 7, EBX. */
  readonly moreLeaf7Ebx: number;
}

/** Leaves of the processor itself, 0 … 7 and 0x80000000 …; all others are empty. */
export function cpuid(leaf: number, subleaf: number, options: CpuidOptions): CpuidResult {
  switch (leaf >>> 0) {
    case 0:
      return [options.maximumLeaf, word('Genu'), word('ntel'), word('ineI')];
    case 1:
      return [
        SIGNATURE,
        (CLFLUSH_LINE << 8) | (1 << 16) | (options.apicId << 24),
        (LEAF1_ECX | options.moreEcx) >>> 0,
        (LEAF1_EDX | options.moreEdx) >>> 0,
      ];
    case 2:
      return CACHE_DESCRIPTORS;
    case 4:
      return CACHES[subleaf] ?? NOTHING;
    case 7:
      return subleaf === 0 ? [0, (LEAF7_EBX | options.moreLeaf7Ebx) >>> 0, 0, LEAF7_EDX] : NOTHING;
    case 0x8000_0000:
      return [0x8000_0008, 0, 0, 0];
    case 0x8000_0001:
      return [0, 0, EXTENDED_ECX, EXTENDED_EDX];
    case 0x8000_0002:
    case 0x8000_0003:
    case 0x8000_0004:
      return brand(leaf >>> 0);
    case 0x8000_0007:
      return [0, 0, 0, INVARIANT_TSC];
    case 0x8000_0008:
      return [(VIRTUAL_BITS << 8) | PHYSICAL_BITS, 0, 0, 0];
    default:
      return NOTHING;
  }
}
