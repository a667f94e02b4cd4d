import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { ResidentMemory } from '../src/devices/dma/resident-memory.ts';
import { DmaStatus, DmaTable } from '../src/devices/dma/table.ts';
import type { Frame, Gfn } from '../src/x86/brand.ts';
import { physical, SwappedMemory } from './dma-machine.ts';

let memory: SwappedMemory;
let table: DmaTable;

beforeEach(() => {
  memory = new SwappedMemory();
  table = memory.table;
});

const gfn = (page: number): Gfn => page as Gfn;

describe('a DMA table', () => {
  it('translates each page of a range by itself', () => {
    const bytes = Uint8Array.from({ length: 6000 }, (_, index) => index * 7);
    expect(table.prepare(physical(0x2ffe), bytes.length, true)).toBe(DmaStatus.ready);
    table.write(physical(0x2ffe), bytes);
    expect(memory.read(0x2ffe, bytes.length)).toEqual(bytes);
    const back = new Uint8Array(bytes.length);
    table.read(physical(0x2ffe), back);
    expect(back).toEqual(bytes);
  });

  it('asks for an absent page and is ready once it is there', () => {
    memory.write(0x5000, [1, 2, 3]);
    memory.evict(gfn(5));
    expect(table.prepare(physical(0x5000), 3, false)).toBe(DmaStatus.absent);
    expect([...memory.wanted]).toEqual([5]);
    memory.bringIn();
    expect(table.prepare(physical(0x5000), 3, false)).toBe(DmaStatus.ready);
    const bytes = new Uint8Array(3);
    table.read(physical(0x5000), bytes);
    expect([...bytes]).toEqual([1, 2, 3]);
  });

  it('refuses to touch a page whose entry was taken away since it was prepared', () => {
    table.prepare(physical(0x5000), 3, false);
    memory.evict(gfn(5));
    expect(() => table.read(physical(0x5000), new Uint8Array(3))).toThrow(/without being prepared/);
  });

  it('maps a page anew for writing when it was mapped for reading or protected', () => {
    table.prepare(physical(0x5000), 1, false);
    expect(() => table.write(physical(0x5000), new Uint8Array(1))).toThrow(/without being prepared/);
    let mapped = 0;
    memory.onMap = () => mapped++;
    expect(table.prepare(physical(0x5000), 1, true)).toBe(DmaStatus.ready);
    expect(table.prepare(physical(0x5000), 1, true)).toBe(DmaStatus.ready);
    expect(mapped).toBe(1);
    table.protect(gfn(5), 1);
    expect(table.maps(gfn(5))).toBe(true);
    expect(table.maps(gfn(5), true)).toBe(false);
    expect(table.prepare(physical(0x5000), 1, true)).toBe(DmaStatus.ready);
    expect(mapped).toBe(2);
  });

  it('is not ready when mapping the last page of a range took away the first', () => {
    let victims = 1;
    memory.onMap = (page) => {
      if (page === 6 && victims-- > 0) memory.evict(gfn(5));
    };
    expect(table.prepare(physical(0x5000), 0x2000, true)).toBe(DmaStatus.absent);
    memory.bringIn();
    expect(table.prepare(physical(0x5000), 0x2000, true)).toBe(DmaStatus.ready);
    expect(table.maps(gfn(5), true) && table.maps(gfn(6), true)).toBe(true);
  });

  it('waits its turn, rather than for ever, where pages take each other away', () => {
    memory.onMap = (page) => table.invalidate(gfn(page === 5 ? 6 : 5), 1);
    expect(table.prepare(physical(0x5000), 0x2000, true)).toBe(DmaStatus.absent);
    expect([...memory.wanted]).toEqual([5]);
  });

  it('tells the owner which bytes of which frames were written', () => {
    table.prepare(physical(0x5ffe), 4, true);
    table.write(physical(0x5ffe), new Uint8Array(4));
    table.writeU16(physical(0x6004), 9);
    expect(memory.writes).toEqual([
      { frame: memory.frameOf(gfn(5)), offset: 0xffe, length: 2 },
      { frame: memory.frameOf(gfn(6)), offset: 0, length: 2 },
      { frame: memory.frameOf(gfn(6)), offset: 4, length: 2 },
    ]);
  });

  it('counts entries that come and go, and waits', () => {
    table.prepare(physical(0x5000), 0x2000, true);
    table.prepare(physical(0x5000), 1, false);
    memory.evict(gfn(5));
    memory.evict(gfn(9));
    table.protect(gfn(6), 1);
    table.prepare(physical(0x5000), 1, false);
    expect(table.counters).toEqual({ made: 2, taken: 2, waits: 1 });
  });

  it('refuses what is not RAM or not writable', () => {
    memory.readOnly.add(gfn(7));
    expect(table.prepare(physical(0x7000), 1, false)).toBe(DmaStatus.ready);
    expect(table.prepare(physical(0x6fff), 2, true)).toBe(DmaStatus.refused);
    expect(table.prepare(physical(64 * 4096 - 1), 1, true)).toBe(DmaStatus.ready);
    expect(table.prepare(physical(64 * 4096 - 1), 2, true)).toBe(DmaStatus.refused);
  });

  it('survives any address and length', () => {
    const word = fc.integer({ min: 0, max: 0xffff_ffff });
    fc.assert(
      fc.property(word, word, word, (low, high, length) => {
        const address = high * 0x1_0000_0000 + low;
        const inside = address + length <= memory.pages * 4096;
        const status = table.prepare(physical(address), length, true);
        expect(status).toBe(length === 0 || inside ? DmaStatus.ready : DmaStatus.refused);
      }),
    );
  });

  it('reaches all of a resident memory and nothing in its holes', () => {
    const written: number[] = [];
    const frames = new Int32Array([memory.pool.allocate(), -1, memory.pool.allocate()]);
    const resident = new ResidentMemory(frames, { frameWritten: (frame) => written.push(frame) });
    const fixed = new DmaTable(memory.pool, resident);
    expect(fixed.prepare(physical(0x2000), 0x1000, true)).toBe(DmaStatus.ready);
    fixed.write(physical(0x2000), Uint8Array.of(1));
    expect(written).toEqual([frames[2] as Frame]);
    expect(fixed.prepare(physical(0xfff), 2, false)).toBe(DmaStatus.refused);
    expect(fixed.prepare(physical(0x3000), 1, false)).toBe(DmaStatus.refused);
  });
});
