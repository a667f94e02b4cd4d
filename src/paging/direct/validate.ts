import type { Archive, Archived } from '../../archive/archive.ts';
import type { FrameInvalidator } from '../../cpu/translation.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import type { Mfn } from '../../x86/brand.ts';
import { Pte } from '../../x86/registers.ts';
import type { TableEntries } from './entries.ts';
import { PagingError } from './errors.ts';
import { FrameFlag, FrameType, type FrameTypes } from './frame-types.ts';
import { isHostSlot, isRequiredSlot, mayBeLinear, refusedHigh, type TableRules } from './table-rules.ts';

/** Bits that no present entry above level 1 may have: a large page, global, and cache attributes. */
const UPPER_REFUSED = Pte.writeThrough | Pte.cacheDisable | Pte.large | Pte.global;

/** A table that has no type yet must be promoted before an entry can refer to it. */
const PROMOTION_NEEDED = 1;

const NO_TABLE = -1;

/**
 * Makes frames page tables (promotion: every entry is checked and takes its references, depth first) and makes them
 * plain again (demotion, when the last type count goes).
 *
 * Work is bounded: each entry looked at costs one unit of `budget`. What is left over when it runs out stays here, as
 * one promotion (the chain from its root to the table in hand) and a stack of demotions, and every operation finishes
 * leftovers before it looks at any type; so nobody ever meets a table that is half one thing. `held` of each table says
 * how far it has come. A refused promotion becomes a demotion of what it had taken.
 *
 * The root of a promotion is claimed: its first count belongs to the call that began it, which is made again and takes
 * it over. When somebody else's call had to finish the work, the claim waits.
 */
export class TableValidator implements Archived {
  readonly rules: TableRules;
  readonly #types: FrameTypes;
  readonly #space: MachineSpace;
  readonly #invalidator: FrameInvalidator;
  readonly #becomesTable: (mfn: number, level: number) => void;
  readonly #entries: TableEntries;
  readonly #words: Uint32Array;
  /** Tables of the promotion in hand, root first. */
  #chain: number[] = [];
  /** Tables that lost their last count; the last is in hand. */
  #demotions: number[] = [];
  /** Whether the demotions undo a refused promotion. */
  #undoing = false;
  /** Entries that may still be looked at. */
  budget = 0;
  /** Entries looked at so far. */
  work = 0;

  /** @param becomesTable told of each frame that is about to get a level */
  constructor(
    types: FrameTypes,
    entries: TableEntries,
    space: MachineSpace,
    invalidator: FrameInvalidator,
    rules: TableRules,
    becomesTable: (mfn: number, level: number) => void,
  ) {
    this.#types = types;
    this.#space = space;
    this.#invalidator = invalidator;
    this.rules = rules;
    this.#becomesTable = becomesTable;
    this.#entries = entries;
    this.#words = entries.words;
  }

  archive(archive: Archive): void {
    this.#chain = archive.value('chain', this.#chain);
    this.#demotions = archive.value('demotions', this.#demotions);
    this.#undoing = archive.value('undoing', this.#undoing);
  }

  /** Whether work is left over. */
  get pending(): boolean {
    return this.#demotions.length !== 0 || this.#chain.length !== 0;
  }

  /** Root of the promotion that is not finished, or −1. */
  get promoting(): number {
    return this.#chain[0] ?? NO_TABLE;
  }

  /** Level of a root. */
  get topLevel(): number {
    return this.rules.geometry.levels;
  }

  entriesOf(level: number): number {
    return this.rules.geometry.entries[level] ?? 0;
  }

