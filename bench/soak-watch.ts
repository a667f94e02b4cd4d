import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { LineSplitter } from '../src/cli/line-splitter.ts';
import { BenchmarkFailure } from './benchmark.ts';
import { median } from './peers/report.ts';

const SAMPLES_PER_MINUTE = 12;

/** What the guest prints when it has carried out a round, and when its kernel has no code that it could patch. */
export const ROUND = 'soak: round';
export const UNPATCHED = 'soak: nothing to patch';

/**
 * Watches the process of a guest that carries out rounds.
 * @param guest has been started just now, with its console on its stdout
 * @param tell takes a line for each minute
 * @param minuteSeconds how long a minute is
 * @returns resident memory in each minute, the median of its samples, in MiB
 * @throws BenchmarkFailure when the guest ends, carries out no round for a minute, or patches no code
 */
export async function watchRounds(
  guest: ChildProcess,
  minutes: number,
  tell: (line: string) => void,
  minuteSeconds = 60,
): Promise<number[]> {
  let minute = 1;
  let rounds = 0;
  const failed = new Promise<never>((_, reject) => {
    const lines = new LineSplitter((line) => {
      if (line === ROUND) rounds++;
      else if (line === UNPATCHED) {
        reject(
          new BenchmarkFailure("the guest's kernel has no schedstats: it patches no code, so nothing is measured"),
        );
      }
    });
    guest.stdout?.on('data', (bytes: Buffer) => lines.push(bytes));
    // Not at its exit: what it printed before may say why.
    guest.once('close', (status, signal) => {
      const how = signal === null ? `status ${status}` : `signal ${signal}`;
      reject(new BenchmarkFailure(`the guest ended by itself in minute ${minute}, with ${how}`));
    });
  });
  // Looked at with each sample; at the end it means nothing.
  failed.catch(() => {});

  const start = performance.now();
  const waitUntil = (seconds: number): Promise<void> =>
    new Promise((done) => setTimeout(done, start + seconds * 1000 - performance.now()));
  const byMinute: number[] = [];
  for (; minute <= minutes; minute++) {
    const roundsBefore = rounds;
    const samples: number[] = [];
    for (let sample = 1; sample <= SAMPLES_PER_MINUTE; sample++) {
      const due = (minute - 1 + sample / SAMPLES_PER_MINUTE) * minuteSeconds;
      await Promise.race([waitUntil(due), failed]);
      samples.push(residentOf(guest.pid) ?? (await failed));
    }
    if (rounds === roundsBefore) {
      throw new BenchmarkFailure(
        `the guest hangs: it carried out no round in minute ${minute}, after ${rounds} before`,
      );
    }
    const resident = median(samples);
    byMinute.push(resident);
    tell(`minute ${minute}: resident ${resident.toFixed(0)} MiB, ${rounds} rounds`);
  }
  return byMinute;
}

/** MiB that a process has in memory; undefined when it has ended. */
function residentOf(process: number | undefined): number | undefined {
  let status: string;
  try {
    status = readFileSync(`/proc/${process}/status`, 'utf8');
  } catch {
    return undefined;
  }
  const [, kibibytes] = /^VmRSS:\s+(\d+)/m.exec(status) ?? [];
  return kibibytes === undefined ? undefined : Number(kibibytes) / 1024;
}
