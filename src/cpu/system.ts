import { type GuestVirtual, joinSigned, lowWord, highWord } from '../x86/brand.ts';
import { Flag, Register, Vector } from '../x86/registers.ts';
import { type Instruction, OperandKind, SegmentRegister } from './decode/instruction.ts';
import type { Processor } from './processor.ts';
import type { Descriptor } from './processor-api.ts';

/**
 * Instructions that need no speed and whose meaning is the architecture's under every interface: segment loads, far
 * transfers within a privilege, descriptor questions, random numbers. They are carried out here after Exit.system.
 */
export const enum SystemResult {
  /** Carried out; RIP is where execution goes on. */
  done = 0,
  /** The exception stands in the processor's mailbox; nothing changed. */
  fault = 1,
  /** Privileged, or the interface's own: it decides. */
  interface = 2,
}

/** Sources of what such an instruction may ask for. */
export interface SystemServices {
  /** Time-stamp counter as halves. */
  timeStamp(out: Uint32Array): void;
  /** TSC_AUX, for RDTSCP. */
  timeStampAuxiliary(): number;
  /** Fresh random bits. */
  random(out: Uint32Array): void;
}

/** Type bits of the descriptor's second word. */
const PRESENT = 0x8000;
const NOT_SYSTEM = 0x1000;
const CODE = 0x0800;
const READABLE_OR_WRITABLE = 0x0200;
const LONG_CODE = 0x20_0000;
const DEFAULT_32 = 0x40_0000;

const pair = new Uint32Array(2);

/** Executes one instruction after Exit.system. */
export function executeSystem(processor: Processor, services: SystemServices): SystemResult {
  const instruction = processor.currentInstruction();
  switch (instruction.operation) {
    case 'mov':
      return instruction.operands[0].kind === OperandKind.segment
        ? moveToSegment(processor, instruction)
        : SystemResult.interface;
    case 'pop':
      return popSegment(processor, instruction);
    case 'les':
    case 'lds':
    case 'lss':
    case 'lfs':
    case 'lgs':
      return loadFarPointer(processor, instruction);
    case 'jmpf':
    case 'callf':
      return farTransfer(processor, instruction);
    case 'retf':
      return farReturn(processor, instruction);
    case 'lar':
    case 'lsl':
      return descriptorQuestion(processor, instruction);
    case 'verr':
    case 'verw':
      return verify(processor, instruction);
    case 'arpl':
      return adjustPrivilege(processor, instruction);
    case 'rdtsc':
    case 'rdtscp':
      services.timeStamp(pair);
      processor.set(Register.rax, pair[0] as number, 0);
      processor.set(Register.rdx, pair[1] as number, 0);
      if (instruction.operation === 'rdtscp') processor.set(Register.rcx, services.timeStampAuxiliary(), 0);
      return complete(processor);
    case 'rdrand':
    case 'rdseed': {
      services.random(pair);
      const stored = writeOperand(processor, instruction, 0, pair[0] as number, pair[1] as number);
      if (!stored) return SystemResult.fault;
      processor.flags = (processor.flags & ~0x8d5) | Flag.carry;
      return complete(processor);
    }
    default:
      return SystemResult.interface;
  }
}

function complete(processor: Processor): SystemResult {
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
      return loadAt(processor, processor.operandAddress(), bytes, out);
    default:
      return false;
  }
}

function loadAt(processor: Processor, address: GuestVirtual, bytes: number, out: Uint32Array): boolean {
  if (!processor.memory.loadAt(address, bytes)) return false;
  processor.loadedValue(out);
  return true;
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
    return processor.memory.storeAt(processor.operandAddress(), size);
  }
  if (size === 8) processor.set(register, low, high);
  else if (size === 4) processor.set(register, low, 0);
  else processor.set(register, (processor.low(register) & ~0xffff) | (low & 0xffff), processor.high(register));
  return true;
}

/** The checks of a data or stack segment load (SDM vol. 3A, 5.5 and 5.7). Leaves the exception on failure. */
export function loadDataSegment(processor: Processor, segment: SegmentRegister, selector: number): boolean {
  const cpl = processor.privilege;
  if ((selector & ~3) === 0) {
    if (segment === SegmentRegister.ss && (processor.codeSize !== 64 || cpl === 3 || (selector & 3) !== cpl)) {
      processor.raise(Vector.generalProtection, 0);
      return false;
    }
    processor.loadSegment(segment, selector, null);
    return true;
  }
  const descriptor: Descriptor = { low: 0, high: 0 };
  const error = selector & 0xfffc;
  if (!processor.descriptors.read(selector, descriptor)) {
    processor.raise(Vector.generalProtection, error);
    return false;
  }
  const { high } = descriptor;
  const dpl = (high >> 13) & 3;
  const rpl = selector & 3;
  const data = (high & NOT_SYSTEM) !== 0;
  const code = (high & CODE) !== 0;
  let allowed: boolean;
  if (segment === SegmentRegister.ss) {
    allowed = data && !code && (high & READABLE_OR_WRITABLE) !== 0 && rpl === cpl && dpl === cpl;
  } else {
    const conforming = code && (high & 0x400) !== 0;
    allowed = data && (!code || (high & READABLE_OR_WRITABLE) !== 0) && (conforming || (rpl <= dpl && cpl <= dpl));
  }
  if (!allowed) {
    processor.raise(Vector.generalProtection, error);
    return false;
  }
  if ((high & PRESENT) === 0) {
    processor.raise(segment === SegmentRegister.ss ? Vector.stackFault : Vector.segmentNotPresent, error);
    return false;
  }
  processor.loadSegment(segment, selector, descriptor);
  return true;
}

