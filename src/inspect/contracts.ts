import type { ArgumentsOf, FullName, Group, Operation, OperationName } from '../ops/catalogue.ts';
import type { MmuEvents, MmuState, PageType, RuleName, RuleStates, Violation } from '../ops/contracts.ts';
import type { OperationObserver, Value } from '../ops/dispatch.ts';
import { type LazyMode, UNKNOWN_TABLE } from '../ops/schema.ts';
import type { GuestVirtual } from '../x86/brand.ts';
import { Pte } from '../x86/registers.ts';
import { FlushChecker, type FlushCheckerOptions } from './flush-checker.ts';
import { walkTables } from './table-walk.ts';
import type { Symbolizer } from './text.ts';

/** What the checker needs besides the state of the page tables. */
export interface CheckerOptions extends FlushCheckerOptions {
  readonly symbolize?: Symbolizer;
  /** Takes each violation as it is found. */
  report(violation: Violation): void;
}

type Checks = {
  readonly [G in Group]?: { readonly [O in OperationName<G>]?: (...values: ArgumentsOf<G, O>) => void };
};
type ResultChecks = {
  readonly [G in Group]?: {
    readonly [O in OperationName<G>]?: (result: Value | undefined, ...values: ArgumentsOf<G, O>) => void;
  };
};

const LEVEL_TYPES: readonly PageType[] = ['none', 'level1', 'level2', 'level3', 'level4'];

const releaseOf: Partial<Record<PageType, FullName>> = {
  level1: 'mmu.releasePt',
  level2: 'mmu.releasePd',
  level3: 'mmu.releasePud',
};

/** Bits that the processor sets by itself. */
const PROCESSOR_BITS = Pte.accessed | Pte.dirty;

/**
 * Checks the rules of ops/contracts.ts while a guest runs. It is an observer of operations and takes the events that
 * paging and interfaces tell of; it reads page tables and TLBs through `MmuState`, and changes nothing but that a stale
 * translation is taken out of a TLB, as could happen at any time, to see whether it is used.
 */
export class ContractChecker implements OperationObserver, MmuEvents {
  readonly #state: MmuState;
  readonly #options: CheckerOptions;
  readonly #flushes: FlushChecker;
  /** The entry as it was before the operation that runs. */
  readonly #old = new Uint32Array(2);
  readonly #entry = new Uint32Array(2);
  #operation: FullName = 'mmu.setPte';

