import type { GuestVirtual } from '../x86/brand.ts';
import { highWord, lowWord } from '../x86/brand.ts';
import { ARITHMETIC_FLAGS, Efer, Flag, Register, Vector } from '../x86/registers.ts';
import { loadDataSegment } from './data-segment.ts';
import { type Instruction, OperandKind, SegmentRegister } from './decode/instruction.ts';
import { DescriptorBit, isCode, isConforming, isPresent, limitOf, privilegeOf, realDescriptor } from './descriptor.ts';
import { adjustPrivilege, descriptorQuestion, verify } from './descriptor-questions.ts';
import {
  complete,
  fault,
  loadOperand,
  loadStack,
  moveStackPointer,
  numberOf,
  readOperand,
  SystemResult,
  storeStack,
  writeOperand,
} from './operands.ts';
import type { Processor } from './processor.ts';
import type { Descriptor, TimeSource } from './processor-api.ts';

/**
 * Instructions that need no speed and whose meaning is the architecture's under every interface: segment loads, far
 * transfers within a privilege, random numbers. They are carried out here after Exit.system.
 */

/** Sources of what such an instruction may ask for. */
export interface SystemServices extends TimeSource {
  /** Fresh random bits. */
  random(out: Uint32Array<ArrayBuffer>): void;
  /** PAUSE: a loop waits, perhaps for another virtual processor that should have its turn. */
  paused?(): void;
}

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
      return popFlags(processor, instruction);
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
    case 'ud2':
      // In place of an instruction whose page is gone (CodeFinder.decodeCurrent): it is fetched again, and that faults.
      return SystemResult.done;
    default:
      return SystemResult.interface;
  }
}

function moveToSegment(processor: Processor, instruction: Instruction): SystemResult {
  const segment = instruction.operands[0].register as SegmentRegister;
  if (!readOperand(processor, instruction, 1, pair, 2)) return SystemResult.fault;
  if (!loadDataSegment(processor, segment, (pair[0] as number) & 0xffff)) return SystemResult.fault;
  return complete(processor);
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

/** The data or stack segment that an instruction loads. */
export function loadedSegment({ operation, operands }: Instruction): SegmentRegister | undefined {
  const isPlain = (operation === 'mov' || operation === 'pop') && operands[0].kind === OperandKind.segment;
  return isPlain ? (operands[0].register as SegmentRegister) : FAR_POINTER_SEGMENT[operation];
}

interface FarPointer {
  readonly offset: number;
  readonly selector: number;
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
function codeDescriptor(processor: Processor, selector: number, out: Descriptor): boolean {
  if (processor.realSegments) {
    Object.assign(out, realDescriptor(selector, 'code'));
    return true;
  }
  const error = selector & 0xfffc;
  if (error === 0 || !processor.descriptors.read(selector, out)) {
    processor.raise(Vector.generalProtection, error);
    return false;
  }
  const dpl = privilegeOf(out);
  const cpl = processor.privilege;
  const contradicts = isLongCode(processor, out) && (out.high & DescriptorBit.default32) !== 0;
  if (!isCode(out) || contradicts || (isConforming(out) ? dpl > cpl : dpl !== cpl)) {
    processor.raise(Vector.generalProtection, error);
    return false;
  }
  if (!isPresent(out)) {
    processor.raise(Vector.segmentNotPresent, error);
    return false;
  }
  return true;
}

/** Outside long mode the bit means nothing. */
function isLongCode({ efer }: Processor, { high }: Descriptor): boolean {
  return (efer & Efer.longModeActive) !== 0 && (high & DescriptorBit.longCode) !== 0;
}

const codeScratch: Descriptor = { low: 0, high: 0 };

/** Whether `offset` lies in the code segment that `codeScratch` describes; otherwise the exception is left. */
function offsetInCode(processor: Processor, offset: number): boolean {
  const long = isLongCode(processor, codeScratch);
  const inside = long ? offset >= -(2 ** 47) && offset < 2 ** 47 : offset >= 0 && offset <= limitOf(codeScratch);
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

/** Where a far JMP or CALL leads; undefined with the exception left. */
export function farTarget(processor: Processor, instruction: Instruction): FarPointer | undefined {
  if (instruction.operands[0].kind !== OperandKind.farPointer) return loadPointer(processor, instruction);
  return { offset: instruction.immediateLow >>> 0, selector: instruction.secondImmediate & 0xffff };
}

function farTransfer(processor: Processor, instruction: Instruction): SystemResult {
  const size = instruction.operandSize;
  const target = farTarget(processor, instruction);
  if (!target) return SystemResult.fault;
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

/** Flags that IRET and POPF change in every ring. */
const RETURNED_FLAGS =
  ARITHMETIC_FLAGS | Flag.trap | Flag.direction | Flag.nestedTask | Flag.alignmentCheck | Flag.identification;

/** Besides, IOPL changes in ring 0 and the interrupt flag where IOPL allows it. `more` changes as well. */
function loadFlags(processor: Processor, image: number, size: number, more: number): void {
  const { flags, privilege } = processor;
  let mask = RETURNED_FLAGS | more;
  if (privilege === 0) mask |= Flag.iopl;
  if ((flags & Flag.iopl) >>> Flag.ioplShift >= privilege) mask |= Flag.interrupt;
  if (size === 2) mask &= 0xffff;
  processor.flags = (flags & ~mask) | (image & mask);
}

/** POPF that sets TF, changes AC, or switches interrupts on while one waits; generated code does the others. */
function popFlags(processor: Processor, instruction: Instruction): SystemResult {
  const size = instruction.operandSize;
  if (!loadStack(processor, 0, size, pair)) return SystemResult.fault;
  const image = pair[0] as number;
  moveStackPointer(processor, size);
  loadFlags(processor, image & ~Flag.resume, size, Flag.resume);
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
  loadFlags(processor, flags, size, Flag.resume);
  return enterCode(processor, cs & 0xffff, offset);
}