function moveToSegment(processor: Processor, instruction: Instruction): SystemResult {
  const segment = instruction.operands[0].register as SegmentRegister;
  if (!readOperand(processor, instruction, 1, pair, 2)) return SystemResult.fault;
  if (!loadDataSegment(processor, segment, (pair[0] as number) & 0xffff)) return SystemResult.fault;
  return complete(processor);
}

function stackPointer(processor: Processor): number {
  const value = processor.value(Register.rsp);
  return processor.codeSize === 64 ? value : value >>> 0;
}

function popSegment(processor: Processor, instruction: Instruction): SystemResult {
  const size = instruction.operandSize;
  const pointer = stackPointer(processor);
  if (!loadAt(processor, stackLinear(processor, pointer), 2, pair)) return SystemResult.fault;
  const segment = instruction.operands[0].register as SegmentRegister;
  if (!loadDataSegment(processor, segment, (pair[0] as number) & 0xffff)) return SystemResult.fault;
  processor.setValue(Register.rsp, pointer + size);
  return complete(processor);
}

function stackLinear(processor: Processor, pointer: number): GuestVirtual {
  if (processor.codeSize === 64) return pointer as GuestVirtual;
  return ((pointer + processor.segmentBase(SegmentRegister.ss)) >>> 0) as GuestVirtual;
}

const FAR_POINTER_SEGMENT: Readonly<Record<string, SegmentRegister>> = {
  les: SegmentRegister.es,
  lds: SegmentRegister.ds,
  lss: SegmentRegister.ss,
  lfs: SegmentRegister.fs,
  lgs: SegmentRegister.gs,
};

function loadFarPointer(processor: Processor, instruction: Instruction): SystemResult {
  const size = instruction.operandSize;
  const address = processor.operandAddress();
  const segment = FAR_POINTER_SEGMENT[instruction.operation] as SegmentRegister;
  if (!loadAt(processor, (address + size) as GuestVirtual, 2, pair)) return SystemResult.fault;
  const selector = (pair[0] as number) & 0xffff;
  if (!loadAt(processor, address, size, pair)) return SystemResult.fault;
  const low = pair[0] as number;
  const high = pair[1] as number;
  if (!loadDataSegment(processor, segment, selector)) return SystemResult.fault;
  writeOperand(processor, instruction, 0, low, high);
  return complete(processor);
}

/** A code descriptor that a far transfer without change of privilege may load; otherwise the exception is left. */
export function codeDescriptor(processor: Processor, selector: number, out: Descriptor): boolean {
  const error = selector & 0xfffc;
  if (error === 0 || !processor.descriptors.read(selector, out)) {
    processor.raise(Vector.generalProtection, error);
    return false;
  }
  const { high } = out;
  const dpl = (high >> 13) & 3;
  const conforming = (high & 0x400) !== 0;
  const cpl = processor.privilege;
  const isCode = (high & (NOT_SYSTEM | CODE)) === (NOT_SYSTEM | CODE);
  const sizes = (high & LONG_CODE) !== 0 && (high & DEFAULT_32) !== 0;
  if (!isCode || sizes || (conforming ? dpl > cpl : dpl !== cpl)) {
    processor.raise(Vector.generalProtection, error);
    return false;
  }
  if ((high & PRESENT) === 0) {
    processor.raise(Vector.segmentNotPresent, error);
    return false;
  }
  return true;
}

const codeScratch: Descriptor = { low: 0, high: 0 };

function enterCode(processor: Processor, selector: number, offset: number): void {
  processor.loadSegment(SegmentRegister.cs, (selector & ~3) | processor.privilege, codeScratch);
  processor.rip = offset as GuestVirtual;
}

function farTransfer(processor: Processor, instruction: Instruction): SystemResult {
  const size = instruction.operandSize;
  let selector: number;
  let offset: number;
  if (instruction.operands[0].kind === OperandKind.farPointer) {
    selector = instruction.secondImmediate & 0xffff;
    offset = instruction.immediateLow >>> 0;
  } else {
    const address = processor.operandAddress();
    if (!loadAt(processor, (address + size) as GuestVirtual, 2, pair)) return SystemResult.fault;
    selector = (pair[0] as number) & 0xffff;
    if (!loadAt(processor, address, size, pair)) return SystemResult.fault;
    offset = size === 8 ? joinSigned(pair[0] as number, pair[1] as number) : (pair[0] as number);
  }
  if (size === 2) offset &= 0xffff;
  if (!codeDescriptor(processor, selector, codeScratch)) return SystemResult.fault;
  if (instruction.operation === 'callf') {
    const pointer = stackPointer(processor);
    const next = processor.rip + processor.exitLength;
    processor.setStoredValue(processor.selector(SegmentRegister.cs), 0);
    if (!processor.memory.storeAt(stackLinear(processor, pointer - size), size)) return SystemResult.fault;
    processor.setStoredValue(lowWord(next), highWord(next));
    if (!processor.memory.storeAt(stackLinear(processor, pointer - 2 * size), size)) return SystemResult.fault;
    processor.setValue(Register.rsp, pointer - 2 * size);
  }
  processor.instructions++;
  enterCode(processor, selector, offset);
  return SystemResult.done;
}

