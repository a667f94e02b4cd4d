import { Register } from '../x86/registers.ts';
import { type Instruction, OperandKind, SegmentRegister } from './decode/instruction.ts';
import type { Processor } from './processor.ts';

/** Operations that use the stack beside their operands. */
const STACK_OPERATIONS = new Set([
  'push',
  'pop',
  'pushf',
  'popf',
  'call',
  'ret',
  'callf',
  'retf',
  'iret',
  'enter',
  'leave',
]);

/**
 * Whether the access of a 64-bit instruction that met an address which is not canonical went to the stack segment, and
 * so raises #SS instead of #GP (SDM vol. 1, 3.3.7.1). The instruction has changed no register.
 */
export function addressedStack(processor: Processor, instruction: Instruction): boolean {
  const operand = hasMemoryOperand(instruction);
  const throughStack = STACK_OPERATIONS.has(instruction.operation);
  if (!operand) return throughStack;
  const operandInStack = longOperandSegment(instruction) === SegmentRegister.ss;
  if (!throughStack) return operandInStack;
  // POP reads the stack before its operand's address matters, all others read their operand first.
  const bytes = instruction.operandSize;
  const operandFailed =
    instruction.operation === 'pop'
      ? isCanonicalRange(processor.value(Register.rsp), bytes)
      : !isCanonicalRange(processor.operandAddress(), bytes);
  return operandFailed ? operandInStack : true;
}

/** Segment of the memory operand in 64-bit code, where only FS and GS prefixes count: they or what the base implies. */
export function longOperandSegment({ base, segment }: Instruction): SegmentRegister {
  if (segment >= SegmentRegister.fs) return segment;
  return base === Register.rsp || base === Register.rbp ? SegmentRegister.ss : SegmentRegister.ds;
}

function hasMemoryOperand(instruction: Instruction): boolean {
  for (let index = 0; index < instruction.operandCount; index++) {
    if (instruction.operands[index]?.kind === OperandKind.memory) return true;
  }
  return false;
}

function isCanonicalRange(address: number, bytes: number): boolean {
  return address >= -(2 ** 47) && address + bytes <= 2 ** 47;
}
