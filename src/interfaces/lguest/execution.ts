import { Exit } from '../../cpu/exits.ts';
import { SystemResult } from '../../cpu/operands.ts';
import { EventSource } from '../../cpu/protection/event.ts';
import { DomainCrash } from '../../domain/crash.ts';
import type { TurnBudget, TurnRest } from '../../domain/turn.ts';
import type { Execute } from '../../inspect/profiler.ts';
import { countAgain } from '../../inspect/statistics.ts';
import { hexadecimal } from '../../inspect/text.ts';
import { PageAbsent } from '../../memory/page-absent.ts';
import type { ExitWatcher } from '../../microvm/inspection.ts';
import { Vector } from '../../x86/registers.ts';
import { HYPERCALL_VECTOR, KERNEL_RING } from './abi.ts';
import type { LguestDomain } from './domain.ts';
import { executePrivileged } from './privileged.ts';
import { deliverTrap, softwareInterrupt } from './traps.ts';

/** Traps that programs raise by instructions of their own; the gate must be for their ring. */
const BY_PROGRAM: ReadonlySet<number> = new Set([Vector.breakpoint, Vector.overflow]);

/** Instructions between two looks at whether the guest lets in an interrupt that waits: it does not tell. */
const LOOK = 1_000;

/** The loop of the virtual processor: executes it and does what it leaves its code for. */
export class Execution {
  readonly #domain: LguestDomain;
  readonly #watchers: readonly ExitWatcher[];
  readonly #execute: Execute;

  /** @param execute as `chooseExecution` gives it */
  constructor(domain: LguestDomain, watchers: readonly ExitWatcher[], execute: Execute) {
    this.#domain = domain;
    this.#watchers = watchers;
    this.#execute = execute;
  }

  /**
   * Lets the processor execute until its budget is used up, it waits, or the domain ends.
   * @returns what is left of the budget
   */
  run(budget: TurnBudget): TurnRest {
    const domain = this.#domain;
    const { processor } = domain.vcpu;
    const end = processor.instructions + budget.instructions;
    let { exits } = budget;
    let isHeld = false;
    for (; exits > 0 && domain.state.kind === 'running'; exits--) {
      const left = end - processor.instructions;
      if (left <= 0 || domain.isHalted) break;
      isHeld = domain.outputIsFull();
      if (isHeld || !this.#step(left)) break;
    }
    return { instructions: Math.max(0, end - processor.instructions), exits, isHeld };
  }

  /** Delivers what is due, executes until the next exit and does what it asks for. False when the processor must wait. */
  #step(budget: number): boolean {
    const domain = this.#domain;
    const { vcpu, interrupts } = domain;
    const { processor } = vcpu;
    try {
      if (vcpu.exceptionWaits) this.#exception();
      else interrupts.deliver();
    } catch (absent) {
      return this.#bringIn(absent);
    }
    const exit = this.#execute(processor, interrupts.waitsForGuest ? Math.min(budget, LOOK) : budget);
    domain.statistics.exits[exit]! += 1; // one for each kind of exit
    for (const watcher of this.#watchers) watcher.exit(vcpu, exit);
    const { rip, instructions } = processor;
    try {
      return this.#handle(exit);
    } catch (absent) {
      // Everything is as it was at the exit, and the instruction is executed again; or an exception waits, where it came.
      if (!vcpu.exceptionWaits) {
        processor.rip = rip;
        processor.instructions = instructions;
        countAgain(domain.statistics.exits, exit);
      }
      return this.#bringIn(absent);
    }
  }

  /** Brings in the page that something met: whether it is there at once. @throws what was no PageAbsent */
  #bringIn(absent: unknown): boolean {
    if (!(absent instanceof PageAbsent)) throw absent;
    return this.#domain.bringIn(absent.page, absent.write);
  }

  /** False when the processor must wait for a page. @throws PageAbsent, DomainCrash */
  #handle(exit: Exit): boolean {
    const domain = this.#domain;
    const { processor } = domain.vcpu;
    switch (exit) {
      case Exit.budget:
        return true;
      case Exit.hostFault:
        return domain.bringIn(processor.exitDetail, processor.exitError !== 0);
      case Exit.exception:
        this.#exception();
        return true;
      case Exit.softwareInterrupt:
        this.#softwareInterrupt(processor.exitDetail);
        return true;
      case Exit.system:
        if (executePrivileged(domain) === SystemResult.fault) this.#exception();
        return true;
      case Exit.syscall:
        processor.raise(Vector.invalidOpcode);
        this.#exception();
        return true;
      case Exit.sysenter:
        processor.raise(Vector.generalProtection);
        this.#exception();
        return true;
      case Exit.observed:
        return this.#handle(processor.stepObserved());
      case Exit.device:
        throw new DomainCrash(
          `the guest's page tables lead to a page that is not its own, at ${hexadecimal(processor.rip)}`,
        );
      default:
        throw new Error(`unexpected exit ${exit}`);
    }
  }

  #softwareInterrupt(vector: number): void {
    const { vcpu, data, hypercalls } = this.#domain;
    if (vector !== HYPERCALL_VECTOR || vcpu.processor.privilege !== KERNEL_RING) {
      softwareInterrupt(vcpu, data, vector);
      return;
    }
    hypercalls.execute();
    vcpu.processor.completeInstruction();
  }

  /** The exception stands in the mailbox. It stays there, and the processor executes nothing, until it is delivered. */
  #exception(): void {
    const { vcpu, data } = this.#domain;
    const { processor } = vcpu;
    vcpu.exceptionWaits = true;
    deliverTrap(vcpu, data, BY_PROGRAM.has(processor.exitDetail) ? EventSource.software : EventSource.exception);
    vcpu.exceptionWaits = false;
  }
}
