import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { MemoryStore } from '../src/devices/block/memory-store.ts';
import { SECTOR } from '../src/devices/block/store.ts';
import { XenDiskDriver } from './xen-disk-driver.ts';

const SECTORS = 64;
const READ = 0;
const WRITE = 1;
const FLUSH = 3;
const DISCARD = 5;
const OKAY = 0;
const ERROR = -1;
const UNSUPPORTED = -2;

/** A sector is filled with its number. */
function pattern(): Uint8Array {
  return Uint8Array.from({ length: SECTORS * SECTOR }, (_none, index) => Math.floor(index / SECTOR) + 1);
}

let bytes: Uint8Array;
let driver: XenDiskDriver;

beforeEach(() => {
  bytes = pattern();
  driver = new XenDiskDriver(new MemoryStore(bytes));
});

describe('a disk and its driver', () => {
  it('agree on a ring, and the disk says what it is like', () => {
    expect(driver.backendNode('state')).toBe('2');
    driver.connect();
    expect(driver.backendNode('state')).toBe('4');
    expect(['sectors', 'sector-size', 'info'].map((name) => driver.backendNode(name))).toEqual([
      `${SECTORS}`,
      '512',
      '0',
    ]);
  });

  it('part and meet again, and no access of the first time is left', async () => {
    driver.connect();
    driver.request({ operation: READ, sector: 0, segments: [driver.segment(1)] });
    driver.setState(5);
    expect(driver.backendNode('state')).toBe('5');
    driver.setState(6);
    await driver.settle();
    expect(driver.backendNode('state')).toBe('6');
    expect(driver.accesses).toBe(0);
    expect(driver.pins).toBe(0);
    driver.setState(1);
    expect(driver.backendNode('state')).toBe('2');
    driver.connect();
    driver.request({ operation: READ, sector: 3, segments: [driver.segment(1, 0, 0)] });
    expect(await driver.responses()).toEqual([{ id: 0, operation: READ, status: OKAY }]);
  });

  it.each([
    ['another layout', { protocol: 'arm-abi' }],
    ['a layout with a name as long as can be', { protocol: 'x'.repeat(4096) }],
    ['a page that is not granted', { 'ring-ref': '77' }],
    ['a number that is none', { 'ring-ref': 'x' }],
    ['a port that is not open', { 'event-channel': '9' }],
  ])('do not meet over %s', (_what, nodes) => {
    driver.connect(nodes);
    expect(driver.backendNode('state')).toBe('6');
    expect(driver.backendNode('error')).toMatch(/^the front end/);
    expect(driver.accesses).toBe(0);
  });

  it('meet when the page of the ring has come', () => {
    driver.evictRing();
    expect(() => driver.connect()).toThrow();
    expect(driver.accesses).toBe(0);
    driver.bringRing();
    driver.poll();
    expect(driver.backendNode('state')).toBe('4');
  });
});

