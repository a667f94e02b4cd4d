import type { FrameInvalidator } from '../../cpu/translation.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import { type GuestVirtual, highWord, lowWord, type Mfn } from '../../x86/brand.ts';
import { tableIndex } from '../../x86/page-table.ts';
import { Pte } from '../../x86/registers.ts';
import { FrameOwner, type FrameTypes } from './frame-types.ts';
import { isInHostWindow, type TableRules } from './table-rules.ts';

/** Canonical addresses are −2^47 … 2^47 − 1. */
const CANONICAL_LIMIT = 0x8000_0000_0000;

const NO_NUMBER = -1 as Mfn;

/** The 8-byte entries of a domain's tables where they lie: in the domain's own frames. */
export class TableEntries {
  readonly words: Uint32Array;
  readonly #types: FrameTypes;
  readonly #space: MachineSpace;
  readonly #invalidator: FrameInvalidator;
  readonly #rules: TableRules;
  readonly #isTable: (mfn: number, level: number) => boolean;

  /** @param isTable whether a walk may go on in a page as a table of a level */
  constructor(
    types: FrameTypes,
    space: MachineSpace,
    invalidator: FrameInvalidator,
    rules: TableRules,
    isTable: (mfn: number, level: number) => boolean,
  ) {
    this.#isTable = isTable;
    this.words = space.pool.memory.u32;
    this.#types = types;
    this.#space = space;
    this.#invalidator = invalidator;
    this.#rules = rules;
  }

  /** Index in `words` of the first word of a frame. @throws PageAbsent */
  wordOf(mfn: number): number {
    return this.#space.addressOf(mfn as Mfn) >>> 2;
  }

  /** Stores an entry of any page by halves into `out`; false when the number names no frame. */
  read(mfn: number, index: number, out: Uint32Array): boolean {
    if (this.#types.owner.get(mfn) === FrameOwner.none) return false;
    const word = this.wordOf(mfn) + index * 2;
    out[0] = this.words[word]!; // inside the page
    out[1] = this.words[word + 1]!;
    return true;
  }

  /** The only place where the host writes an entry or a descriptor. @throws PageAbsent */
  store(mfn: number, index: number, low: number, high: number): void {
    const word = (this.#space.writableAddressOf(mfn as Mfn) >>> 2) + index * 2;
    this.words[word] = low;
    this.words[word + 1] = high;
    this.#invalidator.frameWritten(this.#space.frameOf(mfn as Mfn), index * 8, 8);
  }

  /** Level-1 table that translates an address below a root, or −1. */
  level1TableOf(root: Mfn, address: GuestVirtual): Mfn {
    const { geometry } = this.#rules;
    const low = lowWord(address);
    const high = highWord(address);
    if (geometry.levels === 4 && (address >= CANONICAL_LIMIT || address < -CANONICAL_LIMIT)) return NO_NUMBER;
    if (isInHostWindow(this.#rules, address)) return NO_NUMBER;
    let table: number = root;
    for (let level = geometry.levels; level > 1; level--) {
      // Behind a linear entry is a table of a higher level.
      if (!this.#isTable(table, level)) return NO_NUMBER;
      const index = tableIndex(geometry, level, low, high);
      const word = this.wordOf(table) + index * 2;
      const entry = this.words[word]!; // inside the table's page
      if ((entry & Pte.present) === 0 || (level === 2 && (entry & Pte.large) !== 0)) return NO_NUMBER;
      table = this.#types.namedBy(entry, this.words[word + 1]!);
    }
    return (this.#isTable(table, 1) ? table : NO_NUMBER) as Mfn;
  }

  /** The frame that the level-1 entry of an address below a root names, or −1 when nothing is mapped. */
  frameNumberAt(root: Mfn, address: GuestVirtual): Mfn {
    const table = this.level1TableOf(root, address);
    if (table < 0) return NO_NUMBER;
    const word = this.wordOf(table) + this.level1Index(address) * 2;
    const low = this.words[word]!; // inside the table's page
    return ((low & Pte.present) === 0 ? NO_NUMBER : this.#types.namedBy(low, this.words[word + 1]!)) as Mfn;
  }

  /** Which entry of its level-1 table translates an address. */
  level1Index(address: GuestVirtual): number {
    return tableIndex(this.#rules.geometry, 1, lowWord(address), highWord(address));
  }
}
