import { ABSENT_FRAME, type FramePool } from '../memory/frame-pool.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import { type Frame, type HostAddress, joinSigned, PAGE_SIZE } from '../x86/brand.ts';
import { Cr0, Cr4, Efer, PageFaultError, Pte } from '../x86/registers.ts';
import { Access } from './exits.ts';
import { NO_TABLES, PATH_TABLES, PageKind } from './tlb.ts';
import type { Translation } from './translation.ts';

/** Bits 52–62 of an entry are ignored; bits between the physical address width (here 52) and 52 there are none. */
const FRAME_HIGH = 0x000f_ffff;

/** Of a page of 4 MiB: there are no physical addresses above 4 GiB in these tables. */
export const LARGE_4M_RESERVED = 0x3f_e000;

/** The top table of PAE has four entries, so a page has room for many. */
const PAE_TOP_BYTES = 32;
export const PAE_TOPS = PAGE_SIZE / PAE_TOP_BYTES;

/** The outcome of a walk. One object is reused by each walker. */
export interface WalkResult {
  /** Frame of the page, or −1 when the walk ended in a fault. */
  frame: Frame;
  /** Number of the page, −1 when the host maps it there itself. */
  page: number;
  /** Error code of the page fault. */
  error: number;
  /** The tables allow a write (with the access's privilege) and the dirty bit is set. */
  writable: boolean;
  executable: boolean;
  /** Number of the page when a write to a present, readable page met a protection fault; −1 otherwise. */
  refused: number;
  /** Number of a page, or of a table on the way, that the host must bring in or make writable first; −1 otherwise. */
  absent: number;
  /** Whether it must be writable then. */
  absentForWrite: boolean;
  /** What the TLB must know of the page, of `PageKind`. */
  kind: number;
  /** The tables allow the access, but this number has no frame, and the translation has devices; −1 otherwise. */
  device: number;
}

export interface WalkControls {
  cr0: number;
  cr4: number;
  efer: number;
}

/** What a walk writes over. */
export function emptyResult(): WalkResult {
  return {
    frame: -1 as Frame,
    page: -1,
    error: 0,
    writable: false,
    executable: false,
    refused: -1,
    absent: -1,
    absentForWrite: false,
    kind: 0,
    device: -1,
  };
}

/**
 * The page walk of the architecture (SDM vol. 3A, 4.3–4.8): 2-level, PAE and 4-level tables; accessed and dirty bits
 * are set when, and only when, the access is allowed.
 */
export class PageWalker {
  readonly result = emptyResult();
  readonly #u32: Uint32Array;
  readonly #pool: FramePool;
  /** Numbers of the tables below the root that led to the page, its own first; the first is NO_TABLES without tables. */
  readonly tables = new Int32Array(PATH_TABLES);
  /** What a TLB keeps of the way to the page; the generations are its owner's business. */
  readonly path = { tables: this.tables, entryLow: 0, entryHigh: 0, lastGeneration: 0, upperGenerations: 0 };
  /** Whether faults tell fetches from reads: only where pages can forbid execution. */
  #reportsFetch = false;
  /** Addresses of the entries met, as word indices, for the accessed bits. */
  readonly #path = new Int32Array(4);
  /** Numbers of the tables that these entries stand in. */
  readonly #pathTables = new Float64Array(4);

  constructor(memory: HostMemory, pool: FramePool) {
    this.#u32 = memory.u32;
    this.#pool = pool;
  }

