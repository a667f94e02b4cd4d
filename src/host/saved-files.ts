import type { AddressSpace } from '../mm/address-space.ts';
import type { MemoryManager } from '../mm/memory-manager.ts';
import type { CachedFile } from '../mm/page-cache.ts';
import type { PageFile } from '../snapshot/page-file.ts';
import { type HostVirtual, PAGE_SIZE } from '../x86/brand.ts';

/** Snapshots whose pages guests of a host map: all that go on from the same one share them until they write to them. */
export class SavedFiles {
  readonly #manager: MemoryManager;
  readonly #files = new Map<PageFile, { readonly cached: CachedFile; users: number }>();

  constructor(manager: MemoryManager) {
    this.#manager = manager;
  }

  /** Lets an empty address space begin with the pages of a snapshot. Ends with `release`. */
  async map(space: AddressSpace, file: PageFile): Promise<void> {
    let entry = this.#files.get(file);
    if (!entry) {
      entry = { cached: this.#manager.openFile(file), users: 0 };
      this.#files.set(file, entry);
    }
    entry.users++;
    for (const { first, end, isZero } of file.runs()) {
      const backing = isZero ? undefined : { file: entry.cached, index: first };
      await space.map((first * PAGE_SIZE) as HostVirtual, (end * PAGE_SIZE) as HostVirtual, backing);
    }
  }

  /** The address space has ended. */
  release(file: PageFile): void {
    const entry = this.#files.get(file);
    if (!entry || --entry.users > 0) return;
    this.#files.delete(file);
    this.#manager.closeFile(entry.cached);
  }
}
