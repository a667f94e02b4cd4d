import type { HostMemory } from '../../memory/host-memory.ts';
import { clearWords } from '../../memory/words.ts';
import { CodeMode } from '../code-mode.ts';
import { AddressRegister, type Instruction, OperandKind, SegmentRegister } from '../decode/instruction.ts';
import type { MemoryForm, Shape } from '../semantics/context.ts';
import { State } from '../state.ts';
import { Link, RecordField } from './record.ts';

/** Offset in the state block of a register operand. */
function operandField(kind: OperandKind, register: number): number {
  switch (kind) {
    case OperandKind.gpr:
      return State.registers + register * 8;
    case OperandKind.highByte:
      return State.registers + register * 8 + 1;
    case OperandKind.xmm:
      return State.xmm + register * 16;
    case OperandKind.mmx:
      return State.x87 + register * 16;
    case OperandKind.segment:
      return State.segmentSelector + register * 4;
    case OperandKind.st:
      return register;
    default:
      return State.zero;
  }
}

const SCALE_SHIFT = [0, 0, 1, 0, 2, 0, 0, 0, 3];

/**
 * Writes the record of an instruction that begins `start` bytes from its page's base.
 * `index` counts the block's instructions before it.
 */
export function writeRecord(
  memory: HostMemory,
  record: number,
  handler: number,
  instruction: Instruction,
  form: MemoryForm,
  start: number,
  index: number,
): void {
  const { u16, u8, i32 } = memory;
  const half = record >> 1;
  const next = start + instruction.length;
  u16[half] = handler;
  u8[record + RecordField.length] = instruction.length;
  u8[record + RecordField.index] = index;
  u16[half + RecordField.next / 2] = next;
  const [first, second] = instruction.operands;
  u16[half + RecordField.first / 2] = operandField(first.kind, first.register);
  u16[half + RecordField.second / 2] = operandField(second.kind, second.register);
  let displacement = instruction.displacement;
  let base = State.zero as number;
  if (instruction.base === AddressRegister.rip) {
    base = State.pageBase;
    displacement += next;
  } else if (instruction.base >= 0) {
    base = State.registers + instruction.base * 8;
  }
  u16[half + RecordField.base / 2] = base;
  u16[half + RecordField.indexRegister / 2] =
    instruction.index >= 0 ? State.registers + instruction.index * 8 : State.zero;
  u8[record + RecordField.scale] = SCALE_SHIFT[instruction.scale] ?? 0;
  i32[(record + RecordField.displacement) >> 2] = displacement;
  let low = instruction.immediateLow;
  let high = instruction.immediateHigh;
  for (let position = 0; position < instruction.operandCount; position++) {
    // The field of the target is the immediate's upper half.
    if (instruction.operands[position]?.kind === OperandKind.relative) high = instruction.immediateLow;
  }
  if (form === 'absolute') {
    low = instruction.displacement;
    high = instruction.displacementHigh;
  }
  i32[(record + RecordField.immediate) >> 2] = low;
  i32[(record + RecordField.immediate + 4) >> 2] = high;
  const link = instruction.operation === 'call' ? Link.unknownCall : Link.unknown;
  i32[(record + RecordField.link) >> 2] = usesSecondImmediate(instruction) ? instruction.secondImmediate : link;
}

function usesSecondImmediate(instruction: Instruction): boolean {
  for (let index = 0; index < instruction.operandCount; index++) {
    if (instruction.operands[index]?.kind === OperandKind.secondImmediate) return true;
  }
  return false;
}

/** The segment byte: the place of the base in long code, the segment's number otherwise. */
export function writeSegment(memory: HostMemory, record: number, instruction: Instruction, mode: CodeMode): void {
  const segment = instruction.segment;
  memory.u8[record + RecordField.segment] =
    mode !== CodeMode.bits64
      ? segment
      : segment >= SegmentRegister.fs
        ? (State.segmentBase + segment * 8) >> 3
        : State.zero >> 3;
}

/** A record that is no instruction. */
export function writePseudo(memory: HostMemory, record: number, handler: number, at: number, index: number): void {
  const { u16, u8 } = memory;
  clearWords(memory.u32, record, RecordField.size);
  u16[record >> 1] = handler;
  u8[record + RecordField.index] = index;
  u16[(record + RecordField.next) >> 1] = at;
}

/** Operations behind which straight-line execution never continues. */
const ENDS_BLOCK = new Set([
  'jmp',
  'call',
  'ret',
  'syscall',
  'sysret',
  'sysenter',
  'iret',
  'int',
  'int3',
  'int1',
  'ud0',
  'ud1',
  'ud2',
]);

export function endsBlock(operation: string, system: ReadonlySet<string>): boolean {
  return ENDS_BLOCK.has(operation) || system.has(operation);
}

/** Operations that a conditional jump behind them is joined to: one dispatch, and the condition from values at hand. */
const FUSES = new Set(['cmp', 'test', 'sub', 'add', 'and', 'or', 'xor', 'inc', 'dec']);

/** Whether a conditional jump behind the instruction could share its record. */
export function mayFuse(shape: Shape): boolean {
  return FUSES.has(shape.operation);
}

/** Turns the record of an instruction at `start` into one that takes the conditional jump behind it along. */
export function fuseRecord(memory: HostMemory, record: number, jump: Instruction): void {
  const { u16, u8, i32 } = memory;
  u16[(record + RecordField.next) >> 1]! += jump.length; // the record was written before
  u8[record + RecordField.length]! += jump.length;
  i32[(record + RecordField.target) >> 2] = jump.immediateLow;
}
