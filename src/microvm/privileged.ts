import { type Instruction, OperandKind, SegmentRegister } from '../cpu/decode/instruction.ts';
import { DescriptorBit } from '../cpu/descriptor.ts';
import { fault, readOperand, SystemResult, writeOperand } from '../cpu/operands.ts';
import { hasDebugRegister, loadMachineStatus } from '../cpu/protection/control-registers.ts';
import { systemExit, systemReturn } from '../cpu/protection/fast-calls.ts';
import { transferThroughGate } from '../cpu/protection/gates.ts';
import { farReturn, interruptReturn } from '../cpu/protection/returns.ts';
import {
  loadLocalTable,
  loadTableRegister,
  loadTaskRegister,
  storeTableRegister,
} from '../cpu/protection/table-registers.ts';
import { executeSystem, loadedSegment } from '../cpu/system.ts';
import { type GuestVirtual, isCanonical, joinSigned, PAGE_SIZE, type Pfn } from '../x86/brand.ts';
import { Cr4, Flag, Register, Vector } from '../x86/registers.ts';
import type { MicrovmDomain } from './domain.ts';
import { accessPort, accessPortString } from './port-access.ts';
import type { MicrovmVcpu } from './vcpu.ts';

/**
 * Instructions that leave generated code, as the architecture has them in every ring. What the catalogue has an operation
 * for is done by that operation. Refused ones leave an exception in the processor's mailbox.
 */
type Handler = (domain: MicrovmDomain, vcpu: MicrovmVcpu, instruction: Instruction) => SystemResult;

const pair = new Uint32Array(2);
const quad = new Uint32Array(4);

/** Bits of CR3 below the root's page: PWT and PCD, and with PAE where in the page the root is. */
const CR3_FLAGS = 0x18;
const CR3_LOW_PAE = 0xff8;
const CR3_CONTEXT = 0xfff;

export function executePrivileged(domain: MicrovmDomain, vcpu: MicrovmVcpu): SystemResult {
  const { processor } = vcpu;
  const instruction = processor.currentInstruction();
  const handler = handlerOf(instruction);
  if (handler) {
    if (KERNEL_ONLY.has(instruction.operation) && processor.privilege !== 0) {
      return fault(processor, Vector.generalProtection);
    }
    const result = handler(domain, vcpu, instruction);
    if (result !== SystemResult.interface) return result;
  }
  const result = executeSystem(processor, domain.services(vcpu));
  if (result === SystemResult.done) noteSegmentLoad(vcpu, instruction);
  return result === SystemResult.interface ? fault(processor, Vector.generalProtection) : result;
}

function handlerOf({ operation, operands }: Instruction): Handler | undefined {
  if (operation !== 'mov') return HANDLERS.get(operation);
  return operands[0].kind === OperandKind.segment ? undefined : moveSystemRegister;
}

function done(vcpu: MicrovmVcpu): SystemResult {
  vcpu.processor.completeInstruction();
  return SystemResult.done;
}

function completeIf(vcpu: MicrovmVcpu, allowed: boolean): SystemResult {
  return allowed ? done(vcpu) : fault(vcpu.processor, Vector.generalProtection);
}

function completed(vcpu: MicrovmVcpu, result: SystemResult): SystemResult {
  return result === SystemResult.done ? done(vcpu) : result;
}

/** A loaded segment's descriptor is marked as accessed; behind a load of SS one instruction runs without interrupts. */
function noteSegmentLoad({ processor, state }: MicrovmVcpu, instruction: Instruction): void {
  const segment = loadedSegment(instruction);
  if (segment === undefined) return;
  const selector = processor.selector(segment);
  if ((selector & ~3) !== 0 && !processor.realSegments) state.changeDescriptor(selector, DescriptorBit.accessed, 0);
  if (segment === SegmentRegister.ss) processor.inInterruptShadow = true;
}