  #tableAt(translation: Translation, number: number): HostAddress {
    const frame = translation.frames[number];
    return frame === undefined || frame < 0 ? (-1 as HostAddress) : this.#pool.addressOf(frame as Frame);
  }

  /**
   * Walks for one page. `low`, `high`: halves of a canonical linear address. `root`: number of the top table, of PAE its
   * number among the PAE_TOPS of each page.
   * Returns true when the access is allowed; then `result` describes the page.
   */
  walk(
    translation: Translation,
    root: number,
    low: number,
    high: number,
    access: Access,
    user: boolean,
    controls: WalkControls,
  ): boolean {
    const { result } = this;
    result.refused = -1;
    result.absent = -1;
    result.kind = 0;
    result.device = -1;
    this.#reportsFetch = translation.format !== 'two-level' && (controls.efer & Efer.noExecute) !== 0;
    if (translation.hostWindow) {
      const number = translation.hostWindow(joinSigned(low, high) as never, user);
      if (number !== undefined) {
        if (number === null || access === Access.write) return this.#fault(number !== null, access, user);
        const frame = translation.frames[number];
        if (frame === undefined || frame < 0) return this.#noFrame(translation, number, access, user);
        result.frame = frame as Frame;
        result.page = -1;
        result.writable = false;
        result.executable = false;
        this.tables[0] = NO_TABLES;
        return true;
      }
    }
    switch (translation.format) {
      case 'four-level':
        return this.#wide(translation, root, low, high, access, user, controls, 4);
      case 'pae':
        return this.#wide(translation, root, low, high, access, user, controls, 3);
      case 'two-level':
        return this.#narrow(translation, root, low, access, user, controls);
      case 'none': {
        const frame = translation.frames[low >>> 12];
        if (frame === undefined || frame < 0) return this.#noFrame(translation, low >>> 12, access, user);
        result.frame = frame as Frame;
        result.page = low >>> 12;
        result.writable = true;
        result.executable = true;
        this.tables[0] = NO_TABLES;
        return true;
      }
    }
  }

  #fault(present: boolean, access: Access, user: boolean, reserved = false): boolean {
    const fetch = access === Access.fetch && this.#reportsFetch;
    this.result.frame = -1 as Frame;
    this.result.error =
      (present ? PageFaultError.present : 0) |
      (access === Access.write ? PageFaultError.write : 0) |
      (user ? PageFaultError.user : 0) |
      (reserved ? PageFaultError.reserved | PageFaultError.present : 0) |
      (fetch ? PageFaultError.fetch : 0);
    return false;
  }

  /** An allowed access met a number without a frame. */
  #noFrame(translation: Translation, number: number, access: Access, user: boolean): boolean {
    this.#fault(true, access, user, translation.format !== 'none');
    if (translation.frames[number] === ABSENT_FRAME) this.#bringIn(number, access === Access.write);
    else if (translation.devices) this.result.device = number;
    return false;
  }

  /** A walk met a table without a frame. */
  #noTable(translation: Translation, number: number, access: Access, user: boolean): boolean {
    this.#fault(false, access, user, true);
    if (translation.frames[number] === ABSENT_FRAME) this.#bringIn(number, false);
    return false;
  }

  #bringIn(number: number, write: boolean): void {
    this.result.absent = number;
    this.result.absentForWrite = write;
  }

  /** Tables of 8-byte entries: four levels, or the three of PAE (whose top has four entries without rights). */
  #wide(
    translation: Translation,
    root: number,
    low: number,
    high: number,
    access: Access,
    user: boolean,
    controls: WalkControls,
    levels: 3 | 4,
  ): boolean {
    const u32 = this.#u32;
    const noExecuteEnabled = (controls.efer & Efer.noExecute) !== 0;
    let tableNumber = levels === 3 ? Math.floor(root / PAE_TOPS) : root;
    let table = this.#tableAt(translation, tableNumber);
    if (levels === 3 && table >= 0) table = (table + (root % PAE_TOPS) * PAE_TOP_BYTES) as HostAddress;
    this.#pathTables[levels - 1] = tableNumber;
    let rights = Pte.writable | Pte.user;
    let noExecute = false;
    for (let level: number = levels; level >= 1; level--) {
      if (table < 0) return this.#noTable(translation, tableNumber, access, user);
      const index =
        level === 4
          ? (high >>> 7) & 0x1ff
          : level === 3
            ? ((high << 2) | (low >>> 30)) & (levels === 3 ? 0x3 : 0x1ff)
            : level === 2
              ? (low >>> 21) & 0x1ff
              : (low >>> 12) & 0x1ff;
      const word = (table >>> 2) + index * 2;
      const entryLow = u32[word] as number;
      const entryHigh = u32[word + 1] as number;
      if ((entryLow & Pte.present) === 0) return this.#fault(false, access, user);
      const topOfPae = levels === 3 && level === 3;
      if (entryHigh >>> 31 !== 0) {
        if (!noExecuteEnabled || topOfPae) return this.#fault(true, access, user, true);
        noExecute = true;
      }
      if (!topOfPae) rights &= entryLow;
      this.#path[level - 1] = topOfPae ? -1 : word;
      const named = (entryHigh & FRAME_HIGH) * 0x10_0000 + (entryLow >>> 12);
      const number = translation.numbers === undefined ? named : translation.numbers.pageOf(named);
      const large = level === 2 && (entryLow & Pte.large) !== 0;
      if (level === 1 || large) {
        if (large && (entryLow & 0x1f_e000) !== 0) return this.#fault(true, access, user, true);
        const page = large ? number - (number & 0x1ff) + ((low >>> 12) & 0x1ff) : number;
        return this.#leaf(translation, page, rights, noExecute, level, levels, access, user, controls);
      }
      if (level >= 3 && !topOfPae && (entryLow & Pte.large) !== 0) {
        return this.#fault(true, access, user, true);
      }
      // A large page ends the path early: what stands below is the table it was found in.
      for (let below = level - 2; below >= 0; below--) this.tables[below] = number;
      this.#pathTables[level - 2] = number;
      tableNumber = number;
      table = this.#tableAt(translation, number);
    }
    return false;
  }

  #narrow(
    translation: Translation,
    root: number,
    low: number,
    access: Access,
    user: boolean,
    controls: WalkControls,
  ): boolean {
    const u32 = this.#u32;
    const directory = this.#tableAt(translation, root);
    if (directory < 0) return this.#noTable(translation, root, access, user);
    this.#pathTables[1] = root;
    this.tables.fill(root);
    const upper = (directory >>> 2) + (low >>> 22);
    const upperEntry = u32[upper] as number;
    if ((upperEntry & Pte.present) === 0) return this.#fault(false, access, user);
    this.#path[1] = upper;
    if ((upperEntry & Pte.large) !== 0 && (controls.cr4 & Cr4.pageSizeExtensions) !== 0) {
      if ((upperEntry & LARGE_4M_RESERVED) !== 0) return this.#fault(true, access, user, true);
      const page = (upperEntry >>> 22) * 1024 + ((low >>> 12) & 0x3ff);
      return this.#leaf(translation, page, upperEntry, false, 2, 2, access, user, controls);
    }
    const table = this.#tableAt(translation, upperEntry >>> 12);
    if (table < 0) return this.#noTable(translation, upperEntry >>> 12, access, user);
    this.#pathTables[0] = upperEntry >>> 12;
    this.tables[0] = upperEntry >>> 12;
    const word = (table >>> 2) + ((low >>> 12) & 0x3ff);
    const entry = u32[word] as number;
    if ((entry & Pte.present) === 0) return this.#fault(false, access, user);
    this.#path[0] = word;
    return this.#leaf(translation, entry >>> 12, upperEntry & entry, false, 1, 2, access, user, controls);
  }

  #leaf(
    translation: Translation,
    page: number,
    rights: number,
    noExecute: boolean,
    level: number,
    levels: number,
    access: Access,
    user: boolean,
    controls: WalkControls,
  ): boolean {
    const { result } = this;
    const frame = translation.frames[page];
    const writable = (rights & Pte.writable) !== 0 || (!user && (controls.cr0 & Cr0.writeProtect) === 0);
    if (user && (rights & Pte.user) === 0) return this.#fault(true, access, user);
    if (access === Access.write && !writable) {
      this.#fault(true, access, user);
      if (frame !== undefined && frame >= 0) result.refused = page;
      // Who emulates the store has to see the page.
      else if (frame === ABSENT_FRAME && !user && translation.emulateStore) this.#bringIn(page, false);
      return false;
    }
    if (access === Access.fetch && noExecute) return this.#fault(true, access, user);
    if (frame === undefined || frame < 0) return this.#noFrame(translation, page, access, user);
    const hostProtected = translation.writeProtected?.[page] === 1;
    if (hostProtected && access === Access.write) {
      this.#bringIn(page, true);
      return this.#fault(true, access, user);
    }
    const u32 = this.#u32;
    for (let above = levels; above >= level; above--) {
      const word = this.#path[above - 1] as number;
      if (word < 0) continue;
      const entry = u32[word] as number;
      const wanted = entry | Pte.accessed | (above === level && access === Access.write ? Pte.dirty : 0);
      if (wanted === entry) continue;
      const table = this.#pathTables[above - 1] as number;
      if (translation.writeProtected?.[table] === 1) {
        this.#bringIn(table, true);
        return this.#fault(true, access, user);
      }
      translation.log?.note(table);
      u32[word] = wanted;
    }
    const leafWord = this.#path[level - 1] as number;
    const leaf = u32[leafWord] as number;
    this.path.entryLow = leaf;
    this.path.entryHigh = u32[leafWord + 1] as number;
    result.frame = frame as Frame;
    result.page = page;
    result.writable = writable && !hostProtected && (leaf & Pte.dirty) !== 0;
    result.executable = !noExecute;
    const isGlobal = (leaf & Pte.global) !== 0 && (controls.cr4 & Cr4.globalPages) !== 0;
    result.kind = (isGlobal ? PageKind.global : 0) | (level > 1 ? PageKind.large : 0);
    return true;
  }
}
