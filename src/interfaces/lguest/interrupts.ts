import type { Archive, Archived } from '../../archive/archive.ts';
import { FIRST_EXTERNAL_VECTOR, INTERRUPTS_ON, TIMER_LINE } from './abi.ts';
import { enterHandler } from './enter-handler.ts';
import type { GuestData } from './guest-data.ts';
import type { LguestVcpu } from './vcpu.ts';

const NEVER = Number.POSITIVE_INFINITY;

/** The interrupt controller of 32 lines, and the one timer that it has. */
export class Interrupts implements Archived {
  readonly #vcpu: LguestVcpu;
  readonly #data: GuestData;
  readonly #writeTime: () => void;
  /** A bit for each line on which an interrupt waits. */
  #pending = 0;
  /** When the timer fires, system time in nanoseconds. */
  deadline = NEVER;

  /** @param writeTime puts the date where the guest reads it */
  constructor(vcpu: LguestVcpu, data: GuestData, writeTime: () => void) {
    this.#vcpu = vcpu;
    this.#data = data;
    this.#writeTime = writeTime;
  }

  archive(archive: Archive): void {
    this.#pending = archive.value('pending', this.#pending);
    this.deadline = archive.value('deadline', this.deadline);
  }

  raise(line: number): void {
    this.#pending = (this.#pending | (1 << line)) >>> 0;
  }

  /** Fires the timer when it is due. */
  expire(now: number): void {
    if (this.deadline > now) return;
    this.deadline = NEVER;
    this.raise(TIMER_LINE);
  }

  /** Lines that the guest has not blocked and on which an interrupt waits. */
  get #ready(): number {
    if (this.#pending === 0 || !this.#data.isNamed) return 0;
    return (this.#pending & ~this.#data.blockedInterrupts) >>> 0;
  }

  get #isAllowedHere(): boolean {
    return this.#data.mayInterrupt(this.#vcpu.processor.rip);
  }

  /** Whether a kernel that has halted goes on. */
  get wakes(): boolean {
    return this.#ready !== 0 && this.#isAllowedHere;
  }

  /** Whether one waits only for the guest to switch interrupts on, which it does without telling the host. */
  get waitsForGuest(): boolean {
    return this.#ready !== 0;
  }

  /** Delivers one interrupt if the guest lets it in. @throws PageAbsent, with the interrupt still pending */
  deliver(): void {
    const vcpu = this.#vcpu;
    const data = this.#data;
    const ready = this.#ready;
    if (ready === 0 || !this.#isAllowedHere) return;
    if (vcpu.halted) {
      data.irqEnabled = INTERRUPTS_ON;
      vcpu.halted = false;
    } else if (data.irqEnabled === 0) {
      data.irqPending = INTERRUPTS_ON;
      return;
    }
    const line = 31 - Math.clz32(ready & -ready);
    const gate = vcpu.tables.gate(FIRST_EXTERNAL_VECTOR + line);
    if (gate) enterHandler(vcpu, data, gate, { returnTo: vcpu.processor.rip, error: undefined });
    // Without a handler nobody would ever take it.
    this.#pending = (this.#pending & ~(1 << line)) >>> 0;
    this.#writeTime();
    if (this.#ready === 0) data.irqPending = 0;
  }
}
