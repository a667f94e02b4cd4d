/**
 * The decoder: bytes in, one `Instruction` out.
 *
 * A function of the bytes and the code size alone. It reads no byte past the first one that settles the outcome, so a
 * caller may offer the rest of one page and, when told `truncated`, fetch the next page and try again: an instruction
 * never demands a page it does not reach.
 *
 * Reading order: instruction.ts (the product), notation.ts and rows.ts (the tables' notation), tables/, compile.ts.
 */
import { decodeAddress, Rex, readSigned } from './address.ts';
import { compileTables, type DecoderRow, type DecoderTables, firstModRmTable } from './compile.ts';
import { type Feature, reportedFeatures } from './features.ts';
import {
  AddressRegister,
  type CodeSize,
  type Instruction,
  type Operand,
  OperandKind,
  SegmentRegister,
} from './instruction.ts';
import { Source, sizeColumn, sizes } from './notation.ts';
import { opcodeRows } from './operations.ts';
import { OpcodeMap, PrefixClass, RowFlag } from './rows.ts';

export const enum DecodeResult {
  /** `out` is complete. */
  ok = 0,
  /** Invalid opcode (#UD). `out.length` bytes were enough to know; nothing else in `out` holds. */
  invalid = 1,
  /** At least `out.length` bytes are needed, more than were available. */
  truncated = 2,
  /** The instruction is longer than 15 bytes (#GP). */
  tooLong = 3,
}

/**
 * Decodes the instruction at `bytes[offset]`. `available` bytes may be read from there (more than 15 do no harm);
 * `codeSize` is the segment's. Allocates nothing.
 *
 * After `ok`, `out` is the instruction. Fields that belong to a kind of operand (address, immediates) are written only
 * if the instruction has such an operand; all others, `segment` and `addressSize` among them, always are.
 * After any other outcome `out` holds only what `DecodeResult` says.
 */
export type Decode = (
  bytes: Uint8Array,
  offset: number,
  available: number,
  codeSize: CodeSize,
  out: Instruction,
) => DecodeResult;

/** SDM volume 3, 7.2 ("Interrupt 13"): a longer instruction is a general protection fault. */
export const MAXIMUM_LENGTH = 15;

const enum Prefix {
  none = 0,
  segment = 1,
  operandSize = 2,
  addressSize = 3,
  lock = 4,
  repeatNotEqual = 5,
  repeatEqual = 6,
  rex = 7,
}

const prefixBytes: readonly [byte: number, prefix: Prefix][] = [
  [0x26, Prefix.segment],
  [0x2e, Prefix.segment],
  [0x36, Prefix.segment],
  [0x3e, Prefix.segment],
  [0x64, Prefix.segment],
  [0x65, Prefix.segment],
  [0x66, Prefix.operandSize],
  [0x67, Prefix.addressSize],
  [0xf0, Prefix.lock],
  [0xf2, Prefix.repeatNotEqual],
  [0xf3, Prefix.repeatEqual],
];

/** Prefix kinds by byte: first outside, then in 64-bit code, where 40–4F are REX. */
const prefixKinds = new Uint8Array(512);
for (const [byte, prefix] of prefixBytes) {
  prefixKinds[byte] = prefix;
  prefixKinds[256 | byte] = prefix;
}
prefixKinds.fill(Prefix.rex, 256 | 0x40, 256 | 0x50);

function createOperand(): Operand {
  return { kind: OperandKind.none, register: 0, size: 0 };
}

/** An empty instruction for `decode` to fill, again and again. */
export function createInstruction(): Instruction {
  return {
    length: 0,
    operation: 'invalid',
    operandSize: 0,
    addressSize: 0,
    operandCount: 0,
    operands: [createOperand(), createOperand(), createOperand(), createOperand()],
    base: AddressRegister.none,
    index: AddressRegister.none,
    scale: 1,
    displacement: 0,
    displacementHigh: 0,
    segment: SegmentRegister.ds,
    immediateLow: 0,
    immediateHigh: 0,
    secondImmediate: 0,
    lock: false,
    repeatEqual: false,
    repeatNotEqual: false,
  };
}

