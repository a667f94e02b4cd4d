import { beforeAll, describe, expect, it } from 'vitest';
import { VERSION } from '../src/snapshot/format.ts';
import { Snapshot } from '../src/snapshot/snapshot.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import { sampleBytes, sampleImage, samplePage, sourceOf } from './snapshot-samples.ts';

const SEED = 5;
let bytes: Uint8Array;
beforeAll(async () => {
  bytes = await sampleBytes(sampleImage(SEED));
});

/** The one line that a user reads. */
async function refusal(damaged: Uint8Array): Promise<string> {
  try {
    await Snapshot.open(sourceOf(damaged));
  } catch (error) {
    return (error as Error).message;
  }
  return 'it was taken';
}

describe('a snapshot', () => {
  it('gives back all that was written', async () => {
    const snapshot = await Snapshot.open(sourceOf(bytes));
    const image = sampleImage(SEED);
    expect(snapshot.guest).toEqual(image.guest);
    expect(snapshot.state).toEqual(image.state);
    expect(Buffer.compare(snapshot.kernel, image.kernel)).toBe(0);
    expect(snapshot.initrd).toEqual(image.initrd);
    for (let page = 0; page < image.memory.pages; page++) {
      const target = new Uint8Array(PAGE_SIZE);
      await snapshot.memory.read(page * PAGE_SIZE, target);
      expect(Buffer.compare(target, samplePage(page, SEED))).toBe(0);
    }
  });

  it('reads pages only when they are asked for', async () => {
    let read = 0;
    const source = sourceOf(bytes);
    const snapshot = await Snapshot.open({
      ...source,
      read: async (offset, target) => {
        read += target.length;
        await source.read(offset, target);
      },
    });
    const before = read;
    await snapshot.memory.read(0, new Uint8Array(PAGE_SIZE));
    expect(read).toBe(before);
    await snapshot.memory.read(PAGE_SIZE, new Uint8Array(PAGE_SIZE));
    expect(read).toBeGreaterThan(before);
    const once = read;
    await snapshot.memory.read(2 * PAGE_SIZE, new Uint8Array(PAGE_SIZE));
    expect(read).toBe(once);
  });

  it('has long runs of zeroes apart from the rest', async () => {
    const { memory } = await Snapshot.open(sourceOf(bytes));
    expect(memory.runs()).toEqual([
      { first: 0, end: 41, isZero: false },
      { first: 41, end: 400, isZero: true },
      { first: 400, end: 500, isZero: false },
    ]);
  });

  it('is refused with any bit changed', async () => {
    // Every byte of header and trailer, and every few of the rest.
    const positions = [...bytes.keys()].filter(
      (position) => position < 32 || position > bytes.length - 80 || position % 97 === 0,
    );
    for (const position of positions) {
      const damaged = bytes.slice();
      damaged[position] = (damaged[position] as number) ^ (1 << (position % 8));
      expect(await refusal(damaged), `byte ${position}`).toMatch(
        /^(the snapshot sample is |sample is no snapshot)[^\n]+$/,
      );
    }
  });

  it('is refused when something is missing at its end, or follows it', async () => {
    for (const length of [0, 1, 15, 16, 71, 72, 1000, bytes.length - 57, bytes.length - 1]) {
      expect(await refusal(bytes.slice(0, length)), `${length} bytes`).toMatch(
        /^(the snapshot sample is damaged: )[^\n]+$/,
      );
    }
    const longer = new Uint8Array(bytes.length + 1);
    longer.set(bytes);
    expect(await refusal(longer)).toMatch(/^the snapshot sample is damaged: [^\n]+$/);
  });

  it('is refused when it is of another version', async () => {
    for (const version of [0, VERSION - 1, VERSION + 1]) {
      const other = bytes.slice();
      other[8] = version;
      expect(await refusal(other)).toBe(
        `the snapshot sample is of version ${version}, and this ring1 reads version ${VERSION}`,
      );
    }
    expect(await refusal(new TextEncoder().encode('#!/bin/sh\n'.repeat(20)))).toBe('sample is no snapshot of ring1');
  });

  it('whose file changes later says so when the page is needed', async () => {
    const file = bytes.slice();
    const { memory } = await Snapshot.open(sourceOf(file));
    file.fill(0, 16, 2000);
    await expect(memory.read(PAGE_SIZE, new Uint8Array(PAGE_SIZE))).rejects.toThrow('is damaged');
  });

  it('does not come to be when a page cannot be read', async () => {
    const image = sampleImage(SEED);
    const broken = {
      pages: 9,
      readPage: async () => ({ kind: 'swap-read', message: 'cannot read a page back from swap: EIO' }) as const,
    };
    await expect(sampleBytes({ ...image, memory: broken })).rejects.toThrow('EIO');
  });
});
