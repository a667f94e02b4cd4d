import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { cursorAt, type SegmentCursor, totalLength } from '../src/devices/dma/segments.ts';
import type { Transport, VirtioDevice } from '../src/devices/virtio/device.ts';
import { DeviceKind, Feature, Interrupt, Register, Status } from '../src/devices/virtio/registers.ts';
import { VirtioDriver } from './virtio-driver.ts';

/** Gives back what it reads, byte by byte the other way round, as far as there is room. */
class Mirror implements VirtioDevice {
  readonly kind = DeviceKind.console;
  readonly features = [3];
  readonly queueSizes = [64, 16];
  readonly configuration = Uint8Array.of(1, 2, 3, 4, 5);
  readonly isBusy = false;
  transport!: Transport; // set by the transport, before all else
  resets = 0;
  readonly #under = new Map<number, { head: number; input: SegmentCursor; output: SegmentCursor; bytes: Uint8Array }>();

  archive(): void {}

  attach(transport: Transport): void {
    this.transport = transport;
  }

  process(): void {
    for (const [index, queue] of this.transport.queues.entries()) {
      for (;;) {
        let current = this.#under.get(index);
        if (current === undefined) {
          const chain = queue.pop();
          if (chain === undefined) break;
          const bytes = new Uint8Array(Math.min(totalLength(chain.readable), 0x8000));
          current = { head: chain.head, input: cursorAt(chain.readable), output: cursorAt(chain.writable), bytes };
          this.#under.set(index, current);
        }
        const { head, input, output, bytes } = current;
        if (!this.transport.gather(input, bytes.subarray(input.position))) break;
        const answer = bytes.slice().reverse().subarray(0, totalLength(output.segments));
        if (!this.transport.scatter(output, answer.subarray(output.position))) break;
        if (!queue.push(head, answer.length)) break;
        this.#under.delete(index);
      }
    }
  }

  reset(): void {
    this.resets++;
    this.#under.clear();
  }
}

const ALL = [3, Feature.indirectDescriptors, Feature.eventIndex, Feature.version1];

let device: Mirror;
let driver: VirtioDriver;

beforeEach(() => {
  device = new Mirror();
  driver = new VirtioDriver(device);
});

