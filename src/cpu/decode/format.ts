/** Prints a decoded instruction in Intel syntax, for traces and messages. */
import { AddressRegister, type Instruction, type Operand, OperandKind } from './instruction.ts';

const lowNames = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'];
const byteNames = ['al', 'cl', 'dl', 'bl', 'spl', 'bpl', 'sil', 'dil'];
const highByteNames = ['ah', 'ch', 'dh', 'bh'];
const segmentNames = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'];

const extendedSuffixes: Record<number, string> = { 1: 'b', 2: 'w', 4: 'd', 8: '' };
const lowPrefixes: Record<number, string> = { 2: '', 4: 'e', 8: 'r' };

const memorySizeNames: Record<number, string> = {
  1: 'byte ptr ',
  2: 'word ptr ',
  4: 'dword ptr ',
  6: 'fword ptr ',
  8: 'qword ptr ',
  10: 'tbyte ptr ',
  16: 'xmmword ptr ',
};

const widthSuffixes: Record<number, string> = { 1: 'b', 2: 'w', 4: 'd', 8: 'q' };
const stringOperations = new Set(['movs', 'cmps', 'stos', 'lods', 'scas', 'ins', 'outs']);

function registerName(register: number, size: number): string {
  if (register >= 8) return `r${register}${extendedSuffixes[size]}`;
  if (size === 1) return byteNames[register] ?? '?';
  return `${lowPrefixes[size]}${lowNames[register]}`;
}

/** A 64-bit number from its halves, in hexadecimal. `bytes` says how many low bytes count. */
function hexadecimal(low: number, high: number, bytes = 8): string {
  const value = (BigInt(high) << 32n) | BigInt(low >>> 0);
  return `0x${BigInt.asUintN(bytes * 8, value).toString(16)}`;
}

function formatAddress(instruction: Instruction): string {
  const { base, index, scale, addressSize, displacement, displacementHigh } = instruction;
  const terms: string[] = [];
  if (base === AddressRegister.rip) terms.push(addressSize === 8 ? 'rip' : 'eip');
  else if (base !== AddressRegister.none) terms.push(registerName(base, addressSize));
  if (index !== AddressRegister.none) {
    terms.push(scale === 1 ? registerName(index, addressSize) : `${registerName(index, addressSize)}*${scale}`);
  }
  if (terms.length === 0) return hexadecimal(displacement, displacementHigh, addressSize);
  const sign = displacement < 0 ? '-' : '+';
  const offset = displacement === 0 ? '' : `${sign}0x${Math.abs(displacement).toString(16)}`;
  return terms.join('+') + offset;
}

function formatOperand(instruction: Instruction, operand: Operand): string {
  const { immediateLow, immediateHigh, secondImmediate, length } = instruction;
  switch (operand.kind) {
    case OperandKind.gpr:
      return registerName(operand.register, operand.size);
    case OperandKind.highByte:
      return highByteNames[operand.register] ?? '?';
    case OperandKind.memory:
      return `${memorySizeNames[operand.size] ?? ''}${segmentNames[instruction.segment]}:[${formatAddress(instruction)}]`;
    case OperandKind.immediate:
      return hexadecimal(immediateLow, immediateHigh, operand.size);
    case OperandKind.secondImmediate:
      return hexadecimal(secondImmediate, 0, 1);
    case OperandKind.relative:
      // The printer does not know the address: `$` is that of this instruction.
      return `$${immediateLow + length < 0 ? '-' : '+'}0x${Math.abs(immediateLow + length).toString(16)}`;
    case OperandKind.xmm:
      return `xmm${operand.register}`;
    case OperandKind.mmx:
      return `mm${operand.register}`;
    case OperandKind.st:
      return `st${operand.register}`;
    case OperandKind.segment:
      return segmentNames[operand.register] ?? '?';
    case OperandKind.control:
      return `cr${operand.register}`;
    case OperandKind.debug:
      return `dr${operand.register}`;
    case OperandKind.farPointer:
      return `${hexadecimal(secondImmediate, 0, 2)}:${hexadecimal(immediateLow, 0, 4)}`;
    default:
      return '?';
  }
}

/** For example `lock add dword ptr ds:[rax+rcx*4+0x10], ecx`. Memory operands always show their effective segment. */
export function formatInstruction(instruction: Instruction): string {
  const { operation, operandSize, operands, operandCount } = instruction;
  const words: string[] = [];
  if (instruction.lock) words.push('lock');
  if (instruction.repeatEqual) words.push('rep');
  if (instruction.repeatNotEqual) words.push('repne');
  words.push(stringOperations.has(operation) ? operation + widthSuffixes[operandSize] : operation);
  const texts = operands.slice(0, operandCount).map((operand) => formatOperand(instruction, operand));
  return texts.length === 0 ? words.join(' ') : `${words.join(' ')} ${texts.join(', ')}`;
}
