import { describe, expect, it } from 'vitest';
import type { PlainRecord } from '../src/archive/plain.ts';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { MemoryStore } from '../src/devices/block/memory-store.ts';
import type { DescriptorFormat } from '../src/interfaces/lguest/device-descriptor.ts';
import type { LguestDomain } from '../src/interfaces/lguest/domain.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import { bytesAt, LguestHost, settle } from './lguest-domain.ts';

const PAGES = 64;
const SECTOR = 512;

/** A guest that has its bus, with a disk of four sectors. */
async function start(format: DescriptorFormat, disk: Uint8Array, print?: (bytes: Uint8Array) => void) {
  const domain = await new LguestHost(PAGES).createDomain(new MemoryStore(disk), print);
  const kernel = { era: 'L2', format: 'two-level', kernelAddress: 0xc000_0000, deviceFormat: format };
  restore(domain, { ...save(domain), kernel } as PlainRecord);
  settle(domain, () => domain.bus.start());
  return domain;
}

interface Described {
  readonly address: number;
  readonly kind: number;
  readonly queues: readonly { readonly size: number; readonly line: number; readonly page: number }[];
  readonly configuration: readonly number[];
}

/** The descriptions in the page above the guest's memory, read as Linux 2.6.25 and later do. */
function readCounts(domain: LguestDomain): Described[] {
  const first = domain.ramPages * PAGE_SIZE;
  const view = bytesAt(domain, first, PAGE_SIZE);
  const found: Described[] = [];
  for (let at = 0; view.getUint8(at) !== 0; ) {
    const [queues, features, configuration] = [1, 2, 3].map((field) => view.getUint8(at + field)) as [
      number,
      number,
      number,
    ];
    const end = at + 5 + queues * 8 + 2 * features;
    found.push({
      address: first + at,
      kind: view.getUint8(at),
      queues: Array.from({ length: queues }, (_, index) => readQueue(view, at + 5 + index * 8)),
      configuration: Array.from({ length: configuration }, (_, index) => view.getUint8(end + index)),
    });
    at = end + configuration;
  }
  return found;
}

/** The same as Linux 2.6.24 does. */
function readFields(domain: LguestDomain): Described[] {
  const first = domain.ramPages * PAGE_SIZE;
  const view = bytesAt(domain, first, PAGE_SIZE);
  const found: Described[] = [];
  for (let at = 0; view.getUint8(at) !== 0; at += 3 + view.getUint8(at + 1)) {
    const queues: Described['queues'][number][] = [];
    const configuration: number[] = [];
    const end = at + 3 + view.getUint8(at + 1);
    for (let field = at + 3; field < end; field += 2 + view.getUint8(field + 1)) {
      const length = view.getUint8(field + 1);
      if (view.getUint8(field) === 2) queues.push(readQueue(view, field + 2));
      else configuration.push(...Array.from({ length }, (_, index) => view.getUint8(field + 2 + index)));
    }
    found.push({ address: first + at, kind: view.getUint8(at), queues, configuration });
  }
  return found;
}

function readQueue(view: DataView, at: number) {
  return { size: view.getUint16(at, true), line: view.getUint16(at + 2, true), page: view.getUint32(at + 4, true) };
}

const READERS = { counts: readCounts, fields: readFields } as const;
const FORMATS = ['counts', 'fields'] as const;

/** Offers one chain in a queue, and notifies. Segments are of page 1 on, one behind the other. */
function offer(
  domain: LguestDomain,
  { size, page }: Described['queues'][number],
  segments: readonly [number, boolean][],
): void {
  const ring = bytesAt(domain, page * PAGE_SIZE, PAGE_SIZE);
  let address = PAGE_SIZE;
  for (const [index, [length, isWritable]] of segments.entries()) {
    const hasNext = index < segments.length - 1;
    ring.setUint32(index * 16, address, true);
    ring.setUint32(index * 16 + 8, length, true);
    ring.setUint16(index * 16 + 12, (hasNext ? 1 : 0) | (isWritable ? 2 : 0), true);
    ring.setUint16(index * 16 + 14, index + 1, true);
    address += length;
  }
  const available = bytesAt(domain, page * PAGE_SIZE + size * 16, 8);
  available.setUint16(4, 0, true);
  available.setUint16(2, available.getUint16(2, true) + 1, true);
  settle(domain, () => domain.notified(page * PAGE_SIZE));
}

