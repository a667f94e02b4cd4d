import { readFileSync } from 'node:fs';
import { imagePath } from '../../guests/reference/build.ts';
import { loadKernel } from '../../src/boot/kernel.ts';
import { ProcessorGroup } from '../../src/cpu/processor.ts';
import { VirtualClock } from '../../src/domain/clock.ts';
import { HYPERCALL_NAMES } from '../../src/interfaces/xen/abi.ts';
import { XenDomain } from '../../src/interfaces/xen/domain.ts';
import { overheadFrames } from '../../src/interfaces/xen/domain-frames.ts';
import { type DomainPlan, planDomain } from '../../src/interfaces/xen/domain-plan.ts';
import { Errno } from '../../src/interfaces/xen/errno.ts';
import { Special } from '../../src/interfaces/xen/hypercalls/call.ts';
import type { DomainWatcher } from '../../src/interfaces/xen/inspection.ts';
import { FramePool } from '../../src/memory/frame-pool.ts';
import { HostMemory } from '../../src/memory/host-memory.ts';
import { type GuestVirtual, PAGE_SIZE } from '../../src/x86/brand.ts';

/**
 * Hypercalls of a hostile kernel: the reference guest, told by `hostile=SEED` to make calls with arguments that are right
 * as often as wrong. It runs turn by turn; after each, types and references of all frames are counted anew and must be
 * what the host has stored. A guest that ends, or stands still, is followed by one with the next seed.
 */
const PAGES = 4096;
const VCPUS = 2;
/** Room for two, so that a second one can run beside. */
const FRAMES = 2 * (PAGES + overheadFrames(PAGES));

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

export class HostileGuests {
  readonly run: HostileRun = { coverage: new Map(), calls: 0, guests: 0, endings: new Map() };
  readonly #group: ProcessorGroup;
  readonly #kernel = loadKernel(readFileSync(imagePath('x86-64')));

  constructor() {
    const memory = new HostMemory(FRAMES * PAGE_SIZE + (48 << 20));
    this.#group = new ProcessorGroup(memory, new FramePool(memory, FRAMES));
  }

  /**
   * Until that many calls were made. @param between is called after each turn
   * @throws Error when a recount finds something else than is stored
   */
  attack(calls: number, firstSeed = 1, between: () => void = () => {}): void {
    for (let seed = firstSeed; this.run.calls < calls; seed++) this.#attackOnce(seed, calls, between);
  }

  /** A guest that does its work and ends, for the company of hostile ones. @returns what it printed */
  neighbour(): { readonly domain: XenDomain; readonly printed: () => string } {
    let text = '';
    const domain = this.#domain('', 2, (bytes) => {
      text += new TextDecoder().decode(bytes);
    });
    return { domain, printed: () => text };
  }

  #attackOnce(seed: number, calls: number, between: () => void): void {
    const { run } = this;
    run.guests++;
    const domain = this.#domain(`hostile=${seed}`, 1, () => {});
    try {
      while (domain.state.kind === 'running' && !waitsForEver(domain) && run.calls < calls) {
        domain.turn();
        between();
        const [wrong] = domain.paging.recount();
        if (wrong) throw new Error(`seed ${seed}, call ${run.calls}: ${JSON.stringify(wrong)}`);
      }
      const { state } = domain;
      const ended = waitsForEver(domain) ? 'waits for ever' : state.kind;
      const ending = state.kind === 'crash' ? state.reason.replaceAll(/0x[0-9a-f]+|\d+/g, 'N') : ended;
      count(run.endings, ending);
    } finally {
      domain.destroy();
    }
  }

  #domain(commandLine: string, id: number, consoleSink: (bytes: Uint8Array) => void): XenDomain {
    const plan: DomainPlan = planDomain({ kernel: this.#kernel, initrd: new Uint8Array(0), commandLine, pages: PAGES });
    let domain: XenDomain | undefined;
    domain = new XenDomain({
      id,
      uuid: new Uint8Array(16),
      bits: plan.abi.bits,
      pages: plan.pages,
      vcpus: VCPUS,
      group: this.#group,
      clock: new VirtualClock(() => domain?.instructions ?? 0),
      wallclock: { seconds: 1_700_000_000, nanoseconds: 0 },
      random: (out) => void out.fill(7),
      consoleSink,
      watcher: this.#watcher,
    });
    domain.boot({ name: 'hostile', plan });
    return domain;
  }

  readonly #watcher: DomainWatcher = {
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

function waitsForEver(domain: XenDomain): boolean {
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
