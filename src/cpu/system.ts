import { type GuestVirtual, highWord, joinSigned, lowWord } from '../x86/brand.ts';
import { ARITHMETIC_FLAGS, Flag, Register, Vector } from '../x86/registers.ts';
import { longOperandSegment } from './address-fault.ts';
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
  random(out: Uint32Array<ArrayBuffer>): void;
  /** PAUSE: a loop waits, perhaps for another virtual processor that should have its turn. */
  paused?(): void;
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
    case 'iret':
      return processor.privilege === 3 ? interruptReturn(processor, instruction) : SystemResult.interface;
    case 'popf':
      return processor.privilege === 3 ? popFlags(processor, instruction) : SystemResult.interface;
    case 'lar':
    case 'lsl':
      return descriptorQuestion(processor, instruction);
    case 'verr':
    case 'verw':
      return verify(processor, instruction);
    case 'arpl':
      return adjustPrivilege(processor, instruction);
    case 'pause':
      services.paused?.();
      return complete(processor);
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
      return loadOperand(processor, instruction, 0, bytes, out);
    default:
      return false;
  }
}

/** Loads `bytes` of the memory operand, from `displacement` bytes behind its start. */
function loadOperand(
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
function numberOf(value: Uint32Array, bytes: number): number {
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

/** Present, DPL 3, accessed; 16-bit, byte limit. */
const REAL_DATA = 0xf300;
const REAL_CODE = 0xfb00;

/** What a selector means in real and virtual-8086 mode (SDM vol. 3B, 21.1.1 and 21.2.1): base is selector × 16. */
function realDescriptor(selector: number, attributes: number): Descriptor {
  const base = selector << 4;
  return { low: ((base << 16) | 0xffff) >>> 0, high: (((base >>> 16) & 0xff) | attributes) >>> 0 };
}

/** The checks of a data or stack segment load (SDM vol. 3A, 5.5 and 5.7). Leaves the exception on failure. */
export function loadDataSegment(processor: Processor, segment: SegmentRegister, selector: number): boolean {
  if (processor.realSegments) {
    processor.loadSegment(segment, selector, realDescriptor(selector, REAL_DATA));
    return true;
  }
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

function moveStackPointer(processor: Processor, by: number): void {
  const pointer = stackPointer(processor, by);
  if (processor.stackSize === 8) processor.setValue(Register.rsp, pointer);
  else if (processor.stackSize === 4) processor.set(Register.rsp, pointer, processor.high(Register.rsp));
  else {
    const kept = processor.low(Register.rsp) & ~0xffff;
    processor.set(Register.rsp, (kept | pointer) >>> 0, processor.high(Register.rsp));
  }
}

/** Reads from the stack, `depth` bytes above its top. */
function loadStack(processor: Processor, depth: number, bytes: number, out: Uint32Array): boolean {
  return load(processor, SegmentRegister.ss, stackPointer(processor, depth), bytes, out);
}

function storeStack(processor: Processor, depth: number, bytes: number, value: number): boolean {
  processor.setStoredValue(lowWord(value), highWord(value));
  return processor.store(SegmentRegister.ss, stackPointer(processor, depth), bytes);
}

function popSegment(processor: Processor, instruction: Instruction): SystemResult {
  const size = instruction.operandSize;
  if (!loadStack(processor, 0, size, pair)) return SystemResult.fault;
  const segment = instruction.operands[0].register as SegmentRegister;
  if (!loadDataSegment(processor, segment, (pair[0] as number) & 0xffff)) return SystemResult.fault;
  moveStackPointer(processor, size);
  return complete(processor);
}

const FAR_POINTER_SEGMENT: Readonly<Record<string, SegmentRegister>> = {
  les: SegmentRegister.es,
  lds: SegmentRegister.ds,
  lss: SegmentRegister.ss,
  lfs: SegmentRegister.fs,
  lgs: SegmentRegister.gs,
};

/** Offset and selector of a far pointer in memory. */
interface FarPointer {
  offset: number;
  selector: number;
}

function loadPointer(processor: Processor, instruction: Instruction): FarPointer | undefined {
  const size = instruction.operandSize;
  if (!loadOperand(processor, instruction, 0, size, pair)) return undefined;
  const offset = numberOf(pair, size);
  if (!loadOperand(processor, instruction, size, 2, pair)) return undefined;
  return { offset, selector: pair[0] as number };
}

function loadFarPointer(processor: Processor, instruction: Instruction): SystemResult {
  const pointer = loadPointer(processor, instruction);
  if (!pointer) return SystemResult.fault;
  const segment = FAR_POINTER_SEGMENT[instruction.operation] as SegmentRegister;
  if (!loadDataSegment(processor, segment, pointer.selector)) return SystemResult.fault;
  writeOperand(processor, instruction, 0, lowWord(pointer.offset), highWord(pointer.offset));
  return complete(processor);
}

/** A code descriptor that a far transfer without change of privilege may load; otherwise the exception is left. */
export function codeDescriptor(processor: Processor, selector: number, out: Descriptor): boolean {
  if (processor.realSegments) {
    Object.assign(out, realDescriptor(selector, REAL_CODE));
    return true;
  }
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

/** Whether `offset` lies in the code segment that `codeScratch` describes; otherwise the exception is left. */
function offsetInCode(processor: Processor, offset: number): boolean {
  const { low, high } = codeScratch;
  const raw = (high & 0xf_0000) | (low & 0xffff);
  const limit = (high & 0x80_0000) !== 0 ? ((raw << 12) | 0xfff) >>> 0 : raw;
  const inside = (high & LONG_CODE) !== 0 ? offset >= -(2 ** 47) && offset < 2 ** 47 : offset >= 0 && offset <= limit;
  if (!inside) processor.raise(Vector.generalProtection);
  return inside;
}

function enterCode(processor: Processor, selector: number, offset: number): SystemResult {
  const loaded = processor.realSegments ? selector : (selector & ~3) | processor.privilege;
  processor.loadSegment(SegmentRegister.cs, loaded, codeScratch);
  processor.rip = offset as GuestVirtual;
  processor.instructions++;
  return SystemResult.done;
}

function farTransfer(processor: Processor, instruction: Instruction): SystemResult {
  const size = instruction.operandSize;
  let target: FarPointer | undefined;
  if (instruction.operands[0].kind === OperandKind.farPointer) {
    target = { offset: instruction.immediateLow >>> 0, selector: instruction.secondImmediate & 0xffff };
  } else {
    target = loadPointer(processor, instruction);
    if (!target) return SystemResult.fault;
  }
  const { offset, selector } = target;
  if (!codeDescriptor(processor, selector, codeScratch) || !offsetInCode(processor, offset)) return SystemResult.fault;
  if (instruction.operation === 'callf') {
    const next = processor.rip + processor.exitLength;
    if (!storeStack(processor, -size, size, processor.selector(SegmentRegister.cs))) return SystemResult.fault;
    if (!storeStack(processor, -2 * size, size, next)) return SystemResult.fault;
    moveStackPointer(processor, -2 * size);
  }
  return enterCode(processor, selector, offset);
}

/** The code segment of a return within the privilege; to an outer one it is the interface's business. */
function returnTarget(processor: Processor, selector: number, offset: number): SystemResult {
  if (!processor.realSegments) {
    if ((selector & 3) > processor.privilege) return SystemResult.interface;
    if ((selector & 3) < processor.privilege) return fault(processor, Vector.generalProtection, selector & 0xfffc);
  }
  if (!codeDescriptor(processor, selector, codeScratch) || !offsetInCode(processor, offset)) return SystemResult.fault;
  return SystemResult.done;
}

function farReturn(processor: Processor, instruction: Instruction): SystemResult {
  const size = instruction.operandSize;
  const release = instruction.operandCount > 0 ? instruction.immediateLow & 0xffff : 0;
  // The manual leaves the order of the loads open; this is the processors'.
  if (!loadStack(processor, size, size, pair)) return SystemResult.fault;
  const selector = (pair[0] as number) & 0xffff;
  if (!loadStack(processor, 0, size, pair)) return SystemResult.fault;
  const offset = numberOf(pair, size);
  const sameRing = processor.realSegments || (selector & 3) === processor.privilege;
  if (!sameRing && !loadStack(processor, 3 * size + release, size, pair)) return SystemResult.fault;
  const result = returnTarget(processor, selector, offset);
  if (result !== SystemResult.done) return result;
  moveStackPointer(processor, 2 * size + release);
  return enterCode(processor, selector, offset);
}

/** Flags that IRET and POPF change in ring 3. The interrupt flag is added where IOPL allows it; IOPL never changes. */
const USER_FLAGS =
  ARITHMETIC_FLAGS | Flag.trap | Flag.direction | Flag.nestedTask | Flag.alignmentCheck | Flag.identification;

function loadUserFlags(processor: Processor, image: number, size: number, more: number): void {
  const { flags } = processor;
  let mask = USER_FLAGS | more;
  if ((flags & Flag.iopl) >>> Flag.ioplShift >= processor.privilege) mask |= Flag.interrupt;
  if (size === 2) mask &= 0xffff;
  processor.flags = (flags & ~mask) | (image & mask);
}

/** POPF in ring 3; only those that set TF or change AC come here. */
function popFlags(processor: Processor, instruction: Instruction): SystemResult {
  const size = instruction.operandSize;
  if (!loadStack(processor, 0, size, pair)) return SystemResult.fault;
  const image = pair[0] as number;
  moveStackPointer(processor, size);
  loadUserFlags(processor, image, size, 0);
  return complete(processor);
}

/** IRET in ring 3 (SDM vol. 2A, IRET). In 64-bit code it always takes the stack pointer too. */
function interruptReturn(processor: Processor, instruction: Instruction): SystemResult {
  if ((processor.flags & Flag.nestedTask) !== 0) return fault(processor, Vector.generalProtection);
  const size = instruction.operandSize;
  const long = processor.codeSize === 64;
  const frame: number[] = [];
  // The manual leaves the order of the loads open; this is the processors'.
  for (const slot of long ? [2, 1, 0, 4, 3] : [2, 1, 0]) {
    if (!loadStack(processor, slot * size, size, pair)) return SystemResult.fault;
    frame[slot] = numberOf(pair, size);
  }
  const sameRing = ((frame[1] as number) & 3) === processor.privilege;
  if (!long && !sameRing && !loadStack(processor, 4 * size, size, pair)) return SystemResult.fault;
  const [offset = 0, cs = 0, flags = 0, stack = 0, ss = 0] = frame;
  const result = returnTarget(processor, cs & 0xffff, offset);
  if (result !== SystemResult.done) return result;
  if (long) {
    if (!loadDataSegment(processor, SegmentRegister.ss, ss & 0xffff)) return SystemResult.fault;
    processor.setValue(Register.rsp, stack);
  } else {
    moveStackPointer(processor, 3 * size);
  }
  loadUserFlags(processor, flags, size, Flag.resume);
  return enterCode(processor, cs & 0xffff, offset);
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
      (high & NOT_SYSTEM) !== 0 &&
      reachable &&
      (instruction.operation === 'verw' ? !code && enabled : !code || enabled);
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
