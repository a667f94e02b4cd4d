import type { Archive, Archived } from '../archive/archive.ts';
import type { CpuidResult } from '../cpu/cpuid.ts';

/**
 * The time of one domain. System time is nanoseconds since the domain started, a whole number below 2^53 (104 days).
 * It never goes back.
 */
export interface Clock extends Archived {
  /** System time in nanoseconds. */
  now(): number;
  /** The guest's time-stamp counter: `TSC_FREQUENCY` ticks a second, in step with system time. */
  tsc(): number;
  /**
   * Lets the time until `deadline` (system time; Infinity for never) pass at once, as far as there is time to be made up
   * for: for a domain that has nothing to execute until then.
   * @returns whether time has moved
   */
  advanceTo(deadline: number): boolean;
  /** Nanoseconds by which system time is behind the host's. */
  readonly behind: number;
}

/**
 * The guest's time-stamp counter counts nanoseconds. Any frequency would do, since RDTSC is the host's to answer; with
 * this one pvclock's arithmetic is exact (multiplier 2^31, shift 1: `(ticks · 2 · 2^31) >> 32 = ticks`), so a guest
 * that reads the counter and a host that compares deadlines can never disagree by a rounding.
 */
export const TSC_FREQUENCY = 1_000_000_000;

const MEGAHERTZ = TSC_FREQUENCY / 1_000_000;

/** Base, maximum and bus frequency in MHz, for kernels that know better than to measure them (SDM vol. 2A, CPUID, 16H). */
export const FREQUENCY_LEAF = 0x16;
export const FREQUENCIES: CpuidResult = [MEGAHERTZ, MEGAHERTZ, MEGAHERTZ, 0];

/** Half of what system time can be, so that a guest which was away for long still has a month and a half. */
const LATEST_ADVANCE = 2 ** 52;

/**
 * Follows the host's clock. A guest that was saved goes on at the time of the save, behind its host by its absence, and
 * catches up while it is idle: its sleeps are cut short. So all that it reads the time from agrees, and each of its timers
 * fires at its time, as those do by which kernels watch whether they are stuck.
 */
export class HostClock implements Clock {
  readonly #milliseconds: () => number;
  readonly #origin: number;
  readonly #absence: number;
  /** The host's system time at the origin. */
  #start = 0;
  #latest = 0;
  #behind = 0;

  /**
   * @param milliseconds a monotonic clock with a fraction, as performance.now
   * @param absence nanoseconds between the save of the guest and now, which it is to make up for
   */
  constructor(milliseconds: () => number, absence = 0) {
    this.#milliseconds = milliseconds;
    this.#absence = absence;
    this.#origin = milliseconds();
  }

  archive(archive: Archive): void {
    this.#latest = archive.value('latest', this.now());
    this.#behind = archive.value('behind', this.#behind);
  }

  /** Time has also passed since the clock was made. */
  restored(): void {
    this.#start = this.#latest + this.#behind + this.#absence;
    this.#behind = this.#hostTime() - this.#latest;
  }

  #hostTime(): number {
    return this.#start + Math.floor((this.#milliseconds() - this.#origin) * 1e6);
  }

  now(): number {
    this.#latest = Math.max(this.#latest, this.#hostTime() - this.#behind);
    return this.#latest;
  }

  tsc(): number {
    return this.now();
  }

  get behind(): number {
    return this.#behind;
  }

  /** A guest that was away for longer than its clock can count keeps its date. */
  advanceTo(deadline: number): boolean {
    const now = this.now();
    if (this.#behind === 0 || deadline <= now || now + this.#behind > LATEST_ADVANCE) return false;
    this.#behind -= Math.min(this.#behind, Math.ceil(deadline - now));
    return true;
  }
}

/**
 * Follows the count of executed instructions, so that equal input gives equal time. While every virtual processor
 * sleeps no instruction is executed: then the domain moves the clock to the next deadline.
 */
export class VirtualClock implements Clock {
  readonly #instructions: () => number;
  readonly #nanoseconds: number;
  /** Nanoseconds that passed without instructions; with the count, all there is to save. */
  skipped: number;

  /**
   * @param instructions executed so far by all virtual processors of the domain
   * @param nanoseconds per instruction, a whole number
   */
  constructor(instructions: () => number, nanoseconds = 1, skipped = 0) {
    this.#instructions = instructions;
    this.#nanoseconds = nanoseconds;
    this.skipped = skipped;
  }

  archive(archive: Archive): void {
    this.skipped = archive.value('skipped', this.skipped);
  }

  now(): number {
    return this.#instructions() * this.#nanoseconds + this.skipped;
  }

  tsc(): number {
    return this.now();
  }

  /** Nothing of the host's has to do with it. */
  get behind(): number {
    return 0;
  }

  /** There always is time to be made up for, but none that ends with nothing. */
  advanceTo(deadline: number): boolean {
    const idle = deadline - this.now();
    if (idle <= 0 || !Number.isFinite(idle)) return false;
    this.skipped += Math.ceil(idle);
    return true;
  }

  /** Instructions that fit before `deadline`; at least 1, Infinity when there is none. */
  instructionsUntil(deadline: number): number {
    return Math.max(1, Math.ceil((deadline - this.now()) / this.#nanoseconds));
  }
}
