import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FRAME_TYPE_NAMES, FrameOwner, FrameType } from '../src/paging/direct/frame-types.ts';
import { type DirectFormat, TABLE_RULES } from '../src/paging/direct/table-rules.ts';
import type { GuestVirtual, Mfn, Pfn } from '../src/x86/brand.ts';
import { Model } from './paging-direct-model.ts';
import {
  addressOf,
  D,
  DOMAIN_FRAMES,
  entry,
  G,
  P,
  PAGE,
  PROCESSORS,
  PSE,
  paeAddressOf,
  READ_ONLY,
  RW,
  TABLE,
  US,
  World,
} from './paging-direct-world.ts';

/** Index into the world's frames; the last four are the shared, the read-only, an unowned and a senseless number. */
const anyFrame = fc.oneof(
  { weight: 12, arbitrary: fc.nat(11) },
  { weight: 3, arbitrary: fc.nat(DOMAIN_FRAMES - 1) },
  { weight: 1, arbitrary: fc.integer({ min: DOMAIN_FRAMES, max: DOMAIN_FRAMES + 3 }) },
);
const anyIndex = fc.constantFrom(0, 0, 0, 1, 1, 2, 3, 255, 256, 271, 272, 511);
const anyFlags = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(TABLE, PAGE, READ_ONLY, READ_ONLY | US, 0) },
  { weight: 1, arbitrary: fc.constantFrom(PAGE | PSE, TABLE | G, PAGE | 8, PAGE | 0x10, RW, P | 0xe00 | D) },
);
const anyHigh = fc.constantFrom(0, 0, 0, 0, 0x8000_0000, 0x7ff0_0000, 1, 0xf_ffff);
const anyDescriptorHigh = fc.constantFrom(
  0,
  0xcf9b00,
  0xcff300,
  0xaf9b00,
  0xec00,
  0xec80,
  0x8900,
  0x8200,
  0x8e00,
  0x8000,
);
const processor = fc.nat(PROCESSORS - 1);

const anyValue = fc.record({ to: anyFrame, flags: anyFlags, high: anyHigh });
/** Mostly the two live level-1 tables of `prepare`. */
const path: fc.Arbitrary<[number, number, number, number]> = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(fc.constant(0), fc.constant(0), fc.constantFrom(0, 1), anyIndex) },
  { weight: 1, arbitrary: fc.tuple(anyIndex, anyIndex, anyIndex, anyIndex) },
);
/** Changes that are likely to be allowed: a table of `prepare` and what its level may refer to, itself included. */
const LIKELY = [
  ...[
    [0, 2],
    [0, 3],
    [0, 4],
    [1, 2],
    [1, 3],
    [2, 4],
    [3, 4],
    [2, 5],
    [3, 10],
    [4, 5],
    [4, 6],
    [4, 10],
  ].map((pair) => [...pair, TABLE]),
  ...[
    [0, 0],
    [0, 1],
    [1, 0],
    [2, 2],
    [2, 3],
    [3, 2],
    [4, 4],
    [5, 4],
    [6, 7],
    [5, 5],
  ].map((pair) => [...pair, READ_ONLY]),
  ...[
    [5, 8],
    [5, 9],
    [6, 9],
    [6, 11],
    [5, 7],
    [5, 24],
  ].map((pair) => [...pair, PAGE]),
] as [number, number, number][];
const likelyUpdate = fc.record({ pair: fc.constantFrom(...LIKELY), index: anyIndex, gone: fc.nat(3) });

