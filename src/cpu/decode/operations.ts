/**
 * All opcodes the decoder knows, and the names of their operations.
 *
 * Operations are named by Intel mnemonic in lower case, with these choices where several mnemonics or none fit:
 *
 *   movs cmps stos lods scas ins outs   the string instructions of all widths; `operandSize` (1, 2, 4, 8) is the width.
 *                                       `movsd` and `cmpsd` are the SSE2 instructions.
 *   cbw cwd                             also CWDE, CDQE and CDQ, CQO: the result's size is `operandSize` (for `cwd` of each half)
 *   pushf popf pusha popa iret sysret sysexit jcxz fxsave fxrstor
 *                                       without a width in the name; `operandSize`, for `jcxz` and `loop` `addressSize`, tells
 *   jmp call ret / jmpf callf retf      near and far
 *   jcc setcc cmovcc                    o no b ae e ne be a s ns p np l ge le g
 *   xlat fwait int1 int3 salc           XLATB, WAIT, ICEBP, INT3, SETALC
 *   nop                                 90, and all reserved hint opcodes (with their ModRM operand)
 *   shl                                 also SAL
 *   fnop                                also FNENI, FNDISI, FNSETPM
 */
import { type OpcodeRow, parseSections } from './rows.ts';
import { extensionSections } from './tables/extensions.ts';
import { integerSections } from './tables/integer.ts';
import { systemSections } from './tables/system.ts';
import { vectorSections } from './tables/vector.ts';
import { x87Sections } from './tables/x87.ts';

/** Every opcode row, of reported features and of others. */
export const opcodeRows: readonly OpcodeRow[] = parseSections([
  ...integerSections,
  ...systemSections,
  ...x87Sections,
  ...vectorSections,
  ...extensionSections,
]);
