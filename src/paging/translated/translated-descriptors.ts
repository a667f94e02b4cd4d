import type { Archive, Archived } from '../../archive/archive.ts';
import { type Mfn, PAGE_SIZE } from '../../x86/brand.ts';
import { ENTRY_FRAME_HIGH, frameOfEntry } from '../../x86/page-table.ts';
import { type DescriptorTables, isGdtSize } from '../direct/descriptor-tables.ts';
import { judgeDescriptor } from '../direct/descriptors.ts';
import type { TableEntries } from '../direct/entries.ts';
import { PagingError } from '../direct/errors.ts';
import type { FrameTypes } from '../direct/frame-types.ts';

/**
 * GDTs and LDTs in pages that the guest may write at any time, since nobody knows where it has them mapped. So a
 * descriptor is judged when it is loaded, as processors do; a page that has left the domain has none.
 */
export class TranslatedDescriptors implements DescriptorTables, Archived {
  readonly #types: FrameTypes;
  readonly #entries: TableEntries;
  readonly #kernelPrivilege: 1 | 3;
  #gdtFrames: (readonly Mfn[])[];

  constructor(types: FrameTypes, entries: TableEntries, virtualProcessors: number, kernelPrivilege: 1 | 3) {
    this.#types = types;
    this.#entries = entries;
    this.#kernelPrivilege = kernelPrivilege;
    this.#gdtFrames = Array.from({ length: virtualProcessors }, () => []);
  }

  archive(archive: Archive): void {
    this.#gdtFrames = archive.value('gdtFrames', this.#gdtFrames);
  }

  setGdt(processor: number, frames: readonly Mfn[], entries: number): number {
    if (!isGdtSize(frames.length, entries)) return PagingError.invalid;
    if (!frames.every((mfn) => this.#types.isDomains(mfn))) return PagingError.invalid;
    this.#gdtFrames[processor] = [...frames];
    return 0;
  }

  gdtFrames(processor: number): readonly Mfn[] {
    return (this.#gdtFrames[processor] ?? []).filter((mfn) => this.#types.isDomains(mfn));
  }

  holdLdtFrame(mfn: Mfn): number {
    return this.#types.isDomains(mfn) ? 0 : PagingError.invalid;
  }

  releaseLdt(): void {}

  update(pointerLow: number, pointerHigh: number, low: number, high: number): number {
    const mfn = frameOfEntry(pointerLow, pointerHigh) as Mfn;
    if ((pointerLow & 7) !== 0 || pointerHigh >>> 0 > ENTRY_FRAME_HIGH) return PagingError.invalid;
    const judged = this.asLoaded(high);
    if (judged < 0 || !this.#types.isPlain(mfn)) return PagingError.invalid;
    this.#entries.store(mfn, (pointerLow & (PAGE_SIZE - 1)) >>> 3, low, judged);
    return 0;
  }

  asLoaded(high: number): number {
    return judgeDescriptor(high, this.#kernelPrivilege);
  }
}
