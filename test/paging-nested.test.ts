import { describe, expect, it } from 'vitest';
import { FramePool, OutOfFrames } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { createLinearPaging } from '../src/paging/native/linear-paging.ts';
import { createResidentPaging, NestedPaging } from '../src/paging/nested/nested-paging.ts';
import type { Frame, Gfn, GuestPhysical } from '../src/x86/brand.ts';

const FRAMES = 16;

class Recorder {
  readonly events: string[] = [];
  invalidateFrame(frame: Frame): void {
    this.events.push(`invalidate ${frame}`);
  }
  invalidateWritable(): void {}
  frameWritten(frame: Frame, offset: number, length: number): void {
    this.events.push(`written ${frame} ${offset} ${length}`);
  }
}

function world(): { pool: FramePool; recorder: Recorder } {
  return { pool: new FramePool(new HostMemory(1 << 20), FRAMES), recorder: new Recorder() };
}

describe('nested paging', () => {
  it('finds bytes by their guest-physical addresses', () => {
    const { pool, recorder } = world();
    const paging = new NestedPaging(pool, recorder, 4);
    pool.allocate();
    const frame = pool.allocate();
    paging.map(2 as Gfn, frame);
    expect(paging.addressOf(0x2345 as GuestPhysical)).toBe(pool.addressOf(frame) + 0x345);
    expect(paging.addressOf(0x1345 as GuestPhysical)).toBe(-1);
    expect(paging.addressOf(0x7000_0000 as GuestPhysical)).toBe(-1);
  });

  it('takes translations and code of a frame away before its entry goes', () => {
    const { pool, recorder } = world();
    const paging = new NestedPaging(pool, recorder, 4);
    const frame = pool.allocate();
    paging.map(1 as Gfn, frame);
    expect(paging.unmap(1 as Gfn)).toBe(frame);
    expect(recorder.events).toEqual([`invalidate ${frame}`, `written ${frame} 0 4096`]);
    expect(paging.frames[1]).toBe(-1);
  });

  it('refuses to map a page twice', () => {
    const { pool, recorder } = world();
    const paging = new NestedPaging(pool, recorder, 4);
    paging.map(1 as Gfn, pool.allocate());
    expect(() => paging.map(1 as Gfn, pool.allocate())).toThrow(RangeError);
  });

  it('gives every frame back at its end', () => {
    const { pool, recorder } = world();
    const paging = createResidentPaging(pool, recorder, 10);
    expect(pool.available).toBe(FRAMES - 10);
    paging.destroy();
    expect(pool.available).toBe(FRAMES);
  });

  it('takes no frame when there are too few', () => {
    const { pool, recorder } = world();
    expect(() => createResidentPaging(pool, recorder, FRAMES + 1)).toThrow(OutOfFrames);
    expect(pool.available).toBe(FRAMES);
  });
});

describe('linear paging', () => {
  it('is a base and a limit, also in a pool that was used', () => {
    const { pool, recorder } = world();
    const frames = Array.from({ length: 12 }, () => pool.allocate());
    for (const frame of [...frames].reverse()) if (frame !== 3) pool.release(frame);
    const paging = createLinearPaging(pool, recorder, 10);
    const base = paging.frames[0] as number;
    expect(base).toBe(4);
    expect([...paging.frames]).toEqual(Array.from({ length: 10 }, (_, gfn) => base + gfn));
    expect(pool.available).toBe(FRAMES - 11);
  });

  it('hands out zeroed frames', () => {
    const { pool, recorder } = world();
    const frame = pool.allocate();
    pool.memory.u8.fill(0xa5, pool.addressOf(frame), pool.addressOf(frame) + 4096);
    pool.release(frame);
    const paging = createLinearPaging(pool, recorder, FRAMES);
    const start = paging.addressOf(0 as GuestPhysical);
    expect(pool.memory.u8.subarray(start, start + FRAMES * 4096).every((byte) => byte === 0)).toBe(true);
  });

  it('refuses what is in pieces', () => {
    const { pool, recorder } = world();
    const frames = Array.from({ length: FRAMES }, () => pool.allocate());
    for (const frame of frames) if (frame !== 8) pool.release(frame);
    expect(() => createLinearPaging(pool, recorder, 10)).toThrow(OutOfFrames);
    expect(pool.available).toBe(FRAMES - 1);
  });
});
