import { type Instruction, OperandKind, SegmentRegister } from '../../cpu/decode/instruction.ts';
import { executeSystem, fault, readOperand, SystemResult, writeOperand } from '../../cpu/system.ts';
import { type GuestVirtual, highWord, isCanonical, joinSigned, lowWord, type Mfn, PAGE_SIZE } from '../../x86/brand.ts';
import { Cr0, Cr4, Register, Vector } from '../../x86/registers.ts';
import { cpuid } from './cpuid.ts';
import type { XenDomain } from './domain.ts';
import { loadReturnSegments, setDebugRegister } from './hypercalls/cpu.ts';
import type { XenVcpu } from './vcpu.ts';

/**
 * Instructions that a PV guest executes although they are privileged or ask about the machine (abi/xen-pv.md §9).
 * Refused ones leave an exception in the processor's mailbox.
 */
const pair = new Uint32Array(2);

const enum Msr {
  tsc = 0x10,
  apicBase = 0x1b,
  miscEnable = 0x1a0,
  microcode = 0x8b,
  pat = 0x277,
  perfCapabilities = 0x345,
  efer = 0xc000_0080,
  fsBase = 0xc000_0100,
  gsBase = 0xc000_0101,
  kernelGsBase = 0xc000_0102,
  tscAux = 0xc000_0103,
  hypercallPage = 0x4000_0000,
}

/** Write-back, write-through, uncached minus, uncached; write-combining, write-protected, uncached, uncached. */
const PAT_LOW = 0x0007_0406;
const PAT_HIGH = 0x0000_0501;
/** Fast strings, no branch trace, no precise sampling, xTPR disabled. */
const MISC_ENABLE = 1 | (1 << 11) | (1 << 12) | (1 << 23);
const APIC_BASE = 0xfee0_0800;
const APIC_BOOTSTRAP = 0x100;

/** CR4 bits that a guest sets for itself; the others are the host's. */
const GUEST_CR4 = Cr4.timeStampDisable | Cr4.debuggingExtensions;

