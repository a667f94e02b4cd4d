/**
 * The notation of operands in the opcode tables, and its compiled form.
 *
 * The notation stays close to the instruction pages of the Intel manual (volume 2, 3.1.1.3):
 *
 *   r8 r16 r32 rv ry rn        general register, from ModRM.reg
 *   +r8 +rv                    general register, from the low three bits of the opcode
 *   r/m8 r/mv                  general register or memory, from ModRM.rm
 *   rv/m16                     the same where the register's size is not the memory operand's
 *   m64 m0                     memory only; a register there is an invalid opcode; m0 is an address without an access
 *   rm.ry rm.xmm rm.mm         register only; memory there is an invalid opcode
 *   any.rn                     ModRM.rm as a register whatever ModRM.mod says (moves of control and debug registers)
 *   xmm xmm/m128 mm mm/m64     vector registers
 *   st0 st(i)                  x87 stack registers, i from ModRM.rm
 *   sreg cr dr es cs ss ds fs gs
 *   al rAX eAX ax cl dx        a fixed general register; rAX is AX, EAX or RAX, eAX is AX or EAX
 *   imm8 imm8:v immz:v immv    immediate, sign-extended; what follows the colon is the size it is extended to
 *   uimm8 uimm16               immediate, zero-extended
 *   second8                    second immediate of one byte
 *   1                          the constant one
 *   rel8 relz                  branch displacement
 *   ptr                        far pointer in the instruction
 *   moffs8 moffsv              memory at an absolute address in the instruction
 *
 * Sizes: a number counts bits, or bytes with the word `byte`; and
 *
 *   v    operand size: 2, 4 or 8            z    operand size, at most 4
 *   y    4, or 8 with REX.W                 n    4, or 8 in 64-bit code ("native")
 *   16:z selector and offset: 4, 6 or 10    16&n limit and base of a descriptor table: 6 or 10
 *   v&v  the two bounds of BOUND            14/28byte, 94/108byte: x87 state, by operand size
 */

/** Where an operand comes from. */
export const enum Source {
  rmGeneral,
  regGeneral,
  opcodeGeneral,
  fixedGeneral,
  rmXmm,
  regXmm,
  rmMmx,
  regMmx,
  rmStack,
  fixedStack,
  regSegment,
  fixedSegment,
  regControl,
  regDebug,
  memory,
  absoluteMemory,
  signedImmediate,
  unsignedImmediate,
  secondImmediate,
  one,
  relative,
  farPointer,
}

/** What an operand's notation demands of ModRM.mod. */
export type ModRequirement = 'any' | 'memory' | 'register';

export interface OperandNotation {
  /** Source, size, register's size, fixed register: one byte each, lowest first. See the accessors below. */
  packed: number;
  usesModRm: boolean;
  /** Moves of control registers ignore ModRM.mod: there is no memory form. */
  ignoresMod: boolean;
  requirement: ModRequirement;
  /** One byte of general register or memory; decides whether an instruction's operand size is 1. `null`: says nothing. */
  isByte: boolean | null;
}

/**
 * Sizes by (operand size, 64-bit code or not); the columns are operand sizes 8, 2, 4 outside 64-bit code and then the
 * same in 64-bit code, with one unused column before each `|`. `sizeColumn` computes the column.
 */
const variableSizes: Record<string, readonly number[]> = {
  //      8   2   4   -  |  8   2   4   -
  v: [8, 2, 4, 0, 8, 2, 4, 0],
  z: [4, 2, 4, 0, 4, 2, 4, 0],
  y: [8, 4, 4, 0, 8, 4, 4, 0],
  n: [4, 4, 4, 0, 8, 8, 8, 0],
  '16:z': [10, 4, 6, 0, 10, 4, 6, 0],
  '16&n': [6, 6, 6, 0, 10, 10, 10, 0],
  'v&v': [16, 4, 8, 0, 16, 4, 8, 0],
  '14/28byte': [28, 14, 28, 0, 28, 14, 28, 0],
  '94/108byte': [108, 94, 108, 0, 108, 94, 108, 0],
};

const fixedSizes: Record<string, number> = {
  '0': 0,
  '8': 1,
  '16': 2,
  '32': 4,
  '64': 8,
  '80': 10,
  '128': 16,
  '512byte': 512,
};

const sizeNames = [...Object.keys(fixedSizes), ...Object.keys(variableSizes)];

/** Bytes by `sizeCode << 3 | sizeColumn`. */
export const sizes = Uint16Array.from(
  sizeNames.flatMap((name) => variableSizes[name] ?? new Array<number>(8).fill(fixedSizes[name] ?? 0)),
);

/** Column of `sizes`; `operandSize` is 2, 4 or 8. */
export function sizeColumn(operandSize: number, longMode: boolean): number {
  return (longMode ? 4 : 0) | ((operandSize >> 1) & 3);
}

function sizeCode(name: string): number {
  const code = sizeNames.indexOf(name);
  if (code < 0) throw new Error(`opcode table: unknown operand size "${name}"`);
  return code;
}

