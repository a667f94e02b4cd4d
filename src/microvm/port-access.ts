import { type Instruction, OperandKind, SegmentRegister } from '../cpu/decode/instruction.ts';
import { fault, SystemResult } from '../cpu/operands.ts';
import { mayUsePorts } from '../cpu/protection/ports.ts';
import { Flag, Register, Vector } from '../x86/registers.ts';
import type { MicrovmDomain } from './domain.ts';
import { Port } from './layout.ts';
import type { MicrovmVcpu } from './vcpu.ts';

/** IN, OUT, INS and OUTS. */

const pair = new Uint32Array(2);

/** The port that an operand names: an immediate, or DX. */
function portOf({ processor }: MicrovmVcpu, instruction: Instruction, operand: 0 | 1): number {
  const isImmediate = instruction.operands[operand].kind === OperandKind.immediate;
  return isImmediate ? instruction.immediateLow & 0xff : processor.low(Register.rdx) & 0xffff;
}

function truncated(value: number, bytes: number): number {
  return bytes === 4 ? value >>> 0 : value & (2 ** (bytes * 8) - 1);
}

export function accessPort(domain: MicrovmDomain, vcpu: MicrovmVcpu, instruction: Instruction): SystemResult {
  const { processor } = vcpu;
  const isInput = instruction.operation === 'in';
  const bytes = instruction.operands[isInput ? 0 : 1].size;
  const port = portOf(vcpu, instruction, isInput ? 1 : 0);
  if (!mayUsePorts(vcpu.state, port, bytes)) return fault(processor, Vector.generalProtection);
  const register = processor.low(Register.rax);
  if (isInput) {
    const value = domain.ports.load(port, bytes);
    if (bytes === 4) processor.set(Register.rax, value, 0);
    else {
      const mask = 2 ** (bytes * 8) - 1;
      processor.set(Register.rax, ((register & ~mask) | value) >>> 0, processor.high(Register.rax));
    }
  } else if (port === Port.delay) {
    domain.operations.cpu.ioDelay(vcpu.index);
  } else {
    domain.ports.store(port, bytes, truncated(register, bytes));
  }
  processor.completeInstruction();
  return SystemResult.done;
}

/** One element; a repeated instruction comes again for the next. */
export function accessPortString(domain: MicrovmDomain, vcpu: MicrovmVcpu, instruction: Instruction): SystemResult {
  const { processor } = vcpu;
  const isInput = instruction.operation === 'ins';
  const bytes = Math.min(instruction.operandSize, 4);
  const port = processor.low(Register.rdx) & 0xffff;
  if (!mayUsePorts(vcpu.state, port, bytes)) return fault(processor, Vector.generalProtection);
  const repeated = instruction.repeatEqual || instruction.repeatNotEqual;
  const count = counter(vcpu, Register.rcx, instruction.addressSize);
  if (repeated && count === 0) {
    processor.completeInstruction();
    return SystemResult.done;
  }
  const pointer = isInput ? Register.rdi : Register.rsi;
  const offset = counter(vcpu, pointer, instruction.addressSize);
  if (isInput) {
    processor.setStoredValue(domain.ports.load(port, bytes), 0);
    if (!processor.store(SegmentRegister.es, offset, bytes)) return SystemResult.fault;
  } else {
    if (!processor.load(instruction.segment, offset, bytes)) return SystemResult.fault;
    processor.loadedValue(pair);
    domain.ports.store(port, bytes, truncated(pair[0] as number, bytes));
  }
  const step = (processor.flags & Flag.direction) !== 0 ? -bytes : bytes;
  setCounter(vcpu, pointer, instruction.addressSize, offset + step);
  if (repeated) setCounter(vcpu, Register.rcx, instruction.addressSize, count - 1);
  if (!repeated || count === 1) processor.completeInstruction();
  return SystemResult.done;
}

function counter({ processor }: MicrovmVcpu, register: Register, size: number): number {
  if (size === 8) return processor.value(register);
  return size === 4 ? processor.low(register) : processor.low(register) & 0xffff;
}

function setCounter({ processor }: MicrovmVcpu, register: Register, size: number, value: number): void {
  if (size === 8) processor.setValue(register, value);
  else if (size === 4) processor.set(register, value >>> 0, 0);
  else {
    const kept = processor.low(register) & ~0xffff;
    processor.set(register, (kept | (value & 0xffff)) >>> 0, processor.high(register));
  }
}
