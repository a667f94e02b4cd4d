import type { GuestVirtual } from '../x86/brand.ts';
import type { TableGeometry } from '../x86/page-table.ts';
import type { FullName } from './catalogue.ts';
import type { LazyMode } from './schema.ts';

/**
 * The contracts of the mmu group as rules that can be checked while a guest runs.
 *
 * The catalogue says in words what holds before and after each operation. A rule is the part of it that a machine can
 * decide: when it is looked at, and which state proves that it is broken. `ContractChecker` (inspect/contracts.ts) decides.
 * Some rules are not about an operation but about what was done in place of one; paging reports those as events.
 */

/** What a page is used for, as direct paging keeps it; other pagings say `none` for all but tables that were announced. */
export type PageType = 'none' | 'writable' | 'level1' | 'level2' | 'level3' | 'level4' | 'segmentDescriptors';

/**
 * What the rules look at. Page and table numbers are those that page-table entries hold; of a top table that begins in the
 * midst of a page, as PAE's may, the number has a fraction. Sets have bit n for vCPU n.
 */
export interface MmuState {
  /** Whether the host examines tables: then it knows the type of each page, and operations name tables by their level. */
  readonly examinesTables: boolean;
  /** Whether a host that is told of a changed entry drops its translation, so that no flush need follow. */
  readonly dropsWhatIsTold: boolean;
  /** Layout of the guest's tables. */
  readonly geometry: TableGeometry;
  /** Stores an entry into `out` (low, high half); false when there is no such page. */
  readEntry(table: number, index: number, out: Uint32Array): boolean;
  typeOf(page: number): PageType;
  isPinned(page: number): boolean;
  /** Present entries of validated tables, one level up, that name the table. */
  links(table: number): number;
  /** vCPUs that have the page as a root, kernel or user, loaded or put off. */
  rootInUse(table: number): number;
  /** Root that the kernel side of a vCPU walks. */
  currentRoot(vcpu: number): number;
  lazyMode(vcpu: number): LazyMode;
  /** Updates of a vCPU that are accepted but not yet visible. */
  updatesPutOff(vcpu: number): number;
  /**
   * Each translation in a TLB that leads to the page; `root` is the one it was filled from, −1 for the current one.
   * What a host keeps for roots that are not loaded does not count: to load a root is taken for a flush. Asked for each present
   * entry that is replaced: it should be quick for a page that is in no TLB.
   */
  cachedTranslations(
    page: number,
    visit: (vcpu: number, address: GuestVirtual, root: number, writable: boolean) => void,
  ): void;
  /** Takes a translation out of the TLBs of a vCPU, so that its next use is told as `tlbMissed`. */
  watchTranslation(vcpu: number, address: GuestVirtual): void;
  /** Whether the host itself removes writable translations of a page before it becomes a table. */
  readonly removesWritable: boolean;
  inUserMode(vcpu: number): boolean;
  /**
   * The thread that a vCPU is there for, in the kernel or in user mode; undefined when nobody can tell. Only where no
   * operation tells that a kernel has gone back to user mode.
   */
  threadOf?(vcpu: number): number | undefined;
  /** Root that the domain builder made. Kernels give up its pin before they leave it, which the base pointer makes safe. */
  isBuilderRoot?(table: number): boolean;
}

/** What a paging or an interface tells of while contracts are checked; nobody tells anything otherwise. */
export interface MmuEvents {
  /** The guest's instruction stored, or tried to, into a page that is a page table of level 2 or above. */
  directStore(vcpu: number, table: number, index: number): void;
  /** The guest's instruction read a live entry; `throughAccessor` tells whether at a place known as an accessor. */
  directRead(vcpu: number, table: number, index: number, throughAccessor: boolean): void;
  /** An entry of a level-1 table was changed by an instruction of the guest that the host carried out or saw. */
  entryChanged(
    vcpu: number,
    table: number,
    index: number,
    oldLow: number,
    oldHigh: number,
    newLow: number,
    newHigh: number,
  ): void;
  /** A vCPU uses an address that its TLB does not answer, perhaps because `watchTranslation` took the translation out. */
  tlbMissed(vcpu: number, address: GuestVirtual, write: boolean): void;
  /** Another vCPU is about to execute. */
  turnEnded(vcpu: number): void;
  /** The page is about to leave the guest. */
  pageFreed(vcpu: number, page: number): void;
  /** The page is about to change its type. */
  pageRetyped(vcpu: number, page: number, to: PageType): void;
}

