import type { FramePool } from '../memory/frame-pool.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import type { Frame } from '../x86/brand.ts';
import type { FrameMarks } from './frame-marks.ts';
import type { TableGenerations } from './table-generations.ts';
import { Tlb } from './tlb.ts';
import type { Translation } from './translation.ts';

const TOP_ENTRIES = 512;

/** Bytes of host memory that TLBs for further roots leave to further processors. */
const LEFT_FOR_PROCESSORS = 40 << 20;

/** What the TLBs of a processor did; TLBs of both privileges are counted together. */
export interface TlbCounters {
  /** Loads and stores that were not carried out in generated code. */
  misses: number;
  /** Entries filled by walks. */
  fills: number;
  /** Flushes that the guest, or a change of its tables, asked for. */
  flushes: number;
  /** Flushes of one page. */
  pageFlushes: number;
  /** Changes to another root or process context. */
  switches: number;
  /** Changes to one whose translations had been kept. */
  returns: number;
}

/** What a kernel keeps translations apart by (PCID, SDM vol. 3A, 4.10.1). */
export interface ProcessContext {
  readonly number: number;
  /** What was translated in this context before still is good; otherwise all but global pages is to go. */
  readonly keep: boolean;
}

/** That of kernels that do not use them. */
export const ONLY_CONTEXT: ProcessContext = { number: 0, keep: false };

/**
 * The TLBs of one processor for one privilege. With a translation that dates its tables, each of the roots used last
 * has a TLB of its own: a change of the root only changes which one generated code looks at, and what a walk would not
 * find again is dropped then. Without, each of the process contexts used last has one: the kernel says what is to go.
 */
export class TlbSets {
  current: Tlb;
  readonly #memory: HostMemory;
  readonly #pool: FramePool;
  readonly #marks: FrameMarks;
  readonly #entries: number;
  readonly #limit: number;
  readonly #counters: TlbCounters;
  readonly #all: Tlb[] = [];
  readonly #shared = new Uint8Array(TOP_ENTRIES);
  #uses = 0;

  /** @param limit roots whose translations are kept, at least 1 */
  constructor(
    memory: HostMemory,
    pool: FramePool,
    marks: FrameMarks,
    entries: number,
    limit: number,
    counters: TlbCounters,
  ) {
    this.#memory = memory;
    this.#pool = pool;
    this.#marks = marks;
    this.#entries = entries;
    this.#limit = limit;
    this.#counters = counters;
    this.current = this.#add();
  }

  #add(): Tlb {
    const tlb = new Tlb(this.#memory, this.#entries);
    this.#all.push(tlb);
    return tlb;
  }

  /** Forgets everything: the tables that translations came from are no longer this processor's. */
  forget(): void {
    for (const tlb of this.#all) {
      tlb.flush();
      tlb.root = -1;
    }
  }

  /** Changes the root. */
  select(root: number, translation: Translation, context: ProcessContext): void {
    this.#counters.switches++;
    const generations = translation.tableGenerations;
    const before = this.current;
    if (this.#limit === 1) {
      before.flushLocal();
      before.root = root;
      return;
    }
    if (!generations) {
      this.#selectContext(root, context);
      return;
    }
    before.parkedAt = this.#marks.invalidations.count;
    before.lastUse = ++this.#uses;
    const kept = this.#all.find((tlb) => tlb.root === root);
    const next = kept ?? this.#free();
    this.current = next;
    if (kept) {
      this.#counters.returns++;
      next.catchUp(this.#marks, this.#pool);
    } else {
      next.flush();
      next.rootGeneration = generations.of(root);
      const dated = before.root >= 0 && generations.of(before.root) === before.rootGeneration;
      const comparable = next !== before && dated && translation.format === 'four-level';
      if (comparable && this.#compareRoots(before.root, root, translation)) next.adopt(before, this.#shared);
      next.root = root;
    }
    this.#refresh(next, translation, generations);
  }

  /** Changes the context, the root, or both. */
  #selectContext(root: number, { number, keep }: ProcessContext): void {
    const before = this.current;
    const isSame = before.root < 0 || before.context === number;
    const kept = isSame ? before : this.#all.find((tlb) => tlb.root >= 0 && tlb.context === number);
    before.parkedAt = this.#marks.invalidations.count;
    before.lastUse = ++this.#uses;
    const next = kept ?? this.#free();
    this.current = next;
    if (!keep || !kept || next.root !== root) next.flushLocal();
    else this.#counters.returns++;
    if (next !== before) next.catchUp(this.#marks, this.#pool);
    next.root = root;
    next.context = number;
  }

  #free(): Tlb {
    if (this.#all.length < this.#limit && this.#memory.unreserved > LEFT_FOR_PROCESSORS) return this.#add();
    let oldest = this.current;
    for (const tlb of this.#all) if (tlb.lastUse < oldest.lastUse) oldest = tlb;
    return oldest;
  }

  /** Finds the top-level slots that say the same in two roots, accessed bits included; false when there are none. */
  #compareRoots(first: number, second: number, translation: Translation): boolean {
    const a = this.#tableWord(first, translation);
    const b = this.#tableWord(second, translation);
    if (a < 0 || b < 0) return false;
    const { u32 } = this.#memory;
    let any = false;
    for (let slot = 0; slot < TOP_ENTRIES; slot++) {
      const same = u32[a + slot * 2] === u32[b + slot * 2] && u32[a + slot * 2 + 1] === u32[b + slot * 2 + 1];
      this.#shared[slot] = same ? 1 : 0;
      any ||= same;
    }
    return any;
  }

  #tableWord(number: number, translation: Translation): number {
    const frame = translation.frames[number];
    return frame === undefined || frame < 0 ? -1 : this.#pool.addressOf(frame as Frame) >>> 2;
  }

  #refresh(tlb: Tlb, translation: Translation, generations: TableGenerations): void {
    const generation = generations.of(tlb.root);
    if (generation === tlb.rootGeneration) {
      // Entries of shadows are not those of the guest's tables.
      const hasWords = translation.format === 'four-level' && !translation.shadow;
      tlb.refresh(generations, hasWords ? (number) => this.#tableWord(number, translation) : undefined);
    } else {
      tlb.flush();
      tlb.rootGeneration = generation;
    }
  }

  /**
   * The guest's flush: nothing stays that a walk would not find again.
   * @param all global pages too
   */
  flush(translation: Translation, all: boolean): void {
    const generations = translation.tableGenerations;
    if (generations && this.#limit > 1) this.#refresh(this.current, translation, generations);
    else if (all) for (const tlb of this.#all) tlb.flush();
    else this.current.flushLocal();
  }

  /** The guest's flush of one page, which is one of all contexts when it is global. */
  invalidatePage(low: number, high: number, translation: Translation): void {
    if (translation.tableGenerations) this.current.invalidatePage(low, high);
    else for (const tlb of this.#all) tlb.invalidatePage(low, high);
  }
}
