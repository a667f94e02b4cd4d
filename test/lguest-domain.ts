import { ProcessorGroup } from '../src/cpu/processor.ts';
import type { BlockStore } from '../src/devices/block/store.ts';
import { VirtualClock } from '../src/domain/clock.ts';
import { LguestDomain } from '../src/interfaces/lguest/domain.ts';
import { createLguestDevices } from '../src/interfaces/lguest/guest-devices.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';
import { followMemory } from '../src/microvm/paged-memory.ts';
import type { AddressSpace } from '../src/mm/address-space.ts';
import { MemoryManager, overheadOf } from '../src/mm/memory-manager.ts';
import { shadowCapacity } from '../src/paging/shadow/shadow-pool.ts';
import { type GuestPhysical, type HostVirtual, PAGE_SIZE } from '../src/x86/brand.ts';

/** A host for guests of lguest without kernels, one at a time, whose calls a test makes itself. */
export class LguestHost {
  readonly pool: FramePool;
  readonly #group: ProcessorGroup;
  readonly #manager: MemoryManager;
  readonly #pages: number;
  #nextOrder = 1;

  /** @param pages of each guest, its bus included */
  constructor(pages: number) {
    const frames = pages + overheadOf(pages) + shadowCapacity(pages);
    const memory = new HostMemory((24 << 20) + frames * PAGE_SIZE);
    this.pool = new FramePool(memory, frames);
    this.#group = new ProcessorGroup(memory, this.pool, { tlbEntries: 64, tlbRoots: 1, codeBytes: 1 << 20 });
    this.#manager = new MemoryManager({ pool: this.pool, reserve: 0, checked: true });
    this.#pages = pages;
  }

  async createDomain(disk: BlockStore, print: (bytes: Uint8Array) => void = () => {}): Promise<LguestDomain> {
    const space = (await this.#manager.createSpace()) as AddressSpace;
    await space.map(0 as HostVirtual, (this.#pages * PAGE_SIZE) as HostVirtual);
    const order = this.#nextOrder++;
    const none = (): void => {};
    const domain: LguestDomain = new LguestDomain({
      id: 1,
      group: this.#group,
      paged: await followMemory(space, { group: this.#group, order, pages: this.#pages, shadowed: true }),
      ...createLguestDevices({ disks: [disk] }, { random: none, consoleSink: print }),
      clock: new VirtualClock(() => domain.instructions),
      wallclock: { seconds: 0, nanoseconds: 0 },
      random: none,
      consoleSink: print,
      exactTurns: true,
      symbolize: () => undefined,
    });
    return domain;
  }
}

/** Does something; pages that it meets absent are brought in, which takes no time without swap. */
export function settle<Result>(domain: LguestDomain, action: () => Result): Result {
  for (;;) {
    try {
      return action();
    } catch (absent) {
      if (!(absent instanceof PageAbsent)) throw absent;
      if (!domain.bringIn(absent.page, absent.write)) throw new Error('a page could not be brought in at once');
    }
  }
}

/** Bytes of the guest's memory within a page, to be read and written. */
export function bytesAt(domain: LguestDomain, physical: number, length: number): DataView {
  const address = settle(domain, () => domain.paging.addressOf(physical as GuestPhysical));
  return new DataView(domain.group.parts.memory.view.buffer, address, length);
}