export interface Rule {
  /** What must hold, as a sentence. */
  readonly text: string;
  /** Operations that the rule is a part of the contract of. */
  readonly operations: readonly FullName[];
  /** When it is looked at: before or after these operations, or at an event. */
  readonly when: 'before' | 'after' | 'event';
}

export const rules = {
  'store-into-active-root': {
    text: "The top level of an active page table is changed by its operation, never by a store: where Xen examines tables it refuses the store, VMI's direct paging carries it out like the operation, a shadow that is told of changes misses it.",
    operations: ['mmu.setPgd', 'mmu.setPud', 'mmu.setPmd'],
    when: 'event',
  },
  'store-into-live-table': {
    text: 'A live table of level 2 or above is changed by its operation, never by a store.',
    operations: ['mmu.setPmd', 'mmu.setPud', 'mmu.setPgd'],
    when: 'event',
  },
  'read-without-accessor': {
    text: 'A live entry is read through its accessor, because it holds a machine number.',
    operations: ['mmu.getPte', 'mmu.getPmd', 'mmu.getPud', 'mmu.getPgd', 'mmu.pteVal'],
    when: 'event',
  },
  'missing-flush': {
    text: 'After a present entry was replaced, the translation is flushed before anything relies on the change; a page may be reused before that only while the kernel keeps the address to itself.',
    operations: [
      'mmu.setPte',
      'mmu.setPteAt',
      'mmu.setPteAtomic',
      'mmu.setPtePresent',
      'mmu.pteClear',
      'mmu.ptepModifyProtCommit',
      'mmu.pteUpdate',
      'mmu.flushTlbUser',
      'mmu.flushTlbKernel',
      'mmu.flushTlbSingle',
      'mmu.flushTlbOthers',
    ],
    when: 'event',
  },
  'lazy-section-twice': {
    text: 'A lazy section is entered only when none is open on the vCPU.',
    operations: ['misc.setLazyMode', 'cpu.startContextSwitch'],
    when: 'before',
  },
  'lazy-section-not-open': {
    text: 'A lazy section is left only when one is open on the vCPU.',
    operations: ['misc.setLazyMode', 'cpu.endContextSwitch'],
    when: 'before',
  },
  'lazy-updates-left': {
    text: 'Leaving or flushing a lazy section makes every update visible.',
    operations: ['misc.setLazyMode', 'misc.flushLazyMode', 'cpu.endContextSwitch'],
    when: 'after',
  },
  'table-freed-while-walked': {
    text: 'A page table leaves the guest only when no vCPU walks it and no entry links to it.',
    operations: ['mmu.releasePt', 'mmu.releasePd', 'mmu.releasePud', 'mmu.pgdFree'],
    when: 'event',
  },
  'address-mismatch': {
    text: 'Walking the address space to the address ends at the entry that is named.',
    operations: ['mmu.setPteAt', 'mmu.setPtePresent', 'mmu.pteClear', 'mmu.ptepModifyProtCommit'],
    when: 'before',
  },
  'announced-after-link': {
    text: 'A new page table is announced before an entry links to it.',
    operations: ['mmu.allocPt', 'mmu.allocPd', 'mmu.allocPdClone', 'mmu.allocPud'],
    when: 'before',
  },
  'released-before-unlink': {
    text: 'A page table is released after the last entry that linked to it was cleared.',
    operations: ['mmu.releasePt', 'mmu.releasePd', 'mmu.releasePud'],
    when: 'before',
  },
  'active-root-released': {
    text: 'A root is given up only when no vCPU has it loaded, not even lazily.',
    operations: ['mmu.exitMmap', 'mmu.pgdFree'],
    when: 'before',
  },
  'root-not-validated': {
    text: 'A root that is loaded is a validated table of the highest level.',
    operations: ['mmu.writeCr3'],
    when: 'after',
  },
  'root-read-back': {
    text: 'The root that is read is the one that is walked.',
    operations: ['mmu.readCr3'],
    when: 'after',
  },
  'wrong-level': {
    text: 'The table is of the level that the operation names.',
    operations: [
      'mmu.setPte',
      'mmu.setPteAt',
      'mmu.setPmd',
      'mmu.setPud',
      'mmu.setPgd',
      'mmu.releasePt',
      'mmu.releasePd',
      'mmu.releasePud',
    ],
    when: 'before',
  },
  'entry-not-stored': {
    text: 'An entry that was set holds the value; only accessed and dirty bits may differ.',
    operations: [
      'mmu.setPte',
      'mmu.setPteAt',
      'mmu.setPteAtomic',
      'mmu.setPmd',
      'mmu.setPud',
      'mmu.setPgd',
      'mmu.ptepModifyProtCommit',
    ],
    when: 'after',
  },
  'pin-not-held': {
    text: 'A space that was activated is pinned as a table of the highest level.',
    operations: ['mmu.activateMm', 'mmu.dupMmap'],
    when: 'after',
  },
} as const satisfies Readonly<Record<string, Rule>>;

