import type { ObservedPages } from '../cpu/observed-pages.ts';
import type { Processor } from '../cpu/processor.ts';
import type { OperationObserver } from '../ops/dispatch.ts';
import { type LiveTable, LiveTables, type LiveTablesOptions } from '../paging/live-tables.ts';
import { type GuestVirtual, highWord, lowWord } from '../x86/brand.ts';
import type { TableAudit } from './audit.ts';
import type { OwnTablesContracts } from './own-tables-contracts.ts';
import { type Touch, TouchCounts } from './touch-counts.ts';

/** Who has called the host's own code, which is at an entry of a table for it. */
export interface Caller {
  /** The last byte of the call. */
  readonly address: GuestVirtual;
  /** Whether it is to read the entry. */
  readonly isRead: boolean;
}

export interface ObserverOptions extends Pick<LiveTablesOptions, 'space' | 'frames' | 'asStored'> {
  readonly audit?: TableAudit | undefined;
  /** Makes what checks the contracts of the tables, when they are checked. @param walkerOf as `OwnTablesOptions` has it */
  readonly check?: ((tables: LiveTables, walkerOf: (vcpu: number) => number) => OwnTablesContracts) | undefined;
  /** In the order of their indices. */
  readonly processors: readonly Processor[];
  /** Index of the processor that executes, or did last. */
  readonly running: () => number;
  /** Whether the host sees stores to a page, because it keeps a second form of the table. */
  readonly isWatched: (page: number) => boolean;
  /** The place that an operation is asked for from; without it, where the processor is. */
  readonly askedFrom?: (vcpu: number) => number;
  /** Whether the kernel's own stores to tables are carried out as operations. */
  readonly examinesStores?: boolean;
  /** Who has called the code that executes, if this is the host's. */
  readonly callerOf?: (processor: Processor) => Caller | undefined;
  /** Whether entries hold machine frame numbers, which the kernel is not to read by itself. */
  readonly holdsMachineFrames?: () => boolean;
}

/** Roots whose touches are held back, and places of each: no kernel has more at work on tables that nobody uses. */
const MOST_HELD = 256;
const MOST_HELD_PLACES = 1024;

/** A processor can have a root for the kernel and one for programs. */
const ROOTS_EACH = 2;

/**
 * Observes, for an audit or a check of contracts, the tables of a guest that keeps them itself. A root that no processor uses may be a page of
 * something else by now, and all below it too: what touches these is counted when a processor takes the root again as it
 * was left, or at the end; and never when it is seen before to be none.
 */
export class LiveTableObserver implements ObservedPages {
  readonly #options: ObserverOptions;
  readonly #tables: LiveTables;
  readonly #held = new Map<LiveTable, TouchCounts>();
  readonly #contracts: OwnTablesContracts | undefined;

  constructor(options: ObserverOptions) {
    this.#options = options;
    const { audit, processors, space, frames, asStored } = options;
    this.#tables = new LiveTables({
      space,
      frames,
      asStored,
      running: () => {
        const { rip } = this.#processor;
        return { walker: options.running() * ROOTS_EACH, low: lowWord(rip), high: highWord(rip) };
      },
      onLoaded: (root) => this.#count(root),
      onDoubt: (root) => this.#held.delete(root),
      onWritten: (page) => this.#contracts?.written(page),
    });
    this.#contracts = options.check?.(this.#tables, (vcpu) => vcpu * ROOTS_EACH);
    if (audit) this.#serve(audit);
    for (const [vcpu, { memory }] of processors.entries()) {
      memory.observed = this;
      memory.onRoots = (format, kernelRoot, userRoot) => {
        this.#tables.load(vcpu * ROOTS_EACH, format, kernelRoot);
        const isOwn = userRoot >= 0 && userRoot !== kernelRoot;
        this.#tables.load(vcpu * ROOTS_EACH + 1, isOwn ? format : 'none', userRoot);
      };
    }
  }

  /** What checks contracts, as an observer of operations. */
  get checker(): OperationObserver | undefined {
    return this.#contracts?.checker;
  }

  #serve(audit: TableAudit): void {
    const { processors, callerOf, examinesStores, askedFrom } = this.#options;
    audit.askedBy = (vcpu) => {
      const processor = processors[vcpu] as Processor; // operations are called for processors that exist
      const caller = callerOf?.(processor);
      const isStore = examinesStores === true && caller === undefined;
      const address = caller?.address ?? askedFrom?.(vcpu) ?? processor.rip;
      return { address, touch: isStore ? 'emulated' : 'operations' };
    };
    audit.settle = () => {
      for (const root of [...this.#held.keys()]) this.#count(root);
      return this.#tables.missed;
    };
  }

  get #processor(): Processor {
    return this.#options.processors[this.#options.running()] as Processor; // it executes
  }

  isObserved(page: number): boolean {
    return this.#tables.has(page);
  }

  loaded(page: number, offset: number, bytes: number, forUpdate: boolean): void {
    const { callerOf, holdsMachineFrames } = this.#options;
    const caller = callerOf?.(this.#processor);
    // What the host's own code reads in carrying out another call is no read of the kernel's.
    if (caller && !caller.isRead) return;
    this.#touched(page, offset, bytes, caller?.address ?? this.#processor.rip, 'reads');
    // What also stores is judged by that.
    if (caller || forUpdate || holdsMachineFrames?.() !== true) return;
    this.#contracts?.readPlainly(this.#tables.at(page, offset, bytes), page, offset);
  }

  storing(page: number, offset: number, bytes: number): void {
    const { callerOf, isWatched } = this.#options;
    const caller = callerOf?.(this.#processor);
    const touch = caller !== undefined ? 'operations' : isWatched(page) ? 'emulated' : 'plain';
    this.#contracts?.storing(this.#tables.at(page, offset, bytes), page, offset, bytes, caller !== undefined);
    this.#touched(page, offset, bytes, caller?.address ?? this.#processor.rip, touch);
  }

  /** Another processor is about to execute. */
  turnEnded(vcpu: number): void {
    this.#contracts?.checker.turnEnded(vcpu);
  }

  /** Ends the observation; the guest is about to end. */
  end(): void {
    this.#tables.end();
  }

  #touched(page: number, offset: number, bytes: number, address: number, touch: Touch): void {
    const { audit } = this.#options;
    if (!audit) return;
    const roots = this.#tables.at(page, offset, bytes).map((table) => this.#tables.rootOf(table));
    if (roots.length === 0) return;
    const unused = roots.filter((root) => root?.loads === 0) as readonly LiveTable[];
    const [first] = unused;
    if (unused.length < roots.length || !first) audit.counts.add(address, touch);
    // No kernel lets programs have its tables.
    else if (this.#processor.userMode) for (const root of unused) this.#tables.drop(root);
    else this.#heldOf(first).add(address, touch);
  }

  #heldOf(root: LiveTable): TouchCounts {
    let held = this.#held.get(root);
    if (!held) {
      const [oldest] = this.#held.size < MOST_HELD ? [] : this.#held.keys();
      if (oldest) this.#count(oldest);
      held = new TouchCounts(MOST_HELD_PLACES);
      this.#held.set(root, held);
    }
    return held;
  }

  #count(root: LiveTable): void {
    const held = this.#held.get(root);
    if (held) this.#options.audit?.counts.addAll(held);
    this.#held.delete(root);
  }
}
