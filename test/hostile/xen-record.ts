import { HYPERCALL_NAMES } from '../../src/interfaces/xen/abi.ts';
import { Errno } from '../../src/interfaces/xen/errno.ts';
import { Special } from '../../src/interfaces/xen/hypercalls/call.ts';
import type { DomainWatcher } from '../../src/interfaces/xen/inspection.ts';
import type { XenVcpu } from '../../src/interfaces/xen/vcpu.ts';
import { PageAbsent } from '../../src/memory/page-absent.ts';
import type { GuestVirtual } from '../../src/x86/brand.ts';
import type { HostileRecord } from './record.ts';

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

/** Keeps the record of a Xen guest's calls. */
export function watchXen(record: HostileRecord): DomainWatcher {
  return {
    exit: () => {},
    hypercall: (vcpu, number, [first], result) => {
      const name = HYPERCALL_NAMES[number] ?? 'without a name';
      const command = commandOf(name, vcpu, first);
      const shown = command === undefined ? '' : command < MOST_COMMANDS ? ` ${command}` : ' other';
      record.made(`${name}${shown}`, resultName(result));
    },
  };
}

function commandOf(name: string, { processor }: XenVcpu, first: string | undefined): number | undefined {
  if (WITH_COMMAND.has(name)) return Number(first);
  const mask = COMMAND_MASK[name];
  if (mask === undefined) return undefined;
  try {
    const word = processor.memory.readWord(Number(BigInt.asIntN(64, BigInt(first ?? 0))) as GuestVirtual);
    return word < 0 ? undefined : word & mask;
  } catch (absent) {
    if (!(absent instanceof PageAbsent)) throw absent;
    return undefined;
  }
}

const ERRNO_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries({
    EPERM: Errno.EPERM,
    ENOENT: Errno.ENOENT,
    ESRCH: Errno.ESRCH,
    ENXIO: Errno.ENXIO,
    E2BIG: Errno.E2BIG,
    EAGAIN: Errno.EAGAIN,
    ENOMEM: Errno.ENOMEM,
    EACCES: Errno.EACCES,
    EFAULT: Errno.EFAULT,
    EBUSY: Errno.EBUSY,
    EEXIST: Errno.EEXIST,
    ENODEV: Errno.ENODEV,
    EINVAL: Errno.EINVAL,
    ENOSPC: Errno.ENOSPC,
    ENOSYS: Errno.ENOSYS,
    ETIME: Errno.ETIME,
    EOPNOTSUPP: Errno.EOPNOTSUPP,
  }).map(([name, number]) => [-number, name]),
);

function resultName(result: number): string {
  if (result === Special.preempted) return 'preempted';
  if (result === Special.noResult) return 'no result';
  return result >= 0 ? 'success' : (ERRNO_NAMES.get(result) ?? `error ${-result}`);
}
