/** The table by which generated code finds decoded code: each place has two slots, one shared with another place. */
import { beforeEach, describe, expect, test } from 'vitest';
import { type Block, CodeCache } from '../src/cpu/code-cache.ts';
import { CodeMode } from '../src/cpu/code-mode.ts';
import { FrameMarks } from '../src/cpu/frame-marks.ts';
import { CODE_HASH_SHIFT, CODE_SLOTS_SHIFT, CODE_UNIT_SHIFT, CodeSlot } from '../src/cpu/tlb-layout.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import type { Frame, HostAddress } from '../src/x86/brand.ts';

const FRAMES = 2048;
const MODE = CodeMode.bits64;

/** As generated code does it (interpreter/find-code.ts). */
function found(memory: HostMemory, code: CodeCache, place: number): number | undefined {
  const hash = ((place >>> CODE_UNIT_SHIFT) ^ (place >>> CODE_HASH_SHIFT)) & ((1 << CODE_SLOTS_SHIFT) - 1);
  const first = code.slots + hash * CodeSlot.size;
  const slot = [first, first ^ CodeSlot.size].find(
    (candidate) => memory.u32[candidate >> 2] === place && memory.u32[(candidate >> 2) + 1] === MODE,
  );
  return slot === undefined ? undefined : memory.u32[(slot + CodeSlot.record) >> 2];
}

let memory: HostMemory;
let code: CodeCache;
let places: HostAddress[];

/** Decodes one instruction of two bytes at a place. */
function add(place: HostAddress): Block {
  const block = {
    place,
    mode: MODE,
    record: code.reserve(1),
    records: 1,
    bytes: 2,
    crossing: -1 as Frame,
    crossingBytes: 0,
  };
  code.add(block);
  code.publish(block);
  return block;
}

beforeEach(() => {
  memory = new HostMemory((64 << 20) + FRAMES * 4096);
  const pool = new FramePool(memory, FRAMES);
  code = new CodeCache(memory, pool, new FrameMarks(FRAMES), 1 << 20);
  const base = pool.addressOf(0 as Frame);
  const slotOf = (place: number) =>
    ((place >>> CODE_UNIT_SHIFT) ^ (place >>> CODE_HASH_SHIFT)) & ((1 << CODE_SLOTS_SHIFT) - 1);
  places = [];
  for (let place: number = base; places.length < 3; place += 4) {
    if (slotOf(place) === slotOf(base)) places.push(place as HostAddress);
  }
});

describe('places of one slot', () => {
  test('two are found, of three the last two', () => {
    const blocks = places.map(add);
    const [first, second, third] = places as [HostAddress, HostAddress, HostAddress];
    expect(found(memory, code, third)).toBe(blocks[2]?.record);
    expect(found(memory, code, second)).toBe(blocks[1]?.record);
    expect(found(memory, code, first)).toBeUndefined();
    expect(code.find(first, MODE)).toBe(blocks[0]);
  });

  test('what is found again and again keeps its slot', () => {
    const [first, second] = places.slice(0, 2).map(add) as [Block, Block];
    for (const block of [first, second, first, first]) code.publish(block);
    expect(found(memory, code, first.place)).toBe(first.record);
    expect(found(memory, code, second.place)).toBe(second.record);
  });

  test('what is dropped is found no more, in either slot', () => {
    const [first, second] = places.slice(0, 2).map(add) as [Block, Block];
    code.drop(first);
    expect(found(memory, code, first.place)).toBeUndefined();
    expect(found(memory, code, second.place)).toBe(second.record);
    code.drop(second);
    expect(found(memory, code, second.place)).toBeUndefined();
  });
});
