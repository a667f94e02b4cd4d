import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { ConsoleDevice } from '../src/devices/virtio/console.ts';
import { Interrupt, Register } from '../src/devices/virtio/registers.ts';
import { VirtioDriver } from './virtio-driver.ts';

const RECEIVE = 0;
const TRANSMIT = 1;

let printed: number[];
let device: ConsoleDevice;
let driver: VirtioDriver;

beforeEach(() => {
  printed = [];
  device = new ConsoleDevice((bytes) => printed.push(...bytes));
  driver = new VirtioDriver(device);
  driver.start();
});

const text = (characters: string): Uint8Array => new TextEncoder().encode(characters);

/** What the driver has received. */
function received(): number[] {
  return driver.collect(RECEIVE).flatMap(({ data, written }) => [...data.subarray(0, written)]);
}

describe('a virtio console', () => {
  it('prints what the guest sends', async () => {
    await driver.request(TRANSMIT, text('hello'), 0);
    expect(printed).toEqual([...text('hello')]);
  });

  it('keeps what was typed until the guest has room', () => {
    device.type(text('uname -a\n'));
    expect(driver.wakes).toBe(1);
    driver.settle();
    driver.offer(RECEIVE, new Uint8Array(0), 4);
    driver.offer(RECEIVE, new Uint8Array(0), 40);
    driver.notify(RECEIVE);
    expect(received()).toEqual([...text('uname -a\n')]);
  });

  it('hands over what is typed while the guest waits', () => {
    driver.offer(RECEIVE, new Uint8Array(0), 40);
    driver.notify(RECEIVE);
    expect(driver.line).toBe(false);
    device.type(text('x'));
    driver.transport.poll();
    expect(driver.line).toBe(true);
    expect(received()).toEqual([...text('x')]);
  });

  it('tells the guest when its terminal has another size', () => {
    device.resize(132, 50);
    expect(driver.read(Register.interruptStatus)).toBe(Interrupt.configuration);
    expect(driver.transport.read(Register.configuration, 2)).toBe(132);
    expect(driver.transport.read(Register.configuration + 2, 2)).toBe(50);
  });

  it('prints every byte once, wherever it had to wait for a page', () => {
    const bytes = Uint8Array.from({ length: 20_000 }, (_, index) => index % 251);
    driver.offer(TRANSMIT, bytes, 0, { cuts: [100, 5000] });
    driver.evict(...Array.from({ length: 48 }, (_, index) => 16 + index));
    driver.notify(TRANSMIT);
    driver.settle();
    expect(printed).toEqual([...bytes]);
    expect(driver.collect(TRANSMIT)).toHaveLength(1);
  });

  it('lets others have their turn during a chain without end', () => {
    // 16 descriptors of the same 160 KiB.
    const { descriptors } = driver.queues[TRANSMIT]!;
    for (let index = 0; index < 16; index++) {
      driver.memory.writeU32(descriptors + index * 16, 0x1_0000);
      driver.memory.writeU32(descriptors + index * 16 + 8, 0x2_8000);
      driver.memory.writeU16(descriptors + index * 16 + 12, index < 15 ? 1 : 0);
      driver.memory.writeU16(descriptors + index * 16 + 14, index + 1);
    }
    driver.publish(TRANSMIT, 0);
    driver.notify(TRANSMIT);
    expect(printed.length).toBe(64 * 1024);
    expect(driver.wakes).toBe(1);
    driver.transport.poll();
    expect(printed.length).toBe(128 * 1024);
  });

  it('carries any bytes in any pieces both ways while pages come and go', () => {
    const piece = fc.uint8Array({ maxLength: 200 });
    const step = fc.record({
      output: piece,
      input: piece,
      room: fc.integer({ min: 1, max: 150 }),
      evicted: fc.array(fc.nat(63), { maxLength: 30 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 15 }), (steps) => {
        printed = [];
        device = new ConsoleDevice((bytes) => printed.push(...bytes));
        driver = new VirtioDriver(device);
        driver.start();
        const sent: number[] = [];
        const typed: number[] = [];
        const arrived: number[] = [];
        for (const { output, input, room, evicted } of steps) {
          if (output.length > 0 && driver.offer(TRANSMIT, output, 0)) sent.push(...output);
          driver.offer(RECEIVE, new Uint8Array(0), room);
          device.type(input);
          typed.push(...input);
          driver.evict(...evicted);
          driver.notify(TRANSMIT);
          driver.notify(RECEIVE);
          driver.settle();
          driver.collect(TRANSMIT);
          arrived.push(...received());
        }
        expect(printed).toEqual(sent);
        while (arrived.length < typed.length && driver.offer(RECEIVE, new Uint8Array(0), 500)) {
          driver.notify(RECEIVE);
          driver.settle();
          arrived.push(...received());
        }
        expect(arrived).toEqual(typed);
      }),
      { numRuns: 50 },
    );
  });
});
