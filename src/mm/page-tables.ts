import type { FramePool } from '../memory/frame-pool.ts';
import { type Frame, type HostVirtual, highWord, joinSigned, lowWord, PAGE_SIZE } from '../x86/brand.ts';
import { TABLE_GEOMETRY, tableIndex } from '../x86/page-table.ts';
import { asOld, asReadOnly, frameOf, isPresent, isYoung, NO_PTE, type PteValue, tablePte } from './pte.ts';

/**
 * The host's own page tables: four levels of real tables in frames of the pool, one set for each address space.
 *
 * Entries are reached through the functions of this file and in no other way. What `getPgd` … `getPte` return is opaque:
 * it is neither a number nor an index, so an entry cannot be read or written by hand, and a pointer of one level cannot
 * stand for one of another. test/mm-pointer-types.ts proves that with the compiler.
 */
declare const points: unique symbol;
export interface PgdPointer {
  readonly [points]: 'pgd';
}
export interface PudPointer {
  readonly [points]: 'pud';
}
export interface PmdPointer {
  readonly [points]: 'pmd';
}
export interface PtePointer {
  readonly [points]: 'pte';
}
type EntryPointer = PgdPointer | PudPointer | PmdPointer | PtePointer;

const GEOMETRY = TABLE_GEOMETRY['four-level'];
const ENTRIES = 512;
/** Bytes that one level-1 table translates. */
const LEVEL1_SPAN = ENTRIES * PAGE_SIZE;

/** A pointer is the index of the entry's low word in the host's memory. Only these two functions know. */
function wordOf(pointer: EntryPointer): number {
  return pointer as unknown as number;
}
function pointerTo<Pointer extends EntryPointer>(word: number): Pointer {
  return word as unknown as Pointer;
}

export class PageTables {
  readonly #pool: FramePool;
  readonly #u32: Uint32Array;
  readonly #root: Frame;
  /** Frames of the tables below the root. */
  readonly #tables: Frame[] = [];

  /** @param root a zeroed frame, which is the tables' from here on */
  constructor(pool: FramePool, root: Frame) {
    this.#pool = pool;
    this.#u32 = pool.memory.u32;
    this.#root = root;
  }

  #entry<Pointer extends EntryPointer>(table: Frame, level: number, address: HostVirtual): Pointer {
    const index = tableIndex(GEOMETRY, level, lowWord(address), highWord(address));
    return pointerTo((this.#pool.addressOf(table) >>> 2) + index * 2);
  }

  #read(pointer: EntryPointer): PteValue {
    const word = wordOf(pointer);
    return joinSigned(this.#u32[word] as number, this.#u32[word + 1] as number) as PteValue;
  }

  #write(pointer: EntryPointer, value: PteValue): void {
    const word = wordOf(pointer);
    this.#u32[word] = lowWord(value);
    this.#u32[word + 1] = highWord(value);
  }

  #below<Pointer extends EntryPointer>(pointer: EntryPointer, level: number, address: HostVirtual) {
    const value = this.#read(pointer);
    return isPresent(value) ? this.#entry<Pointer>(frameOf(value), level, address) : undefined;
  }

  getPgd(address: HostVirtual): PgdPointer {
    return this.#entry(this.#root, 4, address);
  }

  /** Undefined when there is no table; so too below. */
  getPud(pgd: PgdPointer, address: HostVirtual): PudPointer | undefined {
    return this.#below(pgd, 3, address);
  }

  getPmd(pud: PudPointer, address: HostVirtual): PmdPointer | undefined {
    return this.#below(pud, 2, address);
  }

  getPte(pmd: PmdPointer, address: HostVirtual): PtePointer | undefined {
    return this.#below(pmd, 1, address);
  }

  /** All four steps. */
  findPte(address: HostVirtual): PtePointer | undefined {
    const pud = this.getPud(this.getPgd(address), address);
    const pmd = pud && this.getPmd(pud, address);
    return pmd && this.getPte(pmd, address);
  }

  /**
   * As `findPte`, but puts in the tables that are missing.
   * @param obtain a zeroed frame, or undefined when there is none; then the result is undefined, and what was put in stays
   */
  allocatePte(address: HostVirtual, obtain: () => Frame | undefined): PtePointer | undefined {
    let pointer: EntryPointer = this.getPgd(address);
    for (let level = 3; level >= 1; level--) {
      let below: EntryPointer | undefined = this.#below(pointer, level, address);
      if (!below) {
        const table = obtain();
        if (table === undefined) return undefined;
        this.#tables.push(table);
        this.#write(pointer, tablePte(table));
        below = this.#entry<EntryPointer>(table, level, address);
      }
      pointer = below;
    }
    return pointer as PtePointer;
  }

  readPte(pte: PtePointer): PteValue {
    return this.#read(pte);
  }

  /** Sets an entry that is not present, or changes the rights of one that is. */
  setPteAt(pte: PtePointer, value: PteValue): void {
    this.#write(pte, value);
  }

  ptepGetAndClear(pte: PtePointer): PteValue {
    const value = this.#read(pte);
    this.#write(pte, NO_PTE);
    return value;
  }

  /** Clears the accessed bit; whether it was set. External tables have their own and are asked apart. */
  ptepTestAndClearYoung(pte: PtePointer): boolean {
    const value = this.#read(pte);
    if (!isYoung(value)) return false;
    this.#write(pte, asOld(value));
    return true;
  }

  ptepSetWriteProtect(pte: PtePointer): void {
    this.#write(pte, asReadOnly(this.#read(pte)));
  }

  /** Visits every entry of [start, end) that is not empty, in order. The visitor may change that entry. */
  visit(start: HostVirtual, end: HostVirtual, visitor: (address: HostVirtual, pte: PtePointer) => void): void {
    let address = start;
    while (address < end) {
      const next = Math.min(end, (Math.floor(address / LEVEL1_SPAN) + 1) * LEVEL1_SPAN) as HostVirtual;
      const first = this.findPte(address);
      if (first) {
        const word = wordOf(first);
        for (let page = 0; address + page * PAGE_SIZE < next; page++) {
          const pte = pointerTo<PtePointer>(word + page * 2);
          if (this.#read(pte) !== NO_PTE) visitor((address + page * PAGE_SIZE) as HostVirtual, pte);
        }
      }
      address = next;
    }
  }

  /** Frames of all tables, the root among them; they are the caller's from here on. */
  dismantle(): Frame[] {
    return [this.#root, ...this.#tables.splice(0)];
  }
}
