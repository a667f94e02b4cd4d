import { Access, Exit } from '../../cpu/exits.ts';
import type { FrameMarks } from '../../cpu/frame-marks.ts';
import type { FrameWatching } from '../../cpu/frame-watchers.ts';
import type { FrameInvalidator } from '../../cpu/translation.ts';
import type { TableAudit } from '../../inspect/audit.ts';
import { ContractChecker } from '../../inspect/contracts.ts';
import type { LiveTableObserver } from '../../inspect/live-table-observer.ts';
import { observeOwnTables } from '../../inspect/own-tables.ts';
import { exitNames } from '../../inspect/statistics.ts';
import { hexadecimal, type Symbolizer } from '../../inspect/text.ts';
import { TraceWriter } from '../../inspect/trace.ts';
import { formatViolation } from '../../inspect/violation-text.ts';
import type { PagingEvents } from '../../paging/direct/direct-paging.ts';
import { FRAME_TYPE_NAMES } from '../../paging/direct/frame-types.ts';
import type { AnyDiscrepancy } from '../../paging/domain-paging.ts';
import type { GuestVirtual } from '../../x86/brand.ts';
import { hypercallName } from './abi.ts';
import type { XenDomain, XenDomainOptions } from './domain.ts';
import { Special } from './hypercalls/call.ts';
import { XenMmuState } from './mmu-state.ts';
import type { TableObserver } from './table-observer.ts';
import type { XenVcpu } from './vcpu.ts';

/** Sees what crosses the boundary. */
export interface DomainWatcher {
  exit(vcpu: XenVcpu, exit: Exit): void;
  /** A call that was carried out, with its arguments as text and what went to RAX, or one of `Special`. */
  hypercall(vcpu: XenVcpu, number: number, values: readonly string[], result: number): void;
}

function ripOf(domain: XenDomain): (vcpu: number) => GuestVirtual {
  return (vcpu) => domain.vcpus[vcpu]?.processor.rip ?? (0 as GuestVirtual);
}

/** A trace of a domain; the writer is to be an observer of its operations, the watcher sees the rest. */
export function writeTrace(
  domain: XenDomain,
  sink: (text: string) => void,
): { readonly writer: TraceWriter; readonly watcher: DomainWatcher } {
  const writer = new TraceWriter({ sink, now: () => Math.round(domain.clock.now()), ripOf: ripOf(domain) });
  return {
    writer,
    watcher: {
      exit: ({ index, processor }, exit) => {
        const isException = exit === Exit.exception;
        const detail = isException ? { detail: processor.exitDetail, error: processor.exitError } : {};
        writer.exit(index, exitNames[exit], detail);
      },
      hypercall: ({ index }, number, values, result) =>
        writer.hypercall(index, hypercallName(number), values, shownResult(result)),
    },
  };
}

function shownResult(result: number): number | string | undefined {
  if (result === Special.noResult) return undefined;
  return result === Special.preempted ? 'preempted' : result;
}

/**
 * The checker of a domain's contracts; it is to be an observer of its operations. A violation crashes the domain, unless
 * an audit lists it.
 */
export function checkContracts(
  domain: XenDomain,
  marks: FrameMarks,
  symbolize: Symbolizer,
  audit?: TableAudit,
): ContractChecker {
  const state = new XenMmuState(domain.paging, domain.space, marks, domain.vcpus, () => domain.builderRoot);
  const checker = new ContractChecker(state, {
    ripOf: ripOf(domain),
    symbolize,
    flushesLate: domain.abi.isKernelAddress,
    report: (violation) => {
      if (audit) {
        audit.violated(violation);
        return;
      }
      const vcpu = domain.vcpus[violation.vcpu] ?? domain.running;
      domain.crash(vcpu, formatViolation(violation));
    },
  });
  for (const { index, processor } of domain.vcpus) {
    processor.memory.onMiss = (address, access) => checker.tlbMissed(index, address, access === Access.write);
  }
  return checker;
}

/** Where nobody examines tables, what roots lead to are tables. */
export function observeTranslated(
  domain: XenDomain,
  { audit, check, paged }: Pick<XenDomainOptions, 'audit' | 'check' | 'paged'>,
  frames: FrameInvalidator & FrameWatching,
  symbolize: Symbolizer,
): LiveTableObserver | undefined {
  const { space, vcpus } = domain;
  return observeOwnTables({
    audit,
    check,
    space,
    frames,
    processors: vcpus.map(({ processor }) => processor),
    running: () => domain.running.index,
    isWatched: (page) => paged?.shadow?.isWatched(page) ?? false,
    askedFrom: (vcpu) => domain.askingPlace(vcpu),
    symbolize,
    crash: (vcpu, reason) => domain.crash(vcpus[vcpu] ?? domain.running, reason),
  });
}

/**
 * What the paging tells: stores that it carried out are the operation pteUpdate, and all of it is for the checker.
 * Loads of entries only an audit tells: the guest has its tables mapped, and reads them as any memory.
 */
export function pagingEvents(
  domain: XenDomain,
  checker: () => ContractChecker | undefined,
  observer: () => TableObserver | undefined,
  invalidator: FrameInvalidator,
): PagingEvents {
  const running = () => domain.running.index;
  return {
    storeCarriedOut: (address, table, index, old, value) => {
      observer()?.storeCarriedOut();
      const vcpu = running();
      domain.operations.mmu.pteUpdate(vcpu, domain.paging.root(vcpu), address, table, index);
      // two words each
      checker()?.entryChanged(vcpu, table, index, old[0]!, old[1]!, value[0]!, value[1]!);
    },
    storeRefused: (table, index) => {
      const { running: vcpu, paging, refusedStores } = domain;
      refusedStores.refused(vcpu.index, paging.typeOf(table), index);
      observer()?.storeRefused();
      checker()?.directStore(vcpu.index, table, index);
    },
    becomesTable: (mfn, level) => {
      observer()?.becomesTable(mfn, invalidator);
      checker()?.pageRetyped(running(), mfn, FRAME_TYPE_NAMES[level] ?? 'none');
    },
    leaves: (mfn) => checker()?.pageFreed(running(), mfn),
  };
}

/** One line about what a recount found; undefined when all is well. */
export function describeDiscrepancies([first, ...others]: readonly AnyDiscrepancy[]): string | undefined {
  if (!first) return undefined;
  const { mfn, what, stored, expected } = first;
  const more = others.length === 0 ? '' : `, and ${others.length} more`;
  return `frame types do not add up: ${what} of frame ${hexadecimal(mfn)} is ${stored}, counted are ${expected}${more}`;
}
