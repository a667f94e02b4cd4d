import { type Instruction, OperandKind } from '../../cpu/decode/instruction.ts';
import { fault, readOperand, SystemResult, writeOperand } from '../../cpu/operands.ts';
import { farReturn, returnFromInterrupt } from '../../cpu/protection/returns.ts';
import { executeSystem, loadedSegment } from '../../cpu/system.ts';
import { type GuestVirtual, isCanonical, joinSigned, type Mfn } from '../../x86/brand.ts';
import { Flag, Register, Vector } from '../../x86/registers.ts';
import type { XenDomain } from './domain.ts';
import { loadKernelsChoice } from './kernel-returns.ts';
import { NO_REGISTER } from './msr.ts';
import type { XenVcpu } from './vcpu.ts';

/**
 * Instructions that a PV guest executes although they are privileged or ask about the machine.
 * What the catalogue has an operation for is done by that operation. Refused ones leave an exception in the
 * processor's mailbox.
 */
const pair = new Uint32Array(2);

const quad = new Uint32Array(4);

export function executeForGuest(domain: XenDomain, vcpu: XenVcpu): SystemResult {
  const { processor } = vcpu;
  const { cpu } = domain.operations;
  const { index } = vcpu;
  const instruction = processor.currentInstruction();
  const result = executeSystem(processor, domain.services(vcpu));
  if (result === SystemResult.done) {
    const segment = loadedSegment(instruction);
    if (segment !== undefined) vcpu.markAccessed(processor.selector(segment));
  }
  if (result !== SystemResult.interface) return result;
  switch (instruction.operation) {
    case 'cpuid':
      executeCpuid(domain, vcpu);
      return done(vcpu);
    case 'in':
    case 'out':
    case 'ins':
    case 'outs':
      return portAccess(domain, vcpu, instruction);
    case 'iret':
      return vcpu.abi.bits === 64 ? returnWithinKernel(vcpu, instruction) : returnFromRing1(vcpu, instruction);
    case 'retf':
      // To an outer ring.
      return vcpu.abi.bits === 64 ? fault(processor, Vector.generalProtection) : farReturn(vcpu, instruction);
    case 'sgdt':
    case 'sidt':
      return storeTable(vcpu, instruction);
    case 'str':
      return writeOperand(processor, instruction, 0, cpu.storeTr(index), 0) ? done(vcpu) : SystemResult.fault;
    case 'sldt':
      return writeOperand(processor, instruction, 0, 0, 0) ? done(vcpu) : SystemResult.fault;
    case 'smsw':
      return writeOperand(processor, instruction, 0, cpu.readCr0(index), 0) ? done(vcpu) : SystemResult.fault;
    case 'cli':
    case 'sti':
      // The virtual interrupt flag is a byte in memory; with enough I/O privilege these do nothing.
      return mayUsePorts(vcpu) ? done(vcpu) : fault(processor, Vector.generalProtection);
  }
  if (!vcpu.kernelMode) return fault(processor, Vector.generalProtection);
  switch (instruction.operation) {
    case 'rdmsr':
      return readMsr(domain, vcpu);
    case 'wrmsr':
      return writeMsr(domain, vcpu);
    case 'mov':
      return moveControl(domain, vcpu, instruction);
    case 'clts':
      cpu.clts(index);
      return done(vcpu);
    case 'wbinvd':
      cpu.wbinvd(index);
      return done(vcpu);
    default:
      return fault(processor, Vector.generalProtection);
  }
}

function done(vcpu: XenVcpu): SystemResult {
  vcpu.processor.completeInstruction();
  return SystemResult.done;
}

/** CPUID, plain or behind the forced-emulation prefix; RIP is the caller's to move. */
export function executeCpuid(domain: XenDomain, vcpu: XenVcpu): void {
  const { processor } = vcpu;
  domain.operations.cpu.cpuid(vcpu.index, processor.low(Register.rax), processor.low(Register.rcx), quad);
  for (const [position, register] of CPUID_REGISTERS.entries()) processor.set(register, quad[position] as number, 0);
}

const CPUID_REGISTERS = [Register.rax, Register.rbx, Register.rcx, Register.rdx] as const;

function mayUsePorts(vcpu: XenVcpu): boolean {
  return vcpu.ioPrivilege >= (vcpu.kernelMode ? 1 : 3);
}

/** The port that kernels write in order to wait. */
const DELAY_PORT = 0x80;

/** No port belongs to the guest: reads give all ones, writes go nowhere. */
function portAccess(domain: XenDomain, vcpu: XenVcpu, instruction: Instruction): SystemResult {
  const { processor } = vcpu;
  if (!mayUsePorts(vcpu)) return fault(processor, Vector.generalProtection);
  if (instruction.operation === 'in') {
    const { size } = instruction.operands[0];
    const low = processor.low(Register.rax);
    if (size === 4) processor.set(Register.rax, 0xffff_ffff, 0);
    else processor.set(Register.rax, low | (size === 2 ? 0xffff : 0xff), processor.high(Register.rax));
  } else if (instruction.operation !== 'out') {
    return fault(processor, Vector.generalProtection);
  } else if (portOf(vcpu, instruction) === DELAY_PORT) {
    domain.operations.cpu.ioDelay(vcpu.index);
  }
  return done(vcpu);
}

/** Port of an OUT: its first operand. */
function portOf(vcpu: XenVcpu, instruction: Instruction): number {
  readOperand(vcpu.processor, instruction, 0, pair);
  return (pair[0] as number) & 0xffff;
}