describe.each([64, 32] as const)('requests of a driver in a %i-bit kernel', (bits) => {
  beforeEach(() => {
    driver = new XenDiskDriver(new MemoryStore(bytes), bits);
    driver.connect();
  });

  it('read into the sectors of the pages that they name', async () => {
    driver.fill(1, 0xee);
    driver.fill(2, 0xee);
    driver.request({ operation: READ, sector: 10, segments: [driver.segment(1, 6, 7), driver.segment(2, 0, 0)] });
    expect(await driver.responses()).toEqual([{ id: 0, operation: READ, status: OKAY }]);
    expect(driver.sectorsOf(1)).toEqual([0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 11, 12]);
    expect(driver.sectorsOf(2)).toEqual([13, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee]);
  });

  it('write from pages that are granted for reading only', async () => {
    driver.fill(1, 0x77);
    driver.grantReadOnly(1);
    driver.request({ operation: WRITE, sector: 20, segments: [driver.segment(1, 1, 2)] });
    expect(await driver.responses()).toEqual([{ id: 0, operation: WRITE, status: OKAY }]);
    expect([19, 20, 21, 22].map((sector) => bytes[sector * SECTOR])).toEqual([20, 0x77, 0x77, 23]);
  });

  it('are answered with an event, all together', async () => {
    for (let count = 0; count < 5; count++) {
      driver.request({ operation: FLUSH, sector: 0, segments: [] });
    }
    expect(await driver.responses()).toHaveLength(5);
    expect(driver.events).toBe(1);
  });

  it.each([
    ['beyond the end', { operation: READ, sector: SECTORS, segments: [[1, 0, 0]] }, ERROR],
    ['without pages', { operation: READ, sector: 0, segments: [] }, ERROR],
    ['with more pages than there are', { operation: READ, sector: 0, segments: [[1, 0, 0]], count: 12 }, ERROR],
    ['of sectors backwards', { operation: READ, sector: 0, segments: [[1, 3, 2]] }, ERROR],
    ['of sectors beyond a page', { operation: READ, sector: 0, segments: [[1, 7, 8]] }, ERROR],
    [
      'for a page that is not granted',
      {
        operation: WRITE,
        sector: 0,
        segments: [
          [1, 0, 0],
          [60, 0, 0],
        ],
      },
      ERROR,
    ],
    ['of another kind', { operation: DISCARD, sector: 0, segments: [] }, UNSUPPORTED],
  ] as const)('%s fail, and change nothing', async (_what, { segments, ...rest }, status) => {
    const refused = { ...rest, segments: segments.map(([page, first, last]) => driver.segment(page, first, last)) };
    driver.request(refused);
    expect(await driver.responses()).toEqual([{ id: 0, operation: rest.operation, status }]);
    expect(driver.accesses).toBe(1);
    expect(Buffer.compare(bytes, pattern())).toBe(0);
  });

  it('to read fail for a page that the device may not write', async () => {
    driver.grantReadOnly(1);
    driver.request({ operation: READ, sector: 0, segments: [driver.segment(1)] });
    expect(await driver.responses()).toEqual([{ id: 0, operation: READ, status: ERROR }]);
  });

  it('to write fail on a read-only disk', async () => {
    driver = new XenDiskDriver(new MemoryStore(bytes, { isReadOnly: true }));
    driver.connect();
    expect(driver.backendNode('info')).toBe('4');
    driver.request({ operation: WRITE, sector: 0, segments: [driver.segment(1)] });
    expect(await driver.responses()).toEqual([{ id: 0, operation: WRITE, status: ERROR }]);
  });

  it('are not looked for when their index is nonsense', async () => {
    driver.setProducer(33);
    expect(await driver.responses()).toEqual([]);
    expect(driver.backendNode('error')).toContain('nonsense');
  });
});

const segment = fc.record({
  page: fc.integer({ min: 1, max: 8 }),
  first: fc.nat(7),
  count: fc.integer({ min: 1, max: 8 }),
});
const request = fc.record({
  isWrite: fc.boolean(),
  sector: fc.nat(SECTORS - 1),
  segments: fc.array(segment, { minLength: 1, maxLength: 4 }),
  evicted: fc.array(fc.integer({ min: 1, max: 8 }), { maxLength: 3 }),
  isSaved: fc.boolean(),
});

it('a disk and the pages of its guest hold what a model says, whichever pages come and go and whenever it is saved', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(request, { maxLength: 12 }), async (requests) => {
      const bytes = pattern();
      const model = pattern();
      const driver = new XenDiskDriver(new MemoryStore(bytes));
      driver.connect();
      for (const { isWrite, sector, segments, evicted, isSaved } of requests) {
        const asked = segments.map(({ page, first, count }) =>
          driver.segment(page, first, Math.min(7, first + count - 1)),
        );
        const data = asked.flatMap(({ reference: page, first, last }) =>
          Array.from({ length: last - first + 1 }, (_none, index) => ({ page, place: first + index })),
        );
        const isSound = sector + data.length <= SECTORS;
        const before = new Map(data.map(({ page }) => [page, driver.sectorsOf(page)]));
        for (const page of evicted) driver.evict(page);
        driver.request({ operation: isWrite ? WRITE : READ, sector, segments: asked });
        for (const page of evicted) driver.evict(page);
        if (isSaved) await driver.replaceBackend();
        const [response] = await driver.responses();
        expect(response?.status).toBe(isSound ? OKAY : ERROR);
        for (const [index, { page, place }] of isSound ? data.entries() : []) {
          const inMemory = before.get(page) as number[];
          if (isWrite) model.fill(inMemory[place] as number, (sector + index) * SECTOR, (sector + index + 1) * SECTOR);
          else inMemory[place] = model[(sector + index) * SECTOR] as number;
        }
        for (const [page, sectors] of before) expect(driver.sectorsOf(page)).toEqual(sectors);
        expect(Buffer.compare(bytes, model)).toBe(0);
        expect(driver.accesses).toBe(1);
      }
    }),
    { numRuns: 50 },
  );
});
