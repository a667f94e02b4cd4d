import type { MemoryManager } from '../mm/memory-manager.ts';
import type { BackingFile, CachedFile } from '../mm/page-cache.ts';
import { TransientKernel } from './transient-kernel.ts';

/** A file that guests were booted from. */
export class SharedFile {
  readonly bytes: Uint8Array;
  users = 0;
  readonly #manager: MemoryManager;
  #kernel: TransientKernel | undefined;
  #pages: CachedFile | undefined;

  constructor(bytes: Uint8Array, manager: MemoryManager) {
    this.bytes = bytes;
    this.#manager = manager;
  }

  /** The file as a kernel. @throws InputError */
  get kernel(): TransientKernel {
    this.#kernel ??= new TransientKernel(this.bytes);
    return this.#kernel;
  }

  /**
   * The page cache of what guests load from the file, filled as far as there is room, so that what the pages are made
   * from need not be kept. @param content how it is laid out, the same for all of them
   */
  pagesOf(content: BackingFile): CachedFile {
    this.#pages ??= this.#manager.openFile(content);
    this.#manager.readAhead(this.#pages);
    return this.#pages;
  }

  close(): void {
    if (this.#pages) this.#manager.closeFile(this.#pages);
  }
}

/** Files that guests were booted from, by content: each has its pages in memory once. */
export class SharedFiles {
  readonly #files = new Set<SharedFile>();
  readonly #manager: MemoryManager;

  constructor(manager: MemoryManager) {
    this.#manager = manager;
  }

  /** The file with this content. It is kept until as many users have released it. */
  acquire(bytes: Uint8Array): SharedFile {
    let found = [...this.#files].find((file) => equal(file.bytes, bytes));
    if (!found) {
      found = new SharedFile(bytes, this.#manager);
      this.#files.add(found);
    }
    found.users++;
    return found;
  }

  release(file: SharedFile): void {
    if (--file.users > 0) return;
    this.#files.delete(file);
    file.close();
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a === b || (a.length === b.length && a.every((byte, index) => byte === b[index]));
}