  /**
   * Goes on with work left over. The promotion of `own` is not touched: the caller is about to ask for it.
   * False when the budget ran out first.
   */
  resume(own = NO_TABLE): boolean {
    if (!this.demote()) return false;
    if (this.#chain.length === 0 || this.#chain[0] === own) return true;
    return this.#promote() !== PagingError.preempted && this.demote();
  }

  /** Finishes all work left over, however much it is. */
  finish(): void {
    this.budget = Number.MAX_SAFE_INTEGER;
    this.resume();
    this.budget = 0;
  }

  /**
   * Takes one type count of a table level and one reference; promotes the frame when it has no type.
   * 0, `invalid`, what the promotion met, or `preempted`.
   */
  acquire(mfn: number, level: number): number {
    const types = this.#types;
    if (!types.isDomains(mfn)) return PagingError.invalid;
    const type = types.type.get(mfn);
    if (type === FrameType.none) {
      this.#begin(mfn, level);
      types.setFlag(mfn, FrameFlag.claimed);
    } else if (type !== level) return PagingError.invalid;
    if (this.#chain[0] === mfn) {
      const result = this.#promote();
      if (result !== 0) return result;
    }
    if (types.hasFlag(mfn, FrameFlag.claimed)) {
      types.clearFlag(mfn, FrameFlag.claimed);
      return 0;
    }
    types.typeCount.add(mfn, 1);
    types.references.add(mfn, 1);
    return 0;
  }

  /** Takes what a present entry of a live table above level 1 is to refer to; results as of `acquire`. */
  takeEntry(table: number, level: number, low: number, high: number): number {
    const mfn = this.#types.namedBy(low, high);
    if (this.#refuses(level, low, high)) return PagingError.invalid;
    const claimed = this.#types.type.get(mfn) === level - 1 && this.#types.hasFlag(mfn, FrameFlag.claimed);
    const result = claimed ? PROMOTION_NEEDED : this.#reference(table, level, low, high);
    return result === PROMOTION_NEEDED ? this.acquire(mfn, level - 1) : result;
  }

  /** Drops what a present entry of a table above level 1 referred to. */
  dropEntry(table: number, level: number, low: number, high: number): void {
    const types = this.#types;
    const mfn = types.namedBy(low, high);
    if (types.type.get(mfn) === level) {
      if (mfn === table) return;
      types.linear.add(table, -1);
      types.linear.add(mfn, 1);
    }
    this.dropTable(mfn);
  }

  /** Drops one type count of a table and one reference. The last one leaves a demotion to be done. */
  dropTable(mfn: number): void {
    this.#types.references.add(mfn, -1);
    if (this.#types.typeCount.add(mfn, -1) === 0) this.#demotions.push(mfn);
  }

  /** Whether a present entry above level 1 has bits that it may not have. */
  #refuses(level: number, low: number, high: number): boolean {
    return ((low & UPPER_REFUSED) | (high & refusedHigh(this.rules, level))) !== 0;
  }

  /** References a table or starts none: 0, `invalid`, or `PROMOTION_NEEDED` when the frame has no type. */
  #reference(table: number, level: number, low: number, high: number): number {
    const types = this.#types;
    const mfn = types.namedBy(low, high);
    if (!types.isDomains(mfn)) return PagingError.invalid;
    const type = types.type.get(mfn);
    if (type === FrameType.none) return PROMOTION_NEEDED;
    if (type === level) {
      // A linear entry, by which a guest sees its own tables: read-only, and one link long.
      if ((low & Pte.writable) !== 0 || !mayBeLinear(this.rules, level)) return PagingError.invalid;
      if (mfn === table) return 0;
      if (types.linear.get(table) < 0 || types.linear.get(mfn) > 0) return PagingError.invalid;
      types.linear.add(table, 1);
      types.linear.add(mfn, -1);
    } else if (type !== level - 1) return PagingError.invalid;
    types.typeCount.add(mfn, 1);
    types.references.add(mfn, 1);
    return 0;
  }

  /** Gives a frame its type and first count, and puts it at the end of the chain. */
  #begin(mfn: number, level: number): void {
    const types = this.#types;
    // A table is always there, since the host's own walks do not wait.
    this.#space.retain(mfn as Mfn);
    this.#invalidator.invalidateWritable(this.#space.frameOf(mfn as Mfn));
    this.#becomesTable(mfn, level);
    types.setType(mfn, level as FrameType);
    types.typeCount.set(mfn, 1);
    types.references.add(mfn, 1);
    types.held.set(mfn, 0);
    this.#chain.push(mfn);
  }

