import { chmod, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MemoryStore } from '../src/devices/block/memory-store.ts';
import { OverlayStore } from '../src/devices/block/overlay-store.ts';
import type { BlockStore } from '../src/devices/block/store.ts';
import { FileStore } from '../src/node/file-store.ts';

const SECTORS = 300;
const INITIAL = Uint8Array.from({ length: SECTORS * 512 }, (_, index) => (index * 5 + (index >> 9)) & 0xff);

let directory: string;
let path: string;
let reports: string[];
const stores: BlockStore[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'ring1-store-'));
  path = join(directory, 'disk with a long name.img');
  await writeFile(path, INITIAL);
  reports = [];
});

afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  await rm(directory, { recursive: true });
});

async function fileStore(isReadOnly = false): Promise<FileStore> {
  const store = await FileStore.open(path, { isReadOnly, report: (line) => reports.push(line) });
  stores.push(store);
  return store;
}

const STORES: readonly (readonly [string, () => Promise<BlockStore>])[] = [
  ['in memory', async () => new MemoryStore(INITIAL.slice())],
  ['in a file', fileStore],
  ['over another', async () => new OverlayStore(new MemoryStore(INITIAL.slice(), { isReadOnly: true }))],
];

describe.each(STORES)('a disk %s', (_, create) => {
  it('gives back what was written, and elsewhere what was there', async () => {
    const step = fc.record({
      write: fc.boolean(),
      sector: fc.nat(SECTORS - 1),
      sectors: fc.integer({ min: 1, max: 150 }),
      value: fc.nat(255),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
        await writeFile(path, INITIAL);
        const store = await create();
        const model = INITIAL.slice();
        for (const { write, sector, sectors, value } of steps) {
          const bytes = Math.min(sectors, SECTORS - sector) * 512;
          const data = new Uint8Array(bytes).fill(value);
          if (write) {
            expect(await store.write(sector, data)).toBe('done');
            model.set(data, sector * 512);
          } else {
            expect(await store.read(sector, data)).toBe('done');
            expect(Buffer.compare(data, model.subarray(sector * 512, sector * 512 + bytes))).toBe(0);
          }
        }
        expect(await store.flush()).toBe('done');
        const all = new Uint8Array(INITIAL.length);
        await store.read(0, all);
        expect(Buffer.compare(all, model)).toBe(0);
      }),
      { numRuns: 30 },
    );
  });

  it('has the size of its contents', async () => {
    expect((await create()).sectors).toBe(SECTORS);
  });
});

describe('a disk in a file', () => {
  it('changes the file and nothing else', async () => {
    const store = await fileStore();
    await store.write(7, new Uint8Array(512).fill(9));
    await store.flush();
    const expected = INITIAL.slice();
    expected.fill(9, 7 * 512, 8 * 512);
    expect(Buffer.compare(await readFile(path), expected)).toBe(0);
  });

  it('can be read without the right to write it', async () => {
    await chmod(path, 0o444);
    const store = await fileStore(true);
    expect(store.isReadOnly).toBe(true);
    expect(await store.flush()).toBe('done');
  });

  it('fails with a line for the user when the file has become shorter', async () => {
    const store = await fileStore();
    await truncate(path, 512);
    expect(await store.read(0, new Uint8Array(1024))).toBe('failed');
    expect(reports).toEqual([`cannot read the disk ${path}: the file ends too early`]);
  });

  it.each([
    ['that is missing', async () => rm(path), /there is no such file/],
    ['of half a sector', async () => truncate(path, 256), /its 256 bytes are not a number of sectors/],
    ['that is empty', async () => truncate(path, 0), /its 0 bytes/],
  ])('is refused for a file %s', async (_, prepare, reason) => {
    await prepare();
    await expect(fileStore()).rejects.toThrow(reason);
  });

  it('is refused for what is no file', async () => {
    path = directory;
    await expect(fileStore(true)).rejects.toThrow(/it is not a regular file/);
  });
});

it('an overlay leaves the disk below alone', async () => {
  const below = INITIAL.slice();
  const store = new OverlayStore(new MemoryStore(below));
  await store.write(0, new Uint8Array(512 * SECTORS));
  expect(Buffer.compare(below, INITIAL)).toBe(0);
});

it('an overlay fails where the disk below does', async () => {
  const below = Object.assign(new MemoryStore(INITIAL.slice()), { read: async () => 'failed' as const });
  expect(await new OverlayStore(below).read(0, new Uint8Array(512))).toBe('failed');
});