export function sourceOf(packed: number): Source {
  return packed & 0xff;
}

function pack(source: Source, size: string, registerSize: string, register: number): number {
  return source | (sizeCode(size) << 8) | (sizeCode(registerSize) << 16) | (register << 24);
}

function operand(
  source: Source,
  size: string,
  {
    registerSize = size,
    register = 0,
    usesModRm = false,
    ignoresMod = false,
    requirement = 'any' as ModRequirement,
  } = {},
): OperandNotation {
  const general = source <= Source.fixedGeneral || source === Source.memory || source === Source.absoluteMemory;
  return {
    packed: pack(source, size, registerSize, register),
    usesModRm,
    ignoresMod,
    requirement,
    isByte: general ? size === '8' && registerSize === '8' : null,
  };
}

const inModRm = { usesModRm: true };
const silent = { isByte: null };

/** Operands without a size in their notation. */
const fixedNotations: Record<string, OperandNotation> = {
  xmm: operand(Source.regXmm, '128', inModRm),
  mm: operand(Source.regMmx, '64', inModRm),
  'rm.xmm': operand(Source.rmXmm, '128', { ...inModRm, requirement: 'register' }),
  'rm.mm': operand(Source.rmMmx, '64', { ...inModRm, requirement: 'register' }),
  st0: operand(Source.fixedStack, '80'),
  'st(i)': operand(Source.rmStack, '80', { ...inModRm, requirement: 'register' }),
  sreg: operand(Source.regSegment, '16', inModRm),
  cr: operand(Source.regControl, 'n', inModRm),
  dr: operand(Source.regDebug, 'n', inModRm),
  es: operand(Source.fixedSegment, '16', { register: 0 }),
  cs: operand(Source.fixedSegment, '16', { register: 1 }),
  ss: operand(Source.fixedSegment, '16', { register: 2 }),
  ds: operand(Source.fixedSegment, '16', { register: 3 }),
  fs: operand(Source.fixedSegment, '16', { register: 4 }),
  gs: operand(Source.fixedSegment, '16', { register: 5 }),
  al: operand(Source.fixedGeneral, '8'),
  ax: operand(Source.fixedGeneral, '16'),
  rAX: operand(Source.fixedGeneral, 'v'),
  eAX: operand(Source.fixedGeneral, 'z'),
  cl: { ...operand(Source.fixedGeneral, '8', { register: 1 }), ...silent },
  dx: { ...operand(Source.fixedGeneral, '16', { register: 2 }), ...silent },
  '1': operand(Source.one, '8'),
  ptr: operand(Source.farPointer, '16:z'),
  second8: operand(Source.secondImmediate, '8'),
};

/** Operands whose notation ends in a size: pattern, and the operand for what the pattern captured. */
const sizedNotations: readonly [RegExp, (size: string, otherSize: string) => OperandNotation][] = [
  [/^r\/m(.+)$/, (size) => operand(Source.rmGeneral, size, inModRm)],
  [
    /^r([0-9vyn]+)\/m(.+)$/,
    (register, size) => operand(Source.rmGeneral, size, { ...inModRm, registerSize: register }),
  ],
  [/^xmm\/m(.+)$/, (size) => operand(Source.rmXmm, size, { ...inModRm, registerSize: '128' })],
  [/^mm\/m(.+)$/, (size) => operand(Source.rmMmx, size, { ...inModRm, registerSize: '64' })],
  [/^rm\.r(.+)$/, (size) => operand(Source.rmGeneral, size, { ...inModRm, requirement: 'register' })],
  [/^any\.r(.+)$/, (size) => operand(Source.rmGeneral, size, { ...inModRm, ignoresMod: true })],
  [/^r([0-9vyn]+)$/, (size) => operand(Source.regGeneral, size, inModRm)],
  [/^\+r(.+)$/, (size) => operand(Source.opcodeGeneral, size)],
  [/^moffs(.+)$/, (size) => operand(Source.absoluteMemory, size)],
  [/^m(.+)$/, (size) => operand(Source.memory, size, { ...inModRm, requirement: 'memory' })],
  [/^uimm(.+)$/, (size) => operand(Source.unsignedImmediate, size)],
  [/^imm(.+):(.+)$/, (encoded, size) => operand(Source.signedImmediate, size, { registerSize: encoded })],
  [/^imm(.+)$/, (size) => operand(Source.signedImmediate, size)],
  [/^rel(.+)$/, (encoded) => operand(Source.relative, 'v', { registerSize: encoded })],
];

/** Compiles one operand's notation; throws on anything the head comment does not list. */
export function parseOperand(text: string): OperandNotation {
  const fixed = fixedNotations[text];
  if (fixed) return fixed;
  for (const [pattern, make] of sizedNotations) {
    const match = pattern.exec(text);
    if (match) return make(match[1] ?? '', match[2] ?? '');
  }
  throw new Error(`opcode table: unknown operand "${text}"`);
}
