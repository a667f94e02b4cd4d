/**
 * The notation of the opcode tables, and the rows it is read into.
 *
 * A table is text, one instruction a line, in four columns: `opcode | operation | operands | attributes`.
 *
 * Opcode: prefixes, then opcode bytes, then demands on ModRM.
 *   66 F3 F2   mandatory prefix: part of the opcode, no longer a size or repeat prefix
 *   NP         none of the three; NP+66: none, or 66 as an ordinary operand-size prefix
 *   REX.W      with that bit only; REX.B likewise. Refines a row which has no such demand.
 *   +r         the low three bits of the byte name a register
 *   /3  /0,2-4 ModRM.reg
 *   D9 E8      a byte after the opcode proper is the whole ModRM byte
 *   reg  mem   ModRM.mod is 3, is not 3 (operands such as `m64` or `rm.xmm` say so by themselves)
 * Without a prefix demand a row holds with any prefixes, and 66 is the operand-size prefix.
 * Where several rows cover an encoding, the one which demands most applies.
 *
 * Operands: see notation.ts.
 *
 * Attributes:
 *   lock    LOCK is allowed with a memory destination
 *   legacy  not in 64-bit code                     long    only in 64-bit code
 *   d64     in 64-bit code the operand size is 64, or 16 with 66     (SDM volume 2, appendix A: "d64")
 *   f64     in 64-bit code the operand size is 64, 66 is ignored     ("f64"; Intel's reading for near branches)
 *   native  the operand size is 64 in 64-bit code, otherwise 32, 66 is ignored
 *   narrow  with REX.W the operand size is 32, whatever 66 says: no 64-bit form exists
 *   byte    the operand size is 1 (implied if all general operands are bytes)
 *   string  F3 and F2 are repeat prefixes
 */
import type { Feature } from './features.ts';
import { type ModRequirement, parseOperand } from './notation.ts';

export interface TableSection {
  feature: Feature;
  rows: string;
}

export const enum OpcodeMap {
  oneByte = 0,
  map0F = 1,
  map0F38 = 2,
  map0F3A = 3,
}

/** Which prefix takes part in choosing the row. F3 and F2 win over 66, and the later of the two wins. */
export const enum PrefixClass {
  none = 0,
  operandSize = 1,
  repeatEqual = 2,
  repeatNotEqual = 3,
}

export const enum RowFlag {
  valid = 1 << 0,
  modRm = 1 << 1,
  ignoresMod = 1 << 2,
  lockable = 1 << 3,
  default64 = 1 << 4,
  force64 = 1 << 5,
  native = 1 << 6,
  narrow = 1 << 7,
  byteOperation = 1 << 8,
  string = 1 << 9,
  /** 66 is the mandatory prefix and leaves the operand size alone. */
  operandSizeIsMandatory = 1 << 10,
}

/** One instruction's encoding, as read from a table. */
export interface OpcodeRow {
  /** The line, for messages. */
  text: string;
  feature: Feature;
  operation: string;
  flags: number;
  operands: readonly number[];
  /** Code sizes in which the row exists. */
  inLegacyCode: boolean;
  inLongCode: boolean;
  map: OpcodeMap;
  opcode: number;
  /** 1, or 8 for `+r`. */
  opcodeCount: number;
  /** Prefix classes under which the row holds. */
  prefixClasses: readonly PrefixClass[];
  /** Bits of REX (W 8, B 1) the row demands. */
  rex: number;
  /** ModRM bytes with which the row holds, or `null` for all. */
  modRm: ReadonlySet<number> | null;
}

const attributeFlags: Record<string, number> = {
  lock: RowFlag.lockable,
  d64: RowFlag.default64,
  f64: RowFlag.force64,
  native: RowFlag.native,
  narrow: RowFlag.narrow,
  byte: RowFlag.byteOperation,
  string: RowFlag.string,
  legacy: 0,
  long: 0,
};

const allPrefixClasses = [
  PrefixClass.none,
  PrefixClass.operandSize,
  PrefixClass.repeatEqual,
  PrefixClass.repeatNotEqual,
];

const prefixDemands: Record<string, readonly PrefixClass[]> = {
  NP: [PrefixClass.none],
  'NP+66': [PrefixClass.none, PrefixClass.operandSize],
  '66': [PrefixClass.operandSize],
  F3: [PrefixClass.repeatEqual],
  F2: [PrefixClass.repeatNotEqual],
};

const rexDemands: Record<string, number> = { 'REX.W': 8, 'REX.B': 1 };

/** Bytes which lead from one opcode map to another, in the order in which they follow each other. */
const escapes: readonly [byte: string, from: OpcodeMap, to: OpcodeMap][] = [
  ['0F', OpcodeMap.oneByte, OpcodeMap.map0F],
  ['38', OpcodeMap.map0F, OpcodeMap.map0F38],
  ['3A', OpcodeMap.map0F, OpcodeMap.map0F3A],
];

