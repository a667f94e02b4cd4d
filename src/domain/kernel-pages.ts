import type { KernelImage } from '../boot/kernel.ts';
import { PAGE_SIZE } from '../x86/brand.ts';

interface PlacedSegment {
  /** Pseudo-physical address of its first byte. */
  readonly physical: number;
  /** Bytes that the file holds of it. */
  readonly length: number;
  /** Has those bytes; they are asked for when they are needed, because a kernel need not keep them in memory. */
  readonly segment: { readonly data: Uint8Array };
}

/**
 * A kernel laid out as its segments ask, as a file of whole pages: what is behind the end of the last segment's bytes is
 * not in the file, since it is zero. All guests with the same kernel can share its pages.
 */
export class KernelPages {
  readonly name = 'the kernel';
  readonly segments: readonly PlacedSegment[];
  /** Pseudo-physical page of the file's first. */
  readonly startPfn: number;
  /** First page behind the kernel, its zeroes included. */
  readonly endPfn: number;
  /** Bytes of the file. */
  readonly size: number;

  constructor(kernel: KernelImage, physicalOffset: number) {
    const loadable = kernel.segments.filter((segment) => segment.memsz > 0);
    this.segments = loadable.map((segment) => ({
      physical: segment.paddr - physicalOffset,
      length: segment.data.length,
      segment,
    }));
    const lowest = Math.min(...this.segments.map(({ physical }) => physical));
    this.startPfn = Math.floor(lowest / PAGE_SIZE);
    const dataEnd = Math.max(...this.segments.map(({ physical, length }) => physical + length));
    this.size = dataEnd - this.startPfn * PAGE_SIZE;
    this.endPfn = Math.ceil(
      Math.max(...loadable.map(({ paddr, memsz }) => paddr + memsz - physicalOffset)) / PAGE_SIZE,
    );
  }

  read(offset: number, target: Uint8Array): void {
    const start = this.startPfn * PAGE_SIZE + offset;
    for (const { physical, length, segment } of this.segments) {
      const from = Math.max(start, physical);
      const to = Math.min(start + target.length, physical + length);
      if (from < to) target.set(segment.data.subarray(from - physical, to - physical), from - start);
    }
  }
}
