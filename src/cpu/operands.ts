import { highWord, joinSigned, lowWord } from '../x86/brand.ts';
import { Register, type Vector } from '../x86/registers.ts';
import { longOperandSegment } from './address-fault.ts';
import { type Instruction, OperandKind, SegmentRegister } from './decode/instruction.ts';
import type { Processor } from './processor.ts';

/** Operands and stack of an instruction that the host carries out, with the results that such instructions have. */

const pair = new Uint32Array(2);

export const enum SystemResult {
  /** Carried out; RIP is where execution goes on. */
  done = 0,
  /** The exception stands in the processor's mailbox; nothing changed, unless a task has begun that met it. */
  fault = 1,
  /** Privileged, or the interface's own: it decides. */
  interface = 2,
}

export function complete(processor: Processor): SystemResult {
  processor.completeInstruction();
  return SystemResult.done;
}

export function fault(processor: Processor, vector: Vector, error = 0): SystemResult {
  processor.raise(vector, error);
  return SystemResult.fault;
}

/** Reads a register, memory or immediate operand into `out` as halves. */
export function readOperand(
  processor: Processor,
  instruction: Instruction,
  index: 0 | 1 | 2,
  out: Uint32Array,
  bytes = instruction.operands[index].size,
): boolean {
  const operand = instruction.operands[index];
  switch (operand.kind) {
    case OperandKind.gpr:
      out[0] = processor.low(operand.register);
      out[1] = processor.high(operand.register);
      return true;
    case OperandKind.immediate:
      out[0] = instruction.immediateLow;
      out[1] = instruction.immediateHigh;
      return true;
    case OperandKind.memory:
      return loadOperand(processor, instruction, 0, bytes, out);
    default:
      return false;
  }
}

/** Loads `bytes` of the memory operand, from `displacement` bytes behind its start. */
export function loadOperand(
  processor: Processor,
  instruction: Instruction,
  displacement: number,
  bytes: number,
  out: Uint32Array,
): boolean {
  return load(processor, operandSegment(processor, instruction), processor.operandOffset(displacement), bytes, out);
}

function operandSegment(processor: Processor, instruction: Instruction): SegmentRegister {
  return processor.codeSize === 64 ? longOperandSegment(instruction) : instruction.segment;
}

function load(
  processor: Processor,
  segment: SegmentRegister,
  offset: number,
  bytes: number,
  out: Uint32Array,
): boolean {
  if (!processor.load(segment, offset, bytes)) return false;
  processor.loadedValue(out);
  if (bytes < 8) out[1] = 0;
  if (bytes < 4) out[0] = (out[0] as number) & (bytes === 2 ? 0xffff : 0xff);
  return true;
}

/** A loaded number of up to 8 bytes; of 8 as a signed one. */
export function numberOf(value: Uint32Array, bytes: number): number {
  return bytes === 8 ? joinSigned(value[0] as number, value[1] as number) : (value[0] as number);
}

/** Writes a register (with the architecture's extension) or memory operand. */
export function writeOperand(
  processor: Processor,
  instruction: Instruction,
  index: 0 | 1,
  low: number,
  high: number,
): boolean {
  const { kind, register, size } = instruction.operands[index];
  if (kind === OperandKind.memory) {
    processor.setStoredValue(low, high);
    return processor.store(operandSegment(processor, instruction), processor.operandOffset(), size);
  }
  if (size === 8) processor.set(register, low, high);
  else if (size === 4) processor.set(register, low, 0);
  else processor.set(register, (processor.low(register) & ~0xffff) | (low & 0xffff), processor.high(register));
  return true;
}

function stackPointer(processor: Processor, by = 0): number {
  const value = processor.value(Register.rsp) + by;
  switch (processor.stackSize) {
    case 8:
      return value;
    case 4:
      return value >>> 0;
    default:
      return value & 0xffff;
  }
}

export function moveStackPointer(processor: Processor, by: number): void {
  const pointer = stackPointer(processor, by);
  if (processor.stackSize === 8) processor.setValue(Register.rsp, pointer);
  else if (processor.stackSize === 4) processor.set(Register.rsp, pointer, processor.high(Register.rsp));
  else {
    const kept = processor.low(Register.rsp) & ~0xffff;
    processor.set(Register.rsp, (kept | pointer) >>> 0, processor.high(Register.rsp));
  }
}

/** Reads from the stack, `depth` bytes above its top. */
export function loadStack(processor: Processor, depth: number, bytes: number, out: Uint32Array): boolean {
  return load(processor, SegmentRegister.ss, stackPointer(processor, depth), bytes, out);
}

/** A value of the stack, as a number; undefined with the exception left. */
export function loadStackSlot(processor: Processor, depth: number, bytes: number): number | undefined {
  return loadStack(processor, depth, bytes, pair) ? numberOf(pair, bytes) : undefined;
}

export function storeStack(processor: Processor, depth: number, bytes: number, value: number): boolean {
  processor.setStoredValue(lowWord(value), highWord(value));
  return processor.store(SegmentRegister.ss, stackPointer(processor, depth), bytes);
}
