/** What CPUID reports, beside what the decoder knows and what Xen's guests ask. */
import { describe, expect, test } from 'vitest';
import { type Feature, reportedFeatures } from '../src/cpu/decode/features.ts';
import { TSC_FREQUENCY } from '../src/domain/clock.ts';
import { cpuid as xenCpuid } from '../src/interfaces/xen/cpuid.ts';
import { machineCpuid } from '../src/microvm/cpuid.ts';

const [EBX, ECX, EDX] = [1, 2, 3];

/** Where the manual has the bit of a group of instructions (SDM vol. 2A, CPUID). */
const BITS: readonly (readonly [feature: Feature, leaf: number, register: number, bit: number])[] = [
  ['sse3', 1, ECX, 0],
  ['ssse3', 1, ECX, 9],
  ['cmpxchg16b', 1, ECX, 13],
  ['sse4.1', 1, ECX, 19],
  ['sse4.2', 1, ECX, 20],
  ['movbe', 1, ECX, 22],
  ['popcnt', 1, ECX, 23],
  ['aes', 1, ECX, 25],
  ['xsave', 1, ECX, 26],
  ['rdrand', 1, ECX, 30],
  ['tsc', 1, EDX, 4],
  ['cmpxchg8b', 1, EDX, 8],
  ['cmov', 1, EDX, 15],
  ['sse2', 1, EDX, 26],
  ['fsgsbase', 7, EBX, 0],
  ['rdseed', 7, EBX, 18],
  ['smap', 7, EBX, 20],
  ['clflushopt', 7, EBX, 23],
  ['clwb', 7, EBX, 24],
  ['rdpid', 7, ECX, 22],
  ['serialize', 7, EDX, 14],
  ['lahf', 0x8000_0001, ECX, 0],
  ['syscall', 0x8000_0001, EDX, 11],
  ['rdtscp', 0x8000_0001, EDX, 27],
];

test.each(BITS)('%s is reported when the decoder has it', (feature, leaf, register, bit) => {
  const isReported = (((machineCpuid(leaf, 0, 0, 7)[register] as number) >>> bit) & 1) === 1;
  expect(isReported).toBe(reportedFeatures.has(feature));
});

describe('a guest of Xen', () => {
  const ask = (leaf: number) => xenCpuid(leaf, 0, 0, 64);

  test('is told the frequency, so that it measures none', () => {
    const megahertz = TSC_FREQUENCY / 1_000_000;
    expect(ask(0)[0]).toBeGreaterThanOrEqual(0x16);
    expect(ask(0x16)).toEqual([megahertz, megahertz, megahertz, 0]);
  });

  test.each([0xb, 0xd, 0x15])('finds nothing in leaf %i', (leaf) => expect(ask(leaf)).toEqual([0, 0, 0, 0]));
});