const OPERATION = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('pin' as const), level: fc.integer({ min: 1, max: 4 }), frame: anyFrame }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('unpin' as const), frame: anyFrame }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('unpinOne' as const), which: fc.nat(3) }) },
  {
    weight: 16,
    arbitrary: fc.record({
      do: fc.constant('update' as const),
      frame: anyFrame,
      index: anyIndex,
      command: fc.constantFrom(0, 0, 0, 0, 1, 2, 2, 3, 5),
      value: anyValue,
    }),
  },
  {
    weight: 16,
    arbitrary: likelyUpdate.map(({ pair: [table, to, flags], index, gone }) => ({
      do: 'update' as const,
      frame: table,
      index,
      command: 0,
      value: { to, flags: gone === 0 ? 0 : flags, high: 0 },
    })),
  },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('va' as const), processor, path, value: anyValue }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('root' as const), slot: fc.nat(PROCESSORS * 2 - 1), frame: anyFrame }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('noUserRoot' as const), processor }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('store' as const),
      frame: fc.oneof(fc.constantFrom(5, 6), anyFrame),
      index: anyIndex,
      start: fc.constantFrom(0, 0, 0, 1, 2, 4, 5),
      length: fc.constantFrom(1, 2, 4, 8, 8, 8, 3, 16),
      value: anyValue,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('gdt' as const),
      processor,
      frames: fc.array(anyFrame, { maxLength: 2 }),
      short: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('ldt' as const), frame: anyFrame }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('noLdt' as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('descriptor' as const),
      frame: anyFrame,
      index: anyIndex,
      high: anyDescriptorHigh,
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('hold' as const), frame: anyFrame }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('drop' as const), which: fc.nat(7) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('clear' as const), frame: anyFrame }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('copy' as const), frame: anyFrame, from: anyFrame }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('decrease' as const), frame: anyFrame }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('populate' as const) }) },
);
type Operation = typeof OPERATION extends fc.Arbitrary<infer Value> ? Value : never;

function numbers(world: World): number[] {
  return [...world.own, world.shared, world.unowned, 0x141, 0];
}

/** Makes the first of the two address spaces, or both, live. */
const start = (format: DirectFormat): Operation[] => [
  { do: 'pin', level: TABLE_RULES[format].geometry.levels, frame: 0 },
  { do: 'root', slot: 0, frame: 0 },
  { do: 'root', slot: 1, frame: 1 },
  { do: 'root', slot: 2, frame: 0 },
];

/** A world with two small address spaces that share a level-2 table, as memory stands before any type is given. */
function prepare(world: World, model: Model, format: DirectFormat): void {
  const set = (mfn: Mfn, index: number, low: number) => {
    world.poke(mfn, index, low);
    model.poke(mfn, index, low, 0);
  };
  const [rootA, rootB, level3A, level3B, level2, level1A, level1B, gdt] = world.own as [
    Mfn,
    Mfn,
    Mfn,
    Mfn,
    Mfn,
    Mfn,
    Mfn,
    Mfn,
  ];
  if (format === 'pae') {
    // The other two tables are of level 2 here, and stand where a top table must have one.
    set(rootA, 0, entry(level2, P));
    set(rootA, 3, entry(level3A, P));
    set(rootB, 0, entry(level2, P));
    set(rootB, 3, entry(level3B, P));
  } else {
    set(rootA, 0, entry(level3A, TABLE));
    set(rootB, 0, entry(level3B, TABLE));
    set(level3A, 0, entry(level2, TABLE));
    set(level3B, 0, entry(level2, TABLE));
  }
  set(level2, 0, entry(level1A, TABLE));
  set(level2, 1, entry(level1B, TABLE));
  set(level1A, 0, entry(rootA, READ_ONLY));
  set(level1A, 1, entry(world.page(8), PAGE));
  set(level1A, 2, entry(world.shared, PAGE));
  set(level1B, 0, entry(gdt, READ_ONLY));
  set(level1B, 1, entry(world.page(9), PAGE));
}

