import type { Archive, Archived } from '../../archive/archive.ts';
import type { BlockStore } from '../../devices/block/store.ts';
import type { DmaCounters, DmaTable } from '../../devices/dma/table.ts';
import { BlockBackend, MOST_DISKS } from '../../devices/xen/block-backend.ts';
import type { FrontEnd } from '../../devices/xen/frontend.ts';
import type { Xenstore } from '../../devices/xenstore.ts';
import type { SharedPages } from '../../paging/shared-pages.ts';
import { type GuestPhysical, type Mfn, PAGE_SIZE } from '../../x86/brand.ts';
import type { EventChannels } from './event-channels.ts';
import type { GrantTable } from './grant-table.ts';

/** Services of a disk's ports: one for each disk, behind those of the domain's own rings. */
const FIRST_SERVICE = 16;

export interface DomainDisksOptions {
  readonly disks: readonly BlockStore[];
  readonly domain: number;
  readonly store: Xenstore;
  readonly pages: SharedPages;
  readonly grants: GrantTable;
  readonly events: EventChannels;
  /** Through which disks reach the domain's pages, and where a page stands in it. */
  readonly memory: DmaTable;
  readonly pageOf: (mfn: Mfn) => number;
  /** Called when `poll` has something to do. */
  readonly onWork: () => void;
}

/** The disks of a domain. */
export class DomainDisks implements Archived {
  readonly #backends: BlockBackend[] = [];
  readonly #memory: DmaTable;
  readonly #onWork: () => void;
  #isWoken = false;
  /** The last poll met a page that has yet to come. */
  #isWaiting = false;

  constructor(options: DomainDisksOptions) {
    const { disks, events, pages, memory } = options;
    if (disks.length > MOST_DISKS)
      throw new RangeError(`a domain has at most ${MOST_DISKS} disks, not ${disks.length}`);
    this.#memory = memory;
    this.#onWork = options.onWork;
    for (const [index, disk] of disks.entries()) {
      const service = FIRST_SERVICE + index;
      const backend = new BlockBackend(disk, index, this.#frontEnd(options, service), pages.memory);
      this.#backends.push(backend);
      events.registerService(service, {
        notify: () => {
          backend.notified();
          this.wake();
        },
        closed: (port) => backend.portClosed(port),
      });
    }
    this.wake();
  }

  /** To be saved while none is busy. */
  archive(archive: Archive): void {
    archive.parts('backends', this.#backends);
    this.#isWoken = archive.value('isWoken', this.#isWoken);
  }

  /** Tells the guest, which is being built, of its disks. */
  introduce(): void {
    for (const backend of this.#backends) backend.introduce();
  }

  #frontEnd({ domain, store, pages, grants, events, memory, pageOf }: DomainDisksOptions, service: number): FrontEnd {
    return {
      domain,
      store,
      memory,
      begin: (reference, write) => {
        const use = grants.begin(reference, write);
        if (typeof use === 'number') return undefined;
        if (pageOf(use.mfn) >= 0) return use;
        // A page of the host's, which the guest only maps.
        grants.end(use);
        return undefined;
      },
      end: (use) => grants.end(use),
      addressOf: ({ mfn }) => (pageOf(mfn) * PAGE_SIZE) as GuestPhysical,
      pin: ({ mfn }) => pages.space.pin(mfn),
      unpin: ({ mfn }) => pages.space.unpin(mfn),
      pinnedAddress: ({ mfn }) => pages.addressOf(mfn),
      written: ({ mfn }) => pages.written(pages.addressOf(mfn), PAGE_SIZE),
      bind: (port) => events.bindService(port, service) === 0,
      unbind: (port) => events.unbindService(port),
      raise: (port) => events.raise(port),
      wake: () => this.wake(),
    };
  }

  /** Asks for a call of `poll`. */
  wake(): void {
    if (this.#backends.length === 0) return;
    this.#isWoken = true;
    this.#onWork();
  }

  /** What `poll` met absent has come. */
  resume(): void {
    this.#isWaiting = false;
    this.wake();
  }

  /** Whether `poll` has something to look at. */
  get hasWork(): boolean {
    return this.#isWoken;
  }

  /** Whether a disk or a page has yet to come: with virtual time, the guest must wait for it; who saves it always must. */
  get isBusy(): boolean {
    return this.#isWaiting || this.#memory.memory.isWaiting || this.#backends.some((backend) => backend.isBusy);
  }

  /** Lets disks go on that their guest, their files or arrived pages have woken. @throws PageAbsent */
  poll(): void {
    if (!this.#isWoken) return;
    this.#isWoken = false;
    this.#isWaiting = true;
    for (const backend of this.#backends) backend.poll();
    this.#isWaiting = false;
  }

  /** What the DMA table did so far; the end of the domain takes all entries away, and does not count. */
  get counters(): DmaCounters {
    return { ...this.#memory.counters };
  }
}