function farReturn(processor: Processor, instruction: Instruction): SystemResult {
  const size = instruction.operandSize;
  const pointer = stackPointer(processor);
  if (!loadAt(processor, stackLinear(processor, pointer + size), size, pair)) return SystemResult.fault;
  const selector = (pair[0] as number) & 0xffff;
  if (!loadAt(processor, stackLinear(processor, pointer), size, pair)) return SystemResult.fault;
  const offset = size === 8 ? joinSigned(pair[0] as number, pair[1] as number) : (pair[0] as number);
  if ((selector & 3) !== processor.privilege) return SystemResult.interface;
  if (!codeDescriptor(processor, selector, codeScratch)) return SystemResult.fault;
  const release = instruction.operandCount > 0 ? instruction.immediateLow & 0xffff : 0;
  processor.setValue(Register.rsp, pointer + 2 * size + release);
  processor.instructions++;
  enterCode(processor, selector, offset);
  return SystemResult.done;
}

/** Types of system descriptors that LAR and LSL accept, in long mode (SDM vol. 2A, LAR and LSL). */
const LAR_SYSTEM = 0b1001_1010_0000_0100;
const LSL_SYSTEM = 0b0000_1010_0000_0100;

function descriptorQuestion(processor: Processor, instruction: Instruction): SystemResult {
  if (!readOperand(processor, instruction, 1, pair, 2)) return SystemResult.fault;
  const selector = (pair[0] as number) & 0xffff;
  const descriptor: Descriptor = { low: 0, high: 0 };
  const access = instruction.operation === 'lar';
  let valid = (selector & ~3) !== 0 && processor.descriptors.read(selector, descriptor);
  if (valid) {
    const { high } = descriptor;
    const type = (high >> 8) & 15;
    const dpl = (high >> 13) & 3;
    if ((high & NOT_SYSTEM) === 0) valid = ((access ? LAR_SYSTEM : LSL_SYSTEM) & (1 << type)) !== 0;
    const conforming = (high & (NOT_SYSTEM | CODE | 0x400)) === (NOT_SYSTEM | CODE | 0x400);
    if (!conforming && (processor.privilege > dpl || (selector & 3) > dpl)) valid = false;
  }
  if (valid) {
    const { low, high } = descriptor;
    const raw = (high & 0xf_0000) | (low & 0xffff);
    const limit = (high & 0x80_0000) !== 0 ? ((raw << 12) | 0xfff) >>> 0 : raw;
    writeOperand(processor, instruction, 0, access ? high & 0x00ff_ff00 : limit, 0);
  }
  processor.flags = (processor.flags & ~Flag.zero) | (valid ? Flag.zero : 0);
  return complete(processor);
}

function verify(processor: Processor, instruction: Instruction): SystemResult {
  if (!readOperand(processor, instruction, 0, pair, 2)) return SystemResult.fault;
  const selector = (pair[0] as number) & 0xffff;
  const descriptor: Descriptor = { low: 0, high: 0 };
  let valid = (selector & ~3) !== 0 && processor.descriptors.read(selector, descriptor);
  if (valid) {
    const { high } = descriptor;
    const dpl = (high >> 13) & 3;
    const code = (high & CODE) !== 0;
    const enabled = (high & READABLE_OR_WRITABLE) !== 0;
    const conforming = code && (high & 0x400) !== 0;
    const reachable = conforming || (processor.privilege <= dpl && (selector & 3) <= dpl);
    valid =
      (high & NOT_SYSTEM) !== 0 && reachable && (instruction.operation === 'verw' ? !code && enabled : !code || enabled);
  }
  processor.flags = (processor.flags & ~Flag.zero) | (valid ? Flag.zero : 0);
  return complete(processor);
}

function adjustPrivilege(processor: Processor, instruction: Instruction): SystemResult {
  if (!readOperand(processor, instruction, 1, pair, 2)) return SystemResult.fault;
  const rpl = (pair[0] as number) & 3;
  if (!readOperand(processor, instruction, 0, pair, 2)) return SystemResult.fault;
  const selector = (pair[0] as number) & 0xffff;
  const lower = (selector & 3) < rpl;
  if (lower && !writeOperand(processor, instruction, 0, (selector & ~3) | rpl, 0)) return SystemResult.fault;
  processor.flags = (processor.flags & ~Flag.zero) | (lower ? Flag.zero : 0);
  return complete(processor);
}
