import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { hasPackageArchive } from '../debian-kernel.ts';
import { GuestConsole } from './console.ts';

const TIME_LIMIT = 240_000;

const SEED = 42;
const NUMBERS = 10_000;

/**
 * A generator whose products are exact in awk's numbers, and many small processes between its runs; then all by which one
 * run could differ from another.
 */
const WORKLOAD = [
  `awk 'BEGIN { s = ${SEED}; for (i = 0; i < ${NUMBERS}; i++) { s = s * 16807 % 2147483647; print s } }' > /tmp/numbers`,
  'i=0; while [ $i -lt 60 ]; do (cat /tmp/numbers | head -n 100 > /dev/null); i=$((i+1)); done',
  'sort -n /tmp/numbers | gzip -c | zcat | sha256sum',
  'cat /proc/interrupts /proc/uptime; date; head -c 32 /dev/urandom | sha256sum',
].join('; ');

function expectedSum(): string {
  const numbers: number[] = [];
  for (let state = SEED, count = 0; count < NUMBERS; count++) {
    state = (state * 16_807) % 2_147_483_647;
    numbers.push(state);
  }
  const lines = numbers.sort((a, b) => a - b).map((number) => `${number}\n`);
  return createHash('sha256').update(lines.join('')).digest('hex');
}

/** All that a guest prints, with virtual time: clock and interrupts of a workload among it. */
async function printedBy(name: string, paging: string): Promise<string> {
  const arguments_ = ['--interface', name, '--paging', paging, '--deterministic'];
  const guest = await GuestConsole.start(...arguments_, '--append', `quiet ring1.run="${WORKLOAD}"`);
  try {
    expect(await guest.ended).toEqual({ status: 0, stderr: '' });
    expect(guest.complaints).toEqual([]);
    return guest.text;
  } finally {
    await guest.kill();
  }
}

describe.skipIf(!hasPackageArchive)('a guest whose page tables are shadowed', () => {
  it.each([
    ['xen', 'direct'],
    ['kvm', 'nested'],
    ['native', 'native'],
  ])(
    'on %s computes, instruction by instruction, what it does with %s paging',
    async (name, paging) => {
      const shadowed = await printedBy(name, 'shadow');
      expect(shadowed).toContain(`${expectedSum()}  -`);
      expect(shadowed).toBe(await printedBy(name, paging));
    },
    TIME_LIMIT,
  );
});