describe('a virtio device in memory', () => {
  it('says what it is', () => {
    expect(driver.read(Register.magic)).toBe(0x74726976);
    expect(driver.read(Register.version)).toBe(2);
    expect(driver.read(Register.deviceId)).toBe(3);
    expect(driver.offered).toEqual(ALL);
    expect(driver.transport.read(Register.configuration + 1, 2)).toBe(0x0302);
    expect(driver.transport.read(Register.configuration + 4, 4)).toBe(5);
    expect(driver.read(Register.sharedMemoryLengthLow)).toBe(0xffff_ffff);
    expect(driver.transport.read(Register.magic, 1)).toBe(0);
  });

  it('agrees to what it offers, and to nothing without version 1', () => {
    expect(driver.negotiate(ALL)).toBe(true);
    expect(driver.negotiate([Feature.version1])).toBe(true);
    expect(driver.negotiate([3])).toBe(false);
    expect(driver.negotiate([4, Feature.version1])).toBe(false);
    expect(driver.negotiate([Feature.version1, 40])).toBe(false);
  });

  it('keeps to the features that were agreed on', () => {
    driver.negotiate([Feature.version1]);
    driver.write(Register.driverFeaturesSelect, 0);
    driver.write(Register.driverFeatures, 2 ** Feature.eventIndex);
    expect(driver.hasEventIndex).toBe(false);
  });

  it('takes only sizes that a queue can have', () => {
    driver.write(Register.queueSelect, 1);
    expect(driver.read(Register.queueSizeMaximum)).toBe(16);
    for (const size of [0, 3, 32, 0x8000_0000]) {
      driver.write(Register.queueSize, size);
      expect(driver.transport.state.queues[1]?.size).toBe(16);
    }
    driver.write(Register.queueSize, 8);
    expect(driver.transport.state.queues[1]?.size).toBe(8);
    driver.write(Register.queueSelect, 2);
    expect(driver.read(Register.queueSizeMaximum)).toBe(0);
  });

  it('touches no queue before the driver is ready, then takes what is there', () => {
    driver.negotiate(ALL);
    driver.placeQueue(0, 8);
    driver.offer(0, Uint8Array.of(1, 2), 2);
    driver.notify(0);
    expect(driver.transport.state.queues[0]?.taken).toBe(0);
    driver.write(Register.status, Status.acknowledge | Status.driver | Status.featuresOk | Status.driverOk);
    expect(driver.collect(0).map(({ data }) => [...data])).toEqual([[2, 1]]);
  });

  it('raises its line until the interrupt is acknowledged', () => {
    driver.start();
    driver.offer(0, Uint8Array.of(1), 1);
    driver.notify(0);
    expect(driver.line).toBe(true);
    expect(driver.read(Register.interruptStatus)).toBe(Interrupt.usedBuffer);
    driver.write(Register.interruptAcknowledge, Interrupt.usedBuffer);
    expect(driver.line).toBe(false);
  });

  it.each([
    ['the flag', [Feature.version1]],
    ['the event index', ALL],
  ])('interrupts only when asked, by %s', (_, features) => {
    driver.start(features);
    driver.wantInterrupts(0, false);
    driver.offer(0, Uint8Array.of(1), 1);
    driver.notify(0);
    expect(driver.interrupts).toBe(0);
    expect(driver.collect(0)).toHaveLength(1);
    driver.wantInterrupts(0, true);
    driver.offer(0, Uint8Array.of(1), 1);
    driver.notify(0);
    expect(driver.interrupts).toBe(1);
  });

  it('says by the event index which chain it wants to hear of next', () => {
    driver.start(ALL);
    for (let count = 0; count < 3; count++) driver.offer(0, Uint8Array.of(1), 1);
    driver.notify(0);
    expect(driver.availableEvent(0)).toBe(3);
  });

  it('tells the driver of a changed configuration, and counts the changes', () => {
    driver.start();
    const before = driver.read(Register.configurationGeneration);
    device.transport.configurationChanged();
    expect(driver.read(Register.configurationGeneration)).toBe(before + 1);
    expect(driver.read(Register.interruptStatus)).toBe(Interrupt.configuration);
    expect(driver.line).toBe(true);
  });

  it('forgets everything at a reset', () => {
    driver.start();
    driver.offer(0, Uint8Array.of(1), 1);
    driver.notify(0);
    const { resets } = device;
    driver.write(Register.status, 0);
    expect(device.resets).toBe(resets + 1);
    expect(driver.line).toBe(false);
    expect(driver.transport.state).toEqual(new VirtioDriver(new Mirror()).transport.state);
  });

  it('keeps nothing but plain records', () => {
    driver.start();
    driver.notify(0);
    expect(structuredClone(driver.transport.state)).toEqual(driver.transport.state);
  });
});

const chain = fc.record({
  toRead: fc.uint8Array({ maxLength: 9000 }),
  room: fc.nat(9000),
  cuts: fc.array(fc.nat(18_000), { maxLength: 6 }),
  indirect: fc.boolean(),
});
/** Which pages go away, at three places of a request's life. */
const evictions = fc.array(fc.nat(63), { maxLength: 40 });

