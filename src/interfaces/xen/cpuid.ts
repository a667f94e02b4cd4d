import { XEN_VERSION } from './abi.ts';
import { TSC_FREQUENCY } from './clock.ts';

/**
 * What CPUID tells a PV guest: the level x86-64-v2 and no more, so that kernels use FXSAVE and no mitigation.
 *
 * The model is one that Linux knows never to speculate (an in-order Atom): with another, each indirect call of the
 * kernel would become a return that is mispredicted on purpose. Bits are named after the Intel manual, vol. 2A, CPUID.
 */
export type CpuidResult = readonly [eax: number, ebx: number, ecx: number, edx: number];

const bits = (...positions: number[]): number =>
  positions.reduce((value, position) => value | (1 << position), 0) >>> 0;

/** Family 6, model 0x1c, stepping 10. */
const SIGNATURE = 0x0001_06ca;

/** SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT, RDRAND, hypervisor. */
const LEAF1_ECX = bits(0, 9, 13, 19, 20, 23, 30, 31);
/** FPU, DE, TSC, MSR, PAE, CX8, APIC, SEP, CMOV, PAT, CLFLUSH, MMX, FXSR, SSE, SSE2. */
const LEAF1_EDX = bits(0, 2, 4, 5, 6, 8, 9, 11, 15, 16, 19, 23, 24, 25, 26);
/** ERMS, RDSEED. */
const LEAF7_EBX = bits(9, 18);
/** Fast short REP MOV. */
const LEAF7_EDX = bits(4);
/** LAHF in 64-bit mode. */
const EXTENDED_ECX = bits(0);
/** SYSCALL, NX, RDTSCP, long mode. */
const EXTENDED_EDX = bits(11, 20, 27, 29);
const INVARIANT_TSC = bits(8);

const HYPERVISOR_BASE = 0x4000_0000;
const HYPERVISOR_LEAVES = 5;
const PHYSICAL_BITS = 40;
const VIRTUAL_BITS = 48;
const CLFLUSH_LINE = 8;

/** Four ASCII characters as a little-endian word. */
function word(text: string): number {
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

const NOTHING: CpuidResult = [0, 0, 0, 0];
const MAXIMUM_LEAF = 7;

/** @param vcpu number of the virtual processor, its APIC id is twice that as on Xen */
export function cpuid(leaf: number, subleaf: number, vcpu: number): CpuidResult {
  switch (leaf >>> 0) {
    case 0:
      return [MAXIMUM_LEAF, word('Genu'), word('ntel'), word('ineI')];
    case 1:
      return [SIGNATURE, (CLFLUSH_LINE << 8) | (1 << 16) | ((vcpu * 2) << 24), LEAF1_ECX, LEAF1_EDX];
    case 2:
      return CACHE_DESCRIPTORS;
    case 4:
      return CACHES[subleaf] ?? NOTHING;
    case 7:
      return subleaf === 0 ? [0, LEAF7_EBX, 0, LEAF7_EDX] : NOTHING;
    case HYPERVISOR_BASE:
      return [HYPERVISOR_BASE + HYPERVISOR_LEAVES, word('XenV'), word('MMXe'), word('nVMM')];
    case HYPERVISOR_BASE + 1:
      return [XEN_VERSION, 0, 0, 0];
    case HYPERVISOR_BASE + 2:
      // One page of hypercall stubs through this MSR; updates that preserve accessed and dirty bits.
      return [1, 0x4000_0000, 1, 0];
    case HYPERVISOR_BASE + 3:
      if (subleaf === 0) return [2, 0, TSC_FREQUENCY / 1000, 0];
      return subleaf === 2 ? [TSC_FREQUENCY / 1000, 0, 0, 0] : NOTHING;
    case HYPERVISOR_BASE + 5:
      return [0, PHYSICAL_BITS, 0, 0];
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
