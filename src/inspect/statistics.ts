import { Exit } from '../cpu/exits.ts';
import { type FullName, operations } from '../ops/catalogue.ts';
import { createCounts } from '../ops/dispatch.ts';
import type { ShadowStatistics } from '../paging/shadow/shadow-tables.ts';

/** Figures that others keep while they work; they are asked when a report is made. */
export interface StatisticsSource {
  /** Host time since the domain was made. */
  wallSeconds(): number;
  /** The guest's own time. */
  guestSeconds(): number;
  instructions(): InstructionCounts;
  tlb(): TlbStatistics;
  /** Pages of the domain by what they are used for. */
  framesByType(): Readonly<Record<string, number>>;
  /** Bytes of host memory that the domain takes, the guest's own included. */
  memoryInUse(): number;
  readonly shadow?: { statistics(): ShadowStatistics };
}

/** Completed instructions of a domain's virtual processors, together and by what executed them. */
export interface InstructionCounts {
  readonly total: number;
  /** The interpreter, and the host where it carries out an instruction for the guest. */
  readonly interpreter: number;
  /** Regions of generated code. */
  readonly regions: number;
}

export interface TlbStatistics {
  /**
   * Loads and stores that no entry answered, or that are never answered by one: walks, pages with code or a device,
   * accesses across two pages.
   */
  readonly misses: number;
  readonly fills: number;
  /** Flushes of everything, asked for by the guest or by changes of its tables. */
  readonly flushes: number;
  /** Single pages removed. */
  readonly pageFlushes: number;
  /** Changes to another root. */
  readonly switches: number;
  /** Changes to a root whose translations had been kept. */
  readonly returns: number;
}

export function countInstructions(
  vcpus: readonly { readonly processor: { readonly instructions: number; readonly regionInstructions: number } }[],
): InstructionCounts {
  let total = 0;
  let regions = 0;
  for (const { processor } of vcpus) {
    total += processor.instructions;
    regions += processor.regionInstructions;
  }
  return { total, interpreter: total - regions, regions };
}

/** What the TLBs of a domain's processors did, together. */
export function sumTlbCounters(
  vcpus: readonly { readonly processor: { readonly memory: { readonly tlbCounters: TlbStatistics } } }[],
): TlbStatistics {
  const sum = { misses: 0, fills: 0, flushes: 0, pageFlushes: 0, switches: 0, returns: 0 };
  for (const { processor } of vcpus) {
    const { tlbCounters } = processor.memory;
    for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += tlbCounters[name];
  }
  return sum;
}

/** What `--stats FILE` holds, as JSON. */
export interface StatisticsReport {
  readonly wallSeconds: number;
  readonly guestSeconds: number;
  readonly instructions: number;
  readonly instructionsByTier: { readonly interpreter: number; readonly regions: number };
  /** Returns from generated code to the host, by kind. */
  readonly exits: Readonly<Record<string, number>>;
  readonly hypercalls: Readonly<Record<string, number>>;
  readonly operations: Readonly<Partial<Record<FullName, number>>>;
  readonly tlb: TlbStatistics;
  readonly frames: Readonly<Record<string, number>>;
  /**
   * Bytes. Counted is what the domain has reserved: its frames, whether or not it ever touched them, those that the host
   * keeps for it (machine-to-physical table, grant table, shared pages). Not counted is what belongs to the host and
   * is the same for an idle one: TLBs, decoded code, and the bookkeeping of frames.
   */
  readonly memoryInUse: number;
  /** Where processors walk shadow tables. */
  readonly shadow?: ShadowStatistics;
}

/** An exit has met a page that the host must bring in, and will be made again: it counts as one for that page. */
export function countAgain(exits: Float64Array, exit: Exit): void {
  exits[exit]! -= 1; // one for each kind of exit
  exits[Exit.hostFault]! += 1;
}

/** Names of exits as the statistics and the trace give them, by `Exit`. */
export const exitNames: Readonly<Record<Exit, string>> = {
  [Exit.budget]: 'budget',
  [Exit.exception]: 'exception',
  [Exit.softwareInterrupt]: 'softwareInterrupt',
  [Exit.syscall]: 'syscall',
  [Exit.sysenter]: 'sysenter',
  [Exit.system]: 'system',
  [Exit.device]: 'device',
  [Exit.hostFault]: 'hostFault',
  [Exit.observed]: 'observed',
};

const EXIT_KINDS = Math.max(...Object.keys(exitNames).map(Number)) + 1;

/**
 * Counts of one domain. The arrays are public so that a hot path counts with one addition:
 * `statistics.exits[kind]! += 1`. `operations` is what `createOperations` takes as `counts`.
 */
export class Statistics {
  readonly exits = new Float64Array(EXIT_KINDS);
  /** By the interface's own numbers. */
  readonly hypercalls: Float64Array;
  readonly operations = createCounts();
  readonly #hypercallNames: readonly (string | undefined)[];
  readonly #source: StatisticsSource;

  /** @param hypercallNames name of each hypercall number; a number without a name is reported as `unknown n` */
  constructor(source: StatisticsSource, hypercallNames: readonly (string | undefined)[]) {
    this.#source = source;
    this.#hypercallNames = hypercallNames;
    this.hypercalls = new Float64Array(Math.max(hypercallNames.length, 64));
  }

  /** Counts any number; those beyond the interface's numbers are counted together, under the last. */
  hypercall(number: number): void {
    const last = this.hypercalls.length - 1;
    const slot = number >= 0 && number < last ? number : last;
    this.hypercalls[slot]! += 1; // slot is in range
  }

  /** Names and counts, without those that are 0. */
  report(): StatisticsReport {
    const source = this.#source;
    const { total, interpreter, regions } = source.instructions();
    return {
      wallSeconds: source.wallSeconds(),
      guestSeconds: source.guestSeconds(),
      instructions: total,
      instructionsByTier: { interpreter, regions },
      exits: named(this.exits, (kind) => exitNames[kind as Exit] ?? `unknown ${kind}`),
      hypercalls: named(this.hypercalls, (number) => this.#hypercallNames[number] ?? `unknown ${number}`),
      operations: named(this.operations, (id) => operations[id]?.fullName ?? `unknown ${id}`),
      tlb: source.tlb(),
      frames: source.framesByType(),
      memoryInUse: source.memoryInUse(),
      ...(source.shadow ? { shadow: source.shadow.statistics() } : {}),
    };
  }
}

function named(counts: Float64Array, nameOf: (index: number) => string): Record<string, number> {
  const table: Record<string, number> = {};
  counts.forEach((count, index) => {
    if (count !== 0) table[nameOf(index)] = count;
  });
  return table;
}