  /** Goes on with the promotion in hand. A refusal leaves the demotion of all that was taken. */
  #promote(): number {
    const chain = this.#chain;
    while (chain.length !== 0) {
      const table = chain[chain.length - 1]!; // not empty
      const level = this.#types.type.get(table);
      const result = level === FrameType.level1 ? this.#promoteLevel1(table) : this.#promoteUpper(table, level);
      if (result === PROMOTION_NEEDED) continue;
      if (result === PagingError.preempted) return result;
      if (result !== 0) {
        const root = chain[0]!; // not empty
        chain.length = 0;
        this.#types.clearFlag(root, FrameFlag.claimed);
        this.#undoing = true;
        this.dropTable(root);
        this.demote();
        return result;
      }
      chain.pop();
    }
    return 0;
  }

  #promoteLevel1(table: number): number {
    const types = this.#types;
    const words = this.#words;
    const base = this.#entries.wordOf(table);
    const entries = this.entriesOf(1);
    const start = types.held.get(table);
    const end = Math.min(entries, start + this.budget);
    let index = start;
    let result = 0;
    for (; index < end; index++) {
      const low = words[base + index * 2]!; // inside the table's page
      if ((low & Pte.present) === 0) continue;
      result = types.takeMapping(low, words[base + index * 2 + 1]!);
      if (result !== 0) break;
    }
    this.#spend(index - start);
    types.held.set(table, index);
    if (result !== 0) return result;
    return index === entries ? 0 : PagingError.preempted;
  }

  /** As above; `PROMOTION_NEEDED` when a lower table was put on the chain. */
  #promoteUpper(table: number, level: number): number {
    const types = this.#types;
    const words = this.#words;
    const base = this.#entries.wordOf(table);
    const entries = this.entriesOf(level);
    let index = types.held.get(table);
    let result = 0;
    for (; index < entries && result === 0; index++) {
      if (this.budget <= 0) {
        result = PagingError.preempted;
        break;
      }
      this.#spend(1);
      const low = words[base + index * 2]!; // inside the table's page
      if (isHostSlot(this.rules, level, index)) continue;
      if ((low & Pte.present) === 0) {
        if (!isRequiredSlot(this.rules, level, index)) continue;
        types.held.set(table, index);
        return PagingError.invalid;
      }
      // A lower table that must be brought in first is met here again.
      types.held.set(table, index);
      const high = words[base + index * 2 + 1]!;
      result = this.#refuses(level, low, high) ? PagingError.invalid : this.#reference(table, level, low, high);
      if (result < 0) break;
      // The lower table's first reference is this entry's, so the entry counts as held from here on.
      if (result === PROMOTION_NEEDED) this.#begin(types.namedBy(low, high), level - 1);
    }
    types.held.set(table, index);
    return result;
  }

  /** Goes on with demotions, last entry first; false when the budget ran out before all were done. */
  demote(): boolean {
    const types = this.#types;
    const words = this.#words;
    const demotions = this.#demotions;
    while (demotions.length !== 0) {
      const depth = demotions.length;
      const table = demotions[depth - 1]!; // not empty
      const level = types.type.get(table);
      const base = this.#entries.wordOf(table);
      let index = types.held.get(table);
      while (index > 0 && demotions.length === depth) {
        if (this.budget <= 0) {
          types.held.set(table, index);
          return false;
        }
        this.#spend(1);
        index--;
        const low = words[base + index * 2]!; // inside the table's page
        if ((low & Pte.present) === 0 || isHostSlot(this.rules, level, index)) continue;
        const high = words[base + index * 2 + 1]!;
        if (level !== FrameType.level1) {
          this.dropEntry(table, level, low, high);
          continue;
        }
        types.dropMapping(low, high);
        if (!this.#undoing) types.noticeUnmapping(low, high);
      }
      types.held.set(table, index);
      if (demotions.length !== depth || index !== 0) continue;
      demotions.pop();
      types.setType(table, FrameType.none);
      types.generations.changed(table);
    }
    this.#undoing = false;
    return true;
  }

  #spend(entries: number): void {
    this.budget -= entries;
    this.work += entries;
  }
}
