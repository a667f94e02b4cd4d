import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { MemoryStore } from '../src/devices/block/memory-store.ts';
import type { BlockResult, BlockStore } from '../src/devices/block/store.ts';
import { BlockDevice } from '../src/devices/virtio/block.ts';
import { Feature, Register, Status } from '../src/devices/virtio/registers.ts';
import { type Used, VirtioDriver } from './virtio-driver.ts';

const SECTORS = 256;
const READ = 0;
const WRITE = 1;
const FLUSH = 4;
const IDENTIFY = 8;
const DISCARD = 11;
const WRITE_ZEROES = 13;

const OKAY = 0;
const IO_ERROR = 1;
const UNSUPPORTED = 2;

/** A store that answers when the test says so, in the order that it likes. */
class SlowStore implements BlockStore {
  readonly identifier = 'a serial number that is too long';
  readonly isReadOnly = false;
  readonly operations: (() => void)[] = [];
  readonly bytes: Uint8Array;
  readonly sectors: number;
  flushes = 0;
  readonly #store: MemoryStore;

  constructor(bytes: Uint8Array, sectors = bytes.length / 512) {
    this.bytes = bytes;
    this.sectors = sectors;
    this.#store = new MemoryStore(bytes);
  }

  read(sector: number, target: Uint8Array): Promise<BlockResult> {
    return this.#later(() => this.#store.read(sector, target));
  }

  write(sector: number, source: Uint8Array): Promise<BlockResult> {
    return this.#later(() => this.#store.write(sector, source));
  }

  flush(): Promise<BlockResult> {
    this.flushes++;
    return this.#later(() => this.#store.flush());
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  #later(operation: () => Promise<BlockResult>): Promise<BlockResult> {
    return new Promise((resolve) => this.operations.push(() => resolve(operation())));
  }

  /** Carries out one of the operations that wait. */
  async release(which: number): Promise<void> {
    this.operations.splice(which % this.operations.length, 1)[0]?.();
    await new Promise<void>((resolve) => setTimeout(resolve));
  }
}

function header(type: number, sector = 0, reserved = 0): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, reserved, true);
  view.setUint32(8, sector >>> 0, true);
  view.setUint32(12, Math.floor(sector / 2 ** 32), true);
  return bytes;
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

function zeroSegment(sector: number, sectors: number, flags = 0): Uint8Array {
  const bytes = header(sector, 0);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, sector, true);
  view.setUint32(8, sectors, true);
  view.setUint32(12, flags, true);
  return bytes;
}

const pattern = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, index) => (index * 7 + seed * 31 + (index >> 8)) & 0xff);

const statusOf = (used: Used): number => used.data[used.data.length - 1] as number;

let contents: Uint8Array;
let driver: VirtioDriver;

beforeEach(() => {
  contents = pattern(SECTORS * 512, 1);
  driver = new VirtioDriver(new BlockDevice(new MemoryStore(contents)));
  driver.start();
});

