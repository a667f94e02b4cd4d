import type { Archive, Archived } from '../archive/archive.ts';

/**
 * The time of one domain. System time is nanoseconds since the domain started, a whole number below 2^53 (104 days).
 * It never goes back.
 */
export interface Clock extends Archived {
  /** System time in nanoseconds. */
  now(): number;
  /** The guest's time-stamp counter: `TSC_FREQUENCY` ticks a second, in step with system time. */
  tsc(): number;
}

/**
 * The guest's time-stamp counter counts nanoseconds. Any frequency would do, since RDTSC is the host's to answer; with
 * this one pvclock's arithmetic is exact (multiplier 2^31, shift 1: `(ticks · 2 · 2^31) >> 32 = ticks`), so a guest
 * that reads the counter and a host that compares deadlines can never disagree by a rounding.
 */
export const TSC_FREQUENCY = 1_000_000_000;

/** Follows the host's clock. */
export class HostClock implements Clock {
  readonly #milliseconds: () => number;
  #origin: number;
  #start: number;
  #latest: number;

  readonly #absence: number;

  /**
   * @param milliseconds a monotonic clock with a fraction, as performance.now
   * @param absence nanoseconds between the save of the guest and now, which are to have passed for it too
   */
  constructor(milliseconds: () => number, absence = 0) {
    this.#milliseconds = milliseconds;
    this.#absence = absence;
    this.#origin = milliseconds();
    this.#latest = 0;
    this.#start = 0;
  }

  archive(archive: Archive): void {
    this.#latest = archive.value('latest', this.now());
  }

  restored(): void {
    this.#latest += this.#absence;
    this.#start = this.#latest;
    this.#origin = this.#milliseconds();
  }

  now(): number {
    const elapsed = Math.floor((this.#milliseconds() - this.#origin) * 1e6);
    if (this.#start + elapsed > this.#latest) this.#latest = this.#start + elapsed;
    return this.#latest;
  }

  tsc(): number {
    return this.now();
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

  /** Lets the time until `deadline` (system time) pass; earlier deadlines change nothing. */
  advanceTo(deadline: number): void {
    const idle = deadline - this.now();
    if (idle > 0 && Number.isFinite(idle)) this.skipped += Math.ceil(idle);
  }

  /** Instructions that fit before `deadline`; at least 1, Infinity when there is none. */
  instructionsUntil(deadline: number): number {
    return Math.max(1, Math.ceil((deadline - this.now()) / this.#nanoseconds));
  }
}
