import { InputError } from '../../src/boot/input-error.ts';
import type { Measurements } from './report.ts';
import { type ClockName, measure, type Peer, type Session } from './session.ts';

export interface Turns {
  readonly runs: number;
  /** Items of the boot, and the kernel's command line that has the guest carry them out. */
  readonly items: readonly string[];
  readonly commandLine: string;
  readonly clock: ClockName;
}

/** Boots the peers in turns, so that what else the machine does falls on all; tells on stderr how each run went. */
export async function takeTurns(peers: readonly Peer[], turns: Turns): Promise<Measurements> {
  const { runs, items, commandLine, clock } = turns;
  const measurements = new Map(peers.map(({ name }): [string, Session[]] => [name, []]));
  for (let run = 1; run <= runs; run++) {
    for (const peer of peers) {
      const session = await measure(peer, items, commandLine, clock);
      measurements.get(peer.name)?.push(session);
      const times = [...session.seconds].map(([name, seconds]) => `${name} ${seconds.toFixed(2)}`);
      process.stderr.write(`run ${run}, ${peer.name}: ${times.join(', ')}\n`);
    }
  }
  return measurements;
}

/** @throws InputError when it is no number of runs */
export function parseRuns(text: string): number {
  const runs = Number(text);
  if (!Number.isInteger(runs) || runs < 1) throw new InputError(`--runs ${text} is not a number from 1 on`);
  return runs;
}