export type RuleName = keyof typeof rules;

/** The state that broke a rule. 64-bit entries are their halves. */
export interface RuleStates {
  'store-into-active-root': { table: number; index: number; walkedBy: number; instead: FullName };
  'store-into-live-table': { table: number; index: number; type: PageType; instead: FullName };
  'read-without-accessor': { table: number; index: number; type: PageType; instead: FullName };
  'missing-flush': {
    /** What relied on the change. */
    event: 'used' | 'freed' | 'retyped';
    page: number;
    address: GuestVirtual;
    /** vCPU that has the stale translation. */
    cachedBy: number;
    changedBy: number;
    changedAt: GuestVirtual;
    table: number;
    index: number;
  };
  'lazy-section-twice': { open: LazyMode; entering: LazyMode };
  'lazy-section-not-open': { leaving: LazyMode };
  'lazy-updates-left': { left: number };
  'table-freed-while-walked': { table: number; type: PageType; walkedBy: number; links: number };
  'address-mismatch': {
    space: number;
    address: GuestVirtual;
    table: number;
    index: number;
    /** Where the walk ended: the level whose entry was not present, or 1 with the table and index that it reached. */
    endedAtLevel: number;
    reachedTable: number;
    reachedIndex: number;
  };
  'announced-after-link': { table: number; links: number };
  'released-before-unlink': { table: number; links: number };
  'active-root-released': { root: number; walkedBy: number };
  'root-not-validated': { root: number; type: PageType };
  'root-read-back': { read: number; walked: number };
  'wrong-level': { table: number; type: PageType; expected: PageType };
  'entry-not-stored': {
    table: number;
    index: number;
    wantedLow: number;
    wantedHigh: number;
    foundLow: number;
    foundHigh: number;
  };
  'pin-not-held': { root: number; type: PageType; pinned: boolean };
}

/** A broken rule: by which operation (or in place of which), where in the guest, and the state that shows it. */
export type Violation = {
  [R in RuleName]: {
    readonly rule: R;
    readonly operation: FullName;
    readonly vcpu: number;
    readonly rip: GuestVirtual;
    readonly symbol: { readonly name: string; readonly offset: number } | undefined;
    readonly state: RuleStates[R];
  };
}[RuleName];