/** Carries out one operation on both sides; their results. */
function perform(operation: Operation, world: World, model: Model): [unknown, unknown] {
  const { paging } = world;
  const all = numbers(world);
  const frame = (index: number) => all[index] as Mfn;
  const entryOf = (value: { to: number; flags: number; high: number }) => ({
    low: entry(frame(value.to), value.flags),
    high: value.high,
  });
  switch (operation.do) {
    case 'pin': {
      const level = operation.level as 1 | 2 | 3 | 4;
      return [world.run(() => paging.pin(level, frame(operation.frame))), model.pin(level, frame(operation.frame))];
    }
    case 'unpin':
      return [world.run(() => paging.unpin(frame(operation.frame))), model.unpin(frame(operation.frame))];
    case 'unpinOne': {
      const mfn = ([...model.state.pins.keys()][operation.which] ?? 0) as Mfn;
      return [world.run(() => paging.unpin(mfn)), model.unpin(mfn)];
    }
    case 'update': {
      const { index, command } = operation;
      const { low, high } = entryOf(operation.value);
      return [
        world.run(() => world.update(frame(operation.frame), index, low, high, command)),
        model.mmuUpdate(frame(operation.frame), index, command, { low, high }),
      ];
    }
    case 'va': {
      const { low, high } = entryOf(operation.value);
      const root = paging.root(operation.processor);
      const [level4, level3, level2, level1] = operation.path;
      const [address, path] =
        paging.format === 'pae'
          ? [paeAddressOf(level3, level2, level1), [level3 & 3, level2, level1]]
          : [addressOf(level4, level3, level2, level1), operation.path];
      return [
        world.run(() => paging.updateVaMapping(root, address, low, high)),
        model.updateVaMapping(root, path, { low, high }),
      ];
    }
    case 'root': {
      const { slot } = operation;
      const mfn = frame(operation.frame);
      const change = () =>
        slot % 2 === 0 ? paging.newBasePointer(slot >> 1, mfn) : paging.newUserBasePointer(slot >> 1, mfn);
      return [world.run(change), model.setRoot(slot, mfn)];
    }
    case 'noUserRoot': {
      const slot = operation.processor * 2 + 1;
      return [world.run(() => paging.newUserBasePointer(operation.processor, 0 as Mfn)), model.setRoot(slot, 0)];
    }
    case 'store': {
      const mfn = frame(operation.frame);
      const offset = operation.index * 8 + operation.start;
      const image = new DataView(new ArrayBuffer(16));
      image.setUint32(0, entryOf(operation.value).low, true);
      image.setUint32(4, operation.value.high, true);
      const bytes = new Uint8Array(image.buffer, operation.start % 8, Math.min(operation.length, 16 - operation.start));
      const address = (addressOf(511, 5, 6, 7) + offset) as GuestVirtual;
      return [paging.emulateStore(address, mfn, bytes), model.emulateStore(mfn, offset, [...bytes])];
    }
    case 'gdt': {
      const frames = operation.frames.map(frame);
      const entries = frames.length * 512 - (operation.short ? 500 : 0);
      return [
        paging.descriptors.setGdt(operation.processor, frames, entries),
        model.setGdt(operation.processor, frames, entries),
      ];
    }
    case 'ldt':
      return [paging.descriptors.holdLdtFrame(frame(operation.frame)), model.holdLdtFrame(frame(operation.frame))];
    case 'noLdt':
      return [paging.descriptors.releaseLdt(), model.releaseLdt()];
    case 'descriptor': {
      const mfn = frame(operation.frame);
      const { index, high } = operation;
      return [
        paging.descriptors.update(mfn * 4096 + index * 8, 0, 0xffff, high),
        model.updateDescriptor(mfn, index, { low: 0xffff, high }),
      ];
    }
    case 'hold':
      return [paging.holdWritable(frame(operation.frame)), model.holdWritable(frame(operation.frame))];
    case 'drop': {
      const held = model.state.held[operation.which];
      if (held === undefined) return [0, 0];
      // Behind a call that was given up, the domain may have been refused a hold that the model has.
      const isHeld = paging.types.hostHolds.get(held) > 0;
      return [isHeld ? paging.dropWritable(held as Mfn) : 'refused', model.dropWritable(held)];
    }
    case 'clear':
      return [paging.clearPage(frame(operation.frame)), model.clearPage(frame(operation.frame))];
    case 'copy':
      return [
        paging.copyPage(frame(operation.frame), frame(operation.from)),
        model.copyPage(frame(operation.frame), frame(operation.from)),
      ];
    case 'decrease': {
      const mfn = frame(operation.frame);
      return [world.run(() => paging.decreaseReservation(mfn)), model.decreaseReservation(mfn)];
    }
    case 'populate':
      return [paging.populatePhysmap(7 as Pfn), model.populatePhysmap()];
  }
}

const TYPE_NAMES = { 1: 'level1', 2: 'level2', 3: 'level3', 4: 'level4', descriptors: 'segmentDescriptors' } as const;