/** Without REX, byte registers 4–7 are AH, CH, DH, BH. */
function setGeneral(operand: Operand, register: number, size: number, rex: number): void {
  if (size === 1 && register >= 4 && rex === 0) {
    operand.kind = OperandKind.highByte;
    operand.register = register - 4;
  } else {
    operand.kind = OperandKind.gpr;
    operand.register = register;
  }
  operand.size = size;
}

function setOperand(operand: Operand, kind: OperandKind, register: number, size: number): void {
  operand.kind = kind;
  operand.register = register;
  operand.size = size;
}

function createDecodeFunction(legacyTables: DecoderTables, longTables: DecoderTables): Decode {
  const fail = (out: Instruction, limit: number, offset: number, needed: number): DecodeResult => {
    if (limit - offset >= MAXIMUM_LENGTH) {
      out.length = MAXIMUM_LENGTH;
      return DecodeResult.tooLong;
    }
    // Failing to fetch the fifteen bytes comes before their being too few (SDM volume 3, table 6-2).
    out.length = Math.min(needed - offset, MAXIMUM_LENGTH);
    return DecodeResult.truncated;
  };

  return (bytes, offset, available, codeSize, out) => {
    // Indexes into `bytes` are compared with `limit`; those into the tables are in range by the tables' construction.
    const limit = offset + Math.min(available, MAXIMUM_LENGTH);
    const longMode = codeSize === 64;
    const tables = longMode ? longTables : legacyTables;
    let position = offset;

    let rex = 0;
    let segmentOverride = -1;
    let operandSizePrefix = false;
    let addressSizePrefix = false;
    let lock = false;
    let repeat = PrefixClass.none;
    let opcode: number;
    for (;;) {
      if (position >= limit) return fail(out, limit, offset, position + 1);
      opcode = bytes[position++]!;
      const prefix = prefixKinds[longMode ? 256 | opcode : opcode]!;
      if (prefix === Prefix.none) break;
      if (prefix === Prefix.rex) {
        rex = opcode;
        continue;
      }
      // REX counts only directly before the opcode.
      rex = 0;
      switch (prefix) {
        case Prefix.segment:
          if (opcode >= 0x64) segmentOverride = opcode - 0x60;
          // In 64-bit code the other four are ignored, and so do not undo FS or GS.
          else if (!longMode || segmentOverride < SegmentRegister.fs) segmentOverride = (opcode >> 3) & 3;
          break;
        case Prefix.operandSize:
          operandSizePrefix = true;
          break;
        case Prefix.addressSize:
          addressSizePrefix = true;
          break;
        case Prefix.lock:
          lock = true;
          break;
        case Prefix.repeatEqual:
          repeat = PrefixClass.repeatEqual;
          break;
        case Prefix.repeatNotEqual:
          repeat = PrefixClass.repeatNotEqual;
          break;
      }
    }

    let map = OpcodeMap.oneByte;
    if (opcode === 0x0f) {
      if (position >= limit) return fail(out, limit, offset, position + 1);
      opcode = bytes[position++]!;
      map = OpcodeMap.map0F;
      if (opcode === 0x38 || opcode === 0x3a) {
        map = opcode === 0x38 ? OpcodeMap.map0F38 : OpcodeMap.map0F3A;
        if (position >= limit) return fail(out, limit, offset, position + 1);
        opcode = bytes[position++]!;
      }
    }

    const prefixClass = repeat !== PrefixClass.none ? repeat : operandSizePrefix ? PrefixClass.operandSize : 0;
    let rowNumber = tables.direct[(((map << 8) | opcode) << 2) | prefixClass]!;
    let modRm = -1;
    if (rowNumber >= firstModRmTable) {
      if (position >= limit) return fail(out, limit, offset, position + 1);
      modRm = bytes[position++]!;
      rowNumber = tables.byModRm[((rowNumber - firstModRmTable) << 8) | modRm]!;
    }
    let row: DecoderRow = tables.rows[rowNumber]!;
    if ((rex & row.rexMask) !== 0) row = row.rexRow!; // A row with a mask has the other row.
    const flags = row.flags;
    if ((flags & RowFlag.valid) === 0) {
      out.length = position - offset;
      return DecodeResult.invalid;
    }
    if (modRm < 0 && (flags & RowFlag.modRm) !== 0) {
      if (position >= limit) return fail(out, limit, offset, position + 1);
      modRm = bytes[position++]!;
    }
    // Lockable rows have the destination in ModRM.rm.
    if (lock && ((flags & RowFlag.lockable) === 0 || modRm >= 0xc0)) {
      out.length = position - offset;
      return DecodeResult.invalid;
    }

    const narrowed = operandSizePrefix && (flags & RowFlag.operandSizeIsMandatory) === 0;
    let operandSize: number;
    if (longMode) {
      if ((flags & (RowFlag.force64 | RowFlag.native)) !== 0) operandSize = 8;
      else if ((rex & Rex.w) !== 0) operandSize = (flags & RowFlag.narrow) !== 0 ? 4 : 8;
      else if (narrowed) operandSize = 2;
      else operandSize = (flags & RowFlag.default64) !== 0 ? 8 : 4;
      out.addressSize = addressSizePrefix ? 4 : 8;
    } else {
      if ((flags & RowFlag.native) !== 0) operandSize = 4;
      else operandSize = (codeSize === 32) !== narrowed ? 4 : 2;
      out.addressSize = (codeSize === 32) !== addressSizePrefix ? 4 : 2;
    }

    const hasAddress = modRm >= 0 && modRm < 0xc0 && (flags & RowFlag.ignoresMod) === 0;
    if (hasAddress) {
      position = decodeAddress(bytes, position, limit, modRm, rex, longMode, out);
      if (position < 0) return fail(out, limit, offset, -position);
      if (segmentOverride >= 0) out.segment = segmentOverride;
      // RSP, RBP or their parts as base: the stack segment. RIP and none are neither.
      else out.segment = out.base === 4 || out.base === 5 ? SegmentRegister.ss : SegmentRegister.ds;
    } else {
      out.segment = segmentOverride >= 0 ? segmentOverride : SegmentRegister.ds;
    }

    const column = sizeColumn(operandSize, longMode);
    const count = row.operandCount;
    const packedOperands = row.operands;
    for (let number = 0; number < count; number++) {
      const packed = packedOperands[number]!;
      const operand = out.operands[number as 0 | 1 | 2 | 3];
      const size = sizes[((packed >> 5) & 0x7f8) | column]!;
      switch (packed & 0xff) {
        case Source.rmGeneral:
          if (hasAddress) setOperand(operand, OperandKind.memory, 0, size);
          else {
            const registerSize = sizes[((packed >> 13) & 0x7f8) | column]!;
            setGeneral(operand, (modRm & 7) | ((rex & Rex.b) << 3), registerSize, rex);
          }
          break;
        case Source.regGeneral:
          setGeneral(operand, ((modRm >> 3) & 7) | ((rex & Rex.r) << 1), size, rex);
          break;
        case Source.opcodeGeneral:
          setGeneral(operand, (opcode & 7) | ((rex & Rex.b) << 3), size, rex);
          break;
        case Source.fixedGeneral:
          setOperand(operand, OperandKind.gpr, packed >> 24, size);
          break;
        case Source.memory:
          setOperand(operand, OperandKind.memory, 0, size);
          break;
        case Source.signedImmediate: {
          const encoded = sizes[((packed >> 13) & 0x7f8) | column]!;
          if (position + encoded > limit) return fail(out, limit, offset, position + encoded);
          const low = readSigned(bytes, position, encoded);
          out.immediateLow = low;
          out.immediateHigh = encoded === 8 ? readSigned(bytes, position + 4, 4) : low >> 31;
          position += encoded;
          setOperand(operand, OperandKind.immediate, 0, size);
          break;
        }
        case Source.unsignedImmediate:
          if (position + size > limit) return fail(out, limit, offset, position + size);
          out.immediateLow = size === 1 ? bytes[position]! : bytes[position]! | (bytes[position + 1]! << 8);
          out.immediateHigh = 0;
          position += size;
          setOperand(operand, OperandKind.immediate, 0, size);
          break;
        case Source.relative: {
          const encoded = sizes[((packed >> 13) & 0x7f8) | column]!;
          if (position + encoded > limit) return fail(out, limit, offset, position + encoded);
          const low = readSigned(bytes, position, encoded);
          out.immediateLow = low;
          out.immediateHigh = low >> 31;
          position += encoded;
          setOperand(operand, OperandKind.relative, 0, size);
          break;
        }
        case Source.rmXmm:
          if (hasAddress) setOperand(operand, OperandKind.memory, 0, size);
          else setOperand(operand, OperandKind.xmm, (modRm & 7) | ((rex & Rex.b) << 3), 16);
          break;
        case Source.regXmm:
          setOperand(operand, OperandKind.xmm, ((modRm >> 3) & 7) | ((rex & Rex.r) << 1), 16);
          break;
        case Source.rmMmx:
          if (hasAddress) setOperand(operand, OperandKind.memory, 0, size);
          else setOperand(operand, OperandKind.mmx, modRm & 7, 8);
          break;
        case Source.regMmx:
          setOperand(operand, OperandKind.mmx, (modRm >> 3) & 7, 8);
          break;
        case Source.rmStack:
          setOperand(operand, OperandKind.st, modRm & 7, 10);
          break;
        case Source.fixedStack:
          setOperand(operand, OperandKind.st, packed >> 24, 10);
          break;
        case Source.regSegment:
          setOperand(operand, OperandKind.segment, (modRm >> 3) & 7, 2);
          break;
        case Source.fixedSegment:
          setOperand(operand, OperandKind.segment, packed >> 24, 2);
          break;
        case Source.regControl: {
          // Of the control registers that REX.R reaches only CR8 exists.
          const register = ((modRm >> 3) & 7) | ((rex & Rex.r) << 1);
          if (register > 8) {
            out.length = position - offset;
            return DecodeResult.invalid;
          }
          setOperand(operand, OperandKind.control, register, size);
          break;
        }
        case Source.regDebug:
          if ((rex & Rex.r) !== 0) {
            out.length = position - offset;
            return DecodeResult.invalid;
          }
          setOperand(operand, OperandKind.debug, (modRm >> 3) & 7, size);
          break;
        case Source.absoluteMemory: {
          const encoded = out.addressSize;
          if (position + encoded > limit) return fail(out, limit, offset, position + encoded);
          const low = readSigned(bytes, position, encoded);
          out.displacement = low;
          out.displacementHigh = encoded === 8 ? readSigned(bytes, position + 4, 4) : low >> 31;
          out.base = AddressRegister.none;
          out.index = AddressRegister.none;
          out.scale = 1;
          position += encoded;
          setOperand(operand, OperandKind.memory, 0, size);
          break;
        }
        case Source.secondImmediate:
          if (position >= limit) return fail(out, limit, offset, position + 1);
          out.secondImmediate = bytes[position++]!;
          setOperand(operand, OperandKind.secondImmediate, 0, 1);
          break;
        case Source.one:
          out.immediateLow = 1;
          out.immediateHigh = 0;
          setOperand(operand, OperandKind.immediate, 0, 1);
          break;
        case Source.farPointer: {
          const encoded = size - 2;
          if (position + size > limit) return fail(out, limit, offset, position + size);
          // Offsets are unsigned; 32 bits still come out as a signed number.
          out.immediateLow = readSigned(bytes, position, encoded) & (encoded === 2 ? 0xffff : -1);
          out.immediateHigh = 0;
          out.secondImmediate = bytes[position + encoded]! | (bytes[position + encoded + 1]! << 8);
          position += size;
          setOperand(operand, OperandKind.farPointer, 0, size);
          break;
        }
      }
    }

    out.length = position - offset;
    out.operation = row.operation;
    out.operandSize = (flags & RowFlag.byteOperation) !== 0 ? 1 : operandSize;
    out.operandCount = count;
    out.lock = lock;
    const repeats = (flags & RowFlag.string) !== 0;
    out.repeatEqual = repeats && repeat === PrefixClass.repeatEqual;
    out.repeatNotEqual = repeats && repeat === PrefixClass.repeatNotEqual;
    return DecodeResult.ok;
  };
}

/** A decoder for the instructions of `features`; building its tables takes some milliseconds. */
export function createDecoder(features: ReadonlySet<Feature> = reportedFeatures): Decode {
  return createDecodeFunction(compileTables(opcodeRows, features, false), compileTables(opcodeRows, features, true));
}

/** Names of all operations a decoder for `features` can produce, sorted; see operations.ts for their meaning. */
export function operationNames(features: ReadonlySet<Feature> = reportedFeatures): string[] {
  return [...new Set(opcodeRows.filter((row) => features.has(row.feature)).map((row) => row.operation))].sort();
}

/** The decoder at the reported level. */
export const decode: Decode = createDecoder();
