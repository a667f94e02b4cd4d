import { Exit } from '../../cpu/exits.ts';
import { SystemResult } from '../../cpu/operands.ts';
import { DomainCrash } from '../../domain/crash.ts';
import type { TurnBudget, TurnRest } from '../../domain/turn.ts';
import type { Execute } from '../../inspect/profiler.ts';
import { countAgain } from '../../inspect/statistics.ts';
import { hexadecimal } from '../../inspect/text.ts';
import { PageAbsent } from '../../memory/page-absent.ts';
import type { GuestVirtual } from '../../x86/brand.ts';
import { Vector } from '../../x86/registers.ts';
import type { XenDomain } from './domain.ts';
import { HypercallDispatcher } from './hypercalls/dispatch.ts';
import type { DomainWatcher } from './inspection.ts';
import { executeCpuid, executeForGuest } from './privileged.ts';
import type { XenVcpu } from './vcpu.ts';

/** UD2, "xen", CPUID. */
const FORCED_CPUID = [0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2];
const VECTORS_WITH_ERROR: ReadonlySet<number> = new Set([8, 10, 11, 12, 13, 14, 17, 21]);

/** The loop of one virtual processor: executes it and does what it leaves its code for. */
export class Execution {
  readonly #domain: XenDomain;
  readonly #watchers: readonly DomainWatcher[];
  readonly #execute: Execute;
  readonly #hypercalls: HypercallDispatcher;
  #yielded = false;

  /** @param execute as `chooseExecution` gives it */
  constructor(domain: XenDomain, watchers: readonly DomainWatcher[], execute: Execute) {
    this.#domain = domain;
    this.#watchers = watchers;
    this.#execute = execute;
    this.#hypercalls = new HypercallDispatcher(domain, watchers);
  }

  /** Ends the turn of the virtual processor that executes. */
  yield(): void {
    this.#yielded = true;
  }

