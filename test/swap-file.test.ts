import { existsSync } from 'node:fs';
import { mkdtemp, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createSwapFile } from '../src/node/swap-file.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';

let directory: string;
let path: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'ring1-swap-'));
  path = join(directory, 'swap');
});
afterEach(() => rm(directory, { recursive: true }));

test('a swap file gives back the pages it was given', async () => {
  const store = await createSwapFile(path, 1 << 20);
  const source = new Uint8Array(PAGE_SIZE).map((_byte, index) => index * 7);
  await store.write(255, source);
  const target = new Uint8Array(PAGE_SIZE);
  await store.read(255, target);
  expect(target).toEqual(source);
  expect(store.slots).toBe(256);
  await store.close();
});

test('a swap file keeps apart pages that are written together', async () => {
  const store = await createSwapFile(path, 1 << 20);
  const slots = [7, 5, 6, 20, 0, 21];
  await Promise.all(slots.map((slot) => store.write(slot, new Uint8Array(PAGE_SIZE).fill(slot + 1))));
  for (const slot of slots) {
    const target = new Uint8Array(PAGE_SIZE);
    await store.read(slot, target);
    expect(target).toEqual(new Uint8Array(PAGE_SIZE).fill(slot + 1));
  }
  await store.close();
});

test('a swap file is as long as what was written, and gone in the end', async () => {
  const store = await createSwapFile(path, 1 << 30);
  expect((await stat(path)).size).toBe(0);
  await store.write(1, new Uint8Array(PAGE_SIZE));
  expect((await stat(path)).size).toBe(2 * PAGE_SIZE);
  await store.close();
  expect(existsSync(path)).toBe(false);
});

test('a swap file that lost its pages says so', async () => {
  const store = await createSwapFile(path, 1 << 20);
  await store.write(3, new Uint8Array(PAGE_SIZE));
  await truncate(path, 0);
  await expect(store.read(3, new Uint8Array(PAGE_SIZE))).rejects.toThrow('ends before page 3');
  await store.close();
});

test('a swap file that lost its pages and has grown since says so', async () => {
  const store = await createSwapFile(path, 1 << 20);
  await store.write(3, new Uint8Array(PAGE_SIZE).fill(1));
  await truncate(path, 0);
  await store.write(7, new Uint8Array(PAGE_SIZE).fill(1));
  await expect(store.read(3, new Uint8Array(PAGE_SIZE))).rejects.toThrow('page 3 of');
  await store.read(7, new Uint8Array(PAGE_SIZE));
  await store.close();
});

test('a swap file does not take the place of another file', async () => {
  const store = await createSwapFile(path, 1 << 20);
  await expect(createSwapFile(path, 1 << 20)).rejects.toThrow('EEXIST');
  await store.close();
});
