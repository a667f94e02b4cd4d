import type { Archive, Archived } from '../../archive/archive.ts';

/** How the timer of a local APIC counts (SDM vol. 3A, 11.5.4). */
export const enum TimerMode {
  oneShot = 0,
  periodic = 1,
  deadline = 2,
}

const NEVER = Number.POSITIVE_INFINITY;

/** A periodic timer faster than this slows down: it bounds the ticks that a guest can cause. */
const SHORTEST_PERIOD = 100_000;

/**
 * The timer of a local APIC. Its input counts nanoseconds, as the time-stamp counter does. Nothing fires by itself: the
 * owner asks for the deadline and calls `expire`.
 */
export class ApicTimer implements Archived {
  readonly #now: () => number;
  #mode: TimerMode = TimerMode.oneShot;
  #divide = 0;
  #initialCount = 0;
  #deadline = NEVER;

  /** @param now system time in nanoseconds */
  constructor(now: () => number) {
    this.#now = now;
  }

  archive(archive: Archive): void {
    this.#mode = archive.value('mode', this.#mode);
    this.#divide = archive.value('divide', this.#divide);
    this.#initialCount = archive.value('initialCount', this.#initialCount);
    this.#deadline = archive.value('deadline', this.#deadline);
  }

  reset(): void {
    this.#mode = TimerMode.oneShot;
    this.#divide = 0;
    this.#stop();
  }

  #stop(): void {
    this.#initialCount = 0;
    this.#deadline = NEVER;
  }

  get deadline(): number {
    return this.#deadline;
  }

  get mode(): TimerMode {
    return this.#mode;
  }

  /** A change to or from the deadline mode disarms the timer. */
  set mode(mode: TimerMode) {
    if ((mode === TimerMode.deadline) !== (this.#mode === TimerMode.deadline)) this.#stop();
    this.#mode = mode;
  }

  get divide(): number {
    return this.#divide;
  }

  set divide(value: number) {
    this.#divide = value & 0xb;
  }

  /** Nanoseconds of one count: 1 for the highest code, else a power of two from 2. */
  get #tick(): number {
    const code = (this.#divide & 3) | ((this.#divide >> 1) & 4);
    return code === 7 ? 1 : 2 << code;
  }

  get #period(): number {
    return Math.max(this.#initialCount * this.#tick, SHORTEST_PERIOD);
  }

  get initialCount(): number {
    return this.#initialCount;
  }

  get currentCount(): number {
    if (this.#mode === TimerMode.deadline || this.#deadline === NEVER) return 0;
    const left = Math.floor((this.#deadline - this.#now()) / this.#tick);
    return Math.min(Math.max(left, 0), this.#initialCount);
  }

  /** The initial-count register was written; 0 stops. */
  start(count: number): void {
    if (this.#mode === TimerMode.deadline) return;
    this.#initialCount = count;
    const delay = this.#mode === TimerMode.periodic ? this.#period : count * this.#tick;
    this.#deadline = count === 0 ? NEVER : this.#now() + delay;
  }

  /** IA32_TSC_DEADLINE: a value of the time-stamp counter, 0 for none. */
  get tscDeadline(): number {
    return this.#mode === TimerMode.deadline && this.#deadline !== NEVER ? this.#deadline : 0;
  }

  set tscDeadline(value: number) {
    if (this.#mode === TimerMode.deadline) this.#deadline = value === 0 ? NEVER : value;
  }

  /** Whether the timer fires; a periodic one is armed again. */
  expire(now: number): boolean {
    if (this.#deadline > now) return false;
    this.#deadline =
      this.#mode === TimerMode.periodic ? now + this.#period - ((now - this.#deadline) % this.#period) : NEVER;
    return true;
  }
}
