import { type Frame, PAGE_SIZE } from '../x86/brand.ts';
import type { Soon } from './soon.ts';

/** A file whose pages address spaces map: a kernel's image, an initrd. It does not change. */
export interface BackingFile {
  /** What error messages call it. */
  readonly name: string;
  /** Bytes; the rest of the last page reads as zero. */
  readonly size: number;
  /** Fails when the bytes cannot be read; at once if they are at hand. The range lies within the file. */
  read(offset: number, target: Uint8Array): Soon<void>;
}

/** The pages of one file that are in memory. All address spaces that map the file share them. */
export class CachedFile {
  readonly file: BackingFile;
  readonly #pages = new Map<number, Frame>();

  constructor(file: BackingFile) {
    this.file = file;
  }

  get pages(): number {
    return Math.ceil(this.file.size / PAGE_SIZE);
  }

  find(index: number): Frame | undefined {
    return this.#pages.get(index);
  }

  insert(index: number, frame: Frame): void {
    this.#pages.set(index, frame);
  }

  remove(index: number): void {
    this.#pages.delete(index);
  }

  /** Fills one zeroed page. */
  readPage(index: number, target: Uint8Array): Soon<void> {
    const offset = index * PAGE_SIZE;
    return this.file.read(offset, target.subarray(0, Math.min(PAGE_SIZE, this.file.size - offset)));
  }

  frames(): Frame[] {
    return [...this.#pages.values()];
  }
}

/** A file that is in memory as it stands. */
export function bytesFile(name: string, bytes: Uint8Array): BackingFile {
  return {
    name,
    size: bytes.length,
    read: (offset, target) => {
      target.set(bytes.subarray(offset, offset + target.length));
    },
  };
}
