/**
 * Instruction templates: what the generator knows of an instruction. Encodings are written nearly as in the Intel
 * manual, one string a form:
 *
 *   66 f2 f3     first of the string: a mandatory prefix
 *   0f 58 …      opcode bytes; `40+r` puts a register into the last one, `c0+i` an x87 stack register
 *   /r /0…/7     ModRM with a register or a fixed reg field
 *   ib iw id     immediates of 1, 2, 4 bytes; iz: 2 or 4 by operand size; iv: 2, 4 or 8
 *   cb cz        branch displacement of 1 byte, or of 2 or 4 by operand size
 *   moffs        absolute address of the current address size
 *   b w d v y    operand size: 8; 16; 16 or 32; 16, 32 or 64; 32 or 64
 *   s n          the stack's (64 or 32, or 16 with prefix 66); a near branch's (the same, but only 64 in 64-bit code)
 *   W            REX.W required
 *   m8 … m512    bytes (not bits) the memory operand has, when it is not the operand size; m0: it is not accessed
 *   mem reg      only that kind of ModRM operand
 *   align        the memory operand must be aligned to its size (16 at most)
 *   bits         the register operand is a signed bit offset from the memory operand
 *   lock rep     takes the prefix
 *   asize        takes the address-size prefix though it has no ModRM
 *   only32 only64
 */
import type { CaseBuilder } from './case-builder.ts';
import type { DataKind } from './values.ts';

export interface Form {
  readonly text: string;
  readonly prefix: number;
  readonly opcode: readonly number[];
  readonly plus: 'r' | 'i' | null;
  /** ModRM: 'r', a fixed reg field, or none. */
  readonly modrm: 'r' | number | null;
  readonly immediates: readonly Immediate[];
  readonly size: 'b' | 'w' | 'd' | 'v' | 'y' | 's' | 'n' | null;
  readonly wide: boolean;
  /** Bytes of the memory operand; −1: the operand size. */
  readonly memoryBytes: number;
  readonly operand: 'mem' | 'reg' | 'any';
  readonly align: boolean;
  readonly bits: boolean;
  readonly lock: boolean;
  readonly rep: boolean;
  readonly addressSize: boolean;
  readonly mode: 32 | 64 | null;
}

export type Immediate = 'ib' | 'iw' | 'id' | 'iz' | 'iv' | 'cb' | 'cz' | 'moffs';

/** An encoded instruction, as hooks and masks see it. */
export interface Operation {
  readonly builder: CaseBuilder;
  readonly form: Form;
  /** Operand size in bytes; 0 where the form has none. */
  readonly size: number;
  /** The registers in ModRM.reg and in ModRM.rm or the opcode; −1 for none. */
  readonly reg: number;
  readonly rm: number;
  /** Linear address of the memory operand as intended; later cases in a sequence may differ. −1 for none. */
  readonly address: number;
  readonly memoryBytes: number;
  /** The last immediate, zero-extended; 0 for none. */
  readonly immediate: number;
}

/** What the floating-point state holds. */
export type Domain = 'integer' | 'x87' | 'mmx' | 'xmm' | 'xmm-f32' | 'xmm-f64' | 'xmm-text';

/**
 * Results that need not be equal to the last bit: `reciprocal`: a relative error of 1.5 × 2⁻¹² on each side;
 * `transcendental`: one unit in the last place of ST(0) and ST(1), and no rounding direction (C1).
 */
export type Approximation = 'reciprocal' | 'transcendental';

/** A part of the window that is not compared. */
export interface IgnoredBytes {
  offset: number;
  length: number;
}

export interface Template {
  readonly name: string;
  readonly forms: readonly string[];
  readonly domain?: Domain;
  /** Of memory operands; by the domain when absent. */
  readonly data?: DataKind;
  /** Flags that the manual calls undefined after this instruction. */
  readonly undefinedFlags?: number | ((operation: Operation) => number);
  /** Bits of the x87 status word that the manual calls undefined. */
  readonly undefinedStatus?: number;
  readonly approximate?: Approximation;
  /** Parts of memory that the manual leaves open. */
  readonly ignoredBytes?: (operation: Operation) => readonly IgnoredBytes[];
  /** Makes several stores, of which the manual does not say whether the first remain when a later one faults. */
  readonly severalStores?: boolean;
  /** Immediate bytes that make sense; any when absent. */
  readonly immediate?: (builder: CaseBuilder, kind: Immediate) => number;
  /** Sets and pins registers before the operands are chosen. */
  readonly before?: (builder: CaseBuilder, form: Form) => void;
  /** Adjusts registers and memory to the operands that were chosen. */
  readonly after?: (operation: Operation) => void;
  /** Whether the manual leaves the whole result undefined; such a case is not run. */
  readonly reject?: (operation: Operation) => boolean;
  /** Takes no part in sequences: changes the flow of control, or has undefined results. */
  readonly alone?: boolean;
}

const parsed = new Map<string, Form>();

export function parseForm(text: string): Form {
  const known = parsed.get(text);
  if (known) return known;
  const tokens = text.split(' ');
  const opcode: number[] = [];
  const immediates: Immediate[] = [];
  let prefix = 0;
  let plus: Form['plus'] = null;
  let modrm: Form['modrm'] = null;
  let size: Form['size'] = null;
  let memoryBytes = -1;
  const words = new Set<string>();
  for (const [place, token] of tokens.entries()) {
    if (place === 0 && tokens.length > 1 && /^(66|f2|f3)$/.test(token)) prefix = Number.parseInt(token, 16);
    else if (/^[0-9a-f]{2}(\+[ri])?$/.test(token)) {
      opcode.push(Number.parseInt(token, 16));
      if (token.length > 2) plus = token[3] as 'r' | 'i';
    } else if (/^\/[r0-7]$/.test(token)) modrm = token === '/r' ? 'r' : Number(token[1]);
    else if (/^(i[bwdzv]|c[bz]|moffs)$/.test(token)) immediates.push(token as Immediate);
    else if (/^[bwdvysn]$/.test(token)) size = token as 'b';
    else if (/^m\d+$/.test(token)) memoryBytes = Number(token.slice(1));
    else if (/^(W|mem|reg|align|bits|lock|rep|asize|only32|only64)$/.test(token)) words.add(token);
    else throw new Error(`form "${text}": "${token}" is not part of the notation`);
  }
  const form: Form = {
    text,
    prefix,
    opcode,
    plus,
    modrm,
    immediates,
    size,
    wide: words.has('W'),
    memoryBytes,
    operand: words.has('mem') ? 'mem' : words.has('reg') ? 'reg' : 'any',
    align: words.has('align'),
    bits: words.has('bits'),
    lock: words.has('lock'),
    rep: words.has('rep'),
    addressSize: words.has('asize'),
    mode: words.has('only32') ? 32 : words.has('only64') || words.has('W') ? 64 : null,
  };
  parsed.set(text, form);
  return form;
}
