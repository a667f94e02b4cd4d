import type { Expression, I32, I64, V128 } from '../../wasm/expression.ts';
import type { FunctionBuilder } from '../../wasm/module.ts';
import type { OperandKind } from '../decode/instruction.ts';
import type { Exit } from '../exits.ts';

/**
 * How the address of a memory operand is formed; decided when an instruction is decoded.
 *
 * - `base`: one register, or RIP, plus displacement, no segment base; in flat 32-bit code of 32 bits.
 * - `full`: 64-bit code: base, index, scale, displacement and the base of FS or GS; flat 32-bit code: without the latter.
 * - `narrow`: 64-bit code with a 32-bit address size.
 * - `absolute`: a 64-bit address in the instruction (MOV moffs).
 * - `legacy`: other 32- and 16-bit code; offset masked to the address size, segment limits and rights checked.
 */
export type MemoryForm = 'none' | 'base' | 'full' | 'narrow' | 'absolute' | 'legacy';

export interface OperandShape {
  readonly kind: OperandKind;
  readonly size: number;
}

/** All that generated code of one instruction depends on, besides the numbers that stand in its record. */
export interface Shape {
  readonly operation: string;
  readonly operandSize: number;
  readonly addressSize: number;
  /** 64-bit code; otherwise code of a 32- or 16-bit segment. */
  readonly long: boolean;
  /** 32-bit code that is executed only while its segments are flat (`CodeMode.flat32`). */
  readonly flat: boolean;
  readonly memory: MemoryForm;
  readonly operands: readonly OperandShape[];
  readonly repeat: 'none' | 'equal' | 'notEqual';
  /** The condition of the conditional jump that stands behind the instruction and shares its record. */
  readonly fused?: Condition;
}

export const CONDITIONS = [
  'o',
  'no',
  'b',
  'ae',
  'e',
  'ne',
  'be',
  'a',
  's',
  'ns',
  'p',
  'np',
  'l',
  'ge',
  'le',
  'g',
] as const;
export type Condition = (typeof CONDITIONS)[number];

/**
 * What an instruction's meaning is written against. Integer values are 64-bit expressions; `read` gives zero-extended,
 * `readSigned` sign-extended ones, and writes take the low bytes.
 *
 * Rules for precise faults: every load, and every store, comes before the first change of a register or of the flags.
 * `update` takes the flag changes in a callback that runs after the store has been committed.
 */
export interface Context {
  readonly fn: FunctionBuilder;
  readonly shape: Shape;
  /** Address of the state block. */
  readonly state: I32;

  let<E extends Expression>(value: E): E;

  /** A register named by number; `bytes` 1 names the low byte. */
  register(register: number, bytes: number, signed?: boolean): I64;
  setRegister(register: number, bytes: number, value: I64): void;

  /** Integer operand, zero- or sign-extended to 64 bits. */
  read(operand: number): I64;
  readSigned(operand: number): I64;
  write(operand: number, value: I64): void;
  /** Read-modify-write in one translation; `compute` gets the sign-extended old value; `after` runs when the write is final. */
  update(operand: number, compute: (old: I64) => I64, after: (old: I64) => void): void;

  /** XMM operand (or 16-byte memory; memory must be aligned unless `unaligned`), or fewer bytes zero-extended. */
  read128(operand: number, unaligned?: boolean): V128;
  write128(operand: number, value: V128, unaligned?: boolean): void;
  /** Offset of a register operand's field inside the state block, as an absolute host address. */
  operandPointer(operand: number): I32;
  /** The same of an XMM register that is no operand. */
  vectorPointer(register: number): I32;

  /** The number in the record's field of an operand: the index of an x87 stack register. */
  operandNumber(operand: number): I32;

  immediate(): I64;
  secondImmediate(): I32;

  /** Offset of the memory operand before segmentation, masked to the address size. */
  effectiveOffset(): I64;
  /** Linear address of the memory operand for an access of `bytes`. */
  address(bytes: number, write: boolean): I64;
  /** Linear address of `offset` in a segment (0–5, or the instruction's own when omitted); checks legacy limits. */
  linear(offset: I64, bytes: number, write: boolean, segment?: number): I64;
  /** Outside 64-bit code: 2^32 − 1 or 2^16 − 1, as the stack segment says. */
  stackMask(): I64;
  /** The same without checks, for a segment that `isFlat` vouches for. */
  flatLinear(offset: I64, segment?: number): I64;
  /** Whether no offset in the segment needs a check. */
  isFlat(segment?: number): I32;
  load(bytes: number, linear: I64, signed?: boolean): I64;
  store(bytes: number, linear: I64, value: I64): void;
  /** Faults unless all bytes can be written; for stores in several parts. */
  probeWrite(linear: I64, bytes: number | I32): void;
  load128(linear: I64): V128;
  store128(linear: I64, value: V128): void;
  updateAt(bytes: number, linear: I64, compute: (old: I64) => I64, after: (old: I64) => void): void;
  /** Host address through which up to 8 bytes at `linear` can be read or written, or 0 when there is no cached translation; for bulk work. */
  pointer(linear: I64, write: boolean): I32;

