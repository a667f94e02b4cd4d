import type { Archive, Archived } from '../../archive/archive.ts';
import { Alarm, Cycles } from './abi.ts';

const NEVER = Number.POSITIVE_INFINITY;

/** A periodic alarm faster than this slows down: it bounds the interrupts that a guest can cause. Nanoseconds. */
const SHORTEST_PERIOD = 100_000;

/** A guest can name times that its clock never reaches: it is exact below 2^53 nanoseconds. */
function reachable(time: number): number {
  return time <= Number.MAX_SAFE_INTEGER ? time : NEVER;
}

/** What an alarm counts by; cycles are nanoseconds. */
export interface CycleCounters {
  read(kind: Cycles): number;
}

/** The alarm of one processor by one of the two counters that have one. */
export class CycleAlarm implements Archived {
  readonly #kind: Cycles;
  readonly #counters: CycleCounters;
  /** In cycles of its counter; Infinity for none. */
  #expiry = NEVER;
  /** 0 when it comes once. */
  #period = 0;
  #atLocalTimer = false;

  constructor(kind: Cycles, counters: CycleCounters) {
    this.#kind = kind;
    this.#counters = counters;
  }

  archive(archive: Archive): void {
    this.#expiry = archive.value('expiry', this.#expiry);
    this.#period = archive.value('period', this.#period);
    this.#atLocalTimer = archive.value('atLocalTimer', this.#atLocalTimer);
  }

  /** Whether the interrupt is the local APIC's timer's, and not that of the PC's line 0. */
  get atLocalTimer(): boolean {
    return this.#atLocalTimer;
  }

  /** @param period used where the flags ask for it */
  set(flags: number, expiry: number, period: number): void {
    this.#atLocalTimer = (flags & Alarm.localTimer) !== 0;
    this.#expiry = reachable(expiry);
    this.#period = (flags & Alarm.periodic) === 0 ? 0 : Math.max(period, SHORTEST_PERIOD);
  }

  cancel(): void {
    this.#expiry = NEVER;
  }

  /** System time, which is what real cycles count; the others are at most as far. */
  get deadline(): number {
    if (this.#expiry === NEVER) return NEVER;
    const behind = this.#counters.read(Cycles.real) - this.#counters.read(this.#kind);
    return this.#expiry + behind;
  }

  /** Whether it comes; a periodic one is set again. */
  expire(): boolean {
    const now = this.#counters.read(this.#kind);
    if (this.#expiry > now) return false;
    const late = now - this.#expiry;
    this.#expiry = this.#period === 0 ? NEVER : reachable(now + this.#period - (late % this.#period));
    return true;
  }
}
