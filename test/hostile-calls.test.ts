import { beforeAll, describe, expect, it } from 'vitest';
import { HostileGuests } from './hostile/guest.ts';
import { HostileNarrowGuests } from './hostile/narrow.ts';
import type { HostileRun } from './hostile/record.ts';
import { hashes, type Printed, runReference } from './reference-guest.ts';

/** `npx tsx test/hostile/run.ts` makes a million. */
const CALLS = 12_000;
const CALLS_32 = 8_000;

/** Calls with a result that shows that they were carried out, and with one that they were refused. */
const BOTH_WAYS = [
  'mmu_update 0',
  'mmu_update 1',
  'mmu_update 2',
  'mmuext_op 0',
  'mmuext_op 1',
  'mmuext_op 2',
  'mmuext_op 3',
  'mmuext_op 4',
  'mmuext_op 5',
  'mmuext_op 13',
  'mmuext_op 15',
  'mmuext_op 16',
  'mmuext_op 17',
  'update_va_mapping',
  'multicall',
  'set_gdt',
  'update_descriptor',
  'set_debugreg',
  'get_debugreg',
  'set_segment_base',
  'memory_op 9',
  'callback_op 0',
  'event_channel_op 1',
  'event_channel_op 4',
  'event_channel_op 9',
  'grant_table_op 2',
  'physdev_op 6',
  'sched_op 3',
  'vcpu_op 0',
  'vcpu_op 6',
  'vcpu_op 8',
  'vcpu_op 10',
  'vm_assist 0',
  'xen_version 1',
  'xen_version 6',
  'xen_version 7',
];

describe('hypercalls of hostile guests, with all frames counted anew after each turn', () => {
  let run: HostileRun;
  let neighbour: string;
  beforeAll(() => {
    const guests = new HostileGuests();
    const { domain, printed } = guests.neighbour();
    // Throws when a count is not what is stored.
    guests.attack(CALLS, 1, () => {
      if (domain.state.kind === 'running') domain.turn();
    });
    while (domain.state.kind === 'running') domain.turn();
    run = guests.run;
    neighbour = printed();
  });

  it.each(BOTH_WAYS)('%s is carried out and refused', (call) => {
    const results = [...(run.coverage.get(call)?.keys() ?? [])];
    expect(results).toContain('success');
    expect(results.filter((result) => /^E|error/.test(result))).not.toEqual([]);
  });

  it('calls without a meaning answer that they are not implemented', () => {
    for (const call of ['without a name', 'sysctl', 'domctl', 'hvm_op', 'mmuext_op 21', 'sched_op other']) {
      expect([...(run.coverage.get(call)?.keys() ?? [])], call).toContain('ENOSYS');
    }
  });

  it('end their guests with a reason, or not at all', () => {
    const reasons = [...run.endings.keys()].filter((ending) => ending !== 'running');
    expect(run.guests).toBeGreaterThan(1);
    for (const reason of reasons)
      expect(reason).toMatch(/exception N|kernel stack|kernel panic|waits for ever|handler|the watchdog fired/);
  });

  it('leave another guest what it has', () => {
    const found = hashes({ lines: neighbour.split('\n'), outcome: { kind: 'poweroff' } });
    expect(Object.keys(found)).toEqual(['through the tables, counted', 'patched']);
    expect(new Set(Object.values(found)).size).toBe(1);
  });
});

describe('hypercalls of hostile 32-bit guests, with all frames counted anew after each call', () => {
  const BOTH_WAYS_32 = [
    'mmu_update 0',
    'mmu_update 1',
    'mmu_update 2',
    'mmuext_op 0',
    'mmuext_op 1',
    'mmuext_op 2',
    'mmuext_op 4',
    'mmuext_op 5',
    'mmuext_op 13',
    'mmuext_op 16',
    'update_va_mapping',
    'update_descriptor',
    'set_gdt',
    'set_debugreg',
    'memory_op 9',
    'multicall',
    'callback_op 0',
    'event_channel_op 4',
    'vcpu_op 6',
    'vm_assist 0',
    'xen_version 1',
    'xen_version 6',
  ];
  let run: HostileRun;
  beforeAll(() => {
    const guests = new HostileNarrowGuests();
    guests.attack(CALLS_32);
    run = guests.run;
  });

  it.each(BOTH_WAYS_32)('%s is carried out and refused', (call) => {
    const results = [...(run.coverage.get(call)?.keys() ?? [])];
    expect(results).toContain('success');
    expect(results.filter((result) => /^E|error/.test(result))).not.toEqual([]);
  });

  it('calls of 64-bit guests are not there', () => {
    expect([...(run.coverage.get('set_segment_base')?.keys() ?? [])]).toEqual(['ENOSYS']);
    expect([...(run.coverage.get('mmuext_op 15')?.keys() ?? [])]).not.toContain('success');
  });

  it('end their guests with a reason, or not at all', () => {
    expect(run.guests).toBeGreaterThan(1);
    for (const reason of run.endings.keys()) {
      expect(reason).toMatch(/^running$|exception N|kernel stack|kernel panic|waits for ever|handler|ring N|selector/);
    }
  });
});

describe.each(['nested', 'shadow'] as const)('calls of a hostile KVM guest with %s paging', (paging) => {
  let printed: Printed;
  beforeAll(async () => {
    printed = await runReference({ interface: 'kvm', paging }, 'hostile=3');
  });

  /** How often something was carried out, and refused. */
  function timesOf(what: string): readonly [carriedOut: number, refused: number] {
    const line = printed.lines.find((text) => text.startsWith(`${what} carried out`));
    const [, carriedOut, refused] = /carried out (\d+) refused (\d+)$/.exec(line ?? '') ?? [];
    return [Number(carriedOut), Number(refused)];
  }

  it.each(['11', '12', '4b564d00', '4b564d01', '4b564d03', '4b564d04'])(
    'register 0x%s is written, and refuses what it cannot hold',
    (number) => {
      const [carriedOut, refused] = timesOf(`register ${number}`);
      expect(carriedOut).toBeGreaterThan(0);
      expect(refused).toBeGreaterThan(0);
    },
  );

  it('registers of features that are not offered are refused', () => {
    for (const number of ['4b564d02', '4b564d05']) expect(timesOf(`register ${number}`)[0]).toBe(0);
  });

  it('changes of page tables are carried out where they are offered, and only if they can be', () => {
    for (const record of [1, 2, 3]) {
      const [carriedOut, refused] = timesOf(`record ${record}`);
      expect(carriedOut > 0).toBe(paging === 'shadow');
      expect(refused).toBeGreaterThan(0);
    }
  });

  it('no other hypercall does anything', () => {
    for (let number = 0; number < 16; number++) {
      if (number !== 2) expect(timesOf(`hypercall ${number}`)[0]).toBe(0);
    }
  });

  it('leave it in order', () => {
    expect(printed.outcome).toEqual({ kind: 'poweroff' });
  });
});
