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
      const found = await seedOf(path);
      // The name may have been given to a snapshot just before the writer could say so.
      if (found !== acknowledged && found !== acknowledged + 1) {
        throw new Error(`snapshot ${found} in place of ${acknowledged}`);
      }
      report.saved += found - last;
      last = found;
      const left = readdirSync(directory).filter((name) => name.endsWith('.tmp'));
      if (left.length > 1) throw new Error(`what earlier writers left is still there: ${left.join(', ')}`);
      report.interrupted += left.length;
    }
    return report;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** @returns the last seed that the writer had saved for certain */
async function killOne(script: string, path: string, first: number): Promise<number> {
  const writer = spawn(process.execPath, [script, path, String(first)], { stdio: ['ignore', 'pipe', 'inherit'] });
  let printed = '';
  let began: number | undefined;
  writer.stdout.setEncoding('latin1').on('data', (chunk: string) => {
    const isFirst = !printed.includes('saved');
    printed += chunk;
    began ??= performance.now();
    if (!isFirst || !printed.includes('saved')) return;
    // Its first snapshot says how long one takes; it ends within the next one or two.
    setTimeout(() => writer.kill('SIGKILL'), Math.random() * 2 * (performance.now() - began));
  });
  await once(writer, 'close');
  const saved = [...printed.matchAll(/saved (\d+)\n/g)].pop();
  if (!saved) throw new Error(`the writer ended early: ${printed}`);
  return Number(saved[1]);
}

/** Which snapshot the file holds. @throws InputError when it is not whole */
async function seedOf(path: string): Promise<number> {
  const file = await SnapshotFile.open(path);
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
