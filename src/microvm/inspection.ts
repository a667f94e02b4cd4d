import { Exit } from '../cpu/exits.ts';
import type { Processor } from '../cpu/processor.ts';
import type { Clock } from '../domain/clock.ts';
import { exitNames } from '../inspect/statistics.ts';
import { TraceWriter } from '../inspect/trace.ts';
import type { GuestVirtual } from '../x86/brand.ts';

/** Sees why generated code was left. */
export interface ExitWatcher {
  exit(vcpu: TracedVcpu, exit: Exit): void;
}

interface TracedVcpu {
  readonly index: number;
  readonly processor: Processor;
}

/** What a trace needs of its domain. */
interface TracedDomain {
  readonly clock: Clock;
  readonly vcpus: readonly TracedVcpu[];
}

/** A trace of a domain; the writer is to be an observer of its operations, the watcher sees the exits. */
export function writeTrace(
  domain: TracedDomain,
  sink: (text: string) => void,
): { readonly writer: TraceWriter; readonly watcher: ExitWatcher } {
  const writer = new TraceWriter({
    sink,
    now: () => Math.round(domain.clock.now()),
    ripOf: (vcpu) => domain.vcpus[vcpu]?.processor.rip ?? (0 as GuestVirtual),
  });
  return {
    writer,
    watcher: {
      exit: ({ index, processor }, exit) => {
        const isException = exit === Exit.exception;
        const detail = isException ? { detail: processor.exitDetail, error: processor.exitError } : {};
        writer.exit(index, exitNames[exit], detail);
      },
    },
  };
}