const HANDLERS: ReadonlyMap<string, Handler> = new Map<string, Handler>([
  ['hlt', halt],
  ['cli', (_domain, vcpu) => switchInterrupts(vcpu, false)],
  ['sti', (_domain, vcpu) => switchInterrupts(vcpu, true)],
  ['iret', (_domain, vcpu, instruction) => returnFromInterrupt(vcpu, instruction)],
  ['retf', returnFar],
  ['jmpf', (_domain, { state }, instruction) => transferThroughGate(state, instruction)],
  ['callf', (_domain, { state }, instruction) => transferThroughGate(state, instruction)],
  ['sysret', (_domain, { state }, instruction) => systemReturn(state, instruction)],
  ['sysexit', (_domain, { state }, instruction) => systemExit(state, instruction)],
  ['swapgs', (_domain, { processor }) => fault(processor, Vector.generalProtection)],
  ['in', (domain, vcpu, instruction) => accessPort(domain, vcpu, instruction)],
  ['out', (domain, vcpu, instruction) => accessPort(domain, vcpu, instruction)],
  ['ins', (domain, vcpu, instruction) => accessPortString(domain, vcpu, instruction)],
  ['outs', (domain, vcpu, instruction) => accessPortString(domain, vcpu, instruction)],
  ['cpuid', identifyProcessor],
  ['rdtsc', guardTimeStamp],
  ['rdtscp', guardTimeStamp],
  ['rdmsr', readMsr],
  ['wrmsr', writeMsr],
  ['rdpmc', (_domain, { processor }) => fault(processor, Vector.generalProtection)],
  ['invlpg', invalidatePage],
  ['wbinvd', writeBack],
  ['invd', writeBack],
  ['clts', clearTaskSwitched],
  ['lmsw', loadStatusWord],
  ['smsw', (domain, vcpu, instruction) => storeWord(vcpu, instruction, domain.operations.cpu.readCr0(vcpu.index))],
  ['sldt', (_domain, vcpu, instruction) => storeSelector(vcpu, instruction, vcpu.state.ldt.selector)],
  ['str', (_domain, vcpu, instruction) => storeSelector(vcpu, instruction, vcpu.state.task.selector)],
  [
    'lgdt',
    (_domain, vcpu, { operandSize }) => {
      const result = loadTableRegister(vcpu.processor, vcpu.state.gdt, operandSize);
      vcpu.state.useCalls();
      return completed(vcpu, result);
    },
  ],
  [
    'lidt',
    (_domain, vcpu, { operandSize }) => completed(vcpu, loadTableRegister(vcpu.processor, vcpu.state.idt, operandSize)),
  ],
  ['sgdt', (_domain, vcpu) => completed(vcpu, storeTableRegister(vcpu.processor, vcpu.state.gdt))],
  ['sidt', (_domain, vcpu) => completed(vcpu, storeTableRegister(vcpu.processor, vcpu.state.idt))],
  ['lldt', (_domain, vcpu, instruction) => loadSelector(vcpu, instruction, loadLocalTable)],
  ['ltr', (_domain, vcpu, instruction) => loadSelector(vcpu, instruction, loadTaskRegister)],
  ['vmcall', (domain, vcpu) => hypercall(domain, vcpu)],
  ['vmmcall', (domain, vcpu) => hypercall(domain, vcpu)],
  ['monitor', undefinedInstruction],
  ['mwait', undefinedInstruction],
  ['rsm', undefinedInstruction],
]);

/** Privileged instructions: #GP outside ring 0, before all other checks. */
const KERNEL_ONLY: ReadonlySet<string> = new Set([
  'hlt',
  'sysret',
  'sysexit',
  'swapgs',
  'rdmsr',
  'wrmsr',
  'invlpg',
  'wbinvd',
  'invd',
  'clts',
  'lmsw',
  'lgdt',
  'lidt',
  'lldt',
  'ltr',
]);

function undefinedInstruction(_domain: MicrovmDomain, { processor }: MicrovmVcpu): SystemResult {
  return fault(processor, Vector.invalidOpcode);
}

// Interrupts

function halt(domain: MicrovmDomain, vcpu: MicrovmVcpu): SystemResult {
  vcpu.processor.completeInstruction();
  if (vcpu.interruptsOn) domain.operations.irq.safeHalt(vcpu.index);
  else domain.operations.irq.halt(vcpu.index);
  return SystemResult.done;
}

/** CLI and STI, where generated code does not do them itself. */
function switchInterrupts(vcpu: MicrovmVcpu, on: boolean): SystemResult {
  const { processor } = vcpu;
  const { flags } = processor;
  if (processor.privilege > (flags & Flag.iopl) >>> Flag.ioplShift) return fault(processor, Vector.generalProtection);
  processor.flags = on ? flags | Flag.interrupt : flags & ~Flag.interrupt;
  processor.completeInstruction();
  if (on && (flags & Flag.interrupt) === 0) processor.inInterruptShadow = true;
  return SystemResult.done;
}

