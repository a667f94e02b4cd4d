import type { Archive, Archived } from '../../archive/archive.ts';
import { Errno } from './errno.ts';
import { type EventChannels, type VcpuWaker, Virq } from './event-channels.ts';

/** Xen ticks each virtual processor at 100 Hz until it asks for something else. */
const INITIAL_PERIOD = 10_000_000;
/** VCPUOP_set_periodic_timer refuses less than a millisecond, which bounds the ticks that a guest can cause. */
const SHORTEST_PERIOD = 1_000_000;
/** set_timer_op takes deadlines beyond 2^50 ns (13 days), and negative ones, for a guest's overflow … */
const FARTHEST_DEADLINE = 2 ** 50;
/** … and fires after this instead, so that the guest recovers. */
const RECOVERY_DELAY = 100_000_000;

const NEVER = Number.POSITIVE_INFINITY;

/**
 * The timers of a domain's virtual processors: one single shot (VCPUOP_set_singleshot_timer and set_timer_op share
 * it), one periodic, and the time limit of SCHEDOP_poll. Times are system time in nanoseconds. Nothing fires by itself:
 * the domain asks for the next deadline and calls `expire`.
 */
export class Timers implements Archived {
  readonly singleShots: Float64Array;
  /** 0: stopped. */
  readonly periods: Float64Array;
  readonly nextTicks: Float64Array;
  /**
   * 1 for a virtual processor that sleeps or is offline; the scheduler keeps it. A periodic tick does not wake it; one
   * tick is made up for afterwards.
   */
  readonly asleep: Uint8Array;
  readonly #events: EventChannels;
  readonly #waker: VcpuWaker;

  constructor(events: EventChannels, waker: VcpuWaker, now = 0) {
    this.#events = events;
    this.#waker = waker;
    this.singleShots = new Float64Array(events.vcpus).fill(NEVER);
    this.periods = new Float64Array(events.vcpus).fill(INITIAL_PERIOD);
    this.nextTicks = new Float64Array(events.vcpus).fill(now + INITIAL_PERIOD);
    this.asleep = new Uint8Array(events.vcpus).fill(1, 1);
  }

  archive(archive: Archive): void {
    archive.words('singleShots', this.singleShots);
    archive.words('periods', this.periods);
    archive.words('nextTicks', this.nextTicks);
    archive.words('asleep', this.asleep);
  }

  /**
   * VCPUOP_set_singleshot_timer; the caller has checked that `vcpu` is the one that asks.
   * A deadline in the past fires at the next `expire`.
   * @param deadline signed, exact up to 2^53
   */
  setSingleShot(vcpu: number, deadline: number): number {
    this.singleShots[vcpu] = deadline;
    return 0;
  }

  stopSingleShot(vcpu: number): number {
    this.singleShots[vcpu] = NEVER;
    return 0;
  }

  /** set_timer_op: 0 cancels. */
  setTimer(vcpu: number, deadline: number, now: number): number {
    if (deadline === 0) return this.stopSingleShot(vcpu);
    const implausible = deadline < 0 || deadline - now >= FARTHEST_DEADLINE;
    return this.setSingleShot(vcpu, implausible ? now + RECOVERY_DELAY : deadline);
  }

  /** VCPUOP_set_periodic_timer. Returns 0 or −EINVAL for a period below a millisecond. */
  setPeriodic(vcpu: number, period: number, now: number): number {
    if (period < SHORTEST_PERIOD) return -Errno.EINVAL;
    this.periods[vcpu] = period;
    this.nextTicks[vcpu] = now + period;
    return 0;
  }

  stopPeriodic(vcpu: number): number {
    this.periods[vcpu] = 0;
    return 0;
  }

  /** When `expire` has something to do; Infinity for never. */
  nextDeadline(): number {
    let next = NEVER;
    for (let vcpu = 0; vcpu < this.singleShots.length; vcpu++) {
      next = Math.min(next, this.singleShots[vcpu]!, this.#events.pollDeadlines[vcpu]!);
      if (this.periods[vcpu] !== 0 && this.asleep[vcpu] === 0) next = Math.min(next, this.nextTicks[vcpu]!);
    }
    return next;
  }

  /** Raises VIRQ_TIMER where a deadline has passed and ends polls that waited long enough. */
  expire(now: number): void {
    for (let vcpu = 0; vcpu < this.singleShots.length; vcpu++) {
      let fires = false;
      if (this.singleShots[vcpu]! <= now) {
        this.singleShots[vcpu] = NEVER;
        fires = true;
      }
      if (this.periods[vcpu] !== 0 && this.asleep[vcpu] === 0 && this.nextTicks[vcpu]! <= now) {
        this.nextTicks[vcpu] = now + this.periods[vcpu]!;
        fires = true;
      }
      if (fires) this.#events.raiseVirq(vcpu, Virq.timer);
      if (this.#events.pollDeadlines[vcpu]! <= now) {
        this.#events.endPoll(vcpu);
        this.#waker.wake(vcpu);
      }
    }
  }
}
