import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createByteQueue, dequeue, enqueue } from '../src/devices/ring.ts';
import { ConsoleRing } from '../src/devices/xen/console-ring.ts';
import type { Mfn } from '../src/x86/brand.ts';
import { TestMachine } from './xen-events-machine.ts';

const IN_CONS = 0xc00;
const IN_PROD = 0xc04;
const OUT_CONS = 0xc08;
const OUT_PROD = 0xc0c;

let machine: TestMachine;
let page: Mfn;
let printed: number[];
let console_: ConsoleRing;

beforeEach(() => {
  machine = new TestMachine();
  page = machine.page();
  printed = [];
  console_ = new ConsoleRing(machine.shared, page, (bytes) => printed.push(...bytes));
});

/** What the host stores to a page that may hold a table or code, somebody must be shown. */
afterEach(() => expect(machine.untold()).toEqual([]));

/** The guest's driver: prints as much as there is room for. */
function print(bytes: readonly number[]): number {
  let producer = machine.u32(page, OUT_PROD);
  const consumer = machine.u32(page, OUT_CONS);
  let done = 0;
  while (done < bytes.length && (producer - consumer) >>> 0 < 2048) {
    machine.setU8(page, 0x400 + (producer & 2047), bytes[done++]!);
    producer = (producer + 1) >>> 0;
  }
  machine.setU32(page, OUT_PROD, producer);
  return done;
}

/** The guest's driver: reads at most `limit` bytes. */
function read(limit: number): number[] {
  let consumer = machine.u32(page, IN_CONS);
  const producer = machine.u32(page, IN_PROD);
  const bytes: number[] = [];
  while (consumer !== producer && bytes.length < limit) {
    bytes.push(machine.u8(page, consumer & 1023));
    consumer = (consumer + 1) >>> 0;
  }
  machine.setU32(page, IN_CONS, consumer);
  return bytes;
}

describe('the console ring', () => {
  it('hands output to the sink and says that the guest should know', () => {
    expect(console_.poll()).toBe(false);
    print([104, 105]);
    expect(console_.poll()).toBe(true);
    expect(printed).toEqual([104, 105]);
    expect(machine.u32(page, OUT_CONS)).toBe(2);
    expect(console_.poll()).toBe(false);
  });

  it('keeps input until there is room', () => {
    console_.type(new Uint8Array(1500).fill(7));
    expect(console_.poll()).toBe(true);
    expect(machine.u32(page, IN_PROD)).toBe(1024);
    expect(console_.poll()).toBe(false);
    expect(read(2000).length).toBe(1024);
    expect(console_.poll()).toBe(true);
    expect(read(2000).length).toBe(476);
    expect(console_.poll()).toBe(false);
  });

  it('carries any bytes in any pieces over the wrap of the indexes, in both directions', () => {
    const piece = fc.array(fc.integer({ min: 0, max: 255 }), { maxLength: 3000 });
    fc.assert(
      fc.property(fc.array(fc.tuple(piece, piece, fc.nat(1200)), { maxLength: 12 }), fc.nat(5000), (steps, back) => {
        const start = -back >>> 0;
        for (const index of [IN_CONS, IN_PROD, OUT_CONS, OUT_PROD]) machine.setU32(page, index, start);
        printed = [];
        const sent: number[] = [];
        const typed: number[] = [];
        const received: number[] = [];
        for (const [out, input, limit] of steps) {
          sent.push(...out.slice(0, print(out)));
          console_.type(new Uint8Array(input));
          typed.push(...input);
          console_.poll();
          received.push(...read(limit));
        }
        while (console_.poll()) received.push(...read(1024));
        received.push(...read(1024));
        expect(printed).toEqual(sent);
        expect(received).toEqual(typed);
      }),
      { numRuns: 50 },
    );
  });

  it('survives any indexes with bounded work and prints again afterwards', () => {
    const index = fc.integer({ min: 0, max: 0xffff_ffff });
    fc.assert(
      fc.property(index, index, index, index, (inCons, inProd, outCons, outProd) => {
        [inCons, inProd, outCons, outProd].forEach((value, at) => {
          machine.setU32(page, IN_CONS + at * 4, value);
        });
        printed = [];
        console_.type(new Uint8Array([1]));
        console_.poll();
        expect(printed.length).toBeLessThanOrEqual(2048);
        printed = [];
        print([65]);
        console_.poll();
        expect(printed).toEqual([65]);
      }),
    );
  });

  it('does nothing when the page has gone', () => {
    print([1]);
    machine.space.detach(page);
    expect(console_.poll()).toBe(false);
  });
});

it('a byte queue gives back what went in, however it is cut', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.uint8Array({ maxLength: 20 }), fc.nat(30))), (steps) => {
      const queue = createByteQueue();
      const model: number[] = [];
      for (const [bytes, limit] of steps) {
        enqueue(queue, bytes);
        model.push(...bytes);
        expect([...dequeue(queue, limit)]).toEqual(model.splice(0, limit));
        expect(queue.length).toBe(model.length);
      }
    }),
  );
});
