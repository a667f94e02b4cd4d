import { describe, expect, it } from 'vitest';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { ProcessorGroup } from '../src/cpu/processor.ts';
import { MemoryStore } from '../src/devices/block/memory-store.ts';
import { VirtualClock } from '../src/domain/clock.ts';
import { XenDomain } from '../src/interfaces/xen/domain.ts';
import { overheadFrames, pageNumbers } from '../src/interfaces/xen/domain-frames.ts';
import type { RingFrames } from '../src/interfaces/xen/domain-rings.ts';
import { resumePagedMemory } from '../src/interfaces/xen/paged-memory.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import type { AddressSpace } from '../src/mm/address-space.ts';
import { MemoryManager, overheadOf } from '../src/mm/memory-manager.ts';
import { TABLE_RULES } from '../src/paging/direct/table-rules.ts';
import { type HostVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { itIsSavedWhole } from './archive-coverage.ts';

const PAGES = 64;
const FRAMES = PAGES + overheadFrames(PAGES) + overheadOf(PAGES);
const RULES = TABLE_RULES['four-level'];
const RINGS = { console: 0x1001, store: 0x1002 } as RingFrames;

async function createDomain(): Promise<XenDomain> {
  const memory = new HostMemory(24 << 20);
  const pool = new FramePool(memory, FRAMES);
  const group = new ProcessorGroup(memory, pool, { tlbEntries: 64, tlbRoots: 1, codeBytes: 1 << 20 });
  const space = (await new MemoryManager({ pool, reserve: 0 }).createSpace()) as AddressSpace;
  const { pages } = pageNumbers({ pages: PAGES, rules: RULES });
  await space.map(0 as HostVirtual, (pages * PAGE_SIZE) as HostVirtual);
  const none = (): void => {};
  const domain = new XenDomain({
    id: 1,
    uuid: new Uint8Array(16),
    bits: 64,
    pages: PAGES,
    vcpus: 2,
    group,
    paged: await resumePagedMemory(space, { group, order: 1, pages: PAGES, rules: RULES }),
    disks: [new MemoryStore(new Uint8Array(512))],
    clock: new VirtualClock(() => 0),
    wallclock: { seconds: 0, nanoseconds: 0 },
    random: none,
    consoleSink: none,
    exactTurns: true,
  });
  domain.rings.open(RINGS);
  domain.store.write('/tool', 'a value');
  domain.store.sessions.get(1)?.transactions.set(5, domain.store.tree.begin(1));
  return domain;
}

/** What has to name something that there is. */
const KEPT = new Set(['count', 'open', 'frames', 'sectors', 'number', 'numbers']);

/** Data that is no state of the guest: what it is built with, and what the host keeps for itself. */
const NO_STATE: ReadonlySet<string> = new Set([
  // Numbers and places given by the host.
  'guest.id',
  'guest.pages',
  'guest.isTranslated',
  'guest.#wallclock',
  'guest.#permutation',
  'guest.#checker',
  'guest.#observer',
  'guest.#liveTables',
  'backends.#index',
  'backends.#here',
  'backends.#there',
  'pager.order',
  'paging.shadow',
  'vcpus.index',
  'processor.index',
  'processor.timeSource',
  'processor.faultAddress',
  'processor.state',
  'processor.word',
  'clock.#nanoseconds',
  'shared.layout',
  'shared.mfn',
  'shared.vcpus',
  'runstates.layout',
  'events.domain',
  'events.vcpus',
  'events.ports',
  'grants.domain',
  'grants.maximumFrames',
  'grants.frames',
  'sessions.domain',
  'rings.consolePort',
  'rings.storePort',
  'rings.mfn',
  'paging.format',
  'paging.rules',
  'validator.rules',
  'paging.#workPerCall',
  'types.limit',
  'types.#hasDevices',
  ...['owner', 'type', 'typeCount', 'references', 'flags'].flatMap((column) =>
    ['length', '#isOwn'].map((field) => `${column}.${field}`),
  ),
  // What processors reach the memory by, and the memory itself.
  'paging.frames',
  'paging.writeProtected',
  // Scratch that nothing survives in, and what a call begins with.
  'paging.#oldEntry',
  'paging.#newEntry',
  'validator.budget',
  'validator.work',
  // Listeners of the host are the same in every domain with as many disks.
  'store.#nextListener',
  'store.#fired',
  'store.#delivering',
  // Always the same while a domain is saved: it runs, and nothing is waited for.
  'guest.state',
  'vcpus.awaitsHost',
  'disks.#isWaiting',
  'pager.#ended',
  // Figures, and what is told of an end.
  'guest.#watchers',
  'guest.#services',
  'guest.#turnsToRecount',
  'guest.#wallSeconds',
  'guest.#crashed',
]);

describe('the state of a Xen domain', () => {
  itIsSavedWhole({ create: createDomain, kept: KEPT, noState: NO_STATE });

  it('opens the rings and makes the frames that the saved domain had', async () => {
    const source = await createDomain();
    source.grants.setupTable(1, 3);
    const saved = save(source);
    const target = await createDomain();
    restore(target, saved);
    expect(save(target)).toEqual(saved);
    expect(target.grants.frames).toEqual(source.grants.frames);
  });
});
