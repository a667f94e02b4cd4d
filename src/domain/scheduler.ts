import type { Domain } from './domain.ts';

/** One slice of the event loop, in milliseconds: a page or a server stays responsive. */
const SLICE = 4;
/** Longest sleep; browsers and Node take no more than 2^31 − 1 ms. */
const LONGEST_SLEEP = 60_000;

/** Told what becomes of a domain. */
export interface DomainObserver {
  turnBegins(): void;
  turnEnds(): void;
  /** The domain's state is no longer `running`. */
  ended(): void;
}

/**
 * Lets domains take turns on the event loop: slices of a few milliseconds while anything can run, timers while all
 * sleep. An idle host uses no processor.
 */
export class Scheduler {
  readonly #domains = new Map<Domain, DomainObserver>();
  /** Domains that execute nothing for a while, and who wants to know that nothing is under way in them either. */
  readonly #standing = new Map<Domain, () => void>();
  /**
   * Each slice asks for the next by a message through the other port. Node hands a port up to a thousand messages before
   * it looks at anything else, and by one port a busy guest would keep its user's keys waiting for seconds.
   */
  readonly #channel = new MessageChannel();
  #port = this.#channel.port1;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #posted = false;
  #closed = false;

  constructor() {
    const receive = (): void => {
      this.#posted = false;
      this.#slice();
    };
    this.#channel.port1.onmessage = receive;
    this.#channel.port2.onmessage = receive;
  }

  add(domain: Domain, observer: DomainObserver): void {
    this.#domains.set(domain, observer);
    domain.onWork = () => this.#post();
    this.#post();
  }

  remove(domain: Domain): void {
    this.#domains.delete(domain);
    this.#standing.get(domain)?.();
  }

  /**
   * Does something while a domain stands still: it executes nothing, and waits for nothing of its host. For the guest time
   * goes on, unless it is virtual.
   * @throws Error when the domain ends before
   */
  async whileStanding<Result>(domain: Domain, work: () => Promise<Result>): Promise<Result> {
    if (this.#standing.has(domain)) throw new Error('the guest stands still already');
    try {
      await this.#settled(domain);
      return await work();
    } finally {
      this.#standing.delete(domain);
      this.#post();
    }
  }

  #settled(domain: Domain): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (!this.#domains.has(domain)) reject(new Error('the guest has ended'));
        else if (domain.isSettled) resolve();
      };
      this.#standing.set(domain, look);
      look();
    });
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#channel.port1.close();
    this.#channel.port2.close();
  }

  #post(): void {
    if (this.#posted || this.#closed) return;
    this.#posted = true;
    clearTimeout(this.#timer);
    const { port1, port2 } = this.#channel;
    this.#port = this.#port === port1 ? port2 : port1;
    this.#port.postMessage(0);
  }

  #slice(): void {
    const end = performance.now() + SLICE;
    do {
      let worked = false;
      for (const [domain, observer] of [...this.#domains]) {
        const look = this.#standing.get(domain);
        if (look) {
          look();
          if (domain.state.kind !== 'running') observer.ended();
          continue;
        }
        if (domain.outputIsFull()) continue;
        observer.turnBegins();
        if (domain.catchUp()) worked = true;
        if (domain.state.kind === 'running' && !domain.idle) {
          domain.turn();
          worked = true;
        }
        observer.turnEnds();
        if (domain.state.kind !== 'running') observer.ended();
      }
      if (!worked) {
        this.#sleep();
        return;
      }
    } while (performance.now() < end && this.#domains.size > 0);
    if (this.#domains.size > 0) this.#post();
  }

  /** Until the first timer of any domain, or until one gets work from outside. */
  #sleep(): void {
    let milliseconds = LONGEST_SLEEP;
    for (const domain of this.#domains.keys()) {
      if (this.#standing.has(domain) || domain.outputIsFull()) continue;
      milliseconds = Math.min(milliseconds, domain.millisecondsToDeadline());
    }
    clearTimeout(this.#timer);
    if (this.#closed || this.#domains.size === 0) return;
    this.#timer = setTimeout(() => this.#slice(), Math.max(0, milliseconds));
  }
}
