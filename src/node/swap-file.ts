import { type FileHandle, open, unlink } from 'node:fs/promises';
import type { SwapStore } from '../mm/swap.ts';
import { PAGE_SIZE } from '../x86/brand.ts';

interface PendingWrite {
  readonly slot: number;
  readonly source: Uint8Array;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * A swap store in a file, which is made when the host starts and removed when it ends. The file grows as slots are used,
 * so a disk that fills up is noticed by the write that finds it full.
 * @param bytes room for pages
 */
export async function createSwapFile(path: string, bytes: number): Promise<SwapStore> {
  // Exclusively: to take over a file that somebody needs would destroy it.
  const file = await open(path, 'wx+', 0o600);
  const writes = new WriteQueue(file, path);
  const slots = Math.floor(bytes / PAGE_SIZE);
  /** Of what was written to each slot: a file that somebody has cut off reads as zeros where it has grown again. */
  const sums = new Uint32Array(slots);
  return {
    slots,
    read: async (slot, target) => {
      const { bytesRead } = await file.read(target, 0, PAGE_SIZE, slot * PAGE_SIZE);
      if (bytesRead !== PAGE_SIZE) throw new Error(`${path} ends before page ${slot}`);
      if (sumOf(target) !== sums[slot]) throw new Error(`page ${slot} of ${path} is not what was written there`);
    },
    write: (slot, source) => {
      sums[slot] = sumOf(source);
      return writes.add(slot, source);
    },
    close: async () => {
      await file.close();
      await unlink(path).catch(() => {});
    },
  };
}

/** A hash of a page (FNV-1a, by words). @param page aligned to words */
function sumOf(page: Uint8Array): number {
  const words = new Uint32Array(page.buffer, page.byteOffset, PAGE_SIZE / 4);
  let sum = 0x811c_9dc5;
  for (let index = 0; index < words.length; index++) sum = Math.imul(sum ^ (words[index] as number), 0x0100_0193);
  return sum >>> 0;
}

/**
 * Writes that are asked for together are carried out together: reclaim writes dozens of pages at once, most of them to
 * slots next to each other, and a call of the operating system costs as much as writing several pages.
 */
class WriteQueue {
  readonly #file: FileHandle;
  readonly #path: string;
  #pending: PendingWrite[] = [];

  constructor(file: FileHandle, path: string) {
    this.#file = file;
    this.#path = path;
  }

  add(slot: number, source: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#pending.length === 0) queueMicrotask(() => this.#start());
      this.#pending.push({ slot, source, resolve, reject });
    });
  }

  #start(): void {
    const pending = this.#pending.sort((a, b) => a.slot - b.slot);
    this.#pending = [];
    let run: PendingWrite[] = [];
    for (const write of pending) {
      const last = run[run.length - 1];
      if (last && last.slot + 1 !== write.slot) {
        void this.#write(run);
        run = [];
      }
      run.push(write);
    }
    void this.#write(run);
  }

  /** @param run pages of slots next to each other */
  async #write(run: readonly PendingWrite[]): Promise<void> {
    const position = (run[0]?.slot ?? 0) * PAGE_SIZE;
    try {
      const pages = run.map(({ source }) => source);
      const { bytesWritten } = await this.#file.writev(pages, position);
      if (bytesWritten !== run.length * PAGE_SIZE) {
        throw new Error(`only ${bytesWritten} bytes of ${run.length} pages fitted into ${this.#path}`);
      }
      for (const { resolve } of run) resolve();
    } catch (error) {
      for (const { reject } of run) reject(error);
    }
  }
}