/** IRETQ to the same privilege: kernels serialise with it after they patched themselves. */
function returnWithinKernel(vcpu: XenVcpu, instruction: Instruction): SystemResult {
  const { processor } = vcpu;
  if (processor.codeSize !== 64 || instruction.operandSize !== 8) return fault(processor, Vector.generalProtection);
  const stack = processor.value(Register.rsp);
  const frame: number[] = [];
  for (let slot = 0; slot < 5; slot++) {
    if (!processor.memory.loadAt((stack + slot * 8) as GuestVirtual, 8)) return SystemResult.fault;
    processor.loadedValue(pair);
    frame.push(pair[0] as number, pair[1] as number);
  }
  const cs = (frame[2] as number) & 0xffff;
  if ((cs & 3) !== 3) return fault(processor, Vector.generalProtection, cs & 0xfffc);
  if (!isCanonical(frame[1] as number)) return fault(processor, Vector.generalProtection);
  loadKernelsChoice(vcpu, cs, ((frame[8] as number) & 0xffff) | 3);
  processor.instructions++;
  processor.rip = joinSigned(frame[0] as number, frame[1] as number) as GuestVirtual;
  processor.set(Register.rsp, frame[6] as number, frame[7] as number);
  processor.flags = vcpu.permittedFlags(frame[4] as number);
  return SystemResult.done;
}

/** IRET of a 32-bit kernel, to itself or to a program, as the processor carries it out in ring 1. */
function returnFromRing1(vcpu: XenVcpu, instruction: Instruction): SystemResult {
  const { processor } = vcpu;
  if ((processor.flags & Flag.nestedTask) !== 0) return fault(processor, Vector.generalProtection);
  return returnFromInterrupt(vcpu, instruction);
}

function storeTable(vcpu: XenVcpu, instruction: Instruction): SystemResult {
  const { processor } = vcpu;
  const address = processor.operandAddress();
  const bytes = instruction.operandSize === 8 || processor.codeSize === 64 ? 8 : 4;
  processor.setStoredValue(0, 0);
  if (!processor.memory.storeAt(address, 2)) return SystemResult.fault;
  if (!processor.memory.storeAt((address + 2) as GuestVirtual, bytes)) return SystemResult.fault;
  return done(vcpu);
}

/** Whether the kernel can take a fault; before it can, it probes registers that may not be there. */
function takesFaults(vcpu: XenVcpu): boolean {
  return vcpu.traps[Vector.generalProtection]?.address !== 0;
}

function readMsr(domain: XenDomain, vcpu: XenVcpu): SystemResult {
  const { processor } = vcpu;
  pair.fill(0);
  const result = domain.operations.cpu.readMsr(vcpu.index, processor.low(Register.rcx), pair);
  if (result !== 0 && takesFaults(vcpu)) return fault(processor, Vector.generalProtection);
  processor.set(Register.rax, pair[0] as number, 0);
  processor.set(Register.rdx, pair[1] as number, 0);
  return done(vcpu);
}

function writeMsr(domain: XenDomain, vcpu: XenVcpu): SystemResult {
  const { processor } = vcpu;
  const low = processor.low(Register.rax);
  const high = processor.low(Register.rdx);
  const result = domain.operations.cpu.writeMsr(vcpu.index, processor.low(Register.rcx), low, high);
  if (result === 0 || (result === NO_REGISTER && !takesFaults(vcpu))) return done(vcpu);
  return fault(processor, Vector.generalProtection);
}

/** MOV to and from control and debug registers. */
function moveControl(domain: XenDomain, vcpu: XenVcpu, instruction: Instruction): SystemResult {
  const { processor, index } = vcpu;
  const { cpu, mmu } = domain.operations;
  const [target, source] = instruction.operands;
  const refuse = () => fault(processor, Vector.generalProtection);
  if (source.kind === OperandKind.control) {
    const write = (value: number) => {
      processor.setValue(target.register, value);
      return done(vcpu);
    };
    switch (source.register) {
      case 0:
        return write(cpu.readCr0(index));
      case 2:
        return write(mmu.readCr2(index));
      case 3:
        return write(vcpu.abi.cr3OfRoot(mmu.readCr3(index) as Mfn));
      case 4:
        return write(cpu.readCr4(index));
      default:
        return refuse();
    }
  }
  if (source.kind === OperandKind.debug) {
    if (source.register > 7) return refuse();
    cpu.getDebugreg(index, source.register, pair);
    processor.set(target.register, pair[0] as number, pair[1] as number);
    return done(vcpu);
  }
  readOperand(processor, instruction, 1, pair);
  const low = pair[0] as number;
  if (target.kind === OperandKind.debug) {
    const result = cpu.setDebugreg(index, target.register, low, pair[1] as number);
    return result === 0 ? done(vcpu) : refuse();
  }
  switch (target.register) {
    case 0:
      return cpu.writeCr0(index, low) === 0 ? done(vcpu) : refuse();
    case 2:
      mmu.writeCr2(index, processor.value(source.register) as GuestVirtual);
      return done(vcpu);
    case 3: {
      const root = vcpu.abi.rootOfCr3(low, pair[1] as number);
      return mmu.writeCr3(index, root, false, false) === 0 ? done(vcpu) : refuse();
    }
    case 4:
      return cpu.writeCr4(index, low) === 0 ? done(vcpu) : refuse();
    default:
      return refuse();
  }
}