export function executeForGuest(domain: XenDomain, vcpu: XenVcpu): SystemResult {
  const { processor } = vcpu;
  const result = executeSystem(processor, domain.services(vcpu));
  if (result !== SystemResult.interface) return result;
  const instruction = processor.currentInstruction();
  switch (instruction.operation) {
    case 'cpuid':
      executeCpuid(vcpu);
      return done(vcpu);
    case 'in':
    case 'out':
    case 'ins':
    case 'outs':
      return portAccess(vcpu, instruction);
    case 'iret':
      return returnWithinKernel(vcpu, instruction);
    case 'sgdt':
    case 'sidt':
      return storeTable(vcpu, instruction);
    case 'sldt':
    case 'str':
      return writeOperand(processor, instruction, 0, 0, 0) ? done(vcpu) : SystemResult.fault;
    case 'smsw':
      return writeOperand(processor, instruction, 0, processor.cr0, 0) ? done(vcpu) : SystemResult.fault;
    case 'popf':
      return popFlags(vcpu, instruction);
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
      processor.cr0 = (processor.cr0 & ~Cr0.taskSwitched) >>> 0;
      return done(vcpu);
    case 'wbinvd':
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
export function executeCpuid(vcpu: XenVcpu): void {
  const { processor } = vcpu;
  const [eax, ebx, ecx, edx] = cpuid(processor.low(Register.rax), processor.low(Register.rcx), vcpu.index);
  processor.set(Register.rax, eax >>> 0, 0);
  processor.set(Register.rbx, ebx >>> 0, 0);
  processor.set(Register.rcx, ecx >>> 0, 0);
  processor.set(Register.rdx, edx >>> 0, 0);
}

function mayUsePorts(vcpu: XenVcpu): boolean {
  return vcpu.ioPrivilege >= (vcpu.kernelMode ? 1 : 3);
}

/** No port belongs to the guest: reads give all ones, writes go nowhere. */
function portAccess(vcpu: XenVcpu, instruction: Instruction): SystemResult {
  const { processor } = vcpu;
  if (!mayUsePorts(vcpu)) return fault(processor, Vector.generalProtection);
  if (instruction.operation === 'in') {
    const { size } = instruction.operands[0];
    const low = processor.low(Register.rax);
    if (size === 4) processor.set(Register.rax, 0xffff_ffff, 0);
    else processor.set(Register.rax, low | (size === 2 ? 0xffff : 0xff), processor.high(Register.rax));
  } else if (instruction.operation !== 'out') {
    return fault(processor, Vector.generalProtection);
  }
  return done(vcpu);
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
  loadReturnSegments({ vcpu }, cs, ((frame[8] as number) & 0xffff) | 3);
  processor.instructions++;
  processor.rip = joinSigned(frame[0] as number, frame[1] as number) as GuestVirtual;
  processor.set(Register.rsp, frame[6] as number, frame[7] as number);
  processor.flags = vcpu.permittedFlags(frame[4] as number);
  return SystemResult.done;
}

/** POPF that sets the trap flag comes here; IF and IOPL stay. */
function popFlags(vcpu: XenVcpu, instruction: Instruction): SystemResult {
  const { processor } = vcpu;
  const size = instruction.operandSize;
  const stack = processor.value(Register.rsp);
  if (!processor.memory.loadAt(stack as GuestVirtual, size)) return SystemResult.fault;
  processor.loadedValue(pair);
  const wanted = size === 2 ? (processor.flags & ~0xffff) | ((pair[0] as number) & 0xffff) : (pair[0] as number);
  processor.setValue(Register.rsp, stack + size);
  processor.flags = vcpu.permittedFlags(wanted);
  return done(vcpu);
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

function readMsr(domain: XenDomain, vcpu: XenVcpu): SystemResult {
  const { processor } = vcpu;
  const give = (low: number, high = 0): SystemResult => {
    processor.set(Register.rax, low >>> 0, 0);
    processor.set(Register.rdx, high >>> 0, 0);
    return done(vcpu);
  };
  const giveAddress = (address: number) => give(lowWord(address), highWord(address));
  switch (processor.low(Register.rcx)) {
    case Msr.efer:
      return give(processor.efer);
    case Msr.fsBase:
      return giveAddress(processor.segmentBase(SegmentRegister.fs));
    case Msr.gsBase:
      return giveAddress(processor.segmentBase(SegmentRegister.gs));
    case Msr.kernelGsBase:
      return giveAddress(vcpu.inactiveGsBase);
    case Msr.tscAux:
      return give(vcpu.index);
    case Msr.apicBase:
      return give(APIC_BASE | (vcpu.index === 0 ? APIC_BOOTSTRAP : 0));
    case Msr.pat:
      return give(PAT_LOW, PAT_HIGH);
    case Msr.tsc:
      domain.services(vcpu).timeStamp(pair);
      return give(pair[0] as number, pair[1] as number);
    case Msr.miscEnable:
      return give(MISC_ENABLE);
    case Msr.perfCapabilities:
    case Msr.microcode:
      return give(0);
    default:
      // Kernels probe before they can take a fault.
      if (vcpu.traps[Vector.generalProtection]?.address === 0) return give(0);
      return fault(processor, Vector.generalProtection);
  }
}

function writeMsr(domain: XenDomain, vcpu: XenVcpu): SystemResult {
  const { processor } = vcpu;
  const low = processor.low(Register.rax);
  const high = processor.low(Register.rdx);
  const address = joinSigned(low, high) as GuestVirtual;
  const msr = processor.low(Register.rcx);
  switch (msr) {
    case Msr.fsBase:
    case Msr.gsBase:
    case Msr.kernelGsBase:
      if (!isCanonical(high)) return fault(processor, Vector.generalProtection);
      if (msr === Msr.fsBase) processor.setSegmentBase(SegmentRegister.fs, address);
      else if (msr === Msr.gsBase) processor.setSegmentBase(SegmentRegister.gs, address);
      else vcpu.inactiveGsBase = address;
      return done(vcpu);
    case Msr.efer:
      return low === processor.efer && high === 0 ? done(vcpu) : fault(processor, Vector.generalProtection);
    case Msr.pat:
      return low === PAT_LOW && high === PAT_HIGH ? done(vcpu) : fault(processor, Vector.generalProtection);
    case Msr.miscEnable:
    case Msr.microcode:
      return done(vcpu);
    case Msr.hypercallPage:
      return domain.writeHypercallPage(Math.floor(address / PAGE_SIZE))
        ? done(vcpu)
        : fault(processor, Vector.generalProtection);
    default:
      if (vcpu.traps[Vector.generalProtection]?.address === 0) return done(vcpu);
      return fault(processor, Vector.generalProtection);
  }
}

/** MOV to and from control and debug registers. */
function moveControl(domain: XenDomain, vcpu: XenVcpu, instruction: Instruction): SystemResult {
  const { processor } = vcpu;
  const [target, source] = instruction.operands;
  const refuse = () => fault(processor, Vector.generalProtection);
  if (source.kind === OperandKind.control) {
    const write = (value: number) => {
      processor.setValue(target.register, value);
      return done(vcpu);
    };
    switch (source.register) {
      case 0:
        return write(processor.cr0);
      case 2:
        return write(processor.cr2);
      case 3:
        return write(domain.paging.root(vcpu.index) * PAGE_SIZE);
      case 4:
        return write(processor.cr4);
      default:
        return refuse();
    }
  }
  if (source.kind === OperandKind.debug) {
    const slot = source.register === 4 ? 6 : source.register === 5 ? 7 : source.register;
    processor.set(
      target.register,
      vcpu.debugRegisters[slot * 2] as number,
      vcpu.debugRegisters[slot * 2 + 1] as number,
    );
    return done(vcpu);
  }
  readOperand(processor, instruction, 1, pair);
  const low = pair[0] as number;
  if (target.kind === OperandKind.debug) {
    const result = setDebugRegister({ vcpu }, target.register, low, pair[1] as number);
    return result === 0 ? done(vcpu) : refuse();
  }
  switch (target.register) {
    case 0:
      if (((low ^ processor.cr0) & ~Cr0.taskSwitched) !== 0) return refuse();
      processor.cr0 = low;
      return done(vcpu);
    case 2:
      processor.cr2 = processor.value(source.register) as GuestVirtual;
      vcpu.publishCr2();
      return done(vcpu);
    case 3: {
      const root = Math.floor(processor.value(source.register) / PAGE_SIZE) as Mfn;
      if (domain.paging.newBasePointer(vcpu.index, root) !== 0) return refuse();
      vcpu.useRoots();
      return done(vcpu);
    }
    case 4:
      processor.cr4 = (processor.cr4 & ~GUEST_CR4) | (low & GUEST_CR4);
      return done(vcpu);
    default:
      return refuse();
  }
}

