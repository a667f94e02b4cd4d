import type { FrameWatcher, FrameWatching } from '../cpu/frame-watchers.ts';
import type { FrameInvalidator, TableFormat } from '../cpu/translation.ts';
import { PAE_TOPS } from '../cpu/walk.ts';
import { NO_FRAME } from '../memory/frame-pool.ts';
import type { MachineSpace } from '../memory/machine-space.ts';
import { type Frame, PAGE_SIZE } from '../x86/brand.ts';
import { frameOfEntry, TABLE_GEOMETRY, type TableGeometry, tableIndex } from '../x86/page-table.ts';
import { Pte } from '../x86/registers.ts';

/** Tables that are followed at a time, and entries that lead to them: a guest could make each page a table at every level. */
const MOST_TABLES = 16_384;
const MOST_LINKS = 262_144;

/** What processors change in an entry by themselves. */
const PROCESSOR_BITS = Pte.accessed | Pte.dirty;

type Format = Exclude<TableFormat, 'none'>;

/** A table that some root leads to. */
export interface LiveTable {
  readonly key: string;
  readonly page: number;
  readonly level: number;
  readonly format: Format;
  /** Bytes of the page that are the table: the highest one of PAE is not a whole page. */
  readonly start: number;
  readonly end: number;
  /** By index of the entry that leads there. */
  readonly children: Map<number, LiveTable>;
  /** How many entries of each table lead here. */
  readonly parents: Map<LiveTable, number>;
  isRoot: boolean;
  /** How often it is some processor's root. */
  loads: number;
}

export interface LiveTablesOptions {
  readonly space: MachineSpace;
  readonly frames: FrameWatching & FrameInvalidator;
  /** What walks the kernel's tables of the processor that executes, or did last, and the address of its instruction by halves. */
  readonly running: () => { readonly walker: number; readonly low: number; readonly high: number };
  /** A processor has taken a table for its root. */
  readonly onLoaded: (root: LiveTable) => void;
  /** A root that no processor uses was stored to, or is none any more: who knows since when it was something else. */
  readonly onDoubt: (root: LiveTable) => void;
  /** Bytes of a page with tables have been written. */
  readonly onWritten: (page: number) => void;
  /** Makes of an entry what the kernel has stored there, where its host keeps something else. */
  readonly asStored?: ((entry: Uint32Array) => void) | undefined;
}

/**
 * Which pages are page tables of a guest that keeps its tables itself, and tells nobody: those that its roots lead to. A
 * root is what a processor has once loaded, until it is seen to hold something else. From there on all follows from the
 * entries: each table is read once, when something leads to it, and each store to it is watched.
 */
export class LiveTables implements FrameWatcher {
  readonly #options: LiveTablesOptions;
  readonly #u32: Uint32Array;
  readonly #tables = new Map<string, LiveTable>();
  readonly #byPage = new Map<number, LiveTable[]>();
  /** The frame of each page that has tables, as it is watched; −1 while the page is not in memory. */
  readonly #frames = new Map<number, number>();
  /** Pages among them that were not in memory when they were last asked for. */
  readonly #absent = new Set<number>();
  readonly #loaded: (LiveTable | undefined)[] = [];
  readonly #entryRead = new Uint32Array(2);
  #links = 0;
  /** How often a table was not followed because there were too many. */
  missed = 0;

  constructor(options: LiveTablesOptions) {
    this.#options = options;
    this.#u32 = options.space.pool.memory.u32;
  }