  /** Arithmetic flags; all values sign-extended from the operation's size. */
  setFlagsAdd(a: I64, b: I64, result: I64): void;
  setFlagsSub(a: I64, b: I64, result: I64): void;
  /** As `setFlagsSub` with a borrow that came in. */
  setFlagsSbb(a: I64, b: I64, result: I64): void;
  setFlagsLogic(result: I64): void;
  /** INC (`up`) or DEC of `old`; CF stays. */
  setFlagsStep(up: boolean, old: I64, result: I64): void;
  /** ZF, SF, PF from the result, CF, OF and AF as bits. */
  setFlagsResult(result: I64, carryOverflowAdjust: I64): void;
  /** All six as bits of RFLAGS. */
  setFlagsExplicit(bits: I64): void;
  /** The six arithmetic flags as bits of RFLAGS. */
  flags(): I64;
  /** 0 or 1. */
  carry(): I64;
  condition(condition: Condition): I32;
  /** RFLAGS without the arithmetic bits. */
  otherFlags(): I32;
  setOtherFlags(bits: I32): void;

  /** Taken direct branch to the instruction's relative target. */
  branch(): void;
  /** Indirect branch; the target is masked to the operand size in legacy code. */
  jump(target: I64): void;
  /** As `jump` from 64-bit code to another ring: calls of the guest around it are not what it returns from. */
  enter(target: I64): void;
  /** Address of this instruction; outside 64-bit code its offset into CS. */
  instructionAddress(): I64;
  /** Address of the next instruction, masked to the operand size where that is not 8. */
  nextAddress(): I64;

  /** Fault at this instruction. */
  raise(vector: number, error?: I32): void;
  /** Leaves with RIP at this instruction. */
  exit(kind: Exit, detail?: I32): void;
  /** Leaves with RIP behind this instruction (traps). */
  exitAfter(kind: Exit, detail?: I32): void;
  /** Goes on at this instruction again later: the budget is used up in the middle of a repeated instruction. */
  budget(): I32;
  /** Counts one completed step of a repeated instruction. */
  countSteps(steps: I32): void;
  /** Leaves at the instruction, which is fetched again; RCX tells what is left of it. */
  repeatLater(): void;
  /** 1 when a store has overwritten code near the instruction: it may no longer be what it was. */
  isOverwritten(): I32;

  /** Calls a host function by name; i32 in, i32 out. A non-zero result of `checked` leaves the instruction with that exit. */
  host(name: HostFunction, ...operands: I32[]): I32;
  checked(result: I32): void;
}

/** Functions that generated code imports from TypeScript; each takes the state address first. */
export const HOST_FUNCTIONS = {
  /** (state, bytes): loads at missAddress into missValue. */
  loadMiss: 2,
  /** (state, bytes): stores missValue at missAddress. */
  storeMiss: 2,
  /** (state, bytes): prepares a read-modify-write at missAddress; the pointer to work through is left in missValue. */
  updateMiss: 2,
  /** (state, bytes): checks that all bytes at missAddress can be written. */
  probeWrite: 2,
  /** (state): commits the pending read-modify-write. */
  updateCommit: 1,
  /** (state, from record): finds or decodes the code at rip; the record, or 0 with the exit in exitKind. */
  lookup: 2,
  /** (state, record of a block's start): the block was executed often; non-zero when its code must be looked up again. */
  hot: 2,
  /** (state, segment, bytes | write << 8): checks the offset in missAddress against a segment that is not flat. */
  segmentCheck: 3,
  /** (state, address of a segment register, selector): 0 when the load is more than generated code can do. */
  loadSegment: 3,
  /** (state): the time-stamp counter, and TSC_AUX behind it, into missValue; 0 when generated code may not read it. */
  timeStamp: 1,
  /** (state): CR2 into missValue; 0 when generated code may not read it. */
  faultAddress: 1,
  /** (state, operand bytes | signed << 8): divides RDX:RAX by missValue; 0, or the exit of #DE. */
  divide: 2,
  /** (state, operation, address of destination, of first and of second operand, immediate): exact SSE arithmetic. */
  sse: 6,
  /** (state, operation, stack register, address of memory operand): one x87 instruction. */
  x87: 4,
  /** (state): compares the strings in State.scratch, see ../string-compare.ts; itself generated code. */
  compareStrings: 1,
  /** (state, operation): a helper of helpers.ts that needs no speed. */
  helper: 2,
} as const;
export type HostFunction = keyof typeof HOST_FUNCTIONS;

/** The meaning of one instruction. */
export type Semantics = (context: Context) => void;
