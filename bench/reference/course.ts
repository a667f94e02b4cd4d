import { WASI } from 'node:wasi';
import type { VirtualMachine } from '../../src/index.ts';
import type { StatisticsReport } from '../../src/inspect/statistics.ts';

/** How far a guest was at a moment, and how much processor time the thread that guests run in had taken by then. */
interface Moment {
  readonly instructions: number;
  readonly microseconds: number;
}

/** Moments of a guest's run, the earlier first. */
export type Course = readonly Moment[];

/**
 * Looks at a guest between any two slices of the event loop (domain/scheduler.ts), that is, every few milliseconds, and where it ends.
 *
 * @returns what ends the looking, and has the course
 */
export function followCourse(machine: VirtualMachine): () => Course {
  const course: Moment[] = [];
  const look = (): void => {
    const { instructions } = machine.statistics() as StatisticsReport;
    course.push({ instructions, microseconds: threadMicroseconds() });
  };
  let next = setImmediate(function lookAgain() {
    look();
    next = setImmediate(lookAgain);
  });
  return () => {
    clearImmediate(next);
    look();
    return course;
  };
}

/**
 * Microseconds that an instruction takes in the mean, in each of some windows of equally many instructions.
 *
 * @param from instructions before the first window
 * @param to instructions up to the end of the last one
 */
export function windowsOf(course: Course, from: number, to: number, windows: number): number[] {
  const width = (to - from) / windows;
  const edges = Array.from({ length: windows + 1 }, (_, index) => timeAt(course, from + index * width));
  return edges.slice(1).map((edge, index) => (edge - (edges[index] ?? Number.NaN)) / width);
}

/** Between two moments as if all instructions took the same time. */
function timeAt(course: Course, instructions: number): number {
  const index = course.findIndex((moment) => moment.instructions >= instructions);
  const [before, behind] = [course[index - 1], course[index]];
  if (!before || !behind) throw new Error(`nobody looked at the guest around its instruction ${instructions}`);
  const share = (instructions - before.instructions) / (behind.instructions - before.instructions);
  return before.microseconds + share * (behind.microseconds - before.microseconds);
}

/** WASI's `thread_cputime_id` (clockid in its preview 1). */
const THREAD_CLOCK = 3;

/**
 * Node 20 tells of a thread's processor time by WASI alone; process.cpuUsage() has what V8's own threads compile besides.
 */
const threadMicroseconds: () => number = (() => {
  const memory = new WebAssembly.Memory({ initial: 1 });
  const view = new DataView(memory.buffer);
  const wasi = new WASI({ version: 'preview1' });
  wasi.initialize({ exports: { memory } });
  const clockTimeGet: unknown = wasi.wasiImport.clock_time_get;
  if (typeof clockTimeGet !== 'function') throw new Error('WASI has no clock_time_get');
  return () => {
    const error: unknown = clockTimeGet(THREAD_CLOCK, 1n, 0);
    if (error !== 0) throw new Error(`WASI tells no processor time of a thread: its error ${error}`);
    return Number(view.getBigUint64(0, true)) / 1000;
  };
})();
