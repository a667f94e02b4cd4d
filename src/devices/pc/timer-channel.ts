import type { Archive, Archived } from '../../archive/archive.ts';

/** Input of a PC's 8254, in hertz. */
const FREQUENCY = 1_193_182;
const NANOSECONDS = 1_000_000_000;
const NEVER = Number.POSITIVE_INFINITY;
/** What a count of 0 means. */
const LARGEST_COUNT = 0x1_0000;

/** A periodic output faster than this slows down: it bounds the ticks that a guest can cause. Nanoseconds. */
const SHORTEST_PERIOD = 100_000;

/** How a channel counts (Intel 8254, "Mode definitions"); the codes 6 and 7 are other names of 2 and 3. */
export const enum TimerMode {
  terminalCount = 0,
  retriggered = 1,
  rate = 2,
  square = 3,
  strobe = 4,
  triggeredStrobe = 5,
}

const PERIODIC: ReadonlySet<TimerMode> = new Set([TimerMode.rate, TimerMode.square]);
/** Counting begins when the gate rises, and not when a count is written. */
const TRIGGERED: ReadonlySet<TimerMode> = new Set([TimerMode.retriggered, TimerMode.triggeredStrobe]);
/** While the gate is low these stand still, and go on from the beginning. */
const RESTARTED: ReadonlySet<TimerMode> = new Set([...TRIGGERED, ...PERIODIC]);

function nanosecondsOf(ticks: number): number {
  return Math.ceil((ticks * NANOSECONDS) / FREQUENCY);
}

/** The counting part of one channel of an 8254, in binary. Nothing happens by itself: counts are worked out from the time. */
export class TimerChannel implements Archived {
  readonly #now: () => number;
  #mode: TimerMode = TimerMode.terminalCount;
  /** 0 until a count has been written. */
  #period = 0;
  /** When counting began, in nanoseconds; undefined while it has not. */
  #start: number | undefined;
  /** Ticks that had passed when the gate fell. */
  #stopped: number | undefined;
  #gate: boolean;
  /** When `expire` has something to do next. */
  #deadline = NEVER;

  constructor(now: () => number, gate: boolean) {
    this.#now = now;
    this.#gate = gate;
  }

  archive(archive: Archive): void {
    this.#mode = archive.value('mode', this.#mode);
    this.#period = archive.value('period', this.#period);
    this.#start = archive.value('start', this.#start);
    this.#stopped = archive.value('stopped', this.#stopped);
    this.#gate = archive.value('gate', this.#gate);
    this.#deadline = archive.value('deadline', this.#deadline);
  }

  get mode(): TimerMode {
    return this.#mode;
  }

  /** A control word came: nothing is counted until there is a count. */
  set mode(mode: TimerMode) {
    this.#mode = mode;
    this.#period = 0;
    this.#begin(undefined);
  }

  get hasCount(): boolean {
    return this.#period !== 0;
  }

  /** A count was written, 0–65535. */
  load(count: number): void {
    this.#period = count === 0 ? LARGEST_COUNT : count;
    if (TRIGGERED.has(this.#mode)) return;
    // A periodic channel takes another count at the end of its period; beginning at once differs by less than that.
    this.#begin(this.#gate ? this.#now() : undefined);
    if (!this.#gate) this.#stopped = 0;
  }

  #begin(start: number | undefined): void {
    this.#start = start;
    this.#stopped = undefined;
    this.#deadline = this.#nextEdge();
  }

  get gate(): boolean {
    return this.#gate;
  }

  set gate(level: boolean) {
    if (level === this.#gate) return;
    if (level) this.#open();
    else this.#close();
  }

  #open(): void {
    this.#gate = true;
    if (RESTARTED.has(this.#mode)) {
      if (this.#period !== 0) this.#begin(this.#now());
    } else if (this.#stopped !== undefined) {
      this.#begin(this.#now() - nanosecondsOf(this.#stopped));
    }
  }

  #close(): void {
    const ticks = this.#ticks;
    this.#gate = false;
    if (TRIGGERED.has(this.#mode)) return;
    if (this.#start !== undefined) this.#stopped = ticks;
    this.#deadline = NEVER;
  }

  /** Ticks since counting began. */
  get #ticks(): number {
    if (this.#stopped !== undefined) return this.#stopped;
    if (this.#start === undefined) return 0;
    return Math.floor(((this.#now() - this.#start) * FREQUENCY) / NANOSECONDS);
  }

  get count(): number {
    if (this.#period === 0) return 0;
    const ticks = this.#ticks;
    switch (this.#mode) {
      case TimerMode.rate:
        return (this.#period - (ticks % this.#period)) & 0xffff;
      case TimerMode.square:
        // It counts down by two, twice in a period.
        return (this.#period - ((2 * ticks) % this.#period)) & 0xfffe;
      default:
        return (this.#period - ticks) & 0xffff;
    }
  }

  get output(): boolean {
    const ticks = this.#ticks;
    switch (this.#mode) {
      case TimerMode.terminalCount:
        return this.#period !== 0 && ticks >= this.#period;
      case TimerMode.retriggered:
        return this.#start === undefined || ticks >= this.#period;
      case TimerMode.rate:
        return this.#start === undefined || ticks % this.#period !== this.#period - 1;
      case TimerMode.square:
        return this.#start === undefined || ticks % this.#period < this.#period / 2;
      default:
        return this.#start === undefined || ticks !== this.#period;
    }
  }

  // What the output is wired to

  get deadline(): number {
    return this.#deadline;
  }

  /** When the output rises next; a strobe is over as soon as it has begun. */
  #nextEdge(): number {
    if (this.#start === undefined || this.#period === 0) return NEVER;
    return this.#start + (PERIODIC.has(this.#mode) ? this.#nanoseconds : nanosecondsOf(this.#period));
  }

  get #nanoseconds(): number {
    return Math.max((this.#period * NANOSECONDS) / FREQUENCY, SHORTEST_PERIOD);
  }

  /** Whether the output has risen since the last call; a periodic one goes on. */
  expire(now: number): boolean {
    if (this.#deadline > now) return false;
    const late = now - this.#deadline;
    const period = this.#nanoseconds;
    this.#deadline = PERIODIC.has(this.#mode) ? now + period - (late % period) : NEVER;
    return true;
  }
}
