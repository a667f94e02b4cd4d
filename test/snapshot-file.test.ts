import { spawnSync } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { main } from '../src/cli/main.ts';
import { SnapshotFile, saveSnapshotFile } from '../src/node/snapshot-file.ts';
import { VERSION } from '../src/snapshot/format.ts';
import { Snapshot } from '../src/snapshot/snapshot.ts';
import { writeSnapshot } from '../src/snapshot/write-snapshot.ts';
import { killWriters } from './snapshot-kills.ts';
import { sampleBytes, sampleImage } from './snapshot-samples.ts';

let directory: string;
let path: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'ring1-snapshot-'));
  path = join(directory, 'guest.ring1');
});
afterEach(() => rm(directory, { recursive: true }));

const save = (seed: number): Promise<void> =>
  saveSnapshotFile(path, (target) => writeSnapshot(sampleImage(seed), target));

async function savedSeed(): Promise<unknown> {
  const file = await SnapshotFile.open(path);
  try {
    return (await Snapshot.open(file)).state.seed;
  } finally {
    await file.close();
  }
}

describe('a snapshot file', () => {
  it('is replaced by the next one, and nothing else is left', async () => {
    await save(1);
    await save(2);
    expect(await savedSeed()).toBe(2);
    expect(await readdir(directory)).toEqual(['guest.ring1']);
  });

  it('stays when the next one cannot be written', async () => {
    await save(1);
    const broken = saveSnapshotFile(path, async (target) => {
      await target.append(new Uint8Array(100));
      throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
    });
    await expect(broken).rejects.toThrow(`cannot save the guest to ${path}: no space left on the device`);
    expect(await savedSeed()).toBe(1);
    expect(await readdir(directory)).toEqual(['guest.ring1']);
  });

  it('sweeps away what a writer left that is no more, and leaves alone what another one writes', async () => {
    const { status, pid } = spawnSync(process.execPath, ['-e', '']);
    expect(status).toBe(0);
    const uuid = '0dd1e05e-0000-4000-8000-000000000000';
    const left = `.guest.ring1.${hostname()}.${pid}.${uuid}.tmp`;
    const others = [
      `.guest.ring1.${hostname()}.${process.pid}.${uuid}.tmp`,
      `.guest.ring1.another-machine.${pid}.${uuid}.tmp`,
      `.other.ring1.${hostname()}.${pid}.${uuid}.tmp`,
      '.guest.ring1.tmp',
    ];
    for (const name of [left, ...others]) await writeFile(join(directory, name), '');
    await save(1);
    expect(await savedSeed()).toBe(1);
    expect((await readdir(directory)).sort()).toEqual([...others, 'guest.ring1'].sort());
  });

  it('is there, whole, whenever the one who saves is killed', async () => {
    const report = await killWriters(200);
    expect(report.saved).toBeGreaterThanOrEqual(report.kills);
  }, 1_800_000);
});

describe('ring1 run --snapshot', () => {
  type Refusal = [string, (bytes: Uint8Array) => Uint8Array, RegExp];
  const refusals: Refusal[] = [
    ['cut off', (bytes) => bytes.slice(0, bytes.length - 9), /is damaged: it ends early/],
    ['with a bit changed', (bytes) => bytes.fill(7, 5000, 5001), /is damaged: the bytes from \d+ on/],
    ...[VERSION - 1, VERSION + 1].map(
      (version): Refusal => [
        `of version ${version}`,
        (bytes) => bytes.fill(version, 8, 9),
        new RegExp(`is of version ${version}, and this ring1 reads version ${VERSION}`),
      ],
    ),
    ['that is none', () => new TextEncoder().encode('a text'.repeat(30)), /is no snapshot of ring1/],
  ];
  it.each(refusals)('refuses a file %s in one line, with status 1', async (_what, damage, message) => {
    await writeFile(path, damage(await sampleBytes(sampleImage(1))));
    const lines: string[] = [];
    const write = process.stderr.write;
    process.stderr.write = ((line: string) => lines.push(line) > 0) as typeof write;
    try {
      expect(await main(['run', '--snapshot', path])).toBe(1);
    } finally {
      process.stderr.write = write;
    }
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^ring1: [^\n]+\n$/);
    expect(lines[0]).toMatch(message);
  });
});
