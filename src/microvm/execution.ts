import { Exit } from '../cpu/exits.ts';
import { SystemResult } from '../cpu/operands.ts';
import { deliverException, deliverInterrupt, deliverSoftwareInterrupt } from '../cpu/protection/delivery.ts';
import { EventSource } from '../cpu/protection/event.ts';
import { systemCall, systemEnter } from '../cpu/protection/fast-calls.ts';
import { DomainCrash } from '../domain/crash.ts';
import type { TurnBudget, TurnRest } from '../domain/turn.ts';
import type { Execute } from '../inspect/profiler.ts';
import { countAgain } from '../inspect/statistics.ts';
import { PageAbsent } from '../memory/page-absent.ts';
import { Vector } from '../x86/registers.ts';
import type { MicrovmDomain } from './domain.ts';
import type { ExitWatcher } from './inspection.ts';
import { executePrivileged } from './privileged.ts';
import type { MicrovmVcpu } from './vcpu.ts';

/** Traps that programs raise by instructions of their own; the gate must be for their ring. */
const BY_PROGRAM: ReadonlySet<number> = new Set([Vector.breakpoint, Vector.overflow]);

/** The loop of one virtual processor: executes it and does what it leaves its code for. */
export class Execution {
  readonly #domain: MicrovmDomain;
  readonly #watchers: readonly ExitWatcher[];
  readonly #executeCode: Execute;
  #yielded = false;

  /** @param execute as `chooseExecution` gives it */
  constructor(domain: MicrovmDomain, watchers: readonly ExitWatcher[], execute: Execute) {
    this.#domain = domain;
    this.#watchers = watchers;
    this.#executeCode = execute;
  }

  /** Ends the turn of the virtual processor that executes. */
  yield(): void {
    this.#yielded = true;
  }

  /**
   * Lets a virtual processor execute until its budget is used up, it waits, or the domain ends.
   * @returns what is left of the budget
   */
  run(vcpu: MicrovmVcpu, budget: TurnBudget): TurnRest {
    const { processor } = vcpu;
    const domain = this.#domain;
    const end = processor.instructions + budget.instructions;
    let { exits } = budget;
    let isHeld = false;
    domain.running = vcpu;
    this.#yielded = false;
    for (; exits > 0 && domain.state.kind === 'running' && !this.#yielded; exits--) {
      domain.interface.refresh(vcpu);
      const left = end - processor.instructions;
      if (left <= 0 || vcpu.isIdle) break;
      isHeld = domain.outputIsFull();
      if (isHeld || !this.#step(vcpu, left)) break;
    }
    return { instructions: Math.max(0, end - processor.instructions), exits, isHeld };
  }

  /** Delivers what is due, executes until the next exit and does what it asks for. False when the processor must wait. */
  #step(vcpu: MicrovmVcpu, budget: number): boolean {
    const { processor } = vcpu;
    const domain = this.#domain;
    const shadowed = processor.inInterruptShadow;
    try {
      if (vcpu.exceptionWaits) this.#exception(vcpu);
      else if (!shadowed) this.#deliverPending(vcpu);
    } catch (absent) {
      return this.#bringIn(vcpu, absent);
    }
    const exit = this.#execute(vcpu, budget, shadowed);
    domain.statistics.exits[exit]! += 1; // one for each kind of exit
    for (const watcher of this.#watchers) watcher.exit(vcpu, exit);
    const { rip, instructions } = processor;
    try {
      return this.#handle(vcpu, exit);
    } catch (absent) {
      // Everything is as it was at the exit, and the instruction is executed again; or an exception waits, where it came.
      if (!vcpu.exceptionWaits) {
        processor.rip = rip;
        processor.instructions = instructions;
        countAgain(domain.statistics.exits, exit);
      }
      return this.#bringIn(vcpu, absent);
    }
  }

  /** Brings in the page that something met: whether it is there at once. @throws what was no PageAbsent */
  #bringIn(vcpu: MicrovmVcpu, absent: unknown): boolean {
    if (!(absent instanceof PageAbsent)) throw absent;
    return this.#domain.bringIn(vcpu, absent.page, absent.write);
  }

  #execute(vcpu: MicrovmVcpu, budget: number, shadowed: boolean): Exit {
    const { processor } = vcpu;
    const waiting = vcpu.hasInterrupt;
    processor.interruptWaiting = waiting;
    vcpu.halted = false;
    if (shadowed && (waiting || vcpu.nonMaskablePending)) {
      const exit = processor.step();
      // An instruction that waits for its page is still the one behind STI.
      if (exit !== Exit.hostFault) processor.inInterruptShadow = false;
      return exit;
    }
    return this.#executeCode(processor, budget);
  }

  #deliverPending(vcpu: MicrovmVcpu): void {
    const { apic, state } = vcpu;
    if (vcpu.nonMaskablePending && !state.inNonMaskable) {
      const delivered = deliverInterrupt(state, Vector.nonMaskable);
      vcpu.nonMaskablePending = false;
      state.inNonMaskable = true;
      if (!delivered) this.#exception(vcpu);
      return;
    }
    const { interrupts } = vcpu;
    if (!interrupts || !vcpu.interruptsOn) return;
    const vector = interrupts.pending;
    const delivered = deliverInterrupt(state, vector);
    interrupts.acknowledge(vector);
    if (interrupts === apic) this.#domain.interface.acknowledged(vcpu, vector);
    if (!delivered) this.#exception(vcpu);
  }

  /** False when the processor must wait for a page. @throws PageAbsent */
  #handle(vcpu: MicrovmVcpu, exit: Exit): boolean {
    const { processor, state } = vcpu;
    switch (exit) {
      case Exit.budget:
        return true;
      case Exit.hostFault:
        return this.#domain.bringIn(vcpu, processor.exitDetail, processor.exitError !== 0);
      case Exit.exception:
        this.#exception(vcpu);
        return true;
      case Exit.softwareInterrupt:
        if (!deliverSoftwareInterrupt(state, processor.exitDetail)) this.#exception(vcpu);
        return true;
      case Exit.syscall:
        if (systemCall(state) === SystemResult.fault) this.#exception(vcpu);
        return true;
      case Exit.sysenter:
        if (systemEnter(state) === SystemResult.fault) this.#exception(vcpu);
        return true;
      case Exit.system:
        if (executePrivileged(this.#domain, vcpu) === SystemResult.fault) this.#exception(vcpu);
        return true;
      case Exit.device:
        return this.#handle(vcpu, processor.stepWithDevices());
      case Exit.observed:
        return this.#handle(vcpu, processor.stepObserved());
      default:
        throw new Error(`unexpected exit ${exit}`);
    }
  }

  /** The exception stands in the mailbox. It stays there, and the processor executes nothing, until it is delivered. */
  #exception(vcpu: MicrovmVcpu): void {
    const { state, processor } = vcpu;
    vcpu.exceptionWaits = true;
    const source = BY_PROGRAM.has(processor.exitDetail) ? EventSource.software : EventSource.exception;
    if (!deliverException(state, source)) {
      throw new DomainCrash('a fault came while a double fault was being delivered (triple fault)');
    }
    vcpu.exceptionWaits = false;
  }
}
