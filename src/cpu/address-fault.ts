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
 * Whether the access of an instruction that met an address which is not canonical, or the end of 4 GiB, went to the stack
 * segment, and so raises #SS instead of #GP (SDM vol. 1, 3.3.7.1). The instruction has changed no register.
 */
export function addressedStack(processor: Processor, instruction: Instruction): boolean {
  const operand = hasMemoryOperand(instruction);
  const throughStack = STACK_OPERATIONS.has(instruction.operation);
  if (!operand) return throughStack;
  const long = processor.codeSize === 64;
  const operandInStack = (long ? longOperandSegment(instruction) : instruction.segment) === SegmentRegister.ss;
  if (!throughStack) return operandInStack;
  // POP reads the stack before its operand's address matters, all others read their operand first.
  const bytes = instruction.operandSize;
  const operandFailed =
    instruction.operation === 'pop'
      ? isAddressable(long ? processor.value(Register.rsp) : processor.low(Register.rsp), bytes, long)
      : !isAddressable(processor.operandAddress(), bytes, long);
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

function isAddressable(address: number, bytes: number, long: boolean): boolean {
  return long ? address >= -(2 ** 47) && address + bytes <= 2 ** 47 : address + bytes <= 2 ** 32;
}
