import { PageAbsent } from '../memory/page-absent.ts';
import type { MemoryError } from '../mm/errors.ts';
import type { Pager } from '../paging/pager.ts';
import type { Mfn } from '../x86/brand.ts';
import type { DomainState } from './domain.ts';

/** A virtual processor that may have to wait for a page. */
export interface Waiter {
  /** It executes nothing until the page is there. */
  awaitsHost: boolean;
}

/** A domain whose pages may have to be brought in. */
export interface PagedDomain<Vcpu extends Waiter> {
  readonly state: DomainState;
  /** The virtual processor that executes, or did last. */
  readonly running: Vcpu;
  readonly onWork: () => void;
  crash(vcpu: Vcpu, reason: string): void;
  /** The same between turns. */
  crashForMemory(vcpu: Vcpu, reason: string): void;
}

/** What the memory of devices tells their domain. */
export interface DeviceMemoryEvents {
  /** Pages have come that devices wait for. */
  onArrival: () => void;
  onFailure: (error: MemoryError) => void;
}

/** Pages of a domain that are being brought in, and what waits for them. */
export class HostWaits<Vcpu extends Waiter> {
  readonly #domain: PagedDomain<Vcpu>;
  readonly #pager: Pager | undefined;
  #waits = 0;
  #attempts = 0;

  constructor(domain: PagedDomain<Vcpu>, pager: Pager | undefined) {
    this.#domain = domain;
    this.#pager = pager;
  }

  /** Whether a virtual processor waits. */
  get any(): boolean {
    return this.#waits > 0;
  }

  /** Whether nobody waits: neither a virtual processor nor something of the host's own. */
  get areOver(): boolean {
    return this.#waits + this.#attempts === 0;
  }

  /** Whether the page is there at once; otherwise the virtual processor waits. */
  bringIn(vcpu: Vcpu, mfn: Mfn, write: boolean): boolean {
    const outcome = this.#pager?.bringIn(mfn, write);
    if (!(outcome instanceof Promise)) {
      if (outcome) this.#domain.crash(vcpu, outcome.message);
      return !outcome;
    }
    vcpu.awaitsHost = true;
    this.#waits++;
    outcome.then((error) => {
      vcpu.awaitsHost = false;
      this.#waits--;
      this.#fail(vcpu, error);
      this.#domain.onWork();
    });
    return false;
  }

  /** Does something of the host's own; when a page for it is absent, does `again` as soon as it is there. */
  attempt(action: () => void, again: () => void): void {
    try {
      action();
    } catch (absent) {
      if (!(absent instanceof PageAbsent)) throw absent;
      const outcome = this.#pager?.bringIn(absent.page as Mfn, absent.write);
      if (!(outcome instanceof Promise)) {
        if (outcome) this.#fail(this.#domain.running, outcome);
        else again();
        return;
      }
      this.#attempts++;
      outcome.then((error) => {
        this.#attempts--;
        if (error) this.#fail(this.#domain.running, error);
        else if (this.#domain.state.kind === 'running') again();
        this.#domain.onWork();
      });
    }
  }

  #fail(vcpu: Vcpu, error: MemoryError | undefined): void {
    if (error && this.#domain.state.kind === 'running') this.#domain.crashForMemory(vcpu, error.message);
  }

  /** The domain ends, and its memory with it: settles when the pages are freed. */
  async end(): Promise<void> {
    await this.#pager?.end();
  }
}
