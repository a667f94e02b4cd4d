import { ProcessorGroup } from '../src/cpu/processor.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { PageAbsent } from '../src/memory/page-absent.ts';
import { AddressSpace } from '../src/mm/address-space.ts';
import { MemoryManager } from '../src/mm/memory-manager.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import { MemoryStore, page } from './mm-world.ts';

/** Frames of a host that has little memory and checks its own rules. */
export const FRAMES = 128;

export const memory = new HostMemory((FRAMES + 64) * PAGE_SIZE + (40 << 20));
export const pool = new FramePool(memory, FRAMES);
export const group = new ProcessorGroup(memory, pool, { tlbEntries: 64, tlbRoots: 2, codeBytes: 1 << 20 });
const store = new MemoryStore(256);
/** What processors do while the host pauses in its work. */
let meanwhile: () => void = () => {};
const manager = new MemoryManager({ pool, store, checked: true, reserve: 2, pause: async () => meanwhile() });

/** Memory of a guest, whose pages can be taken away and shared with a clone that does nothing. */
export class SmallMemory {
  readonly space: AddressSpace;
  readonly #pages: number;
  #clone: AddressSpace | undefined;
  /** What the clone's pages held when it was made. */
  #cloned: readonly Uint8Array[] = [];

  private constructor(space: AddressSpace, pages: number) {
    this.space = space;
    this.#pages = pages;
  }

  static async create(pages: number): Promise<SmallMemory> {
    const space = await manager.createSpace();
    if (!(space instanceof AddressSpace)) throw new Error(space.message);
    await space.map(page(0), page(pages));
    return new SmallMemory(space, pages);
  }

  /** Makes the host short of memory. */
  async reclaim(): Promise<void> {
    await manager.relieve();
  }

  /**
   * Another guest begins to share all pages, or ends.
   * @param work of processors while the pages are being shared; what meets an absent page is left out
   */
  async clone(work: () => void): Promise<void> {
    if (this.#clone) {
      await this.requireKept();
      return this.endClone();
    }
    meanwhile = () => {
      try {
        work();
      } catch (absent) {
        if (!(absent instanceof PageAbsent)) throw absent;
      }
    };
    const child = await manager.clone(this.space);
    meanwhile = () => {};
    if (!(child instanceof AddressSpace)) return;
    this.#clone = child;
    this.#cloned = await this.#contentsOf(child);
  }

  async endClone(): Promise<void> {
    await this.#clone?.exit();
    this.#clone = undefined;
  }

  /** @throws Error when the clone, which does nothing, has a page that is not as it was */
  async requireKept(): Promise<void> {
    if (!this.#clone) return;
    const contents = await this.#contentsOf(this.#clone);
    for (const [number, bytes] of contents.entries()) {
      if (Buffer.compare(bytes, this.#cloned[number] as Uint8Array) !== 0) {
        throw new Error(`page ${number} of a clone has changed`);
      }
    }
  }

  async #contentsOf(space: AddressSpace): Promise<Uint8Array[]> {
    const contents: Uint8Array[] = [];
    for (let number = 0; number < this.#pages; number++) {
      const bytes = new Uint8Array(PAGE_SIZE);
      const failed = await space.readPage(page(number), bytes);
      if (failed) throw new Error(failed.message);
      contents.push(bytes);
    }
    return contents;
  }
}
