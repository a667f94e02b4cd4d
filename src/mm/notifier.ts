import type { Frame, HostVirtual } from '../x86/brand.ts';
import type { AddressSpace } from './address-space.ts';
import { RuleViolation } from './errors.ts';
import type { LockMode } from './lock.ts';
import type { Vma } from './vma.ts';

/**
 * What an external page table is told: a table that refers to pages of an address space without being one of its own,
 * such as the machine space of a direct guest, a nested table, or the DMA table of a device.
 *
 * A callback acts at once: it may not await, not allocate, and not call back into the memory manager. When it returns,
 * nothing uses the entry any more: the external TLB is flushed, and a processor that ran with it has been stopped.
 *
 * Of one address space all notifiers are called in the order of `order`, and `unlock` in the opposite one; so the locks
 * that they may take behind these calls are always taken in the same order.
 */
export interface PteNotifier {
  /** A place in the one order of all notifiers of a host; no two of an address space have the same. */
  readonly order: number;

  // Of each VMA that it is registered for

  /** The host's entry is about to be cleared; the page is locked. The external entry must go. */
  clear(vma: Vma, address: HostVirtual): void;
  /** The host's entry is about to lose its permission to write; the external one must lose it too. */
  writeProtect(vma: Vma, address: HostVirtual): void;
  /** The host's entry has another frame or other rights. The external one must be made anew or go. */
  change(vma: Vma, address: HostVirtual, frame: Frame, writable: boolean): void;
  /** Whether the page was used through the external table since it was last cleared of being young. */
  testYoung(vma: Vma, address: HostVirtual): boolean;
  testAndClearYoung(vma: Vma, address: HostVirtual): boolean;
  /** The registration for the VMA ends; when the area was moved, it goes on with `successor`. No entry is left. */
  close(vma: Vma, successor: Vma | undefined): void;

  // Of each address space that it is attached to

  /** The address space's lock was taken. While it is held exclusively no external entry may be made. */
  lock(space: AddressSpace, mode: LockMode): void;
  unlock(space: AddressSpace, mode: LockMode): void;
  /** The address space ends: all external entries must go. `close` of each VMA follows, then the pages are freed. */
  release(space: AddressSpace): void;
  /** Entries of [start, end) are going to change: none may be made in it until the end. Ranges may overlap. */
  rangeStart(space: AddressSpace, start: HostVirtual, end: HostVirtual): void;
  rangeEnd(space: AddressSpace, start: HostVirtual, end: HostVirtual): void;

  /** Whether an external entry leads to a frame; for checks, not for decisions. */
  refersTo(frame: Frame): boolean;
}

/**
 * Runs callbacks by their rules. One for all address spaces of a host, because "may not call back" is about all of
 * them. `checked` adds what costs time: frames counted before and after.
 */
export class CallbackGuard {
  readonly checked: boolean;
  readonly #available: () => number;
  #running: string | undefined;

  /** @param available frames free in the pool */
  constructor(checked: boolean, available: () => number) {
    this.checked = checked;
    this.#available = available;
  }

  /** Every entry point of the memory manager begins with this. */
  enter(what: string): void {
    if (this.#running !== undefined) {
      throw new RuleViolation(`${what} was called from a PTE notifier's ${this.#running}; callbacks may not re-enter`);
    }
  }

  run<Result>(name: keyof PteNotifier, callback: () => Result): Result {
    const before = this.checked ? this.#available() : 0;
    this.#running = name;
    let result: Result;
    try {
      result = callback();
    } finally {
      this.#running = undefined;
    }
    if (this.checked) {
      if (this.#available() !== before) throw new RuleViolation(`a PTE notifier's ${name} allocated or freed frames`);
      if (result instanceof Promise) throw new RuleViolation(`a PTE notifier's ${name} awaits; callbacks act at once`);
    }
    return result;
  }
}

/** Inserts by order. @throws RuleViolation when the place is taken */
export function insertInOrder(notifiers: readonly PteNotifier[], notifier: PteNotifier): readonly PteNotifier[] {
  if (notifiers.some(({ order }) => order === notifier.order)) {
    throw new RuleViolation(`two PTE notifiers of one address space have the order ${notifier.order}`);
  }
  return [...notifiers, notifier].sort((a, b) => a.order - b.order);
}