  /**
   * Lets a virtual processor execute until its budget is used up, it waits, or the domain ends.
   * @returns what is left of the budget
   */
  run(vcpu: XenVcpu, budget: TurnBudget): TurnRest {
    const { processor } = vcpu;
    const domain = this.#domain;
    const { statistics } = domain;
    const end = processor.instructions + budget.instructions;
    let { exits } = budget;
    let isHeld = false;
    domain.running = vcpu;
    this.#yielded = false;
    for (; exits > 0 && domain.state.kind === 'running' && !this.#yielded; exits--) {
      if (vcpu.blocked || vcpu.down) break;
      isHeld = domain.outputIsFull();
      if (isHeld) break;
      try {
        if (vcpu.exceptionWaits) this.#exception(vcpu);
        vcpu.entries.deliverEvent();
      } catch (absent) {
        if (!this.#bringIn(vcpu, absent)) break;
        continue;
      }
      const left = end - processor.instructions;
      if (left <= 0) break;
      const exit = this.#execute(processor, left);
      statistics.exits[exit]! += 1; // one for each kind of exit
      for (const watcher of this.#watchers) watcher.exit(vcpu, exit);
      if (exit === Exit.hostFault) {
        if (!domain.bringIn(vcpu, processor.exitDetail, processor.exitError !== 0)) break;
      } else if (exit !== Exit.budget) {
        const { rip, instructions } = processor;
        try {
          this.#handle(vcpu, exit);
        } catch (absent) {
          // Everything is as it was at the exit, or says what is left to do: the instruction is executed again.
          processor.rip = rip;
          processor.instructions = instructions;
          if (!vcpu.exceptionWaits) countAgain(statistics.exits, exit);
          if (!this.#bringIn(vcpu, absent)) break;
        }
      }
      domain.rings.serve();
    }
    return { instructions: Math.max(0, end - processor.instructions), exits, isHeld };
  }

  /** Brings in the page that something met: whether it is there at once. @throws what was no PageAbsent */
  #bringIn(vcpu: XenVcpu, absent: unknown): boolean {
    if (!(absent instanceof PageAbsent)) throw absent;
    return this.#domain.bringIn(vcpu, absent.page, absent.write);
  }

  #handle(vcpu: XenVcpu, exit: Exit): void {
    switch (exit) {
      case Exit.exception:
        this.#exception(vcpu);
        break;
      case Exit.syscall:
        this.#syscall(vcpu);
        break;
      case Exit.system:
        if (executeForGuest(this.#domain, vcpu) === SystemResult.fault) this.#exception(vcpu);
        break;
      case Exit.softwareInterrupt:
        this.#softwareInterrupt(vcpu);
        break;
      case Exit.sysenter:
        if (vcpu.kernelMode || !vcpu.entries.deliverSysenter()) {
          vcpu.processor.raise(Vector.generalProtection);
          this.#exception(vcpu);
        }
        break;
      case Exit.observed:
        this.#stepObserved(vcpu);
        break;
      default:
        throw new Error(`unexpected exit ${exit}`);
    }
  }

  /** An instruction that touches an observed page. */
  #stepObserved(vcpu: XenVcpu): void {
    const { processor } = vcpu;
    const exit = processor.stepObserved();
    if (exit === Exit.hostFault) this.#domain.bringIn(vcpu, processor.exitDetail, processor.exitError !== 0);
    else if (exit !== Exit.budget) this.#handle(vcpu, exit);
  }

  /** The exception stands in the mailbox. It stays there, and the processor executes nothing, until it is delivered. */
  #exception(vcpu: XenVcpu): void {
    const { processor } = vcpu;
    vcpu.exceptionWaits = true;
    const vector = processor.exitDetail;
    const error = processor.exitError;
    if (vector === Vector.invalidOpcode && this.#forcedCpuid(vcpu)) {
      vcpu.exceptionWaits = false;
      return;
    }
    if (vector === Vector.pageFault) {
      vcpu.publishCr2();
      this.#domain.refusedStores.faulted(vcpu.index, processor.rip);
    }
    if (vector === Vector.debug) vcpu.noteDebugConditions(error);
    if (vcpu.traps[vector]?.address === 0) {
      const where = vector === Vector.pageFault ? ` at address ${hexadecimal(processor.cr2)}` : '';
      throw new DomainCrash(
        `exception ${vector} (error code 0x${error.toString(16)})${where} before the guest has a handler for it`,
      );
    }
    vcpu.entries.deliverTrap(vector, VECTORS_WITH_ERROR.has(vector) ? error : null);
    vcpu.exceptionWaits = false;
  }

  /** A PV kernel's way to ask the host and not the machine. */
  #forcedCpuid(vcpu: XenVcpu): boolean {
    const { processor } = vcpu;
    const bytes = new Uint8Array(FORCED_CPUID.length);
    if (!processor.memory.read(processor.rip, bytes)) return false;
    if (FORCED_CPUID.some((byte, index) => bytes[index] !== byte)) return false;
    executeCpuid(this.#domain, vcpu);
    processor.rip = (processor.rip + FORCED_CPUID.length) as GuestVirtual;
    processor.instructions++;
    return true;
  }

  #softwareInterrupt(vcpu: XenVcpu): void {
    const { processor } = vcpu;
    const vector = processor.exitDetail;
    if (vcpu.kernelMode && vector === vcpu.abi.hypercallVector) {
      this.#hypercalls.execute(vcpu);
      return;
    }
    const dpl = (vcpu.traps[vector]?.flags ?? 0) & 3;
    const allowed = dpl === 3 || (vcpu.kernelMode && dpl !== 0);
    if (!allowed) {
      processor.raise(Vector.generalProtection, vector * 8 + 2);
      this.#exception(vcpu);
      return;
    }
    processor.completeInstruction();
    vcpu.entries.deliverTrap(vector, null);
  }

  #syscall(vcpu: XenVcpu): void {
    if (vcpu.kernelMode && vcpu.abi.hypercallVector === undefined) {
      this.#hypercalls.execute(vcpu);
      return;
    }
    const { processor } = vcpu;
    const next = (processor.rip + processor.exitLength) as GuestVirtual;
    if (vcpu.entries.deliverSyscall(next)) {
      processor.instructions++;
      return;
    }
    processor.raise(Vector.invalidOpcode);
    this.#exception(vcpu);
  }
}
