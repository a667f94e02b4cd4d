import { Exit } from '../cpu/exits.ts';
import {
  deliverException,
  deliverInterrupt,
  deliverSoftwareInterrupt,
  EventSource,
} from '../cpu/protection/delivery.ts';
import { systemCall, systemEnter } from '../cpu/protection/fast-calls.ts';
import { SystemResult } from '../cpu/system.ts';
import { DomainCrash } from '../domain/crash.ts';
import { Vector } from '../x86/registers.ts';
import type { MicrovmDomain } from './domain.ts';
import { executePrivileged } from './privileged.ts';
import type { MicrovmVcpu } from './vcpu.ts';

/** Sees why generated code was left. */
export interface ExitWatcher {
  exit(vcpu: MicrovmVcpu, exit: Exit): void;
}

/** Traps that programs raise by instructions of their own; the gate must be for their ring. */
const BY_PROGRAM: ReadonlySet<number> = new Set([Vector.breakpoint, Vector.overflow]);

/**
 * Exits of one turn, many times what any kernel has: a guest can fault for ever, or repeat an access to a port, without
 * completing an instruction.
 */
const MOST_EXITS = 20_000;

/** The loop of one virtual processor: executes it and does what it leaves its code for. */
export class Execution {
  readonly #domain: MicrovmDomain;
  readonly #watchers: readonly ExitWatcher[];
  readonly #exact: boolean;
  #yielded = false;

  /** @param exact whether turns end after an exact count of instructions */
  constructor(domain: MicrovmDomain, watchers: readonly ExitWatcher[], exact: boolean) {
    this.#domain = domain;
    this.#watchers = watchers;
    this.#exact = exact;
  }

  /** Ends the turn of the virtual processor that executes. */
  yield(): void {
    this.#yielded = true;
  }

  /** Lets a virtual processor execute until its budget of instructions is used up, it waits, or the domain ends. */
  run(vcpu: MicrovmVcpu, budget: number): void {
    const { processor } = vcpu;
    const domain = this.#domain;
    const { exits } = domain.statistics;
    const end = processor.instructions + budget;
    domain.running = vcpu;
    this.#yielded = false;
    domain.interface.resume(vcpu);
    for (let count = 0; count < MOST_EXITS && domain.state.kind === 'running' && !this.#yielded; count++) {
      domain.interface.refresh(vcpu);
      const left = end - processor.instructions;
      if (left <= 0 || vcpu.isIdle) break;
      const exit = this.#execute(vcpu, left);
      exits[exit]! += 1; // one for each kind of exit
      for (const watcher of this.#watchers) watcher.exit(vcpu, exit);
      this.#handle(vcpu, exit);
    }
    domain.interface.suspend(vcpu);
  }

  /** Delivers what is due and executes until the next exit. */
  #execute(vcpu: MicrovmVcpu, budget: number): Exit {
    const { processor } = vcpu;
    const shadowed = processor.inInterruptShadow;
    if (!shadowed) this.#deliverPending(vcpu);
    const waiting = vcpu.apic.pending >= 0;
    processor.interruptWaiting = waiting;
    vcpu.halted = false;
    if (shadowed && (waiting || vcpu.nonMaskablePending)) {
      processor.inInterruptShadow = false;
      return processor.step();
    }
    return this.#exact ? processor.runExactly(budget) : processor.run(budget);
  }

  #deliverPending(vcpu: MicrovmVcpu): void {
    if (vcpu.nonMaskablePending && !vcpu.inNonMaskable) {
      vcpu.nonMaskablePending = false;
      vcpu.inNonMaskable = true;
      if (!deliverInterrupt(vcpu.state, Vector.nonMaskable, EventSource.external)) this.#shutDown();
      return;
    }
    const { apic } = vcpu;
    const vector = apic.pending;
    if (vector < 0 || !vcpu.interruptsOn) return;
    apic.acknowledge(vector);
    this.#domain.interface.acknowledged(vcpu, vector);
    if (!deliverInterrupt(vcpu.state, vector, EventSource.external)) this.#shutDown();
  }

  #handle(vcpu: MicrovmVcpu, exit: Exit): void {
    const { processor, state } = vcpu;
    switch (exit) {
      case Exit.budget:
        break;
      case Exit.exception:
        this.#exception(vcpu);
        break;
      case Exit.softwareInterrupt:
        if (!deliverSoftwareInterrupt(state, processor.exitDetail)) this.#shutDown();
        break;
      case Exit.syscall:
        if (systemCall(state) === SystemResult.fault) this.#exception(vcpu);
        break;
      case Exit.sysenter:
        if (systemEnter(state) === SystemResult.fault) this.#exception(vcpu);
        break;
      case Exit.system:
        if (executePrivileged(this.#domain, vcpu) === SystemResult.fault) this.#exception(vcpu);
        break;
      case Exit.device:
        this.#handle(vcpu, processor.stepWithDevices());
        break;
      default:
        throw new Error(`unexpected exit ${exit}`);
    }
  }

  #exception({ state, processor }: MicrovmVcpu): void {
    const source = BY_PROGRAM.has(processor.exitDetail) ? EventSource.software : EventSource.exception;
    if (!deliverException(state, source)) this.#shutDown();
  }

  #shutDown(): never {
    throw new DomainCrash('a fault came while a double fault was being delivered (triple fault)');
  }
}
