import { readFileSync } from 'node:fs';
import { type Image, imagePath } from '../../guests/reference/build.ts';
import { ProcessorGroup } from '../../src/cpu/processor.ts';
import { MemoryStore as MemoryDisk } from '../../src/devices/block/memory-store.ts';
import { SECTOR } from '../../src/devices/block/store.ts';
import type { Cell } from '../../src/domain/cells.ts';
import { VirtualClock } from '../../src/domain/clock.ts';
import { SharedFiles } from '../../src/domain/shared-files.ts';
import { bootLguest } from '../../src/host/lguest-guest.ts';
import { bootMicrovm, type CommonOptions } from '../../src/host/microvm-guest.ts';
import type { LguestDomain } from '../../src/interfaces/lguest/domain.ts';
import { XenDomain } from '../../src/interfaces/xen/domain.ts';
import { overheadFrames } from '../../src/interfaces/xen/domain-frames.ts';
import { planDomain } from '../../src/interfaces/xen/domain-plan.ts';
import { createPagedMemory } from '../../src/interfaces/xen/paged-memory.ts';
import { FramePool } from '../../src/memory/frame-pool.ts';
import { HostMemory } from '../../src/memory/host-memory.ts';
import type { MicrovmDomain } from '../../src/microvm/domain.ts';
import { MemoryManager, overheadOf } from '../../src/mm/memory-manager.ts';
import { bytesFile } from '../../src/mm/page-cache.ts';
import { shadowCapacity } from '../../src/paging/shadow/shadow-pool.ts';
import { PAGE_SIZE } from '../../src/x86/brand.ts';
import { MemoryStore } from '../mm-world.ts';
import { watchKvm } from './kvm-record.ts';
import { watchLguest } from './lguest-record.ts';
import type { HostileRecord } from './record.ts';
import { watchVmi } from './vmi-record.ts';
import { watchXen } from './xen-record.ts';

/** One way in which the reference guest is booted. */
export interface Variant extends Cell {
  readonly image: Image;
  readonly vcpus: number;
  /** Of such a guest, if it has few to make; thousands otherwise. */
  readonly calls?: number;
}

export type GuestDomain = XenDomain | MicrovmDomain | LguestDomain;

/** A guest, and what it has printed. */
export interface Guest {
  readonly domain: GuestDomain;
  readonly printed: () => string;
  /** Completes the record of a guest that has ended. */
  readonly finish: () => void;
  /** Gives back its memory, and its files where no other guest has them. */
  readonly destroy: () => Promise<void>;
}

/** Pages of each guest. */
const PAGES = 4096;
/** Room for two, so that a second one can run beside. */
const GUESTS = 2;
const FRAMES = GUESTS * (PAGES + overheadFrames(PAGES) + overheadOf(PAGES) + shadowCapacity(PAGES)) + 1024;
const CONTROL_BYTES = 48 << 20;
const SWAP_PAGES = 2 * PAGES;

/** Fewer entries than a table of a guest has, so that one call often does not suffice. */
const WORK_PER_CALL = 50;

/** A host for reference guests, with memory whose pages come and go. Whoever uses it lets the guests take turns. */
export class HostileHost {
  readonly pool: FramePool;
  readonly manager: MemoryManager;
  readonly #group: ProcessorGroup;
  readonly #files: SharedFiles;
  #nextId = 1;

  constructor() {
    const memory = new HostMemory(FRAMES * PAGE_SIZE + CONTROL_BYTES);
    this.pool = new FramePool(memory, FRAMES);
    this.#group = new ProcessorGroup(memory, this.pool, { jit: { isAside: false } });
    this.manager = new MemoryManager({ pool: this.pool, store: new MemoryStore(SWAP_PAGES), checked: true });
    this.#files = new SharedFiles(this.manager);
  }

  /**
   * @param record takes what the guest asks for, and what comes of it
   * @param outputIsFull whether nobody reads what the guest prints
   */
  async boot(
    { image, vcpus, ...cell }: Variant,
    commandLine: string,
    record?: HostileRecord,
    outputIsFull = () => false,
  ): Promise<Guest> {
    const kernel = this.#files.acquire(readFileSync(imagePath(image)));
    const files = { kernel, initrd: this.#files.acquire(new Uint8Array(0)) };
    let text = '';
    const decoder = new TextDecoder();
    let domain: GuestDomain | undefined;
    let finish = (): void => {};
    const common: CommonOptions = {
      id: this.#nextId++,
      vcpus,
      group: this.#group,
      clock: new VirtualClock(() => domain?.instructions ?? 0),
      wallclock: { seconds: 1_700_000_000, nanoseconds: 0 },
      random: (out) => void out.fill(7),
      consoleSink: (bytes) => {
        text += decoder.decode(bytes, { stream: true });
      },
      outputIsFull,
      exactTurns: true,
      symbolize: () => undefined,
    };
    const options = { ...cell, kernel: kernel.bytes, commandLine, memory: PAGES * PAGE_SIZE, vcpus };
    switch (cell.interface) {
      case 'xen':
        domain = await this.#bootXen(cell, common, commandLine, files, record);
        break;
      case 'lguest': {
        const own = await bootLguest(this.manager, common, options, files);
        if (record) watchLguest(own, record);
        domain = own;
        break;
      }
      default: {
        const own = await bootMicrovm(this.manager, cell, common, options, files);
        if (record && cell.interface === 'kvm') watchKvm(own, record);
        if (record && cell.interface === 'vmi') finish = watchVmi(own, record);
        domain = own;
      }
    }
    const guest = domain;
    const destroy = async (): Promise<void> => {
      await guest.destroy();
      for (const file of Object.values(files)) this.#files.release(file);
    };
    return { domain: guest, printed: () => text, finish, destroy };
  }

  /** As the host does it, but with somebody who sees the hypercalls. */
  async #bootXen(
    { paging }: Cell,
    common: CommonOptions,
    commandLine: string,
    { kernel }: Parameters<typeof bootMicrovm>[4],
    record: HostileRecord | undefined,
  ): Promise<XenDomain> {
    const initrd = new Uint8Array(0);
    const isTranslated = paging === 'translated';
    const plan = planDomain({ kernel: kernel.kernel.image, initrd, commandLine, pages: PAGES, isTranslated });
    const paged = await createPagedMemory({
      manager: this.manager,
      group: common.group,
      plan,
      kernel: kernel.pagesOf(plan.kernelPages),
      initrd: this.manager.openFile(bytesFile('the initrd', initrd)),
      shadowed: paging === 'shadow',
      order: common.id,
    });
    if ('kind' in paged) throw new Error(paged.message);
    const domain = new XenDomain({
      ...common,
      uuid: new Uint8Array(16),
      bits: plan.abi.bits,
      pages: PAGES,
      isTranslated,
      workPerCall: WORK_PER_CALL,
      paged,
      disks: [new MemoryDisk(new Uint8Array(SECTOR))],
      ...(record ? { watcher: watchXen(record) } : {}),
    });
    domain.boot({ name: 'hostile', plan });
    return domain;
  }
}

/** Whether nothing will ever wake a guest. */
export function waitsForEver(domain: GuestDomain): boolean {
  return domain.idle && domain.isSettled && domain.millisecondsToDeadline() === Number.POSITIVE_INFINITY;
}
