import { bits, type CpuidResult, cpuid } from '../../cpu/cpuid.ts';
import type { Instruction } from '../../cpu/decode/instruction.ts';
import { fault, SystemResult, writeOperand } from '../../cpu/operands.ts';
import { farReturn, returnFromInterrupt } from '../../cpu/protection/returns.ts';
import { storeTableRegister } from '../../cpu/protection/table-registers.ts';
import { executeSystem } from '../../cpu/system.ts';
import { Flag, Register, Vector } from '../../x86/registers.ts';
import { KERNEL_RING } from './abi.ts';
import type { LguestDomain } from './domain.ts';
import type { LguestVcpu } from './vcpu.ts';

/**
 * Instructions that leave generated code. Those of ring 0 are refused, since the kernel is in ring 1, but for a few that
 * kernels use before they know where they are: accesses to ports, where there is nothing, and CLI.
 */
type Handler = (domain: LguestDomain, vcpu: LguestVcpu, instruction: Instruction) => SystemResult;

export function executePrivileged(domain: LguestDomain): SystemResult {
  const { vcpu } = domain;
  const { processor } = vcpu;
  const instruction = processor.currentInstruction();
  const handler = HANDLERS.get(instruction.operation);
  if (handler) return handler(domain, vcpu, instruction);
  const result = executeSystem(processor, domain.services);
  return result === SystemResult.interface ? fault(processor, Vector.generalProtection) : result;
}

function done({ processor }: LguestVcpu): SystemResult {
  processor.completeInstruction();
  return SystemResult.done;
}

const refuse: Handler = (_domain, { processor }) => fault(processor, Vector.generalProtection);
const undefinedInstruction: Handler = (_domain, { processor }) => fault(processor, Vector.invalidOpcode);

/** What the kernel may do and programs may not. */
function inKernel(handler: Handler): Handler {
  return (domain, vcpu, instruction) => {
    const { processor } = vcpu;
    return processor.privilege === KERNEL_RING
      ? handler(domain, vcpu, instruction)
      : fault(processor, Vector.generalProtection);
  };
}

const HANDLERS: ReadonlyMap<string, Handler> = new Map<string, Handler>([
  ['iret', interruptReturn],
  ['retf', returnFar],
  ['in', inKernel(readPort)],
  ['out', inKernel((_domain, vcpu) => done(vcpu))],
  ['cli', inKernel((_domain, vcpu) => done(vcpu))],
  ['cpuid', identifyProcessor],
  ['vmcall', hypercall],
  ['vmmcall', undefinedInstruction],
  ['smsw', (_domain, vcpu, instruction) => store(vcpu, instruction, vcpu.processor.cr0)],
  ['sldt', (_domain, vcpu, instruction) => store(vcpu, instruction, 0)],
  ['str', (_domain, vcpu, instruction) => store(vcpu, instruction, 0)],
  ['sgdt', (_domain, vcpu) => completed(vcpu, storeTableRegister(vcpu.processor, vcpu.state.gdt))],
  ['sidt', (_domain, vcpu) => completed(vcpu, storeTableRegister(vcpu.processor, vcpu.state.idt))],
  ['monitor', undefinedInstruction],
  ['mwait', undefinedInstruction],
  ['rsm', undefinedInstruction],
  ...['hlt', 'sti', 'ins', 'outs', 'rdmsr', 'wrmsr', 'rdpmc', 'invlpg', 'wbinvd', 'invd', 'clts', 'lmsw'].map(refused),
  ...['lgdt', 'lidt', 'lldt', 'ltr', 'swapgs', 'sysexit', 'sysret'].map(refused),
]);

function refused(operation: string): [string, Handler] {
  return [operation, refuse];
}

function completed(vcpu: LguestVcpu, result: SystemResult): SystemResult {
  return result === SystemResult.done ? done(vcpu) : result;
}

function store(vcpu: LguestVcpu, instruction: Instruction, value: number): SystemResult {
  return writeOperand(vcpu.processor, instruction, 0, value, 0) ? done(vcpu) : SystemResult.fault;
}

/** To a program, or within the kernel. */
/** A guest has no tasks to return to. */
function interruptReturn(domain: LguestDomain, { processor, state }: LguestVcpu, instruction: Instruction) {
  if (processor.privilege !== KERNEL_RING) return executeSystem(processor, domain.services);
  if ((processor.flags & Flag.nestedTask) !== 0) return fault(processor, Vector.generalProtection);
  return returnFromInterrupt(state, instruction);
}

function returnFar(domain: LguestDomain, { processor, state }: LguestVcpu, instruction: Instruction): SystemResult {
  const result = executeSystem(processor, domain.services);
  return result === SystemResult.interface ? farReturn(state, instruction) : result;
}

/** There are no ports: all ones, as on an empty bus. */
function readPort(_domain: LguestDomain, vcpu: LguestVcpu, instruction: Instruction): SystemResult {
  const { processor } = vcpu;
  const { size } = instruction.operands[0];
  const ones = size === 4 ? 0xffff_ffff : 2 ** (8 * size) - 1;
  processor.set(Register.rax, (processor.low(Register.rax) | ones) >>> 0, 0);
  return done(vcpu);
}

const MAXIMUM_LEAF = 5;
/** SEP: its entry cannot be set. */
const HIDDEN_EDX = bits(11);
const CPUID_REGISTERS = [Register.rax, Register.rbx, Register.rcx, Register.rdx] as const;

function lguestCpuid(leaf: number, subleaf: number): CpuidResult {
  const options = { maximumLeaf: MAXIMUM_LEAF, apicId: 0, moreEcx: 0, moreEdx: 0, moreLeaf7Ebx: 0 };
  const [eax, ebx, ecx, edx] = cpuid(leaf, subleaf, options);
  return [eax, ebx, ecx, leaf === 1 ? (edx & ~HIDDEN_EDX) >>> 0 : edx];
}

/** The kernel masks what it does not want to know itself. */
function identifyProcessor(_domain: LguestDomain, vcpu: LguestVcpu): SystemResult {
  const { processor } = vcpu;
  const result = lguestCpuid(processor.low(Register.rax), processor.low(Register.rcx));
  for (const [position, register] of CPUID_REGISTERS.entries()) processor.set(register, result[position] as number, 0);
  return done(vcpu);
}

function hypercall(domain: LguestDomain, vcpu: LguestVcpu): SystemResult {
  if (vcpu.processor.privilege !== KERNEL_RING) return fault(vcpu.processor, Vector.invalidOpcode);
  domain.hypercalls.execute();
  return done(vcpu);
}
