import { HYPERCALL_NAMES } from '../../src/interfaces/xen/abi.ts';
import type { XenDomain } from '../../src/interfaces/xen/domain.ts';
import { Errno } from '../../src/interfaces/xen/errno.ts';
import { Special } from '../../src/interfaces/xen/hypercalls/call.ts';
import type { DomainWatcher } from '../../src/interfaces/xen/inspection.ts';
import type { GuestVirtual } from '../../src/x86/brand.ts';

/** What hostile guests asked for, and what they were answered. */

/** The hypercalls whose first argument is a command. */
const WITH_COMMAND = new Set([
  'memory_op',
  'xen_version',
  'console_io',
  'grant_table_op',
  'vm_assist',
  'vcpu_op',
  'sched_op',
  'callback_op',
  'event_channel_op',
  'physdev_op',
]);
/** Those whose commands stand in memory, where the first argument points, and the bits that they have there. */
const COMMAND_MASK: Readonly<Record<string, number>> = { mmuext_op: 0xff, mmu_update: 7 };
/** Commands that exist; others are counted together. */
const MOST_COMMANDS = 41;

/** How often each call had each result: "mmuext_op 4" → "EINVAL" → count. */
export type Coverage = Map<string, Map<string, number>>;

export interface HostileRun {
  readonly coverage: Coverage;
  calls: number;
  guests: number;
  /** Why guests ended, without numbers, and how often. */
  readonly endings: Map<string, number>;
}

/** Keeps the record of a run. */
export class HostileRecord {
  readonly run: HostileRun = { coverage: new Map(), calls: 0, guests: 0, endings: new Map() };

  /** A guest has ended, or no more calls are wanted of it. */
  ended(domain: XenDomain): void {
    const { state } = domain;
    const ended = waitsForEver(domain) ? 'waits for ever' : state.kind;
    count(this.run.endings, state.kind === 'crash' ? state.reason.replaceAll(/0x[0-9a-f]+|\d+/g, 'N') : ended);
  }

  readonly watcher: DomainWatcher = {
    exit: () => {},
    hypercall: ({ processor }, number, [first], result) => {
      this.run.calls++;
      const name = HYPERCALL_NAMES[number] ?? 'without a name';
      const mask = COMMAND_MASK[name];
      let command: number | undefined;
      if (WITH_COMMAND.has(name)) command = Number(first);
      else if (mask !== undefined) {
        const word = processor.memory.readWord(Number(BigInt.asIntN(64, BigInt(first ?? 0))) as GuestVirtual);
        command = word < 0 ? undefined : word & mask;
      }
      const shown = command === undefined ? '' : command < MOST_COMMANDS ? ` ${command}` : ' other';
      const call = `${name}${shown}`;
      const results = this.run.coverage.get(call) ?? new Map<string, number>();
      this.run.coverage.set(call, results);
      count(results, resultName(result));
    },
  };
}

export function waitsForEver(domain: XenDomain): boolean {
  return domain.idle && domain.nextDeadline() === Number.POSITIVE_INFINITY;
}

function count(counts: Map<string, number>, name: string): void {
  counts.set(name, (counts.get(name) ?? 0) + 1);
}

const ERRNO_NAMES = new Map<number, string>([
  [-Errno.EPERM, 'EPERM'],
  [-Errno.ENOENT, 'ENOENT'],
  [-Errno.EFAULT, 'EFAULT'],
  [-Errno.EINVAL, 'EINVAL'],
  [-Errno.EEXIST, 'EEXIST'],
  [-Errno.ENOSYS, 'ENOSYS'],
]);

function resultName(result: number): string {
  if (result === Special.preempted) return 'preempted';
  if (result === Special.noResult) return 'no result';
  return result >= 0 ? 'success' : (ERRNO_NAMES.get(result) ?? `error ${-result}`);
}

/** A row for each call: how often, and with which results. */
export function coverageTable({ coverage }: HostileRun): string {
  const rows = [...coverage].sort(([a], [b]) => (a < b ? -1 : 1));
  return rows
    .map(([call, results]) => {
      const parts = [...results].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, times]) => `${name} ${times}`);
      return `${call.padEnd(26)} ${parts.join(', ')}`;
    })
    .join('\n');
}
