import { ContractChecker } from '../src/inspect/contracts.ts';
import type { GroupOperations, ResultOf } from '../src/ops/catalogue.ts';
import type { MmuState, PageType, Violation } from '../src/ops/contracts.ts';
import { createOperations } from '../src/ops/dispatch.ts';
import type { LazyMode } from '../src/ops/schema.ts';
import type { GuestVirtual, Mfn } from '../src/x86/brand.ts';
import { entryHigh, entryLow, frameOfEntry, TABLE_GEOMETRY } from '../src/x86/page-table.ts';

export const ROOT = 0x10 as Mfn;
export const LEVEL3 = 0x11 as Mfn;
export const LEVEL2 = 0x12 as Mfn;
export const LEVEL1 = 0x13 as Mfn;
export const SPARE = 0x14 as Mfn;
export const OTHER_ROOT = 0x15 as Mfn;
export const PAGE = 0x100 as Mfn;
/** Mapped by entry 5 of LEVEL1. */
export const ADDRESS = 0x5000 as GuestVirtual;
export const INDEX = 5;
export const TABLE_FLAGS = 0x67;
export const PAGE_FLAGS = 0x67;
export const PRESENT_READ_ONLY = 0x25;

interface Cached {
  vcpu: number;
  address: GuestVirtual;
  page: number;
  root: number;
  writable: boolean;
}

/** The page tables of a small guest, its TLBs, and operations that do no more than they must. */
export class MmuWorld implements MmuState {
  examinesTables = true;
  dropsWhatIsTold = false;
  readonly geometry = TABLE_GEOMETRY['four-level'];
  readonly violations: Violation[] = [];
  readonly checker: ContractChecker;
  readonly tables = new Map<number, Uint32Array>();
  readonly types = new Map<number, PageType>();
  readonly pinned = new Set<number>();
  readonly roots: number[] = [ROOT, OTHER_ROOT];
  readonly lazy: LazyMode[] = ['none', 'none'];
  cached: Cached[] = [];
  removesWritable = false;
  /** Bit n: vCPU n runs a user program. */
  userMode = 0;
  /** By vCPU: whom it works for, where that is what tells the end of work. */
  readonly threads: (number | undefined)[] = [];
  /** What was taken out of TLBs, though `cached` keeps it as a processor may. */
  readonly watched: string[] = [];
  putOff = 0;
  builderRoot = -1;
  /** Makes set operations lose the value, as a broken host would. */
  losesEntries = false;
  readonly rips: number[] = [0x1000, 0x2000];

  constructor() {
    for (const [table, type] of [
      [ROOT, 'level4'],
      [LEVEL3, 'level3'],
      [LEVEL2, 'level2'],
      [LEVEL1, 'level1'],
      [SPARE, 'none'],
      [OTHER_ROOT, 'level4'],
    ] as const) {
      this.tables.set(table, new Uint32Array(1024));
      this.types.set(table, type);
    }
    this.store(ROOT, 0, LEVEL3, TABLE_FLAGS);
    this.store(LEVEL3, 0, LEVEL2, TABLE_FLAGS);
    this.store(LEVEL2, 0, LEVEL1, TABLE_FLAGS);
    this.store(LEVEL1, INDEX, PAGE, PAGE_FLAGS);
    this.pinned.add(ROOT).add(OTHER_ROOT);
    this.checker = new ContractChecker(this, {
      ripOf: (vcpu) => this.rips[vcpu] as GuestVirtual,
      symbolize: (address) => (address === 0x1000 ? { name: 'change_entry', offset: 4 } : undefined),
      report: (violation) => this.violations.push(violation),
    });
  }

  store(table: number, index: number, page: number, flags: number): void {
    this.write(table, index, entryLow(page, flags), entryHigh(page));
  }

  write(table: number, index: number, low: number, high: number): void {
    this.tables.get(table)?.set([low, high], index * 2);
  }

  fill(vcpu: number, address: GuestVirtual, page: number, writable = true): void {
    this.cached.push({ vcpu, address, page, root: ROOT, writable });
  }

  readEntry(table: number, index: number, out: Uint32Array): boolean {
    const entries = this.tables.get(table);
    if (entries === undefined) return false;
    out.set(entries.subarray(index * 2, index * 2 + 2));
    return true;
  }

  typeOf(page: number): PageType {
    return this.types.get(page) ?? 'none';
  }

  isPinned(page: number): boolean {
    return this.pinned.has(page);
  }