describe('a queue', () => {
  it.each([
    ['all features', ALL],
    ['no event index', [Feature.version1, Feature.indirectDescriptors]],
  ])('carries any chains while pages come and go, with %s', (_, features) => {
    const step = fc.record({
      queue: fc.nat(1),
      chains: fc.array(chain, { maxLength: 4 }),
      before: evictions,
      after: evictions,
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        driver = new VirtioDriver(new Mirror());
        driver.start(features, 8);
        for (const { queue, chains, before, after } of steps) {
          const expected: (readonly [Uint8Array, number])[] = [];
          for (const { toRead, room, ...options } of chains) {
            if (toRead.length + room > 0x5000 || toRead.length + room === 0) continue;
            if (driver.offer(queue, toRead, room, options) === undefined) continue;
            expected.push([toRead.slice().reverse().subarray(0, room), room]);
          }
          driver.evict(...before);
          driver.notify(queue);
          driver.evict(...after);
          driver.settle();
          const collected = driver.collect(queue);
          expect(collected).toHaveLength(expected.length);
          for (const [place, [answer, room]] of expected.entries()) {
            expect(collected[place]?.written).toBe(answer.length);
            expect(collected[place]?.data.length).toBe(room);
            expect(Buffer.compare(collected[place]!.data.subarray(0, answer.length), answer)).toBe(0);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it('works past the wrap of its indexes', () => {
    driver.start(ALL, 8);
    const { state } = driver.transport.queues[0]!;
    Object.assign(state, { taken: 0xfffe, used: 0xfffe, signalled: 0xfffe });
    const queue = driver.queues[0]!;
    Object.assign(queue, { available: 0xfffe, seen: 0xfffe });
    driver.memory.writeU16(queue.driver + 2, 0xfffe);
    driver.memory.writeU16(queue.device + 2, 0xfffe);
    driver.wantInterrupts(0, true);
    for (let count = 0; count < 6; count++) {
      driver.interrupts = 0;
      driver.offer(0, Uint8Array.of(count, 9), 2);
      driver.notify(0);
      expect(driver.interrupts).toBe(1);
      expect(driver.collect(0).map(({ data }) => [...data])).toEqual([[9, count]]);
    }
  });
});

/** Descriptors as a hostile driver may write them, in a table of 8. */
function place(entries: readonly (readonly [address: number, length: number, flags: number, next: number])[]): void {
  for (const [index, [address, length, flags, next]] of entries.entries()) {
    driver.memory.writeU32(index * 16, address);
    driver.memory.writeU32(index * 16 + 8, length);
    driver.memory.writeU16(index * 16 + 12, flags);
    driver.memory.writeU16(index * 16 + 14, next);
  }
}

describe('a hostile driver', () => {
  beforeEach(() => driver.start(ALL, 8));

  it.each([
    [
      'a loop',
      [
        [0x10000, 1, 1, 1],
        [0x10000, 1, 1, 0],
      ],
    ],
    ['a descriptor beyond the table', [[0x10000, 1, 1, 8]]],
    [
      'bytes to read after room to write',
      [
        [0x10000, 1, 3, 1],
        [0x10000, 1, 0, 0],
      ],
    ],
    [
      'buffers of over 4 GiB',
      [
        [0x10000, 0xffff_ffff, 1, 1],
        [0x10000, 1, 0, 0],
      ],
    ],
    ['a buffer beyond RAM', [[0x3_ffff, 2, 0, 0]]],
    [
      'an indirect table with a next',
      [
        [0x10000, 16, 5, 1],
        [0x10000, 1, 0, 0],
      ],
    ],
    ['an empty indirect table', [[0x10000, 0, 4, 0]]],
    ['an indirect table of broken size', [[0x10000, 24, 4, 0]]],
    ['an indirect table beyond RAM', [[0x7fff_0000, 16, 4, 0]]],
    ['an indirect table in an indirect table', [[0x0, 32, 4, 0]]],
  ] as const)('is stopped at %s until it resets', (_, entries) => {
    place(entries);
    driver.publish(0, 0);
    driver.notify(0);
    expect(driver.read(Register.status) & Status.needsReset).toBe(Status.needsReset);
    expect(driver.read(Register.interruptStatus) & Interrupt.configuration).toBe(Interrupt.configuration);
    expect(driver.transport.state.failure).toMatch(/^the driver offers|^the driver names/);
    driver.start(ALL, 8);
    driver.offer(0, Uint8Array.of(1, 2), 2);
    driver.notify(0);
    expect(driver.collect(0).map(({ data }) => [...data])).toEqual([[2, 1]]);
  });

  it('is stopped when it offers more chains than the queue holds', () => {
    driver.memory.writeU16(driver.queues[0]!.driver + 2, 9);
    driver.notify(0);
    expect(driver.transport.state.failure).toBe('the driver offers 9 chains in a queue of 8');
  });

  it('is stopped at a head beyond the table', () => {
    driver.publish(0, 8);
    driver.notify(0);
    expect(driver.transport.state.failure).toBe('the driver offers descriptor 8 of 8');
  });

  it.each([
    ['descriptors', Register.queueDescriptorsLow, 8],
    ['the driver area', Register.queueDriverLow, 1],
    ['the device area', Register.queueDeviceLow, 2],
  ])('is stopped when it puts %s at an odd address', (_, register, address) => {
    driver.write(Register.queueSelect, 1);
    driver.write(Register.queueReady, 0);
    driver.write(register, address);
    driver.write(Register.queueReady, 1);
    expect(driver.transport.state.failure).toBe('the driver has put queue 1 at odd addresses');
  });

  it('cannot move a queue that is in use', () => {
    driver.write(Register.queueSelect, 0);
    driver.write(Register.queueDescriptorsHigh, 1);
    driver.write(Register.queueSize, 4);
    expect(driver.transport.state.queues[0]).toMatchObject({ descriptors: 0, size: 8 });
  });

  it('gets no further than a reset by any descriptors and indexes', () => {
    const address = fc.oneof(fc.nat(0x3_ffff), fc.integer({ min: 0, max: 0xffff_ffff }));
    const length = fc.oneof(fc.nat(0x2000), fc.constantFrom(16, 32, 48), fc.integer({ min: 0, max: 0xffff_ffff }));
    const descriptor = fc.tuple(address, length, fc.nat(7), fc.nat(9));
    const heads = fc.array(fc.nat(9), { maxLength: 10 });
    fc.assert(
      fc.property(fc.array(descriptor, { maxLength: 8 }), heads, evictions, (entries, published, evicted) => {
        driver = new VirtioDriver(new Mirror());
        driver.start(ALL, 8);
        place(entries);
        for (const head of published) driver.publish(0, head);
        driver.evict(...evicted);
        driver.notify(0);
        driver.settle();
        driver.start(ALL, 8);
        driver.offer(0, Uint8Array.of(1, 2), 2);
        driver.notify(0);
        expect(driver.collect(0).map(({ data }) => [...data])).toEqual([[2, 1]]);
      }),
      { numRuns: 150 },
    );
  });

  it('gets nowhere by any accesses to registers', () => {
    const write = fc.tuple(
      fc.oneof(fc.nat(0x1ff), fc.constantFrom(0x30, 0x38, 0x44, 0x50, 0x70, 0x80, 0x90, 0xa0, 0xa4)),
      fc.constantFrom(1, 2, 4, 4, 4, 4),
      fc.oneof(fc.nat(16), fc.integer({ min: 0, max: 0xffff_ffff })),
    );
    fc.assert(
      fc.property(fc.array(write, { maxLength: 60 }), (writes) => {
        driver = new VirtioDriver(new Mirror());
        for (const [offset, bytes, value] of writes) {
          driver.transport.write(offset, bytes, value % 2 ** (8 * bytes));
          const read = driver.transport.read(offset, bytes);
          expect(read >= 0 && read < 2 ** (8 * bytes)).toBe(true);
          driver.settle();
        }
        driver.start(ALL, 8);
        driver.offer(0, Uint8Array.of(1, 2), 2);
        driver.notify(0);
        expect(driver.collect(0).map(({ data }) => [...data])).toEqual([[2, 1]]);
      }),
    );
  });
});
