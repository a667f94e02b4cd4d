import type { Archive, Archived } from '../../archive/archive.ts';
import type { FrameInvalidator } from '../../cpu/translation.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import { type Mfn, PAGE_SIZE } from '../../x86/brand.ts';
import { ENTRY_FRAME_HIGH, frameOfEntry } from '../../x86/page-table.ts';
import { DESCRIPTORS_PER_PAGE, type DescriptorTables, isGdtSize } from './descriptor-tables.ts';
import { judgeDescriptor } from './descriptors.ts';
import type { TableEntries } from './entries.ts';
import { PagingError } from './errors.ts';
import { FrameFlag, FrameType, type FrameTypes } from './frame-types.ts';

/** What the pages of descriptors stand on. */
export interface DescriptorPagesOptions {
  readonly types: FrameTypes;
  readonly entries: TableEntries;
  readonly space: MachineSpace;
  readonly invalidator: FrameInvalidator;
  readonly virtualProcessors: number;
  /** Ring of the guest's kernel. */
  readonly kernelPrivilege: 1 | 3;
  /** Begins a call: what preempted ones left over comes first. False when that has used up the call's work. */
  readonly begin: () => boolean;
  /** Finishes that, before a type is looked at where nobody can be preempted. */
  readonly finish: () => void;
}

/**
 * The pages that GDTs and LDTs of a domain are in. They are read-only for the guest while they are in use, and every
 * descriptor in them has been judged (descriptors.ts). Operations answer 0 or a `PagingError`.
 */
export class DescriptorPages implements DescriptorTables, Archived {
  readonly #options: DescriptorPagesOptions;
  #gdtFrames: (readonly Mfn[])[];
  #ldtFrames = new Set<Mfn>();

  constructor(options: DescriptorPagesOptions) {
    this.#options = options;
    this.#gdtFrames = Array.from({ length: options.virtualProcessors }, () => []);
  }

  archive(archive: Archive): void {
    this.#gdtFrames = archive.value('gdtFrames', this.#gdtFrames);
    this.#ldtFrames = new Set(archive.value('ldtFrames', [...this.#ldtFrames]));
  }

  setGdt(processor: number, frames: readonly Mfn[], entries: number): number {
    const { types, begin } = this.#options;
    if (!begin()) return PagingError.preempted;
    if (!isGdtSize(frames.length, entries)) return PagingError.invalid;
    let taken = 0;
    try {
      for (const mfn of frames) {
        if (!this.#take(mfn)) return PagingError.invalid;
        taken++;
      }
    } finally {
      if (taken < frames.length) for (const mfn of frames.slice(0, taken)) types.dropDescriptors(mfn);
    }
    for (const mfn of this.gdtFrames(processor)) types.dropDescriptors(mfn);
    this.#gdtFrames[processor] = [...frames];
    return 0;
  }

  gdtFrames(processor: number): readonly Mfn[] {
    return this.#gdtFrames[processor] ?? [];
  }

  /** Frames of the GDTs of all virtual processors. */
  get allGdtFrames(): readonly (readonly Mfn[])[] {
    return this.#gdtFrames;
  }

  /** Holds the page once, for all processors. */
  holdLdtFrame(mfn: Mfn): number {
    const { types, finish } = this.#options;
    finish();
    if (this.#ldtFrames.has(mfn)) return 0;
    if (!this.#take(mfn)) return PagingError.invalid;
    types.setFlag(mfn, FrameFlag.localDescriptors);
    this.#ldtFrames.add(mfn);
    return 0;
  }

  releaseLdt(): void {
    for (const mfn of [...this.#ldtFrames]) this.#options.types.releaseLdtFrame(mfn);
  }

  /** An LDT page went out of use, whoever ended it. */
  forgetLdtFrame(mfn: Mfn): void {
    this.#ldtFrames.delete(mfn);
  }

  update(pointerLow: number, pointerHigh: number, low: number, high: number): number {
    const { types, entries, kernelPrivilege, begin } = this.#options;
    if (!begin()) return PagingError.preempted;
    const mfn = frameOfEntry(pointerLow, pointerHigh) as Mfn;
    if ((pointerLow & 7) !== 0 || pointerHigh >>> 0 > ENTRY_FRAME_HIGH) return PagingError.invalid;
    if (types.type.get(mfn) !== FrameType.segmentDescriptors && !types.isPlain(mfn)) return PagingError.invalid;
    const judged = judgeDescriptor(high, kernelPrivilege);
    if (judged < 0) return PagingError.invalid;
    entries.store(mfn, (pointerLow & (PAGE_SIZE - 1)) >>> 3, low, judged);
    return 0;
  }

  /** All of them were judged when they were stored. */
  asLoaded(high: number): number {
    return high;
  }

  /** Takes a page for descriptors, judging all of them when it comes into such use. */
  #take(mfn: Mfn): boolean {
    const { types, entries, space, invalidator, kernelPrivilege } = this.#options;
    if (!types.isDomains(mfn)) return false;
    const type = types.type.get(mfn);
    if (type === FrameType.none) {
      // Nothing may write the page once it has been looked at, and it stays where it is, since loads of segments do not wait.
      space.pin(mfn);
      invalidator.invalidateWritable(space.frameOf(mfn));
      const { words } = entries;
      const first = entries.wordOf(mfn) + 1;
      for (let index = 0; index < DESCRIPTORS_PER_PAGE; index++) {
        if (judgeDescriptor(words[first + index * 2]!, kernelPrivilege) >= 0) continue; // in the page
        space.unpin(mfn);
        return false;
      }
      for (let index = 0; index < DESCRIPTORS_PER_PAGE; index++) {
        const high = words[first + index * 2]!;
        const judged = judgeDescriptor(high, kernelPrivilege);
        if (judged !== high) entries.store(mfn, index, words[first + index * 2 - 1]!, judged);
      }
      types.setType(mfn, FrameType.segmentDescriptors);
    } else if (type !== FrameType.segmentDescriptors) return false;
    types.typeCount.add(mfn, 1);
    types.references.add(mfn, 1);
    return true;
  }
}
