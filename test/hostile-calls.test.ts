import { beforeAll, describe, expect, it } from 'vitest';
import { HostileAttack } from './hostile/attack.ts';
import { TARGETS, type TargetName } from './hostile/targets.ts';
import { hashes } from './reference-guest.ts';

/**
 * The reference guest as a hostile one. After each turn everything that the host keeps is counted anew, and an attack
 * throws when that is not what is stored. `npx tsx test/hostile/run.ts` makes a million calls to each.
 */
interface Expected {
  readonly calls: number;
  /** Calls, each of which was carried out at least once, and refused. */
  readonly bothWays: readonly string[];
  readonly carriedOut: RegExp;
  readonly refused: RegExp;
  /** Calls, each with the only thing that comes of it. */
  readonly always: Readonly<Record<string, string>>;
  /** Why guests end, unless they are left alone. */
  readonly endings: RegExp;
}

const XEN_ENDINGS =
  /exception N|kernel stack|kernel's stack|waits for ever|handler|the watchdog fired|reported a crash|user page table|poweroff|reboot|selector|an NMI|no code of ring|return to|no frame|virtual-N mode|^panic/;

const EXPECTED: Readonly<Record<TargetName, Expected>> = {
  'xen-64': {
    calls: 24_000,
    bothWays: [
      ...[0, 1, 2].map((command) => `mmu_update ${command}`),
      ...[0, 1, 2, 3, 4, 5, 13, 15, 16, 17].map((command) => `mmuext_op ${command}`),
      ...['update_va_mapping', 'multicall', 'set_gdt', 'update_descriptor', 'set_debugreg', 'get_debugreg'],
      ...['set_segment_base', 'memory_op 9', 'callback_op 0', 'sched_op 3'],
      ...[1, 4, 5, 9].map((command) => `event_channel_op ${command}`),
      ...[1, 6, 8, 10].map((command) => `vcpu_op ${command}`),
      ...['vm_assist 0', 'xen_version 1', 'xen_version 6', 'xen_version 7'],
    ],
    carriedOut: /^success$/,
    refused: /^E|^error/,
    always: { 'without a name': 'ENOSYS', sysctl: 'ENOSYS', domctl: 'ENOSYS', hvm_op: 'ENOSYS' },
    endings: XEN_ENDINGS,
  },
  'xen-32': {
    calls: 20_000,
    bothWays: [
      ...[0, 1, 2].map((command) => `mmu_update ${command}`),
      ...[0, 1, 2, 4, 16].map((command) => `mmuext_op ${command}`),
      ...['update_va_mapping', 'multicall', 'set_gdt', 'update_descriptor', 'set_debugreg', 'memory_op 9'],
      ...['callback_op 0', 'event_channel_op 4', 'vcpu_op 6', 'vm_assist 0', 'xen_version 1', 'xen_version 6'],
    ],
    carriedOut: /^success$/,
    refused: /^E|^error/,
    always: { 'without a name': 'ENOSYS', set_segment_base: 'ENOSYS' },
    endings: XEN_ENDINGS,
  },
  kvm: {
    calls: 12_000,
    bothWays: [
      ...['write', 'flush', 'release'].map((record) => `mmu_op ${record}`),
      ...['11', '12', '4b564d00', '4b564d01', '4b564d03', '4b564d04'].map((register) => `write ${register}`),
    ],
    carriedOut: /^success$/,
    refused: /^E|^#GP/,
    always: {
      ...Object.fromEntries(['4b564d02', '4b564d05'].map((register) => [`write ${register}`, '#GP'])),
      ...Object.fromEntries([0, 1, 3, 5, 9, 10, 11, 12, 15].map((number) => [`hypercall ${number}`, 'ENOSYS'])),
    },
    endings: /^$/,
  },
  vmi: {
    calls: 7_000,
    bothWays: ['GetGDT', 'RDMSR', 'SetAlarm', 'SetLDT', 'SetInitialAPState', 'SetLinearMapping', 'WRMSR'],
    carriedOut: /^returned$/,
    refused: /^exception/,
    always: { RDPMC: 'exception 13', GetCR3: 'returned', CLTS: 'returned', CancelAlarm: 'returned' },
    endings:
      /triple fault|poweroff|reboot|makes no more calls|waits for ever|SetInitialAPState named values|direct paging|a way around it|^panic/,
  },
  lguest: {
    calls: 8_000,
    bothWays: [],
    carriedOut: /^carried out$/,
    refused: /^ends it/,
    always: Object.fromEntries(
      [
        ...['flushAsync', 'flushTlb', 'halt', 'newPageTable', 'sendInterrupts', 'setClockEvent', 'setMiddleEntry'],
        ...['setPte', 'setTopEntry', 'taskSwitched'],
      ].map((name) => [name, 'carried out']),
    ),
    endings:
      /hypercall N|not its own|twice|notifies of|a stack of|stack at|set descriptor|has no memory|set a gate|descriptors|reported a crash|poweroff|reboot|no handler|code segment|return|^panic/,
  },
};

describe.each(Object.keys(EXPECTED) as TargetName[])('hostile calls of %s guests', (name) => {
  const { calls, bothWays, carriedOut, refused, always, endings } = EXPECTED[name];
  const attack = new HostileAttack(TARGETS[name].variants);
  const { record } = attack;
  // Throws when a count is not what is stored.
  beforeAll(() => attack.attack(calls));

  it.runIf(bothWays.length > 0).each(bothWays)('%s is carried out and refused', (call) => {
    for (const expected of [carriedOut, refused]) {
      expect(record.results(call).filter((result) => expected.test(result))).not.toEqual([]);
    }
  });

  it.each(Object.entries(always))('%s: nothing comes of it but %s', (call, result) => {
    expect(record.results(call).filter((found) => found !== 'page absent')).toEqual([result]);
  });

  it.runIf(name === 'vmi')('SYSEXIT goes to programs, is refused, and never returns', () => {
    const results = record.results('SYSEXIT');
    expect(results).toEqual(expect.arrayContaining(['went to a program', 'exception 13']));
    expect(results).not.toContain('returned');
  });

  it.runIf(name === 'vmi')('IRET goes to the kernel and to programs', () => {
    expect(record.results('IRET')).toEqual(expect.arrayContaining(['returned', 'went to a program']));
  });

  it('end their guests with a reason, or not at all', () => {
    expect(record.guests).toBeGreaterThan(1);
    for (const ending of record.endings.keys()) if (ending !== 'running') expect(ending).toMatch(endings);
  });

  it('leave another guest what it has', () => {
    for (const printed of attack.neighbours) {
      const found = hashes({ lines: printed.split('\n'), outcome: { kind: 'poweroff' } });
      expect(Object.keys(found)).toEqual(['through the tables, counted', 'patched']);
      expect(new Set(Object.values(found)).size).toBe(1);
    }
  });

  it('let another guest end its work meanwhile', () => {
    expect(attack.neighboursBeside).toBeGreaterThan(0);
  });

  it('leave the host all of its frames', () => {
    expect(attack.framesInUse).toBe(0);
  });
});
