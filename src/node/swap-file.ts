import { open, unlink } from 'node:fs/promises';
import type { SwapStore } from '../mm/swap.ts';
import { PAGE_SIZE } from '../x86/brand.ts';

/**
 * A swap store in a file, which is made when the host starts and removed when it ends. The file grows as slots are used,
 * so a disk that fills up is noticed by the write that finds it full.
 * @param bytes room for pages
 */
export async function createSwapFile(path: string, bytes: number): Promise<SwapStore> {
  // Exclusively: to take over a file that somebody needs would destroy it.
  const file = await open(path, 'wx+', 0o600);
  return {
    slots: Math.floor(bytes / PAGE_SIZE),
    read: async (slot, target) => {
      const { bytesRead } = await file.read(target, 0, PAGE_SIZE, slot * PAGE_SIZE);
      if (bytesRead !== PAGE_SIZE) throw new Error(`${path} ends before page ${slot}`);
    },
    write: async (slot, source) => {
      const { bytesWritten } = await file.write(source, 0, PAGE_SIZE, slot * PAGE_SIZE);
      if (bytesWritten !== PAGE_SIZE) throw new Error(`only ${bytesWritten} bytes of page ${slot} fitted into ${path}`);
    },
    close: async () => {
      await file.close();
      await unlink(path).catch(() => {});
    },
  };
}