  constructor(state: MmuState, options: CheckerOptions) {
    this.#state = state;
    this.#options = options;
    this.#flushes = new FlushChecker(state, options, (vcpu, operation, broken) => {
      this.#operation = operation;
      this.#break('missing-flush', vcpu, broken);
    });
  }

  get #rootType(): PageType {
    return LEVEL_TYPES[this.#state.geometry.levels] ?? 'none';
  }

  before(operation: Operation, values: readonly Value[]): void {
    this.#operation = operation.fullName;
    find(this.#before, operation)?.(...values);
  }

  after(operation: Operation, values: readonly Value[], result: Value | undefined): void {
    this.#operation = operation.fullName;
    find(this.#after, operation)?.(result, ...values);
  }

  readonly #before: Checks = {
    misc: {
      setLazyMode: (vcpu, mode) => this.#lazySection(vcpu, mode),
    },
    cpu: {
      startContextSwitch: (vcpu) => {
        if (this.#state.lazyMode(vcpu) === 'cpu') {
          this.#break('lazy-section-twice', vcpu, { open: 'cpu', entering: 'cpu' });
        }
      },
      endContextSwitch: (vcpu) => {
        if (this.#state.lazyMode(vcpu) !== 'cpu') this.#break('lazy-section-not-open', vcpu, { leaving: 'cpu' });
      },
    },
    mmu: {
      allocPt: (vcpu, _space, table) => this.#unlinked('announced-after-link', vcpu, table),
      allocPd: (vcpu, table) => this.#unlinked('announced-after-link', vcpu, table),
      allocPdClone: (vcpu, table) => this.#unlinked('announced-after-link', vcpu, table),
      allocPud: (vcpu, table) => this.#unlinked('announced-after-link', vcpu, table),
      releasePt: (vcpu, table) => this.#released(vcpu, table, 1),
      releasePd: (vcpu, table) => this.#released(vcpu, table, 2),
      releasePud: (vcpu, table) => this.#released(vcpu, table, 3),
      exitMmap: (vcpu, space) => this.#rootGivenUp(vcpu, space),
      pgdFree: (vcpu, space) => this.#rootGivenUp(vcpu, space),
      setPte: (vcpu, table, index) => this.#entrySet(vcpu, table, index, 1),
      setPteAt: (vcpu, space, address, table, index) => {
        this.#entrySet(vcpu, table, index, 1);
        this.#addressLeadsTo(vcpu, space, address, table, index);
      },
      setPteAtomic: (_vcpu, table, index) => this.#remember(table, index),
      setPtePresent: (vcpu, space, address, table, index) => {
        this.#entrySet(vcpu, table, index, 1);
        this.#addressLeadsTo(vcpu, space, address, table, index);
      },
      pteClear: (vcpu, space, address, table, index) => {
        this.#entrySet(vcpu, table, index, 1);
        this.#addressLeadsTo(vcpu, space, address, table, index);
      },
      ptepModifyProtCommit: (vcpu, space, address, table, index) => {
        this.#entrySet(vcpu, table, index, 1);
        if (address !== 0) this.#addressLeadsTo(vcpu, space, address, table, index);
      },
      setPmd: (vcpu, table, index) => this.#entrySet(vcpu, table, index, 2),
      setPud: (vcpu, table, index) => this.#entrySet(vcpu, table, index, 3),
      setPgd: (vcpu, table, index) => this.#entrySet(vcpu, table, index, this.#state.geometry.levels),
    },
  };

  readonly #after: ResultChecks = {
    misc: {
      setLazyMode: (_result, vcpu, mode) => {
        if (mode === 'none') this.#nothingPutOff(vcpu);
      },
      flushLazyMode: (_result, vcpu) => this.#nothingPutOff(vcpu),
    },
    cpu: {
      endContextSwitch: (_result, vcpu) => this.#nothingPutOff(vcpu),
      loadSp0: (_result, vcpu) => this.#flushes.interrupt(vcpu),
      iret: (_result, vcpu) => {
        if (this.#state.inUserMode(vcpu)) this.#flushes.settle(vcpu);
      },
      // Kernels on hardware change CR4.PGE to flush global translations too.
      writeCr4: (result, vcpu) => {
        if (result === 0 && !this.#state.examinesTables) this.#flushes.flushed(1 << vcpu, undefined, true);
      },
    },
    mmu: {
      activateMm: (result, vcpu, space) => this.#pinHeld(result, vcpu, space),
      dupMmap: (result, vcpu, _parent, child) => this.#pinHeld(result, vcpu, child),
      writeCr3: (result, vcpu, root, user) => {
        if (result !== 0 || (user && root === -1)) return;
        const type = this.#state.typeOf(root);
        const isValidated = !this.#state.examinesTables || type === this.#rootType;
        if (!isValidated) this.#break('root-not-validated', vcpu, { root, type });
        // What became stale in a process context that is left, and is to be kept, is not followed any longer.
        if (!user) this.#flushes.flushed(1 << vcpu, undefined, false);
      },
      readCr3: (result, vcpu) => {
        const walked = Math.floor(this.#state.currentRoot(vcpu));
        if (result !== walked) this.#break('root-read-back', vcpu, { read: Number(result), walked });
      },
      setPte: (result, vcpu, table, index, low, high) => {
        this.#wasSet(result, vcpu, table, index, low, high);
      },
      setPteAt: (result, vcpu, _space, address, table, index, low, high) => {
        this.#wasSet(result, vcpu, table, index, low, high);
        this.#wasTold(vcpu, address);
      },
      setPteAtomic: (result, vcpu, table, index, low, high) => {
        this.#wasSet(result, vcpu, table, index, low, high);
      },
      setPtePresent: (result, vcpu, _space, _address, table, index, low, high) => {
        this.#wasSet(result, vcpu, table, index, low, high);
      },
      pteClear: (result, vcpu, _space, _address, table, index) => {
        this.#wasSet(result, vcpu, table, index, 0, 0);
      },
      ptepModifyProtCommit: (result, vcpu, _space, _address, table, index, low, high) => {
        this.#wasSet(result, vcpu, table, index, low, high);
      },
      setPmd: (result, vcpu, table, index, low, high) => {
        this.#holds(result, vcpu, table, index, low, high);
        this.#wasTold(vcpu, undefined);
      },
      setPud: (result, vcpu, table, index, low, high) => {
        this.#holds(result, vcpu, table, index, low, high);
        this.#wasTold(vcpu, undefined);
      },
      setPgd: (result, vcpu, table, index, low, high) => this.#holds(result, vcpu, table, index, low, high),
      flushTlbUser: (_result, vcpu) => this.#flushes.flushed(1 << vcpu, undefined, false),
      flushTlbKernel: (_result, vcpu) => this.#flushes.flushed(1 << vcpu, undefined, true),
      flushTlbSingle: (_result, vcpu, address) => this.#flushes.flushed(1 << vcpu, address, true),
      flushTlbOthers: (_result, _vcpu, targets, _space, address, all) =>
        this.#flushes.flushed(targets, all ? undefined : address, true),
    },
  };

  directStore(vcpu: number, table: number, index: number): void {
    const type = this.#state.typeOf(table);
    const level = LEVEL_TYPES.indexOf(type);
    if (level < 2) return;
    const instead: FullName =
      level === this.#state.geometry.levels ? this.#setRootEntry() : level === 2 ? 'mmu.setPmd' : 'mmu.setPud';
    this.#operation = instead;
    const walkedBy = this.#state.rootInUse(table);
    if (walkedBy !== 0) this.#break('store-into-active-root', vcpu, { table, index, walkedBy, instead });
    else this.#break('store-into-live-table', vcpu, { table, index, type, instead });
  }

  directRead(vcpu: number, table: number, index: number, throughAccessor: boolean): void {
    const type = this.#state.typeOf(table);
    const level = LEVEL_TYPES.indexOf(type);
    if (throughAccessor || level < 1) return;
    const instead: FullName =
      level === 1
        ? 'mmu.getPte'
        : level === this.#state.geometry.levels
          ? 'mmu.getPgd'
          : level === 2
            ? 'mmu.getPmd'
            : 'mmu.getPud';
    this.#operation = instead;
    this.#break('read-without-accessor', vcpu, { table, index, type, instead });
  }

  entryChanged(
    vcpu: number,
    table: number,
    index: number,
    oldLow: number,
    oldHigh: number,
    newLow: number,
    newHigh: number,
  ): void {
    this.#operation = 'mmu.pteUpdate';
    this.#flushes.replaced(this.#operation, vcpu, table, index, oldLow, oldHigh, newLow, newHigh);
  }

  tlbMissed(vcpu: number, address: GuestVirtual, write: boolean): void {
    this.#flushes.missed(vcpu, address, write);
  }

  turnEnded(vcpu: number): void {
    this.#flushes.seen(vcpu);
  }

  pageFreed(vcpu: number, page: number): void {
    const type = this.#state.typeOf(page);
    if (LEVEL_TYPES.indexOf(type) > 0) {
      const walkedBy = this.#state.rootInUse(page);
      const links = this.#state.links(page);
      if (walkedBy !== 0 || links !== 0) {
        this.#operation = releaseOf[type] ?? 'mmu.pgdFree';
        this.#break('table-freed-while-walked', vcpu, { table: page, type, walkedBy, links });
      }
    }
    this.#flushes.freed(vcpu, page);
  }

  pageRetyped(vcpu: number, page: number, to: PageType): void {
    if (to === 'none') return;
    this.#flushes.retyped(vcpu, page, LEVEL_TYPES.indexOf(to) > 0);
  }

  /** Replaced entries whose flush is still to come. */
  get flushesAwaited(): number {
    return this.#flushes.awaited;
  }

  #lazySection(vcpu: number, mode: LazyMode): void {
    const open = this.#state.lazyMode(vcpu);
    if (mode === 'none') {
      if (open === 'none') this.#break('lazy-section-not-open', vcpu, { leaving: 'none' });
    } else if (open !== 'none') {
      this.#break('lazy-section-twice', vcpu, { open, entering: mode });
    }
  }

  #nothingPutOff(vcpu: number): void {
    const left = this.#state.updatesPutOff(vcpu);
    if (left !== 0) this.#break('lazy-updates-left', vcpu, { left });
  }

  #unlinked(rule: 'announced-after-link' | 'released-before-unlink', vcpu: number, table: number): void {
    const links = this.#state.links(table);
    if (links !== 0) this.#break(rule, vcpu, { table, links });
  }

  #released(vcpu: number, table: number, level: number): void {
    this.#expectLevel(vcpu, table, level);
    this.#unlinked('released-before-unlink', vcpu, table);
  }

  #rootGivenUp(vcpu: number, root: number): void {
    const walkedBy = this.#state.rootInUse(root);
    if (walkedBy === 0 || this.#state.isBuilderRoot?.(root)) return;
    this.#break('active-root-released', vcpu, { root, walkedBy });
  }

  /** A page that is not a table yet may be filled by any operation; a table of another level may not. */
  #expectLevel(vcpu: number, table: number, level: number): void {
    if (!this.#state.examinesTables) return;
    const type = this.#state.typeOf(table);
    const expected = LEVEL_TYPES[level] ?? 'none';
    if (LEVEL_TYPES.indexOf(type) > 0 && type !== expected) this.#break('wrong-level', vcpu, { table, type, expected });
  }

  #entrySet(vcpu: number, table: number, index: number, level: number): void {
    this.#expectLevel(vcpu, table, level);
    this.#remember(table, index);
  }

  #remember(table: number, index: number): void {
    if (!this.#state.readEntry(table, index, this.#old)) this.#old.fill(0);
  }

  #addressLeadsTo(vcpu: number, space: number, address: GuestVirtual, table: number, index: number): void {
    if (table === UNKNOWN_TABLE) return;
    const root = space === -1 ? this.#state.currentRoot(vcpu) : space;
    const walk = walkTables(this.#state, root, address, this.#entry);
    if (walk.level === 1 && walk.table === table && walk.index === index) return;
    this.#break('address-mismatch', vcpu, {
      space: root,
      address,
      table,
      index,
      endedAtLevel: walk.level,
      reachedTable: walk.table,
      reachedIndex: walk.index,
    });
  }

  /** @param address of the translation that a changed entry is for, undefined for all of a table's */
  #wasTold(vcpu: number, address: GuestVirtual | undefined): void {
    if (this.#state.dropsWhatIsTold) this.#flushes.flushed(1 << vcpu, address, true);
  }

  #wasSet(result: Value | undefined, vcpu: number, table: number, index: number, low: number, high: number): void {
    if (result !== 0 || table === UNKNOWN_TABLE) return;
    this.#flushes.replaced(this.#operation, vcpu, table, index, this.#old[0]!, this.#old[1]!, low, high); // two words
    this.#holds(result, vcpu, table, index, low, high);
  }

  #holds(result: Value | undefined, vcpu: number, table: number, index: number, low: number, high: number): void {
    if (result !== 0 || this.#state.lazyMode(vcpu) !== 'none') return;
    if (!this.#state.readEntry(table, index, this.#entry)) this.#entry.fill(0);
    const foundLow = this.#entry[0]!; // two words
    const foundHigh = this.#entry[1]!;
    if (((foundLow ^ low) & ~PROCESSOR_BITS) === 0 && foundHigh === high >>> 0) return;
    this.#break('entry-not-stored', vcpu, { table, index, wantedLow: low, wantedHigh: high, foundLow, foundHigh });
  }

  #pinHeld(result: Value | undefined, vcpu: number, root: number): void {
    if (result !== 0) return;
    const type = this.#state.typeOf(root);
    const pinned = this.#state.isPinned(root);
    if (!pinned || type !== this.#rootType) this.#break('pin-not-held', vcpu, { root, type, pinned });
  }

  #setRootEntry(): FullName {
    return this.#state.geometry.levels === 4
      ? 'mmu.setPgd'
      : this.#state.geometry.levels === 3
        ? 'mmu.setPud'
        : 'mmu.setPmd';
  }

  #break<R extends RuleName>(rule: R, vcpu: number, state: RuleStates[R]): void {
    const rip = this.#options.ripOf(vcpu);
    const symbol = this.#options.symbolize?.(rip);
    this.#options.report({ rule, operation: this.#operation, vcpu, rip, symbol, state } as Violation);
  }
}

/** Checks are typed by the catalogue; at run time the values are what the operation was called with. */
function find(
  checks: Checks | ResultChecks,
  operation: Operation,
): ((...values: readonly (Value | undefined)[]) => void) | undefined {
  const group = checks[operation.group] as
    | Readonly<Record<string, (...values: readonly (Value | undefined)[]) => void>>
    | undefined;
  return group?.[operation.name];
}