function compare(world: World, model: Model): void {
  const { types } = world.paging;
  const expected = model.expected();
  for (const mfn of numbers(world)) {
    const owner = types.owner.get(mfn);
    if ((owner !== FrameOwner.none) !== model.state.owner.has(mfn))
      expect.fail(`frame ${mfn} is owned on one side only`);
    if (owner === FrameOwner.none) continue;
    const { type, typeCount, references } = expected(mfn);
    const name = type === 'writable' || type === 'none' ? type : TYPE_NAMES[type];
    const actual = [FRAME_TYPE_NAMES[types.type.get(mfn)], types.typeCount.get(mfn), types.references.get(mfn)];
    if (actual.join() !== [name, typeCount, references].join()) {
      expect.fail(`frame ${mfn}: ${actual.join(' ')}, but the model says ${name} ${typeCount} ${references}`);
    }
  }
}

function compareContents(world: World, model: Model): void {
  for (const mfn of world.own) {
    if (!model.state.owner.has(mfn)) continue;
    for (let index = 0; index < 512; index++) {
      const { low, high } = model.peek(mfn, index);
      if (world.low(mfn, index) !== low || world.high(mfn, index) !== high) {
        expect.fail(`entry ${index} of frame ${mfn} is not what the model says`);
      }
    }
  }
}

/** No table or descriptor page may be written through any level-1 table; looked up without the counts. */
function assertNothingWritable(world: World): void {
  const { types } = world.paging;
  const isProtected = (mfn: number) => {
    const type = types.type.get(mfn);
    return type !== FrameType.none && type !== FrameType.writable;
  };
  for (const mfn of world.own) {
    if (types.type.get(mfn) !== FrameType.level1) continue;
    for (let index = 0; index < types.held.get(mfn); index++) {
      const low = world.low(mfn, index);
      if ((low & (P | RW)) === (P | RW) && isProtected(low >>> 12)) {
        expect.fail(`frame ${low >>> 12} has a type but is writable through entry ${index} of ${mfn}`);
      }
    }
  }
}

function simulate(operations: Operation[], workPerCall: number, format: DirectFormat): void {
  const world = new World(workPerCall, format);
  const model = new Model(world.own, world.shared, format);
  prepare(world, model, format);
  for (const operation of operations) {
    const [actual, expected] = perform(operation, world, model);
    if (actual !== expected) expect.fail(`${JSON.stringify(operation)}: ${actual}, but the model says ${expected}`);
    world.paging.finish();
    const discrepancies = world.paging.recount();
    if (discrepancies.length > 0) expect(discrepancies).toEqual([]);
    compare(world, model);
    assertNothingWritable(world);
  }
  compareContents(world, model);
}

describe.each(['four-level', 'pae'] as const)('direct paging of %s tables', (format) => {
  const operations = fc
    .tuple(fc.nat(start(format).length), fc.array(OPERATION, { minLength: 1, maxLength: 60, size: 'max' }))
    .map(([started, list]) => [...start(format).slice(0, started), ...list]);

  it('agrees with a model without counts on every operation', () => {
    fc.assert(
      fc.property(operations, (list) => simulate(list, 1_000_000, format)),
      { numRuns: 250 },
    );
  });

  it.each([1, 7, 600])('agrees with the model when each call may look at %i entries only', (workPerCall) => {
    fc.assert(
      fc.property(operations, (list) => simulate(list, workPerCall, format)),
      { numRuns: 60 },
    );
  });

  it('keeps its counts when preempted calls are given up for others', () => {
    const turns = fc.array(fc.tuple(OPERATION, fc.nat(6)), { minLength: 1, maxLength: 40, size: 'max' });
    fc.assert(
      fc.property(turns, (list) => {
        const world = new World(300, format);
        const model = new Model(world.own, world.shared, format);
        prepare(world, model, format);
        for (const [operation, patience] of list) {
          let left = patience;
          world.run = (call) => {
            let result = call();
            while (result === -85 && left-- > 0) result = call();
            return result;
          };
          perform(operation, world, model);
          expect(world.paging.recount()).toEqual([]);
          assertNothingWritable(world);
        }
        world.paging.finish();
        expect(world.paging.recount()).toEqual([]);
      }),
      { numRuns: 150 },
    );
  });
});
