/**
 * The product of the decoder: one x86 instruction, independent of where it lies and of how it will be executed.
 *
 * The decoder fills a caller-supplied object, so that decoding allocates nothing.
 */

/** Default code size of the segment that is executed (CS.L, CS.D): long mode, 32-bit or 16-bit. */
export type CodeSize = 64 | 32 | 16;

export const enum OperandKind {
  none = 0,
  /** General register; `register` 0–15, `size` 1, 2, 4 or 8. */
  gpr = 1,
  /** AH, CH, DH or BH; `register` is 0–3 for the register whose second byte is meant, `size` is 1. */
  highByte = 2,
  /** Memory, described by the instruction's `base` … `addressSize`. At most one operand of an instruction is memory. */
  memory = 3,
  /** Immediate, sign- or zero-extended to 64 bits as the instruction demands, in `immediateLow`/`immediateHigh`. */
  immediate = 4,
  /** A second immediate of one byte (ENTER, EXTRQ-like forms), in `secondImmediate`. */
  secondImmediate = 5,
  /** Branch displacement from the end of the instruction, signed, in `immediateLow`. */
  relative = 6,
  /** XMM register 0–15. */
  xmm = 7,
  /** MMX register 0–7. */
  mmx = 8,
  /** x87 stack register ST(0)–ST(7). */
  st = 9,
  /** Segment register 0–5: ES, CS, SS, DS, FS, GS. */
  segment = 10,
  /** Control register 0–15. */
  control = 11,
  /** Debug register 0–7. */
  debug = 12,
  /** Far pointer: offset in `immediateLow`, selector in `secondImmediate`. */
  farPointer = 13,
}

export const enum SegmentRegister {
  es = 0,
  cs = 1,
  ss = 2,
  ds = 3,
  fs = 4,
  gs = 5,
}

/** Values of `base` and `index` beyond the sixteen general registers. */
export const enum AddressRegister {
  none = -1,
  /** RIP of the next instruction (base only). */
  rip = 16,
}

export interface Operand {
  kind: OperandKind;
  register: number;
  /**
   * Bytes read or written in memory: 1, 2, 4, 8, 10 (x87, far pointers, descriptor tables), 16, 14/28 and 94/108 (x87
   * environment and state), 512 (FXSAVE); 4 and 6 also for far pointers; 0 when none (LEA, INVLPG, NOP, PREFETCH).
   * For registers: bytes of a general register that take part; vector registers are always 16 (XMM) or 8 (MMX).
   * For immediates: bytes after extension. For branches: the operand size.
   */
  size: number;
}

export interface Instruction {
  /** Bytes, 1–15. */
  length: number;
  /** Mnemonic in lower case as in the Intel manual, conditions spelled as one chosen form (see operations.ts). */
  operation: string;
  /** Effective operand size in bytes: 1 for byte forms, else 2, 4 or 8 (64-bit default operations such as PUSH report 8). */
  operandSize: number;
  /** Effective address size in bytes: 2, 4 or 8. */
  addressSize: number;
  operandCount: number;
  /** Always four objects; the first `operandCount` are meaningful; destination first. */
  operands: [Operand, Operand, Operand, Operand];
  base: number;
  index: number;
  /** 1, 2, 4 or 8. */
  scale: number;
  /** Low 32 bits (signed) of the displacement. */
  displacement: number;
  /** High 32 bits (signed): of the 64-bit absolute address of MOV moffs; otherwise the sign extension. */
  displacementHigh: number;
  /** Effective segment of the memory operand, overrides applied (in 64-bit code only FS and GS change anything, the others are still reported). */
  segment: SegmentRegister;
  immediateLow: number;
  immediateHigh: number;
  secondImmediate: number;
  lock: boolean;
  /** F3 that is a REP/REPE prefix rather than part of the opcode. */
  repeatEqual: boolean;
  /** F2 that is a REPNE prefix rather than part of the opcode. */
  repeatNotEqual: boolean;
}
