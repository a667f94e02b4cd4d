import type { ProcessorApi } from '../../../cpu/processor-api.ts';
import { hexadecimal64 } from '../../../inspect/text.ts';
import { PageAbsent } from '../../../memory/page-absent.ts';
import { highWord } from '../../../x86/brand.ts';
import { Flag, Register } from '../../../x86/registers.ts';
import { HYPERCALL_ARGUMENTS, HYPERCALL_NAMES } from '../abi.ts';
import type { XenDomain } from '../domain.ts';
import { Errno } from '../errno.ts';
import type { DomainWatcher } from '../inspection.ts';
import type { XenVcpu } from '../vcpu.ts';
import { Call, FAULT, NOT_IMPLEMENTED, Special } from './call.ts';
import { HYPERCALLS } from './index.ts';

const MULTICALL = 13;

const MULTICALL_LIMIT = 1024;

/** Hypercalls that a preempted one may be repeated with before a turn ends. */
const CONTINUATIONS = 64;

/** Arguments shown of a hypercall whose number nobody has named. */
const UNKNOWN_ARGUMENTS = 5;

/** SYSCALL, and INT with its vector. */
const CALL_BYTES = 2;

/** What a guest asks for that is about to execute SYSCALL or INT. */
export function callName(processor: ProcessorApi): string {
  if (processor.userMode) return 'system call';
  return `hypercall ${HYPERCALL_NAMES[processor.low(Register.rax)] ?? 'without a name'}`;
}

/** Takes hypercalls from the guest's registers to their handlers, and the results back. */
export class HypercallDispatcher {
  readonly #domain: XenDomain;
  readonly #watchers: readonly DomainWatcher[];
  readonly #call: Call;

  constructor(domain: XenDomain, watchers: readonly DomainWatcher[]) {
    this.#domain = domain;
    this.#watchers = watchers;
    this.#call = new Call(domain, domain.running);
  }

  /** Carries out the call that a kernel's SYSCALL or INT makes. */
  execute(vcpu: XenVcpu): void {
    const { processor } = vcpu;
    const call = this.#call;
    const number = processor.low(Register.rax);
    call.loadFromRegisters(vcpu, number);
    const { flags } = processor;
    const isWide = vcpu.abi.bits === 64;
    processor.completeInstruction();
    if (isWide) {
      processor.setValue(Register.rcx, processor.rip);
      processor.set(Register.r11, flags & ~Flag.resume, 0);
    }
    for (let attempt = 0; ; attempt++) {
      const result = this.#restartably(call, number);
      if (result === Special.noResult) return;
      if (result !== Special.preempted) {
        processor.set(Register.rax, result >>> 0, isWide ? highWord(result) : 0);
        return;
      }
      // What is left is done by executing the same instruction again, after other work had its chance.
      if (attempt === CONTINUATIONS) {
        call.storeToRegisters(number);
        processor.rip = (processor.rip - CALL_BYTES) as typeof processor.rip;
        this.#domain.yield();
        return;
      }
    }
  }

  /** When a page must be brought in first, the registers say what is left, as after a preemption. @throws PageAbsent */
  #restartably(call: Call, number: number): number {
    try {
      return this.#hypercall(call, number);
    } catch (absent) {
      if (absent instanceof PageAbsent) call.storeToRegisters(number);
      throw absent;
    }
  }

  #hypercall(call: Call, number: number): number {
    this.#domain.statistics.hypercall(number);
    return this.#watchers.length === 0 ? this.#perform(call, number) : this.#performWatched(call, number);
  }

  #perform(call: Call, number: number): number {
    if (number === MULTICALL) return this.#multicall(call);
    const handler = HYPERCALLS[number];
    return handler && !call.abi.missingCalls.has(number) ? handler(call) : NOT_IMPLEMENTED;
  }

  #performWatched(call: Call, number: number): number {
    // A preempted call changes its arguments to what is left.
    const count = HYPERCALL_ARGUMENTS[HYPERCALL_NAMES[number] ?? ''] ?? UNKNOWN_ARGUMENTS;
    const values: string[] = [];
    for (let index = 0; index < count; index++) {
      values.push(hexadecimal64(call.low[index] as number, call.high[index] as number));
    }
    const result = this.#perform(call, number);
    for (const watcher of this.#watchers) watcher.hypercall(call.vcpu, number, values, result);
    return result;
  }

  /** Entries are carried out in order; each gets its own result, and the call itself succeeds. */
  #multicall(outer: Call): number {
    if (outer.nested) return -Errno.EINVAL;
    const list = outer.value(0);
    const count = outer.low[1] as number;
    const call = new Call(this.#domain, outer.vcpu);
    const layout = call.abi.structures.multicall;
    call.nested = true;
    for (let index = 0; index < count; index++) {
      const address = list + index * layout.size;
      // What is left, if this entry cannot be ended now.
      outer.setValue(0, address);
      outer.setValue(1, count - index);
      if (index === MULTICALL_LIMIT) return Special.preempted;
      outer.prepareWrite(address, layout.size);
      const view = outer.view(address, layout.size);
      if (!view) return FAULT;
      const number = view.getUint32(0, true);
      call.loadFromEntry(view, number);
      const putBack = () => {
        call.storeToEntry(view, number);
        return outer.writeView(address, view);
      };
      let result: number;
      try {
        result = this.#hypercall(call, number);
      } catch (absent) {
        if (absent instanceof PageAbsent) putBack();
        throw absent;
      }
      if (result === Special.noResult) return Special.noResult;
      if (result === Special.preempted) return putBack() ? Special.preempted : FAULT;
      if (!outer.writeLong(address + layout.result, result)) return FAULT;
      if (this.#domain.state.kind !== 'running') return 0;
    }
    return 0;
  }
}