function returnFromInterrupt(vcpu: MicrovmVcpu, instruction: Instruction): SystemResult {
  const { processor } = vcpu;
  if (processor.privilege === 3 && !processor.realSegments) return SystemResult.interface;
  const result = interruptReturn(vcpu.state, instruction);
  if (result === SystemResult.done) vcpu.state.inNonMaskable = false;
  return result;
}

/** To an outer ring; a return within the ring needs no more than every interface has. */
function returnFar(domain: MicrovmDomain, vcpu: MicrovmVcpu, instruction: Instruction): SystemResult {
  const result = executeSystem(vcpu.processor, domain.services(vcpu));
  return result === SystemResult.interface ? farReturn(vcpu.state, instruction) : result;
}

// What the processor says of itself

const CPUID_REGISTERS = [Register.rax, Register.rbx, Register.rcx, Register.rdx] as const;

function identifyProcessor({ operations }: MicrovmDomain, vcpu: MicrovmVcpu): SystemResult {
  const { processor, index } = vcpu;
  operations.cpu.cpuid(index, processor.low(Register.rax), processor.low(Register.rcx), quad);
  for (const [position, register] of CPUID_REGISTERS.entries()) processor.set(register, quad[position] as number, 0);
  return done(vcpu);
}

/** Outside ring 0, CR4.TSD forbids to read the time-stamp counter. */
function guardTimeStamp(_domain: MicrovmDomain, { processor }: MicrovmVcpu): SystemResult {
  const forbidden = processor.privilege !== 0 && (processor.cr4 & Cr4.timeStampDisable) !== 0;
  return forbidden ? fault(processor, Vector.generalProtection) : SystemResult.interface;
}

function readMsr({ operations }: MicrovmDomain, vcpu: MicrovmVcpu): SystemResult {
  const { processor, index } = vcpu;
  pair.fill(0);
  if (operations.cpu.readMsr(index, processor.low(Register.rcx), pair) !== 0) {
    return fault(processor, Vector.generalProtection);
  }
  processor.set(Register.rax, pair[0] as number, 0);
  processor.set(Register.rdx, pair[1] as number, 0);
  return done(vcpu);
}

function writeMsr({ operations }: MicrovmDomain, vcpu: MicrovmVcpu): SystemResult {
  const { processor, index } = vcpu;
  const low = processor.low(Register.rax);
  const high = processor.low(Register.rdx);
  return completeIf(vcpu, operations.cpu.writeMsr(index, processor.low(Register.rcx), low, high) === 0);
}

function hypercall({ interface: own }: MicrovmDomain, vcpu: MicrovmVcpu): SystemResult {
  const result = own.hypercall(vcpu);
  return result === SystemResult.interface ? fault(vcpu.processor, Vector.invalidOpcode) : completed(vcpu, result);
}

// Memory

function invalidatePage({ operations }: MicrovmDomain, vcpu: MicrovmVcpu): SystemResult {
  const { processor, index } = vcpu;
  const address = processor.operandAddress();
  // An address that is not canonical has no translation.
  if (isCanonical(Math.floor(address / 0x1_0000_0000) >>> 0)) operations.mmu.flushTlbSingle(index, address);
  return done(vcpu);
}

function writeBack({ operations }: MicrovmDomain, vcpu: MicrovmVcpu): SystemResult {
  operations.cpu.wbinvd(vcpu.index);
  return done(vcpu);
}

// System registers

function clearTaskSwitched({ operations }: MicrovmDomain, vcpu: MicrovmVcpu): SystemResult {
  operations.cpu.clts(vcpu.index);
  return done(vcpu);
}

function loadStatusWord(_domain: MicrovmDomain, vcpu: MicrovmVcpu, instruction: Instruction): SystemResult {
  if (!readOperand(vcpu.processor, instruction, 0, pair, 2)) return SystemResult.fault;
  return completeIf(vcpu, loadMachineStatus(vcpu.state, (pair[0] as number) & 0xffff));
}

function storeWord(vcpu: MicrovmVcpu, instruction: Instruction, value: number): SystemResult {
  return writeOperand(vcpu.processor, instruction, 0, value, 0) ? done(vcpu) : SystemResult.fault;
}

