import type { HostMemory } from '../../memory/host-memory.ts';
import { type HostAddress, highWord, lowWord } from '../../x86/brand.ts';
import type { SharedInfo } from './shared-info.ts';

/**
 * The time of one domain. System time is nanoseconds since the domain started, a whole number below 2^53 (104 days).
 * It never goes back.
 */
export interface Clock {
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
  readonly #origin: number;
  readonly #start: number;
  #latest: number;

  /**
   * @param milliseconds a monotonic clock with a fraction, as performance.now
   * @param start system time to begin with: 0, or that of a snapshot
   */
  constructor(milliseconds: () => number, start = 0) {
    this.#milliseconds = milliseconds;
    this.#origin = milliseconds();
    this.#latest = start;
    this.#start = start;
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

/** How pvclock turns ticks into nanoseconds: `((ticks << shift) · multiplier) >> 32`, a negative shift to the right. */
export interface TimeScale {
  readonly multiplier: number;
  readonly shift: number;
}

/** Xen's choice of scale: the frequency is brought above 1 GHz and to at most 2 GHz by the shift (§8). */
export function timeScale(frequency: number): TimeScale {
  let scaled = frequency;
  let shift = 0;
  for (; scaled > 2e9; shift--) scaled /= 2;
  for (; scaled <= 1e9; shift++) scaled *= 2;
  return { multiplier: Number((1_000_000_000n << 32n) / BigInt(Math.floor(scaled))), shift };
}

const TSC_SCALE = timeScale(TSC_FREQUENCY);

/** vcpu_time_info, 32 bytes. */
export const enum VcpuTime {
  version = 0,
  tscTimestamp = 8,
  systemTime = 0x10,
  multiplier = 0x18,
  shift = 0x1c,
  flags = 0x1d,
  size = 0x20,
}

export const enum VcpuTimeFlag {
  /** All virtual processors' clocks agree; a guest may then let user programs read the page (VCPUOP 13). */
  tscStable = 1,
  guestStopped = 2,
}

/** One time info as bytes, for a copy at a guest's own address. `version` is even. */
export function encodeVcpuTime(clock: Clock, version: number, flags: number): Uint8Array {
  const bytes = new Uint8Array(VcpuTime.size);
  const view = new DataView(bytes.buffer);
  // One reading gives both: a tick is a nanosecond.
  const now = clock.tsc();
  view.setUint32(VcpuTime.version, version, true);
  view.setUint32(VcpuTime.tscTimestamp, lowWord(now), true);
  view.setUint32(VcpuTime.tscTimestamp + 4, highWord(now), true);
  view.setUint32(VcpuTime.systemTime, lowWord(now), true);
  view.setUint32(VcpuTime.systemTime + 4, highWord(now), true);
  view.setUint32(VcpuTime.multiplier, TSC_SCALE.multiplier, true);
  view.setInt8(VcpuTime.shift, TSC_SCALE.shift);
  view.setUint8(VcpuTime.flags, flags);
  return bytes;
}

/**
 * Writes a time info at a host address of any alignment: version odd, fields, version even. A reader that saw an odd
 * or changed version reads again.
 */
export function publishVcpuTime(memory: HostMemory, address: HostAddress, clock: Clock, flags: number): void {
  const odd = (memory.view.getUint32(address, true) | 1) >>> 0;
  const even = (odd + 1) >>> 0;
  memory.view.setUint32(address, odd, true);
  memory.u8.set(encodeVcpuTime(clock, odd, flags), address);
  memory.view.setUint32(address, even, true);
}

/**
 * Writes the wall clock of the shared_info page: Unix time at system time 0, with the version protocol.
 * @param seconds since 1970, a whole number that may exceed 32 bits
 */
export function publishWallclock(shared: SharedInfo, seconds: number, nanoseconds: number): void {
  const page = shared.address();
  if (page < 0) return;
  const { view } = shared.memory;
  const { wallclock, wallclockSecondsHigh } = shared.layout;
  const odd = (view.getUint32(page + wallclock, true) | 1) >>> 0;
  view.setUint32(page + wallclock, odd, true);
  view.setUint32(page + wallclock + 4, lowWord(seconds), true);
  view.setUint32(page + wallclock + 8, nanoseconds, true);
  view.setUint32(page + wallclockSecondsHigh, highWord(seconds), true);
  view.setUint32(page + wallclock, (odd + 1) >>> 0, true);
}