  links(table: number): number {
    let links = 0;
    for (const [upper, entries] of this.tables) {
      if (!['level2', 'level3', 'level4'].includes(this.typeOf(upper))) continue;
      for (let slot = 0; slot < 1024; slot += 2) {
        const low = entries[slot] ?? 0;
        if ((low & 1) !== 0 && frameOfEntry(low, entries[slot + 1] ?? 0) === table) links++;
      }
    }
    return links;
  }

  rootInUse(table: number): number {
    return this.roots.reduce((set, root, vcpu) => (root === table ? set | (1 << vcpu) : set), 0);
  }

  currentRoot(vcpu: number): number {
    return this.roots[vcpu] ?? -1;
  }

  lazyMode(vcpu: number): LazyMode {
    return this.lazy[vcpu] ?? 'none';
  }

  updatesPutOff(): number {
    return this.putOff;
  }

  cachedTranslations(page: number, visit: Parameters<MmuState['cachedTranslations']>[1]): void {
    for (const entry of this.cached) {
      if (entry.page === page) visit(entry.vcpu, entry.address, entry.root, entry.writable);
    }
  }

  watchTranslation(vcpu: number, address: GuestVirtual): void {
    this.watched.push(`${vcpu}:${address}`);
  }

  threadOf(vcpu: number): number | undefined {
    return this.threads[vcpu];
  }

  inUserMode(vcpu: number): boolean {
    return (this.userMode & (1 << vcpu)) !== 0;
  }

  isBuilderRoot(table: number): boolean {
    return table === this.builderRoot;
  }

  #set(table: Mfn, index: number, low: number, high: number): number {
    if (!this.losesEntries) this.write(table, index, low, high);
    return 0;
  }

  readonly #implementation = {
    misc: {
      setLazyMode: (vcpu: number, mode: LazyMode) => {
        this.lazy[vcpu] = mode;
        return 0;
      },
      flushLazyMode: () => 0,
    },
    cpu: {
      startContextSwitch: (vcpu: number) => {
        this.lazy[vcpu] = 'cpu';
        return 0;
      },
      endContextSwitch: (vcpu: number) => {
        this.lazy[vcpu] = 'none';
        return 0;
      },
      loadSp0: () => 0,
      iret: () => {},
    },
    mmu: {
      setPte: (_vcpu, table, index, low, high) => this.#set(table, index, low, high),
      setPteAt: (_vcpu, _space, _address, table, index, low, high) => this.#set(table, index, low, high),
      setPmd: (_vcpu, table, index, low, high) => this.#set(table, index, low, high),
      setPud: (_vcpu, table, index, low, high) => this.#set(table, index, low, high),
      setPgd: (_vcpu, table, index, low, high) => this.#set(table, index, low, high),
      pteClear: (_vcpu, _space, _address, table, index) => this.#set(table, index, 0, 0),
      allocPt: (_vcpu, _space, table) => {
        this.types.set(table, 'level1');
        return 0;
      },
      releasePt: (_vcpu, table) => {
        this.types.set(table, 'none');
        return 0;
      },
      activateMm: (_vcpu, space) => {
        if (!this.losesEntries) this.pinned.add(space);
        return 0;
      },
      exitMmap: (_vcpu, space) => {
        this.pinned.delete(space);
        return 0;
      },
      writeCr3: (vcpu, root, user) => {
        if (!user) this.roots[vcpu] = root;
        return 0;
      },
      readCr3: (vcpu): ResultOf<'mmu', 'readCr3'> => (this.losesEntries ? 0 : this.currentRoot(vcpu)) as Mfn,
      flushTlbUser: (vcpu) => {
        this.cached = this.cached.filter((entry) => entry.vcpu !== vcpu);
      },
      flushTlbSingle: (vcpu, address) => {
        this.cached = this.cached.filter((entry) => entry.vcpu !== vcpu || entry.address !== address);
      },
      flushTlbOthers: (_vcpu, targets, _space, address, all) => {
        this.cached = this.cached.filter(
          (entry) => (targets & (1 << entry.vcpu)) === 0 || (!all && entry.address !== address),
        );
      },
    } satisfies Partial<GroupOperations<'mmu'>>,
  };

  // The initialiser reads #checker, which the constructor sets after the fields; so it is made on first use.
  #operations: ReturnType<MmuWorld['attach']> | undefined;
  get operations(): ReturnType<MmuWorld['attach']> {
    this.#operations ??= this.attach();
    return this.#operations;
  }

  attach() {
    return createOperations(this.#implementation, { observers: [this.checker] });
  }
}