/** In real and virtual-8086 mode there are neither local tables nor tasks, and no such instructions. */
function storeSelector(vcpu: MicrovmVcpu, instruction: Instruction, selector: number): SystemResult {
  if (vcpu.processor.realSegments) return fault(vcpu.processor, Vector.invalidOpcode);
  return storeWord(vcpu, instruction, selector);
}

function loadSelector(
  vcpu: MicrovmVcpu,
  instruction: Instruction,
  load: (state: MicrovmVcpu['state'], selector: number) => SystemResult,
): SystemResult {
  if (vcpu.processor.realSegments) return fault(vcpu.processor, Vector.invalidOpcode);
  if (!readOperand(vcpu.processor, instruction, 0, pair, 2)) return SystemResult.fault;
  return completed(vcpu, load(vcpu.state, (pair[0] as number) & 0xffff));
}

/** MOV to and from control and debug registers. */
function moveSystemRegister(domain: MicrovmDomain, vcpu: MicrovmVcpu, instruction: Instruction): SystemResult {
  const { processor } = vcpu;
  if (processor.privilege !== 0) return fault(processor, Vector.generalProtection);
  const [target, source] = instruction.operands;
  if (source.kind === OperandKind.control) return readControl(domain, vcpu, target.register, source.register);
  const named = target.kind === OperandKind.debug ? target : source;
  if (named.kind === OperandKind.debug && !hasDebugRegister(vcpu.state, named.register)) {
    return fault(processor, Vector.invalidOpcode);
  }
  if (source.kind === OperandKind.debug) {
    pair.fill(0);
    domain.operations.cpu.getDebugreg(vcpu.index, source.register, pair);
    processor.set(target.register, pair[0] as number, pair[1] as number);
    return done(vcpu);
  }
  readOperand(processor, instruction, 1, pair);
  const low = pair[0] as number;
  const high = processor.codeSize === 64 ? (pair[1] as number) : 0;
  if (target.kind === OperandKind.control) return writeControl(domain, vcpu, target.register, low, high);
  return completeIf(vcpu, domain.operations.cpu.setDebugreg(vcpu.index, target.register, low, high) === 0);
}

function readControl(
  { operations }: MicrovmDomain,
  vcpu: MicrovmVcpu,
  target: Register,
  register: number,
): SystemResult {
  const { processor, state, index } = vcpu;
  switch (register) {
    case 0:
      processor.set(target, operations.cpu.readCr0(index), 0);
      return done(vcpu);
    case 2:
      processor.setValue(target, operations.mmu.readCr2(index));
      return done(vcpu);
    case 3:
      processor.setValue(target, operations.mmu.readCr3(index) * PAGE_SIZE + (state.cr3 & (PAGE_SIZE - 1)));
      return done(vcpu);
    case 4:
      processor.set(target, operations.cpu.readCr4(index), 0);
      return done(vcpu);
    default:
      return fault(processor, Vector.invalidOpcode);
  }
}

function writeControl(
  { operations }: MicrovmDomain,
  vcpu: MicrovmVcpu,
  register: number,
  low: number,
  high: number,
): SystemResult {
  const { processor, index } = vcpu;
  const value = joinSigned(low, high);
  switch (register) {
    case 0:
      return completeIf(vcpu, high === 0 && operations.cpu.writeCr0(index, low) === 0);
    case 2:
      operations.mmu.writeCr2(index, value as GuestVirtual);
      return done(vcpu);
    case 3:
      return writeRoot(operations, vcpu, low, high);
    case 4:
      return completeIf(vcpu, high === 0 && operations.cpu.writeCr4(index, low) === 0);
    default:
      return fault(processor, Vector.invalidOpcode);
  }
}

/** With process contexts the low bits are the number of one, and the highest says that its translations are kept. */
function writeRoot({ mmu }: MicrovmDomain['operations'], vcpu: MicrovmVcpu, low: number, high: number): SystemResult {
  const { processor, state, index } = vcpu;
  const hasContexts = (processor.cr4 & Cr4.processContexts) !== 0;
  const keep = hasContexts && high >>> 31 !== 0;
  vcpu.cr3Low = low & (hasContexts ? CR3_CONTEXT : state.format === 'pae' ? CR3_LOW_PAE : CR3_FLAGS);
  const root = joinSigned(low, keep ? high & 0x7fff_ffff : high);
  return completeIf(vcpu, mmu.writeCr3(index, Math.floor(root / PAGE_SIZE) as Pfn, false, keep) === 0);
}
