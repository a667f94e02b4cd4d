import { describe, expect, it } from 'vitest';
import { ABSENT_FRAME, FramePool, OutOfFrames } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MachineSpace } from '../src/memory/machine-space.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';
import { createLinearPaging } from '../src/paging/native/linear-paging.ts';
import { NestedPaging } from '../src/paging/nested/nested-paging.ts';
import type { Frame, GuestPhysical, Mfn } from '../src/x86/brand.ts';

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
  function paged(): { space: MachineSpace; paging: NestedPaging; recorder: Recorder } {
    const { pool, recorder } = world();
    const space = new MachineSpace(pool, 4);
    return { space, paging: new NestedPaging(space, recorder), recorder };
  }

  it('finds bytes by their guest-physical addresses', () => {
    const { space, paging } = paged();
    space.pool.allocate();
    const frame = space.pool.allocate();
    space.attach(2 as Mfn, frame);
    expect(paging.addressOf(0x2345 as GuestPhysical)).toBe(space.pool.addressOf(frame) + 0x345);
    expect(paging.addressOf(0x1345 as GuestPhysical)).toBe(-1);
    expect(paging.addressOf(0x7000_0000 as GuestPhysical)).toBe(-1);
  });

  it('says which page must be brought in', () => {
    const { space, paging } = paged();
    space.frames[1] = ABSENT_FRAME;
    expect(() => paging.addressOf(0x1000 as GuestPhysical)).toThrow(new PageAbsent(1, true));
  });

  it('takes translations and code of its frames away before it gives them back', async () => {
    const { space, paging, recorder } = paged();
    const frame = space.pool.allocate();
    space.attach(1 as Mfn, frame);
    await paging.destroy();
    expect(recorder.events).toEqual([`invalidate ${frame}`, `written ${frame} 0 4096`]);
    expect(space.pool.available).toBe(FRAMES);
  });
});

describe('linear paging', () => {
  it('is a base and a limit, also in a pool that was used', () => {
    const { pool, recorder } = world();
    const frames = Array.from({ length: 12 }, () => pool.allocate());
    for (const frame of [...frames].reverse()) if (frame !== 3) pool.release(frame);
    const paging = createLinearPaging(pool, recorder, 10);
    const base = paging.space.frames[0] as number;
    expect(base).toBe(4);
    expect([...paging.space.frames]).toEqual(Array.from({ length: 10 }, (_, gfn) => base + gfn));
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