  /** Whether a page holds a table. */
  has(page: number): boolean {
    if (!this.#byPage.has(page)) return false;
    this.#follow(page);
    return true;
  }

  /** The tables that some bytes of a page belong to. */
  at(page: number, offset: number, bytes: number): readonly LiveTable[] {
    return (this.#byPage.get(page) ?? []).filter(({ start, end }) => offset < end && offset + bytes > start);
  }

  /** A root that leads to a table: one that a processor has loaded, if there is such a one. */
  rootOf(table: LiveTable): LiveTable | undefined {
    if (table.loads > 0) return table;
    let found = table.isRoot ? table : undefined;
    for (const parent of table.parents.keys()) {
      const root = this.rootOf(parent);
      if (root && root.loads > 0) return root;
      found ??= root;
    }
    return found;
  }

  /** Whether a processor's root leads to a table. */
  isWalked(table: LiveTable): boolean {
    return (this.rootOf(table)?.loads ?? 0) > 0;
  }

  /** The root that a walker has taken. */
  loadedBy(walker: number): LiveTable | undefined {
    return this.#loaded[walker];
  }

  /** A processor takes a root; with the format `none` it has none. @param walker it, or one of its privileges */
  load(walker: number, format: TableFormat, root: number): void {
    for (const page of this.#absent) this.#follow(page);
    const previous = this.#loaded[walker];
    if (previous) previous.loads--;
    const table = format === 'none' ? undefined : this.#rootAt(format, root);
    this.#loaded[walker] = table;
    if (!table) return;
    table.isRoot = true;
    table.loads++;
    this.#options.onLoaded(table);
  }

  #rootAt(format: Format, root: number): LiveTable | undefined {
    const { levels } = TABLE_GEOMETRY[format];
    const [page, slot] = format === 'pae' ? [Math.floor(root / PAE_TOPS), root % PAE_TOPS] : [root, 0];
    return this.#obtain(format, page, levels, slot);
  }

  written(page: number, offset: number, length: number): void {
    for (const table of this.at(page, offset, length)) {
      this.#review(table, offset, offset + length);
      if (!table.isRoot || table.loads > 0) continue;
      if (this.#mapsKernel(table)) this.#options.onDoubt(table);
      else this.drop(table);
    }
    this.#options.onWritten(page);
  }

  /** What no processor uses is seen to be no root. */
  drop(root: LiveTable): void {
    root.isRoot = false;
    this.#options.onDoubt(root);
    this.#removeUnreached(root);
  }

  /** Ends the watch; the guest is about to end. */
  end(): void {
    for (const page of [...this.#frames.keys()]) this.#unwatch(page);
    this.#byPage.clear();
    this.#tables.clear();
  }

  /**
   * Whether a root that is not in use could be loaded as it stands: it must lead to the kernel's code as the one does that
   * is in use. Otherwise the page is used for something else by now.
   */
  #mapsKernel(root: LiveTable): boolean {
    const { walker, low, high } = this.#options.running();
    const current = this.#loaded[walker];
    if (current?.format !== root.format) return true;
    const index = tableIndex(TABLE_GEOMETRY[root.format], root.level, low, high);
    const [ours, theirs] = [this.#entry(root, index), this.#entry(current, index)];
    if (!ours || !theirs) return true;
    return ((ours[0] ^ theirs[0]) & ~PROCESSOR_BITS) === 0 && ours[1] === theirs[1];
  }

  // Tables

  #obtain(format: Format, page: number, level: number, slot: number): LiveTable | undefined {
    const key = `${format} ${level} ${page} ${slot}`;
    const known = this.#tables.get(key);
    if (known) return known;
    if ((this.#options.space.frames[page] ?? NO_FRAME) === NO_FRAME) return undefined;
    if (this.#tables.size >= MOST_TABLES || this.#links >= MOST_LINKS) {
      this.missed++;
      return undefined;
    }
    const { entries, entryBytes }: TableGeometry = TABLE_GEOMETRY[format];
    const bytes = (entries[level] ?? 0) * entryBytes;
    const table: LiveTable = {
      key,
      page,
      level,
      format,
      start: slot * bytes,
      end: (slot + 1) * bytes,
      children: new Map(),
      parents: new Map(),
      isRoot: false,
      loads: 0,
    };
    this.#tables.set(key, table);
    const others = this.#byPage.get(page);
    if (others) others.push(table);
    else this.#byPage.set(page, [table]);
    if (!this.#follow(page)) this.#review(table, 0, PAGE_SIZE);
    return table;
  }

  #removeUnreached(table: LiveTable): void {
    if (table.isRoot || table.parents.size > 0) return;
    for (const index of [...table.children.keys()]) this.#unlink(table, index);
    this.#tables.delete(table.key);
    const others = (this.#byPage.get(table.page) ?? []).filter((other) => other !== table);
    if (others.length > 0) this.#byPage.set(table.page, others);
    else {
      this.#byPage.delete(table.page);
      this.#unwatch(table.page);
    }
  }

  /** The frame behind a page that has tables may be another one than it was: whether it is, and all was read anew. */
  #follow(page: number): boolean {
    const { space, frames } = this.#options;
    const frame = (space.frames[page] ?? NO_FRAME) as Frame;
    if (this.#frames.get(page) === frame) return false;
    this.#unwatch(page);
    this.#frames.set(page, frame);
    if (frame < 0) {
      this.#absent.add(page);
      return false;
    }
    frames.invalidateFrame(frame);
    frames.watch(frame, this, page);
    for (const table of this.#byPage.get(page) ?? []) this.#review(table, 0, PAGE_SIZE);
    return true;
  }

  #unwatch(page: number): void {
    const frame = (this.#frames.get(page) ?? NO_FRAME) as Frame;
    if (frame >= 0) this.#options.frames.unwatch(frame, this, page);
    this.#frames.delete(page);
    this.#absent.delete(page);
  }

  // Entries

  /** Compares what entries lead to with what they led to. @param from offset in the page, @param to the one behind */
  #review(table: LiveTable, from: number, to: number): void {
    // One page can be tables of several levels, and the review of one end another.
    if (table.level === 1 || this.#tables.get(table.key) !== table) return;
    const { entryBytes } = TABLE_GEOMETRY[table.format];
    const last = Math.min(to, table.end) - table.start;
    for (let at = Math.max(0, from - table.start); at < last; at += entryBytes) {
      this.#reviewEntry(table, Math.floor(at / entryBytes));
    }
  }

  #reviewEntry(table: LiveTable, index: number): void {
    const entry = this.#entry(table, index);
    if (!entry) return;
    const child = this.#childOf(table, entry);
    const known = table.children.get(index);
    if (child === known) return;
    if (child) child.parents.set(table, (child.parents.get(table) ?? 0) + 1);
    this.#unlink(table, index);
    if (!child) return;
    table.children.set(index, child);
    this.#links++;
  }

  #unlink(table: LiveTable, index: number): void {
    const child = table.children.get(index);
    if (!child) return;
    table.children.delete(index);
    this.#links--;
    const links = (child.parents.get(table) ?? 0) - 1;
    if (links > 0) child.parents.set(table, links);
    else child.parents.delete(table);
    this.#removeUnreached(child);
  }

  #childOf({ format, level }: LiveTable, [low, high]: readonly [number, number]): LiveTable | undefined {
    const isTopOfPae = format === 'pae' && level === TABLE_GEOMETRY.pae.levels;
    if ((low & Pte.present) === 0 || (!isTopOfPae && (low & Pte.large) !== 0)) return undefined;
    return this.#obtain(format, frameOfEntry(low, high), level - 1, 0);
  }

  /** Both halves; undefined while the page is not in memory. */
  #entry({ page, start, format }: LiveTable, index: number): readonly [number, number] | undefined {
    const { space, asStored } = this.#options;
    const { entryBytes } = TABLE_GEOMETRY[format];
    const frame = (space.frames[page] ?? NO_FRAME) as Frame;
    if (frame < 0) return undefined;
    const word = (space.pool.addressOf(frame) + start + index * entryBytes) >>> 2;
    const entry = this.#entryRead;
    entry[0] = this.#u32[word] as number;
    entry[1] = entryBytes === 8 ? (this.#u32[word + 1] as number) : 0;
    asStored?.(entry);
    return [entry[0], entry[1]];
  }
}