const diskOf = (devices: readonly Described[]): Described => devices.find(({ kind }) => kind === 2) as Described;

describe.each(FORMATS)('devices on lguest’s bus, described by %s', (format) => {
  it('are found: a console, a disk and a source of random numbers, with interrupts and pages of their own', async () => {
    const domain = await start(format, new Uint8Array(4 * SECTOR));
    const devices = READERS[format](domain);
    const queues = devices.flatMap((device) => device.queues);
    expect(devices.map(({ kind }) => kind)).toEqual([3, 2, 4]);
    expect(queues.map(({ line }) => line)).toEqual([1, 2, 3, 4]);
    expect(new Set(queues.map(({ page }) => page)).size).toBe(queues.length);
    expect(Math.min(...queues.map(({ page }) => page))).toBe(domain.ramPages + 1);
  });

  it('tell of a disk how large it is', async () => {
    const domain = await start(format, new Uint8Array(4 * SECTOR));
    expect(diskOf(READERS[format](domain)).configuration.slice(0, 8)).toEqual([4, 0, 0, 0, 0, 0, 0, 0]);
  });

  it('print what the driver of the console offers', async () => {
    let printed = '';
    const domain = await start(format, new Uint8Array(4 * SECTOR), (bytes) => {
      printed += new TextDecoder().decode(bytes);
    });
    const text = new TextEncoder().encode('hello');
    text.forEach((byte, index) => {
      bytesAt(domain, PAGE_SIZE, 8).setUint8(index, byte);
    });
    const [console] = READERS[format](domain);
    offer(domain, console?.queues[1] as Described['queues'][number], [[text.length, false]]);
    expect(printed).toBe('hello');
  });

  it('write to a disk what stands behind the header that the driver knows', async () => {
    const disk = new Uint8Array(4 * SECTOR);
    const domain = await start(format, disk);
    const header = format === 'fields' ? 24 : 16;
    const request = bytesAt(domain, PAGE_SIZE, PAGE_SIZE);
    request.setUint32(0, 1, true);
    request.setUint32(8, 2, true);
    for (let byte = 0; byte < SECTOR; byte++) request.setUint8(header + byte, 0x5a);
    request.setUint8(header + SECTOR, 0xff);
    const devices = READERS[format](domain);
    offer(domain, diskOf(devices).queues[0] as Described['queues'][number], [
      [header, false],
      [SECTOR, false],
      [1, true],
    ]);
    for (let turn = 0; turn < 20 && request.getUint8(header + SECTOR) === 0xff; turn++) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      settle(domain, () => domain.bus.poll());
    }
    expect(request.getUint8(header + SECTOR)).toBe(0);
    expect(disk.subarray(2 * SECTOR, 3 * SECTOR).every((byte) => byte === 0x5a)).toBe(true);
    expect(disk[3 * SECTOR]).toBe(0);
  });
});

describe('a driver on lguest’s bus', () => {
  it('that writes a status of 0 finds empty queues, and begins anew', async () => {
    const domain = await start('counts', new Uint8Array(4 * SECTOR));
    const [console] = readCounts(domain);
    const queue = console?.queues[1] as Described['queues'][number];
    offer(domain, queue, [[4, false]]);
    settle(domain, () => domain.notified(console?.address ?? 0));
    expect(bytesAt(domain, queue.page * PAGE_SIZE + queue.size * 16, 4).getUint16(2, true)).toBe(0);
    expect(bytesAt(domain, (queue.page + 1) * PAGE_SIZE, 4).getUint16(2, true)).toBe(0);
  });

  it('is told of what was done by the interrupt of its queue', async () => {
    const domain = await start('counts', new Uint8Array(4 * SECTOR));
    const [console] = readCounts(domain);
    offer(domain, console?.queues[1] as Described['queues'][number], [[4, false]]);
    const { pending } = (save(domain) as { interrupts: { pending: number } }).interrupts;
    expect(pending).toBe(1 << 2);
  });
});