describe('a virtio disk', () => {
  it('tells its size and how many segments it takes', () => {
    const at = (offset: number): number => driver.transport.read(Register.configuration + offset, 4);
    expect([at(0), at(4), at(12)]).toEqual([SECTORS, 0, 254]);
    expect(driver.offered).toContain(9);
    const other = new VirtioDriver(new BlockDevice(new SlowStore(contents, 2 ** 33 + 5)));
    expect(other.transport.read(Register.configuration, 4)).toBe(5);
    expect(other.transport.read(Register.configuration + 4, 4)).toBe(2);
  });

  it('reads what is there', async () => {
    const used = await driver.request(0, header(READ, 3), 1024 + 1);
    expect(statusOf(used)).toBe(OKAY);
    expect(used.written).toBe(1025);
    expect(used.data.subarray(0, 1024)).toEqual(contents.subarray(3 * 512, 5 * 512));
  });

  it('writes where it is told', async () => {
    const data = pattern(1536, 9);
    const used = await driver.request(0, joined(header(WRITE, 250), data), 1);
    expect(statusOf(used)).toBe(OKAY);
    expect(used.written).toBe(1);
    expect(contents.subarray(250 * 512, 253 * 512)).toEqual(data);
  });

  it('writes zeroes without being given any', async () => {
    const used = await driver.request(0, joined(header(WRITE_ZEROES), zeroSegment(2, 3, 1)), 1);
    expect(statusOf(used)).toBe(OKAY);
    expect(contents.subarray(2 * 512, 5 * 512)).toEqual(new Uint8Array(1536));
    expect(contents.subarray(5 * 512, 6 * 512)).toEqual(pattern(SECTORS * 512, 1).subarray(5 * 512, 6 * 512));
  });

  it('gives as much of its serial number as there is room for', async () => {
    const store = new SlowStore(contents);
    driver = new VirtioDriver(new BlockDevice(store));
    driver.start();
    const long = await driver.request(0, header(IDENTIFY), 25);
    expect(new TextDecoder().decode(long.data.subarray(0, 20))).toBe('a serial number that');
    expect([long.written, statusOf(long)]).toEqual([21, OKAY]);
    const short = await driver.request(0, header(IDENTIFY), 5);
    expect(new TextDecoder().decode(short.data.subarray(0, 4))).toBe('a se');
  });

  it('answers a flush when the store has flushed', async () => {
    const store = new SlowStore(contents);
    driver = new VirtioDriver(new BlockDevice(store));
    driver.start();
    driver.offer(0, header(FLUSH), 1);
    driver.notify(0);
    expect(driver.transport.isBusy).toBe(true);
    expect(driver.collect(0)).toEqual([]);
    await store.release(0);
    expect(driver.wakes).toBe(1);
    driver.settle();
    expect(driver.collect(0).map(statusOf)).toEqual([OKAY]);
    expect(store.flushes).toBe(1);
    expect(driver.transport.isBusy).toBe(false);
  });

  it.each([
    ['a read beyond its end', header(READ, SECTORS), 513, IO_ERROR],
    ['a read across its end', header(READ, SECTORS - 1), 1025, IO_ERROR],
    ['a read of a part of a sector', header(READ, 0), 512, IO_ERROR],
    ['a sector of 64 bits', header(READ, 2 ** 63), 513, IO_ERROR],
    ['a write beyond its end', joined(header(WRITE, SECTORS), new Uint8Array(512)), 1, IO_ERROR],
    ['a write of a part of a sector', joined(header(WRITE, 0), new Uint8Array(511)), 1, IO_ERROR],
    ['zeroes beyond its end', joined(header(WRITE_ZEROES), zeroSegment(SECTORS - 1, 2)), 1, IO_ERROR],
    ['zeroes with unknown flags', joined(header(WRITE_ZEROES), zeroSegment(0, 1, 2)), 1, UNSUPPORTED],
    ['zeroes without a segment', header(WRITE_ZEROES), 1, IO_ERROR],
    ['a discard', joined(header(DISCARD), zeroSegment(0, 1)), 1, UNSUPPORTED],
    ['an unknown request', header(0x1234_5678), 1, UNSUPPORTED],
  ] as const)('refuses %s', async (_, request, room, status) => {
    const before = contents.slice();
    expect(statusOf(await driver.request(0, request, room))).toBe(status);
    expect(Buffer.compare(contents, before)).toBe(0);
  });

  it('refuses to write when it is read-only, and says so first', async () => {
    driver = new VirtioDriver(new BlockDevice(new MemoryStore(contents, { isReadOnly: true })));
    driver.start();
    expect(driver.offered).toContain(5);
    const write = await driver.request(0, joined(header(WRITE, 0), new Uint8Array(512)), 1);
    expect(statusOf(write)).toBe(IO_ERROR);
    const zeroes = await driver.request(0, joined(header(WRITE_ZEROES), zeroSegment(0, 1)), 1);
    expect(statusOf(zeroes)).toBe(IO_ERROR);
    expect(Buffer.compare(contents, pattern(SECTORS * 512, 1))).toBe(0);
  });

  it.each([
    ['gives up', () => Promise.resolve('failed' as const)],
    ['breaks its promise', () => Promise.reject(new Error('unplugged'))],
  ])('reports an error when the store %s', async (_, read) => {
    const store = Object.assign(new MemoryStore(contents), { read });
    driver = new VirtioDriver(new BlockDevice(store));
    driver.start();
    expect(statusOf(await driver.request(0, header(READ, 0), 513))).toBe(IO_ERROR);
  });

  it.each([
    ['header', new Uint8Array(15), 1],
    ['status', header(READ, 0), 0],
  ])('needs a reset after a request without %s', (_, request, room) => {
    driver.offer(0, request, room);
    driver.notify(0);
    expect(driver.read(Register.status) & Status.needsReset).toBe(Status.needsReset);
  });

  it('holds back a read that was asked before a reset, and the next driver until that has ended', async () => {
    const store = new SlowStore(contents);
    driver = new VirtioDriver(new BlockDevice(store));
    driver.start();
    const data = pattern(512, 77);
    driver.offer(0, joined(header(WRITE, 9), data), 1);
    driver.notify(0);
    driver.start();
    driver.offer(0, header(READ, 9), 513);
    driver.notify(0);
    expect(store.operations).toHaveLength(1);
    await store.release(0);
    driver.settle();
    await store.release(0);
    driver.settle();
    const [used, ...others] = driver.collect(0);
    expect(others).toEqual([]);
    expect(used?.data.subarray(0, 512)).toEqual(data);
  });

  it('translates again when a page was taken away while the disk was read', async () => {
    const store = new SlowStore(contents);
    driver = new VirtioDriver(new BlockDevice(store));
    driver.start();
    driver.offer(0, header(READ, 3), 513);
    driver.notify(0);
    driver.memory.evictAll();
    await store.release(0);
    driver.transport.poll();
    expect(driver.memory.wanted.size).toBeGreaterThan(0);
    driver.settle();
    const [used] = driver.collect(0);
    expect(used?.data.subarray(0, 512)).toEqual(contents.subarray(3 * 512, 4 * 512));
  });

  it('bounds what it holds at once', () => {
    const store = new SlowStore(new Uint8Array(64 << 20));
    driver = new VirtioDriver(new BlockDevice(store));
    driver.start([Feature.version1, Feature.indirectDescriptors], 256);
    // 4080 buffers of a page, all of them the same one: 16 MiB in each of 128 requests.
    const queue = driver.queues[0]!;
    const { memory } = driver;
    memory.write(0x10000, header(READ, 0));
    const descriptor = (table: number, index: number, address: number, length: number, flags: number): void => {
      memory.writeU32(table + index * 16, address);
      memory.writeU32(table + index * 16 + 8, length);
      memory.writeU16(table + index * 16 + 12, flags);
      memory.writeU16(table + index * 16 + 14, index + 1);
    };
    descriptor(0x12000, 0, 0x10000, 16, 1);
    for (let index = 1; index < 255; index++) descriptor(0x12000, index, 0x20000, 0x10000, 3);
    descriptor(0x12000, 255, 0x11000, 1, 2);
    for (let head = 0; head < 128; head++) {
      descriptor(queue.descriptors, head, 0x12000, 4096, 4);
      driver.publish(0, head);
    }
    driver.notify(0);
    expect(driver.transport.state.failure).toBeNull();
    expect(store.operations).toHaveLength(16);
    const { transfers } = (driver.transport.device as BlockDevice).state;
    expect(transfers.reduce((sum, { buffer }) => sum + buffer.length, 0)).toBe(16 * 256 * 1024);
  });

  it('equals a model under any requests, in any order of answers, while pages come and go', async () => {
    const request = fc.record({
      write: fc.boolean(),
      sector: fc.nat(15),
      sectors: fc.integer({ min: 1, max: 16 }),
      cuts: fc.array(fc.nat(9000), { maxLength: 5 }),
      indirect: fc.boolean(),
    });
    const batch = fc.record({
      requests: fc.array(request, { minLength: 1, maxLength: 8 }),
      order: fc.array(fc.nat(7), { minLength: 8, maxLength: 8 }),
      evictions: fc.array(fc.array(fc.nat(63), { maxLength: 30 }), { minLength: 1, maxLength: 4 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(batch, { minLength: 1, maxLength: 4 }), async (batches) => {
        const store = new SlowStore(pattern(SECTORS * 512, 2));
        const model = store.bytes.slice();
        driver = new VirtioDriver(new BlockDevice(store));
        driver.start();
        for (const [round, { requests, order, evictions }] of batches.entries()) {
          const expected = new Map<unknown, Uint8Array>();
          for (const [place, { write, sector, sectors, ...options }] of requests.entries()) {
            // Requests of one batch have no order, so each has sectors of its own.
            const first = place * 32 + sector;
            const bytes = sectors * 512;
            const data = pattern(bytes, round * 8 + place);
            const offered = write
              ? driver.offer(0, joined(header(WRITE, first), data), 1, options)
              : driver.offer(0, header(READ, first), bytes + 1, options);
            if (offered === undefined) continue;
            if (write) model.set(data, first * 512);
            expected.set(offered, write ? new Uint8Array(0) : model.slice(first * 512, first * 512 + bytes));
          }
          driver.evict(...evictions[0]!);
          driver.notify(0);
          driver.settle();
          for (let step = 0; driver.transport.isBusy; step++) {
            driver.evict(...(evictions[step % evictions.length] as number[]));
            await store.release(order[step % order.length] as number);
            driver.settle();
          }
          const collected = driver.collect(0);
          expect(collected).toHaveLength(expected.size);
          for (const used of collected) {
            expect(statusOf(used)).toBe(OKAY);
            expect(Buffer.compare(used.data.subarray(0, -1), expected.get(used.request)!)).toBe(0);
          }
        }
        expect(Buffer.compare(store.bytes, model)).toBe(0);
      }),
      { numRuns: 40 },
    );
  });
});
