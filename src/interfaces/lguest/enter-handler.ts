import { SegmentRegister } from '../../cpu/decode/instruction.ts';
import { isCodeOfRing, isPresent, isWritableData, privilegeOf } from '../../cpu/descriptor.ts';
import type { Descriptor } from '../../cpu/processor-api.ts';
import { StackFrame } from '../../cpu/protection/stack-frame.ts';
import { DomainCrash } from '../../domain/crash.ts';
import { hexadecimal } from '../../inspect/text.ts';
import type { GuestVirtual } from '../../x86/brand.ts';
import { Flag, Register } from '../../x86/registers.ts';
import { INTERRUPTS_ON, KERNEL_CODE, KERNEL_RING } from './abi.ts';
import { type Gate, GateType } from './descriptor-tables.ts';
import type { GuestData } from './guest-data.ts';
import type { LguestVcpu } from './vcpu.ts';

/** What a handler finds on its stack, besides stack and code of what was interrupted. */
export interface Arrival {
  readonly returnTo: GuestVirtual;
  /** Undefined for events without one. */
  readonly error: number | undefined;
}

const descriptor: Descriptor = { low: 0, high: 0 };
const code: Descriptor = { low: 0, high: 0 };

/** Flags that a handler does not begin with. */
const CLEARED = Flag.trap | Flag.nestedTask | Flag.resume;

/**
 * Enters a handler of the kernel: on the stack that it runs on, or on its own for programs when one of those is
 * interrupted. In the frame the interrupt flag is what the guest has in its word for it.
 * @throws PageAbsent with nothing changed
 * @throws DomainCrash when the stack cannot take the frame: there is nobody left to tell
 */
export function enterHandler(vcpu: LguestVcpu, data: GuestData, gate: Gate, arrival: Arrival): void {
  const { processor, state, tables } = vcpu;
  const { flags } = processor;
  const fromProgram = processor.privilege !== KERNEL_RING;
  const isMasked = data.isNamed && (data.irqEnabled & INTERRUPTS_ON) === 0;
  if (fromProgram && !isKernelStack(vcpu, descriptor)) {
    throw new DomainCrash(
      `the kernel's stack is in the segment ${hexadecimal(vcpu.stackSelector)}, which is none for it`,
    );
  }
  if (!tables.read(KERNEL_CODE, code) || !isCodeOfRing(code, KERNEL_RING)) {
    throw new DomainCrash(`the kernel's code segment ${hexadecimal(KERNEL_CODE)} is none for its ring`);
  }
  const entered = state.asSupervisor(() => {
    const frame = fromProgram ? StackFrame.on(state, descriptor, vcpu.stackPointer, 0) : StackFrame.current(state);
    const push = (value: number): boolean => frame.push(value, 4);
    const written =
      (!fromProgram || (push(processor.selector(SegmentRegister.ss)) && push(processor.low(Register.rsp)))) &&
      push(isMasked ? flags & ~Flag.interrupt : flags) &&
      push(processor.selector(SegmentRegister.cs)) &&
      push(arrival.returnTo) &&
      (arrival.error === undefined || push(arrival.error));
    if (!written) return false;
    processor.flags = flags & ~CLEARED;
    processor.loadSegment(SegmentRegister.cs, KERNEL_CODE, code);
    if (fromProgram) processor.loadSegment(SegmentRegister.ss, vcpu.stackSelector, descriptor);
    processor.set(Register.rsp, frame.pointer, 0);
    processor.rip = gate.handler as GuestVirtual;
    return true;
  });
  if (!entered) {
    const stack = fromProgram ? vcpu.stackPointer : processor.low(Register.rsp);
    throw new DomainCrash(`the kernel's stack at ${hexadecimal(stack)} cannot be written`);
  }
  if (gate.type === GateType.interrupt && data.isNamed) data.irqEnabled = 0;
}

function isKernelStack({ tables, stackSelector }: LguestVcpu, out: Descriptor): boolean {
  return (
    (stackSelector & 3) === KERNEL_RING &&
    tables.read(stackSelector, out) &&
    isPresent(out) &&
    isWritableData(out) &&
    privilegeOf(out) === KERNEL_RING
  );
}
