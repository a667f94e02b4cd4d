import { CodeMode } from '../code-mode.ts';
import { AddressRegister, type Instruction, OperandKind, SegmentRegister } from '../decode/instruction.ts';
import { CONDITIONS, type Condition, type MemoryForm, type OperandShape, type Shape } from '../semantics/context.ts';

/**
 * Shapes of instructions. There is one object for each shape, found by numbers without making another one first: a boot
 * decodes half a million instructions of fewer than a thousand shapes, and what is known of a shape is kept by object.
 */
const byOperation = new Map<string, Map<number, Map<number, Shape>>>();
const fusedShapes = new Map<Shape, Map<Condition, Shape>>();

const FORM_DIGITS: Readonly<Record<MemoryForm, number>> = {
  none: 0,
  base: 1,
  full: 2,
  narrow: 3,
  absolute: 4,
  legacy: 5,
};

/** Kinds of operands are below 14, sizes at most 512: four operands fit into the 53 bits of a whole number. */
const SIZES = 600;
const OPERANDS = 14 * SIZES;
/** Control registers, of which there are 16, are of 4 or 8 bytes. */
const CONTROL_SIZES = 16;
/** The address of the last page fault: handlers of these read it each time. */
const CR2 = 2;

const CONDITION_OF: Readonly<Record<string, Condition>> = Object.fromEntries(
  CONDITIONS.map((condition) => [`j${condition}`, condition]),
);

export function isConditionalJump(instruction: Instruction): boolean {
  return instruction.operation in CONDITION_OF;
}

/** Everything that the generated code of an instruction depends on. */
export function shapeOf(instruction: Instruction, mode: CodeMode): Shape {
  const form = memoryForm(instruction, mode);
  const byWay = entryOf(byOperation, instruction.operation);
  const byOperands = entryOf(byWay, wayKey(instruction, mode, form));
  const key = operandKey(instruction);
  const known = byOperands.get(key);
  if (known) return known;
  const shape = makeShape(instruction, mode, form);
  byOperands.set(key, shape);
  return shape;
}

/** The shape of an instruction together with the conditional jump behind it. */
export function fusedShape(shape: Shape, jump: Instruction): Shape {
  const condition = CONDITION_OF[jump.operation] as Condition;
  const byCondition = entryOf(fusedShapes, shape);
  const known = byCondition.get(condition);
  if (known) return known;
  const fused = { ...shape, fused: condition };
  byCondition.set(condition, fused);
  return fused;
}

function entryOf<Key, InnerKey, Value>(map: Map<Key, Map<InnerKey, Value>>, key: Key): Map<InnerKey, Value> {
  let inner = map.get(key);
  if (!inner) {
    inner = new Map();
    map.set(key, inner);
  }
  return inner;
}

function wayKey(instruction: Instruction, mode: CodeMode, form: MemoryForm): number {
  const repeat = instruction.repeatEqual ? 1 : instruction.repeatNotEqual ? 2 : 0;
  const sizes = instruction.operandSize * 16 + instruction.addressSize;
  return ((sizes * 8 + FORM_DIGITS[form]) * 4 + repeat) * 3 + (mode === CodeMode.bits64 ? 2 : isFlat(mode) ? 1 : 0);
}

function operandKey({ operands, operandCount }: Instruction): number {
  let key = 0;
  for (let index = 0; index < operandCount; index++) {
    const operand = operands[index];
    if (!operand) continue;
    const register = operand.kind === OperandKind.control ? operand.register : 0;
    key = key * OPERANDS + operand.kind * SIZES + register * CONTROL_SIZES + operand.size;
  }
  return key;
}

/** Operations with operands that only the host can change. */
function operationOf(instruction: Instruction): string {
  const { operation, operands } = instruction;
  if (operation === 'mov') {
    for (let index = 0; index < instruction.operandCount; index++) {
      const kind = operands[index]?.kind;
      if (kind === OperandKind.control || kind === OperandKind.debug)
        return readsCr2(instruction) ? 'mov-cr2' : 'mov-system';
    }
    if (operands[0].kind === OperandKind.segment) return 'load-segment';
  }
  if (operation === 'pop' && operands[0].kind === OperandKind.segment) return 'pop-segment';
  return operation;
}

function readsCr2({ operands: [, source] }: Instruction): boolean {
  return source.kind === OperandKind.control && source.register === CR2;
}

function hasMemory(instruction: Instruction): boolean {
  for (let index = 0; index < instruction.operandCount; index++) {
    if (instruction.operands[index]?.kind === OperandKind.memory) return true;
  }
  return false;
}

const isFlat = (mode: CodeMode): boolean => mode === CodeMode.flat32;

/** Segments that are flat in such code. */
const FLAT_SEGMENTS: readonly SegmentRegister[] = [SegmentRegister.es, SegmentRegister.ss, SegmentRegister.ds];

function memoryForm(instruction: Instruction, mode: CodeMode): MemoryForm {
  if (!hasMemory(instruction)) return 'none';
  if (mode !== CodeMode.bits64) {
    const plain = isFlat(mode) && instruction.addressSize === 4 && FLAT_SEGMENTS.includes(instruction.segment);
    return plain ? (instruction.index === AddressRegister.none ? 'base' : 'full') : 'legacy';
  }
  if (instruction.addressSize !== 8) return 'narrow';
  const wide = instruction.displacement < 0 ? -1 : 0;
  if (instruction.base === AddressRegister.none && instruction.displacementHigh !== wide) return 'absolute';
  const segmented = instruction.segment >= SegmentRegister.fs;
  if (instruction.index === AddressRegister.none && !segmented) return 'base';
  return 'full';
}

function makeShape(instruction: Instruction, mode: CodeMode, memory: MemoryForm): Shape {
  const operands: OperandShape[] = [];
  for (let index = 0; index < instruction.operandCount; index++) {
    const operand = instruction.operands[index];
    if (operand) operands.push({ kind: operand.kind, size: operand.size });
  }
  return {
    operation: operationOf(instruction),
    operandSize: instruction.operandSize,
    addressSize: instruction.addressSize,
    long: mode === CodeMode.bits64,
    flat: isFlat(mode),
    memory,
    operands,
    repeat: instruction.repeatEqual ? 'equal' : instruction.repeatNotEqual ? 'notEqual' : 'none',
  };
}
