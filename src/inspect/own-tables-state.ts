import type { Processor } from '../cpu/processor.ts';
import { NO_FRAME } from '../memory/frame-pool.ts';
import type { MachineSpace } from '../memory/machine-space.ts';
import type { MmuState, PageType } from '../ops/contracts.ts';
import type { LazyMode } from '../ops/schema.ts';
import type { LiveTable, LiveTables } from '../paging/live-tables.ts';
import { type Frame, type GuestVirtual, highWord, lowWord, PAGE_SHIFT, PAGE_SIZE } from '../x86/brand.ts';
import { frameOfEntry, TABLE_GEOMETRY, type TableGeometry } from '../x86/page-table.ts';
import { Pte } from '../x86/registers.ts';
import { walkTables } from './table-walk.ts';

const WORD = 4;

const LEVEL_TYPES: readonly PageType[] = ['none', 'level1', 'level2', 'level3', 'level4'];

export interface OwnTablesOptions {
  readonly tables: LiveTables;
  readonly space: MachineSpace;
  /** In the order of their indices. */
  readonly processors: readonly Processor[];
  /** What follows a processor's root among those who have taken one. */
  readonly walkerOf: (vcpu: number) => number;
  /** As `MmuState` has it. */
  readonly dropsWhatIsTold?: boolean;
  /** Where a word stands in the memory of a processor that is another one for each thread. */
  readonly threadAt?: (vcpu: number) => GuestVirtual | undefined;
  /** Makes of an entry what the kernel has stored there, where its host keeps something else. */
  readonly asStored?: ((entry: Uint32Array) => void) | undefined;
}

/** A table's number as contracts have it: a fraction says where in its page it begins. */
export function tableNumber({ page, start }: LiveTable): number {
  return page + start / PAGE_SIZE;
}

/**
 * The page tables and TLBs of a guest that keeps its tables itself, as the contracts look at them. A table is what the root
 * of some processor leads to.
 */
export class OwnTablesState implements MmuState {
  readonly examinesTables = false;
  readonly dropsWhatIsTold: boolean;
  readonly removesWritable = false;
  readonly #options: OwnTablesOptions;
  readonly #entry = new Uint32Array(2);
  #geometry: TableGeometry = TABLE_GEOMETRY['four-level'];

  constructor(options: OwnTablesOptions) {
    this.#options = options;
    this.dropsWhatIsTold = options.dropsWhatIsTold ?? false;
  }

  /** That of the root which was loaded last: a kernel has one format once it has begun. */
  get geometry(): TableGeometry {
    for (let vcpu = 0; vcpu < this.#options.processors.length; vcpu++) {
      const root = this.#rootOf(vcpu);
      if (root) this.#geometry = TABLE_GEOMETRY[root.format];
    }
    return this.#geometry;
  }

  readEntry(table: number, index: number, out: Uint32Array): boolean {
    const { space, asStored } = this.#options;
    const { entryBytes } = this.geometry;
    const physical = table * PAGE_SIZE + index * entryBytes;
    const frame = this.#frameOf(Math.floor(physical / PAGE_SIZE));
    if (frame < 0) return false;
    const { pool } = space;
    const { u32 } = pool.memory;
    const word = (pool.addressOf(frame) + (physical % PAGE_SIZE)) >>> 2;
    out[0] = u32[word] as number;
    out[1] = entryBytes === 8 ? (u32[word + 1] as number) : 0;
    asStored?.(out);
    return true;
  }

  typeOf(page: number): PageType {
    const levels = this.#walked(page).map(({ level }) => level);
    return LEVEL_TYPES[Math.max(0, ...levels)] ?? 'none';
  }

  isPinned(): boolean {
    return false;
  }

  /** Only of tables that a processor walks: what else a page holds is nobody's affair. */
  links(table: number): number {
    let links = 0;
    for (const { parents } of this.#walked(table)) {
      for (const [parent, count] of parents) if (this.#options.tables.isWalked(parent)) links += count;
    }
    return links;
  }

  rootInUse(table: number): number {
    let set = 0;
    for (let vcpu = 0; vcpu < this.#options.processors.length; vcpu++) {
      const root = this.#rootOf(vcpu);
      if (root && Math.floor(tableNumber(root)) === Math.floor(table)) set |= 1 << vcpu;
    }
    return set;
  }

  currentRoot(vcpu: number): number {
    const root = this.#rootOf(vcpu);
    return root ? tableNumber(root) : -1;
  }

  /** Lazy sections are the guest's own affair. */
  lazyMode(): LazyMode {
    return 'none';
  }

  updatesPutOff(): number {
    return 0;
  }

  cachedTranslations(
    page: number,
    visit: (vcpu: number, address: GuestVirtual, root: number, writable: boolean) => void,
  ): void {
    const { space, processors } = this.#options;
    const frame = this.#frameOf(page);
    if (frame < 0) return;
    const address = space.pool.addressOf(frame);
    for (const [vcpu, { memory }] of processors.entries()) {
      memory.kernelTlb.visitFrame(address, (virtual, writable) => visit(vcpu, virtual, -1, writable));
      if (memory.userTlb === memory.kernelTlb) continue;
      memory.userTlb.visitFrame(address, (virtual, writable) => visit(vcpu, virtual, -1, writable));
    }
  }

  watchTranslation(vcpu: number, address: GuestVirtual): void {
    const memory = this.#options.processors[vcpu]?.memory;
    memory?.kernelTlb.invalidatePage(lowWord(address), highWord(address));
    memory?.userTlb.invalidatePage(lowWord(address), highWord(address));
  }

  inUserMode(vcpu: number): boolean {
    return this.#options.processors[vcpu]?.userMode ?? false;
  }

  /** Found without the processor, which may be amid a walk. */
  threadOf(vcpu: number): number | undefined {
    const address = this.#options.threadAt?.(vcpu);
    const root = this.currentRoot(vcpu);
    if (address === undefined || address % WORD !== 0 || root < 0) return undefined;
    const { level } = walkTables(this, root, address, this.#entry);
    const [low, high] = this.#entry as unknown as [number, number];
    if ((low & Pte.present) === 0) return undefined;
    const pages = 2 ** ((this.geometry.shift[level] ?? PAGE_SHIFT) - PAGE_SHIFT); // that the entry maps
    const first = frameOfEntry(low, high);
    const frame = this.#frameOf(first - (first % pages) + (Math.floor(address / PAGE_SIZE) % pages));
    if (frame < 0) return undefined;
    const { pool } = this.#options.space;
    return pool.memory.u32[(pool.addressOf(frame) + (address % PAGE_SIZE)) >>> 2];
  }

  /** As the host has it at this moment; what is absent is not brought in for this. */
  #frameOf(page: number): Frame {
    return (this.#options.space.frames[page] ?? NO_FRAME) as Frame;
  }

  #rootOf(vcpu: number): LiveTable | undefined {
    return this.#options.tables.loadedBy(this.#options.walkerOf(vcpu));
  }

  #walked(table: number): readonly LiveTable[] {
    const { tables } = this.#options;
    return tables.at(Math.floor(table), 0, PAGE_SIZE).filter((found) => tables.isWalked(found));
  }
}