/** Registers of ModRM.reg listed as `0,2-4`. */
function parseRegisterList(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const [first = Number.NaN, last = first] = part.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, offset) => first + offset);
  });
}

interface Opcode {
  prefixClasses: readonly PrefixClass[];
  operandSizeIsMandatory: boolean;
  rex: number;
  map: OpcodeMap;
  opcode: number;
  opcodeCount: number;
  registers: readonly number[] | null;
  wholeModRm: number | null;
  requirement: ModRequirement;
}

function parseOpcode(text: string): Opcode {
  const words = text.split(/\s+/);
  const result: Opcode = {
    prefixClasses: allPrefixClasses,
    operandSizeIsMandatory: false,
    rex: 0,
    map: OpcodeMap.oneByte,
    opcode: 0,
    opcodeCount: 1,
    registers: null,
    wholeModRm: null,
    requirement: 'any',
  };
  const rex = rexDemands[words[0] ?? ''];
  if (rex !== undefined) {
    result.rex = rex;
    words.shift();
  }
  const demand = prefixDemands[words[0] ?? ''];
  if (demand) {
    result.prefixClasses = demand;
    result.operandSizeIsMandatory = words[0] === '66';
    words.shift();
  }
  let [opcode = '', ...demands] = words;
  for (const [byte, from, to] of escapes) {
    if (opcode !== byte || result.map !== from) continue;
    result.map = to;
    [opcode = '', ...demands] = demands;
  }
  result.opcode = Number.parseInt(opcode, 16);
  if (opcode.endsWith('+r')) result.opcodeCount = 8;
  for (const word of demands) {
    if (word === 'reg') result.requirement = 'register';
    else if (word === 'mem') result.requirement = 'memory';
    else if (word.startsWith('/')) result.registers = parseRegisterList(word.slice(1));
    else result.wholeModRm = Number.parseInt(word, 16);
  }
  return result;
}

/** The ModRM bytes which satisfy the demands; `null` if there are none to satisfy. */
function modRmBytes(opcode: Opcode, requirement: ModRequirement): Set<number> | null {
  const { registers, wholeModRm } = opcode;
  if (wholeModRm !== null) return new Set([wholeModRm]);
  if (!registers && requirement === 'any') return null;
  const bytes = new Set<number>();
  for (let byte = 0; byte < 256; byte++) {
    if (requirement === 'memory' && byte >= 0xc0) continue;
    if (requirement === 'register' && byte < 0xc0) continue;
    if (registers && !registers.includes((byte >> 3) & 7)) continue;
    bytes.add(byte);
  }
  return bytes;
}

function parseRow(line: string, feature: Feature): OpcodeRow {
  const [opcodeText = '', operation = '', operandText = '', attributeText = ''] = line
    .split('|')
    .map((cell) => cell.trim());
  const opcode = parseOpcode(opcodeText);
  const operands = operandText === '' ? [] : operandText.split(',').map((text) => parseOperand(text.trim()));
  const attributes = attributeText === '' ? [] : attributeText.split(/\s+/);

  let requirement = opcode.requirement;
  for (const operand of operands) if (operand.requirement !== 'any') requirement = operand.requirement;
  const modRm = modRmBytes(opcode, requirement);

  let flags = RowFlag.valid;
  for (const attribute of attributes) {
    const flag = attributeFlags[attribute];
    if (flag === undefined) throw new Error(`opcode table: unknown attribute "${attribute}" in "${line.trim()}"`);
    flags |= flag;
  }
  if (modRm || operands.some((operand) => operand.usesModRm)) flags |= RowFlag.modRm;
  if (operands.some((operand) => operand.ignoresMod)) flags |= RowFlag.ignoresMod;
  if (opcode.operandSizeIsMandatory) flags |= RowFlag.operandSizeIsMandatory;
  const general = operands.filter((operand) => operand.isByte !== null);
  if (general.length > 0 && general.every((operand) => operand.isByte)) flags |= RowFlag.byteOperation;

  return {
    text: line.trim(),
    feature,
    operation,
    flags,
    operands: operands.map((operand) => operand.packed),
    inLegacyCode: !attributes.includes('long'),
    inLongCode: !attributes.includes('legacy'),
    map: opcode.map,
    opcode: opcode.opcode,
    opcodeCount: opcode.opcodeCount,
    prefixClasses: opcode.prefixClasses,
    rex: opcode.rex,
    modRm,
  };
}

/** Reads tables into rows; throws on notation it does not know. */
export function parseSections(sections: readonly TableSection[]): OpcodeRow[] {
  return sections.flatMap(({ feature, rows }) =>
    rows
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line) => parseRow(line, feature)),
  );
}
