import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { imagePath } from '../guests/reference/build.ts';
import { ProcessorGroup } from '../src/cpu/processor.ts';
import { VirtualClock } from '../src/domain/clock.ts';
import { SharedFiles } from '../src/domain/shared-files.ts';
import { bootLguest } from '../src/host/lguest-guest.ts';
import type { LguestDomain } from '../src/interfaces/lguest/domain.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MemoryManager, overheadOf } from '../src/mm/memory-manager.ts';
import { shadowCapacity } from '../src/paging/shadow/shadow-pool.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import { MemoryStore } from './mm-world.ts';

/**
 * The reference guest loses all pages that are not pinned again and again, so that calls, those in the ring and the
 * ways into the kernel meet absent ones. With virtual time it must not notice.
 */
const MEMORY = 16 << 20;
/** More passes of reclaim than it takes to go through all pages of the guest. */
const PASSES = 12;
/** Turns until that is done again; one that waits for a page ends. */
const TURNS = 40;

interface Run {
  readonly text: string;
  readonly instructions: number;
  readonly swappedIn: number;
}

async function play(evicts: boolean): Promise<Run> {
  const pages = MEMORY / PAGE_SIZE;
  const frames = pages + overheadOf(pages) + shadowCapacity(pages);
  const memory = new HostMemory(frames * PAGE_SIZE + (64 << 20));
  const pool = new FramePool(memory, frames);
  const group = new ProcessorGroup(memory, pool, { tlbEntries: 1024, tlbRoots: 1 });
  const manager = new MemoryManager({ pool, store: new MemoryStore(2 * pages), checked: true });
  const files = new SharedFiles(manager);
  let text = '';
  const common = {
    id: 1,
    vcpus: 1,
    group,
    clock: new VirtualClock((): number => domain.instructions),
    wallclock: { seconds: 1_700_000_000, nanoseconds: 0 },
    random: () => {},
    consoleSink: (bytes: Uint8Array) => {
      text += new TextDecoder().decode(bytes);
    },
    exactTurns: true,
    profiler: undefined,
    symbolize: () => undefined,
  };
  const kernel = new Uint8Array(readFileSync(imagePath('i386')));
  const options = { kernel, commandLine: '', memory: MEMORY, vcpus: 1, interface: 'lguest' } as const;
  const images = { kernel: files.acquire(kernel), initrd: files.acquire(new Uint8Array(0)) };
  const domain: LguestDomain = await bootLguest(manager, common, options, images);
  for (let turn = 0; domain.state.kind === 'running'; turn++) {
    if (evicts && turn % TURNS === 0) for (let pass = 0; pass < PASSES; pass++) await manager.relieve();
    domain.turn();
    // What a turn waits for comes before the next.
    while (!domain.isSettled) await new Promise((resolve) => setImmediate(resolve));
  }
  expect(domain.state).toEqual({ kind: 'poweroff' });
  const { instructions } = domain;
  const { swappedIn } = manager.statistics().swap;
  await domain.destroy();
  return { text, instructions, swappedIn };
}

describe('a guest of lguest whose pages are taken away all the time', () => {
  it('prints and executes the same', async () => {
    const ample = await play(false);
    const tight = await play(true);
    expect(ample.swappedIn).toBe(0);
    expect(tight.swappedIn).toBeGreaterThan(100);
    expect(tight.text).toBe(ample.text);
    expect(tight.instructions).toBe(ample.instructions);
  });
});
