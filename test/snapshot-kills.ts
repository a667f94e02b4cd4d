import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { SnapshotFile } from '../src/node/snapshot-file.ts';
import { Snapshot } from '../src/snapshot/snapshot.ts';

/**
 * Kills a process (SIGKILL) at random points while it saves snapshots to one file, and opens the file after each:
 *
 *   npx tsx test/snapshot-kills.ts [KILLS]
 */

const WRITER = fileURLToPath(new URL('snapshot-kill-writer.ts', import.meta.url));
/** Longest life of a writer after it began to save, in milliseconds: some snapshots' worth. */
const LONGEST_LIFE = 400;

export interface KillReport {
  kills: number;
  /** Of these, while a snapshot was being written: its temporary file was left. */
  interrupted: number;
  /** Snapshots that were saved in all. */
  saved: number;
}

/** @throws Error when a kill has lost a snapshot that was saved before */
export async function killWriters(kills: number): Promise<KillReport> {
  const directory = mkdtempSync(join(tmpdir(), 'ring1-kills-'));
  const report: KillReport = { kills, interrupted: 0, saved: 0 };
  try {
    const script = join(directory, 'writer.mjs');
    await build({ entryPoints: [WRITER], outfile: script, bundle: true, format: 'esm', platform: 'node' });
    const path = join(directory, 'guest.ring1');
    let last = 0;
    for (let kill = 0; kill < kills; kill++) {
      const acknowledged = await killOne(script, path, last + 1);
      const found = await seedOf(path, acknowledged ?? last);
      const atLeast = acknowledged ?? last;
      // The name may have been given to a snapshot just before the writer could say so.
      if (found !== atLeast && found !== atLeast + 1) throw new Error(`snapshot ${found} in place of ${atLeast}`);
      report.saved += found - last;
      last = found;
      for (const name of readdirSync(directory).filter((other) => other.endsWith('.tmp'))) {
        report.interrupted++;
        rmSync(join(directory, name));
      }
    }
    return report;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** @returns the last seed that the writer had saved for certain */
async function killOne(script: string, path: string, first: number): Promise<number | undefined> {
  const writer = spawn(process.execPath, [script, path, String(first)], { stdio: ['ignore', 'pipe', 'inherit'] });
  let printed = '';
  writer.stdout.setEncoding('latin1').on('data', (chunk: string) => {
    if (printed === '') setTimeout(() => writer.kill('SIGKILL'), Math.random() * LONGEST_LIFE);
    printed += chunk;
  });
  await once(writer, 'close');
  const saved = [...printed.matchAll(/saved (\d+)\n/g)].pop();
  return saved === undefined ? undefined : Number(saved[1]);
}

/** What the file holds; 0 when there is none, and none was saved. */
async function seedOf(path: string, acknowledged: number): Promise<number> {
  const file = await SnapshotFile.open(path).catch((error: unknown) => {
    if (acknowledged > 0) throw error;
  });
  if (!file) return 0;
  try {
    const { state } = await Snapshot.open(file);
    return Number(state.seed);
  } finally {
    await file.close();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const report = await killWriters(Number(process.argv[2] ?? 200));
  console.log(
    `${report.kills} kills, ${report.interrupted} of them while writing; ${report.saved} snapshots, none lost`,
  );
}
