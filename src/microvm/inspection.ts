import { Exit } from '../cpu/exits.ts';
import { exitNames } from '../inspect/statistics.ts';
import { TraceWriter } from '../inspect/trace.ts';
import type { GuestVirtual } from '../x86/brand.ts';
import type { MicrovmDomain } from './domain.ts';
import type { ExitWatcher } from './execution.ts';

/** A trace of a domain; the writer is to be an observer of its operations, the watcher sees the exits. */
export function writeTrace(
  domain: MicrovmDomain,
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
