import type { InterfaceName, PagingName } from '../../src/api.ts';
import { createHost } from '../../src/index.ts';
import type { StatisticsReport } from '../../src/inspect/statistics.ts';
import { jitOfCommand } from '../engine.ts';

/** What one operation cost, on average. */
export interface Cost {
  /** Processor time of the host, whoever it was spent for. */
  readonly microseconds: number;
  readonly instructions: number;
  /** Returns from generated code to the host. */
  readonly exits: number;
  /** The catalogue's operations, and hypercalls. */
  readonly operations: number;
  readonly hypercalls: number;
  readonly tlbFills: number;
  /** Stores to page tables that were shown to a shadow. */
  readonly storesSeen: number;
  /** Of VMI: changes that were recorded, and batches in which the host took them. */
  readonly records: number;
  readonly batches: number;
}

export interface Cell {
  readonly interface: InterfaceName;
  readonly paging: PagingName;
}

export interface Guest {
  /** What the guest's shell runs: it says "begin NAME" and "end NAME" around each operation, and waits for a line then. */
  readonly program: string;
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array;
  readonly memory: number;
}

/** How often each operation is done, in the order in which the guest's program has them. */
export type Times = ReadonlyMap<string, number>;

/** Boots a guest in a cell and measures what the operations cost there. */
export async function measure(cell: Cell, { program, ...guest }: Guest, times: Times): Promise<Map<string, Cost>> {
  const host = await createHost({ memory: guest.memory, jit: jitOfCommand() });
  const machine = await host.boot({
    ...guest,
    ...cell,
    commandLine: `quiet console=${cell.interface === 'xen' ? 'hvc0' : 'ttyS0'} ring1.run="${program}"`,
    vcpus: 1,
  });
  const costs = new Map<string, Cost>();
  const decoder = new TextDecoder();
  let text = '';
  let began = sample();
  function sample(): Sample {
    const { user, system } = process.cpuUsage();
    return { microseconds: user + system, report: machine.statistics() as Report };
  }
  for await (const bytes of machine.console.output) {
    text += decoder.decode(bytes, { stream: true });
    for (let marker = MARKER.exec(text); marker; marker = MARKER.exec(text)) {
      const [, what, name = ''] = marker;
      text = text.slice(marker.index + marker[0].length);
      if (what === 'begin') began = sample();
      else costs.set(name, difference(began, sample(), times.get(name) ?? Number.NaN));
      machine.console.write(NEWLINE);
    }
  }
  const outcome = await machine.done;
  await host.close();
  if (outcome.kind !== 'poweroff') throw new Error(`the guest ended by ${JSON.stringify(outcome)}`);
  return costs;
}

const MARKER = /\b(begin|end) (\w+)\r?\n/;
const NEWLINE = Uint8Array.of(10);

type Report = StatisticsReport & {
  readonly vmiQueue?: { readonly records: number; readonly batches: Readonly<Record<string, number>> };
};

interface Sample {
  readonly microseconds: number;
  readonly report: Report;
}

function difference(before: Sample, after: Sample, times: number): Cost {
  const per = (count: (sample: Sample) => number): number => (count(after) - count(before)) / times;
  return {
    microseconds: per(({ microseconds }) => microseconds),
    instructions: per(({ report }) => report.instructions),
    exits: per(({ report }) => sum(report.exits)),
    operations: per(({ report }) => sum(report.operations)),
    hypercalls: per(({ report }) => sum(report.hypercalls)),
    tlbFills: per(({ report }) => report.tlb.fills),
    storesSeen: per(({ report }) => report.shadow?.storesSeen ?? 0),
    records: per(({ report }) => report.vmiQueue?.records ?? 0),
    batches: per(({ report }) => sum(report.vmiQueue?.batches ?? {})),
  };
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}
