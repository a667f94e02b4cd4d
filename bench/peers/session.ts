import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { BenchmarkFailure } from '../benchmark.ts';
import { BOOT, type Mark, parseMark } from './items.ts';

/** A peer that runs guests, as a process with the guest's console on its stdout. */
export interface Peer {
  readonly name: string;
  /** @param commandLine what the items need; the console and the like are the peer's own affair */
  command(commandLine: string): { readonly program: string; readonly args: readonly string[] };
}

/**
 * What is measured with: `wall` is this machine's clock, `cpu` the processor time of all threads of the peer's process.
 * The second says something on a machine that is busy with much else too, but leaves out what a peer waits for.
 */
export type ClockName = 'wall' | 'cpu';

/** What one run of one peer showed. Times are seconds. */
export interface Session {
  readonly seconds: Map<string, number>;
  /** What each item printed. */
  readonly results: Map<string, string>;
  /** What each step of the cold program took, in order. */
  readonly steps: number[];
}

/** Milliseconds. A peer that takes longer for all of a run hangs, even on a busy machine. */
const LONGEST = 1_800_000;

/**
 * Boots a guest on the peer and lets it carry out the items; the process is killed when the last one ends.
 * @throws BenchmarkFailure with the end of the console when the guest does not get there
 */
export function measure(
  peer: Peer,
  names: readonly string[],
  commandLine: string,
  clockName: ClockName,
): Promise<Session> {
  const { program, args } = peer.command(commandLine);
  return new Promise((resolve, reject) => {
    const session: Session = { seconds: new Map(), results: new Map(), steps: [] };
    const start = performance.now();
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const clock = startClock(clockName, start, child.pid ?? 0);
    let begin = 0;
    let latest = 0;
    let console = '';
    let rest = '';
    const hang = setTimeout(() => child.kill('SIGKILL'), LONGEST);
    const isDone = (): boolean => [BOOT, ...names].every((name) => session.seconds.has(name));
    const note = (mark: Mark, now: number): void => {
      if (mark.kind === 'ready') session.seconds.set(BOOT, now);
      else if (mark.kind === 'begin') begin = latest = now;
      else if (mark.kind === 'step') {
        session.steps.push(now - latest);
        latest = now;
      } else {
        session.seconds.set(mark.name, now - begin);
        session.results.set(mark.name, mark.result);
      }
    };
    child.stdout.on('data', (bytes: Buffer) => {
      const now = clock();
      console = (console + bytes.toString('latin1')).slice(-4096);
      const lines = (rest + bytes.toString('latin1')).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const mark = parseMark(line);
        if (mark) note(mark, now);
      }
      if (isDone()) child.kill('SIGKILL');
    });
    child.stderr.on('data', (bytes: Buffer) => {
      console = (console + bytes.toString('latin1')).slice(-4096);
    });
    child.on('error', reject);
    child.on('close', () => {
      clearTimeout(hang);
      if (isDone()) resolve(session);
      else reject(new BenchmarkFailure(`${peer.name} ended before the items did:\n${console}`));
    });
  });
}

/** @returns a function for the seconds since the process started. */
function startClock(name: ClockName, start: number, pid: number): () => number {
  return name === 'wall' ? () => (performance.now() - start) / 1000 : processorClock(pid);
}

/** What all threads of a process have used; the first figure of a thread's schedstat is nanoseconds on a processor. */
function processorClock(pid: number): () => number {
  // Threads that have ended count as well, with what they were last seen to have used.
  const used = new Map<string, number>();
  const read = (): void => {
    const threads = `/proc/${pid}/task`;
    for (const thread of readdirSync(threads)) {
      const [nanoseconds] = readFileSync(`${threads}/${thread}/schedstat`, 'latin1').split(' ');
      used.set(thread, Number(nanoseconds) / 1e9);
    }
  };
  return () => {
    try {
      read();
    } catch {
      // A thread, or the process, has gone in between.
    }
    return [...used.values()].reduce((sum, seconds) => sum + seconds, 0);
  };
}
