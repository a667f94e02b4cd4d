import { add, compare, divide, multiply, roundFinite, squareRoot } from './arithmetic.ts';
import { pack32, pack64, unpack32, unpack64 } from './encoding.ts';
import { fromInteger, integer, roundToIntegral, toInteger } from './integers.ts';
import {
  binary32,
  binary64,
  FloatContext,
  FloatFlag,
  FloatKind,
  isNaNKind,
  RoundingMode,
  Unpacked,
} from './softfloat.ts';
import { Mxcsr, SseOperation, SseResult } from './sse-operations.ts';

/**
 * The SSE unit: every floating-point instruction of SSE to SSE4.2, exact in results and flags.
 *
 * An instruction computes into a private 16 bytes and copies them out at the end, for two reasons: nothing may be
 * written when an exception is unmasked, and the exceptions of all lanes are collected before that is decided (SDM
 * vol. 1, 11.5.2). The destination may therefore be one of the operands.
 */
export interface SseUnit {
  /**
   * Executes one instruction.
   *
   * @param operation which
   * @param mxcsr MXCSR as it is before
   * @param destination address that receives the result: 16 bytes, or 8 where the result is an integer or MMX register
   *   (integers of 32 bits are zero-extended), or none for comparisons that set EFLAGS
   * @param a address of the destination operand's 16 bytes as they are before; lanes that keep their value come from
   *   here even where the instruction has one source
   * @param b address of the source operand: as many bytes as the instruction reads
   * @param immediate the immediate byte, where there is one
   * @returns MXCSR's six flags, old ones included, and the bits of `SseResult`
   */
  execute(operation: SseOperation, mxcsr: number, destination: number, a: number, b: number, immediate: number): number;
  /** Replaces the view; a memory that grows gets a new buffer. */
  attach(view: DataView): void;
}

/** Bytes of a lane. */
type Width = 4 | 8;

const context = new FloatContext();
const x = new Unpacked();
const y = new Unpacked();
const z = new Unpacked();
const lanes = new DataView(new ArrayBuffer(16));
/** Lanes of an intermediate result, for instructions of several steps. */
const steps = new DataView(new ArrayBuffer(16));
let memory: DataView;

function unpack(source: DataView, width: Width, address: number, number: Unpacked): void {
  if (width === 4) unpack32(source, address, number, context.denormalsAreZero);
  else unpack64(source, address, number, context.denormalsAreZero);
}

function pack(target: DataView, width: Width, offset: number, number: Unpacked): void {
  if (width === 4) pack32(target, offset, number);
  else pack64(target, offset, number);
}

function formatOf(width: Width) {
  return width === 4 ? binary32 : binary64;
}

/** Fills bytes of the result from memory, starting at the same offset. */
function keep(a: number, from: number, to: number): void {
  for (let i = from; i < to; i += 4) lanes.setInt32(i, memory.getInt32(a + i, true), true);
}

function clear(from: number): void {
  for (let i = from; i < 16; i += 4) lanes.setInt32(i, 0, true);
}

/** The NaN that results from operands of which at least one is a NaN: the first one (SDM vol. 1, table 4-7). */
function propagate(first: Unpacked, second: Unpacked, result: Unpacked): void {
  if (first.kind === FloatKind.signalingNaN || second.kind === FloatKind.signalingNaN) {
    context.flags |= FloatFlag.invalid;
  }
  result.setQuieted(isNaNKind(first.kind) ? first : second);
}

type Binary = (width: Width, first: Unpacked, second: Unpacked, result: Unpacked) => void;

const addLane: Binary = (width, first, second, result) => {
  if (isNaNKind(first.kind) || isNaNKind(second.kind)) propagate(first, second, result);
  else add(context, formatOf(width), first, second, 0, result);
};

const subtractLane: Binary = (width, first, second, result) => {
  if (isNaNKind(first.kind) || isNaNKind(second.kind)) propagate(first, second, result);
  else add(context, formatOf(width), first, second, 1, result);
};

const multiplyLane: Binary = (width, first, second, result) => {
  if (isNaNKind(first.kind) || isNaNKind(second.kind)) propagate(first, second, result);
  else multiply(context, formatOf(width), first, second, result);
};

const divideLane: Binary = (width, first, second, result) => {
  if (isNaNKind(first.kind) || isNaNKind(second.kind)) propagate(first, second, result);
  else divide(context, formatOf(width), first, second, result);
};

const squareRootLane: Binary = (width, _first, second, result) => {
  if (isNaNKind(second.kind)) propagate(second, second, result);
  else squareRoot(context, formatOf(width), second, result);
};

/** Compares two numbers: −1, 0, 1, or 2 when unordered. `signals` makes quiet NaNs invalid as well. */
function compareLanes(first: Unpacked, second: Unpacked, signals: boolean): -1 | 0 | 1 | 2 {
  if (isNaNKind(first.kind) || isNaNKind(second.kind)) {
    if (signals || first.kind === FloatKind.signalingNaN || second.kind === FloatKind.signalingNaN) {
      context.flags |= FloatFlag.invalid;
    }
    return 2;
  }
  if (first.denormal || second.denormal) context.flags |= FloatFlag.denormal;
  return compare(first, second);
}

/**
 * MINxx and MAXxx are `a < b ? a : b` and `a > b ? a : b`: NaNs and equal zeros give the second operand, unquieted.
 * True when the first operand is the result; `wanted` is −1 for MIN and 1 for MAX.
 */
function selectsFirst(first: Unpacked, second: Unpacked, wanted: -1 | 1): boolean {
  return compareLanes(first, second, true) === wanted;
}

/** CMPxx predicates 0–3; 4–7 are their negations: EQ, LT, LE, UNORD, NEQ, NLT, NLE, ORD. */
function predicateHolds(predicate: number, first: Unpacked, second: Unpacked): boolean {
  const kind = predicate & 3;
  const order = compareLanes(first, second, kind === 1 || kind === 2);
  let holds: boolean;
  if (kind === 0) holds = order === 0;
  else if (kind === 1) holds = order === -1;
  else if (kind === 2) holds = order === -1 || order === 0;
  else holds = order === 2;
  return holds !== ((predicate & 4) !== 0);
}

/** Rounds one lane to integral, with the immediate of ROUNDxx: bits 0–1 mode, bit 2 use MXCSR, bit 3 no precision flag. */
function roundLane(number: Unpacked, immediate: number, result: Unpacked): void {
  if (isNaNKind(number.kind)) {
    propagate(number, number, result);
    return;
  }
  const mode = (immediate & 4) !== 0 ? context.rounding : ((immediate & 3) as RoundingMode);
  const before = context.flags;
  roundToIntegral(context, mode, number, result);
  if ((immediate & 8) !== 0) context.flags = before;
}

/** Arithmetic of the families whose four forms follow one another in `SseOperation`, in that order. */
const laneOperations: readonly Binary[] = [addLane, multiplyLane, subtractLane, divideLane, squareRootLane];

function executeLanes(operation: SseOperation, a: number, b: number, immediate: number): void {
  const form = operation & 3;
  const width: Width = (form & 1) !== 0 ? 8 : 4;
  const end = form >= 2 ? width : 16;
  keep(a, end, 16);
  const lane = laneOperations[operation >> 2];
  for (let offset = 0; offset < end; offset += width) {
    unpack(memory, width, b + offset, y);
    if (operation >= SseOperation.roundps) {
      roundLane(y, immediate, z);
      pack(lanes, width, offset, z);
      continue;
    }
    unpack(memory, width, a + offset, x);
    if (lane !== undefined) {
      lane(width, x, y, z);
      pack(lanes, width, offset, z);
    } else if (operation < SseOperation.cmpps) {
      const first = selectsFirst(x, y, operation < SseOperation.maxps ? -1 : 1);
      const chosen = first ? x : y;
      // A denormal is copied as it is, unless it is read as zero.
      if (chosen.kind === FloatKind.zero) pack(lanes, width, offset, chosen);
      else keep(first ? a : b, offset, offset + width);
    } else {
      const mask = predicateHolds(immediate, x, y) ? -1 : 0;
      lanes.setInt32(offset, mask, true);
      if (width === 8) lanes.setInt32(offset + 4, mask, true);
    }
  }
}

function executeComparison(operation: SseOperation, a: number, b: number): number {
  const width: Width = operation === SseOperation.comiss || operation === SseOperation.ucomiss ? 4 : 8;
  unpack(memory, width, a, x);
  unpack(memory, width, b, y);
  const order = compareLanes(x, y, operation === SseOperation.comiss || operation === SseOperation.comisd);
  if (order === 2) return SseResult.zero | SseResult.parity | SseResult.carry;
  return order === 0 ? SseResult.zero : order < 0 ? SseResult.carry : 0;
}

/** Converts floating-point lanes of `b` to 32-bit integers, packed from offset 0; returns where they end. */
function floatsToIntegers(b: number, width: Width, count: number, mode: RoundingMode): number {
  for (let i = 0; i < count; i++) {
    unpack(memory, width, b + i * width, y);
    toInteger(context, mode, y, 32);
    lanes.setInt32(i * 4, integer.low, true);
  }
  return count * 4;
}

function floatToRegister(b: number, width: Width, bits: 32 | 64, mode: RoundingMode): void {
  unpack(memory, width, b, y);
  toInteger(context, mode, y, bits);
  lanes.setInt32(0, integer.low, true);
  lanes.setInt32(4, bits === 64 ? integer.high : 0, true);
}

/** Converts a signed integer to a lane at an offset of the result. */
function integerToFloat(high: number, low: number, width: Width, offset: number): void {
  fromInteger(high, low, x);
  if (x.kind === FloatKind.zero) z.copy(x);
  else roundFinite(context, formatOf(width), x, z);
  pack(lanes, width, offset, z);
}

function integersToFloats(b: number, width: Width, count: number): void {
  for (let i = 0; i < count; i++) {
    const value = memory.getInt32(b + i * 4, true);
    integerToFloat(value >> 31, value, width, i * width);
  }
}

/** Converts a lane between the two formats. */
function convertLane(from: Width, address: number, offset: number): void {
  const to: Width = from === 4 ? 8 : 4;
  unpack(memory, from, address, y);
  if (isNaNKind(y.kind)) propagate(y, y, z);
  else if (y.kind === FloatKind.finite) {
    if (y.denormal) context.flags |= FloatFlag.denormal;
    roundFinite(context, formatOf(to), y, z);
  } else z.copy(y);
  pack(lanes, to, offset, z);
}

/** HADDxx and HSUBxx: neighbours in the first operand make the lower half, those in the second the upper half. */
function executeHorizontal(width: Width, lane: Binary, a: number, b: number): void {
  const half = 8 / width;
  for (let i = 0; i < 2 * half; i++) {
    const address = i < half ? a + i * 2 * width : b + (i - half) * 2 * width;
    unpack(memory, width, address, x);
    unpack(memory, width, address + width, y);
    lane(width, x, y, z);
    pack(lanes, width, i * width, z);
  }
}

/** ADDSUBxx subtracts in even lanes and adds in odd ones. */
function executeAlternating(width: Width, a: number, b: number): void {
  for (let i = 0; i < 16 / width; i++) {
    unpack(memory, width, a + i * width, x);
    unpack(memory, width, b + i * width, y);
    const lane = (i & 1) === 0 ? subtractLane : addLane;
    lane(width, x, y, z);
    pack(lanes, width, i * width, z);
  }
}

/** Flags of the steps of this instruction that are over. */
let settled = 0;

/**
 * Ends a step, in which all lanes compute one operation. An unmasked exception that shows in the operands of any lane
 * keeps the step from computing, so that no lane raises overflow, underflow or precision. Returns whether an exception
 * is unmasked, which ends the instruction.
 */
function settleStep(): boolean {
  const unmasked = context.flags & ~context.masked;
  settled |=
    (unmasked & FloatFlag.beforeComputation) !== 0 ? context.flags & FloatFlag.beforeComputation : context.flags;
  context.flags = 0;
  return unmasked !== 0;
}

/** Adds lanes of `steps` at two offsets and leaves the sum at the first. */
function addSteps(width: Width, first: number, second: number): void {
  unpack(steps, width, first, x);
  unpack(steps, width, second, y);
  addLane(width, x, y, z);
  pack(steps, width, first, z);
}

/**
 * DPPS and DPPD. Immediate bits 4–7 choose the products that count, bits 0–3 the lanes that receive the sum. The
 * products are rounded, then added in pairs: two or three steps. Returns whether a step before the last was stopped by
 * an unmasked exception.
 */
function executeDotProduct(width: Width, a: number, b: number, immediate: number): boolean {
  const count = 16 / width;
  for (let i = 0; i < count; i++) {
    z.set(FloatKind.zero, 0);
    if ((immediate & (0x10 << i)) !== 0) {
      unpack(memory, width, a + i * width, x);
      unpack(memory, width, b + i * width, y);
      multiplyLane(width, x, y, z);
    }
    pack(steps, width, i * width, z);
  }
  if (settleStep()) return true;
  addSteps(width, 0, width);
  if (count === 4) {
    addSteps(width, 8, 12);
    if (settleStep()) return true;
    addSteps(width, 0, 8);
  }
  for (let offset = 0; offset < 16; offset += 4) {
    const receives = (immediate & (1 << Math.floor(offset / width))) !== 0;
    lanes.setInt32(offset, receives ? steps.getInt32(offset % width, true) : 0, true);
  }
  return false;
}

/**
 * RCPxx and RSQRTxx promise a relative error of at most 1.5 · 2^−12 and raise nothing. This unit rounds the true value
 * to single precision. Denormal operands count as zeros and tiny results become zeros whatever MXCSR says.
 */
function approximate(reciprocal: boolean, a: number, b: number, end: number): void {
  keep(a, end, 16);
  for (let offset = 0; offset < end; offset += 4) {
    unpack32(memory, b + offset, y, true);
    if (isNaNKind(y.kind)) {
      z.setQuieted(y);
      pack32(lanes, offset, z);
    } else if (y.kind === FloatKind.zero) {
      z.set(FloatKind.infinity, y.sign);
      pack32(lanes, offset, z);
    } else if (!reciprocal && y.sign !== 0) {
      z.setIndefinite();
      pack32(lanes, offset, z);
    } else {
      const value = memory.getFloat32(b + offset, true);
      const inverse = Math.fround(reciprocal ? 1 / value : 1 / Math.sqrt(value));
      const tiny = Math.abs(inverse) < 2 ** -126;
      lanes.setFloat32(offset, tiny ? (y.sign !== 0 ? -0 : 0) : inverse, true);
    }
  }
}

/** Size of the result of an instruction that was stopped between two of its steps. */
const stopped = -1;

/** Executes operations beyond the regular families. Returns how many bytes of `lanes` are the result, or `stopped`. */
function executeOther(operation: SseOperation, a: number, b: number, immediate: number): number {
  const mode = context.rounding;
  const zero = RoundingMode.zero;
  switch (operation) {
    case SseOperation.cvtsi2ss32:
    case SseOperation.cvtsi2sd32: {
      const width: Width = operation === SseOperation.cvtsi2ss32 ? 4 : 8;
      const value = memory.getInt32(b, true);
      keep(a, width, 16);
      integerToFloat(value >> 31, value, width, 0);
      return 16;
    }
    case SseOperation.cvtsi2ss64:
    case SseOperation.cvtsi2sd64: {
      const width: Width = operation === SseOperation.cvtsi2ss64 ? 4 : 8;
      keep(a, width, 16);
      integerToFloat(memory.getInt32(b + 4, true), memory.getInt32(b, true), width, 0);
      return 16;
    }
    case SseOperation.cvtss2si32:
      floatToRegister(b, 4, 32, mode);
      return 8;
    case SseOperation.cvtss2si64:
      floatToRegister(b, 4, 64, mode);
      return 8;
    case SseOperation.cvtsd2si32:
      floatToRegister(b, 8, 32, mode);
      return 8;
    case SseOperation.cvtsd2si64:
      floatToRegister(b, 8, 64, mode);
      return 8;
    case SseOperation.cvttss2si32:
      floatToRegister(b, 4, 32, zero);
      return 8;
    case SseOperation.cvttss2si64:
      floatToRegister(b, 4, 64, zero);
      return 8;
    case SseOperation.cvttsd2si32:
      floatToRegister(b, 8, 32, zero);
      return 8;
    case SseOperation.cvttsd2si64:
      floatToRegister(b, 8, 64, zero);
      return 8;
    case SseOperation.cvtdq2ps:
      integersToFloats(b, 4, 4);
      return 16;
    case SseOperation.cvtdq2pd:
    case SseOperation.cvtpi2pd:
      integersToFloats(b, 8, 2);
      return 16;
    case SseOperation.cvtpi2ps:
      keep(a, 8, 16);
      integersToFloats(b, 4, 2);
      return 16;
    case SseOperation.cvtps2dq:
      return floatsToIntegers(b, 4, 4, mode);
    case SseOperation.cvttps2dq:
      return floatsToIntegers(b, 4, 4, zero);
    case SseOperation.cvtpd2dq:
      clear(floatsToIntegers(b, 8, 2, mode));
      return 16;
    case SseOperation.cvttpd2dq:
      clear(floatsToIntegers(b, 8, 2, zero));
      return 16;
    case SseOperation.cvtps2pi:
      return floatsToIntegers(b, 4, 2, mode);
    case SseOperation.cvttps2pi:
      return floatsToIntegers(b, 4, 2, zero);
    case SseOperation.cvtpd2pi:
      return floatsToIntegers(b, 8, 2, mode);
    case SseOperation.cvttpd2pi:
      return floatsToIntegers(b, 8, 2, zero);
    case SseOperation.cvtss2sd:
      keep(a, 8, 16);
      convertLane(4, b, 0);
      return 16;
    case SseOperation.cvtsd2ss:
      keep(a, 4, 16);
      convertLane(8, b, 0);
      return 16;
    case SseOperation.cvtps2pd:
      convertLane(4, b, 0);
      convertLane(4, b + 4, 8);
      return 16;
    case SseOperation.cvtpd2ps:
      clear(8);
      convertLane(8, b, 0);
      convertLane(8, b + 8, 4);
      return 16;
    case SseOperation.haddps:
    case SseOperation.haddpd:
      executeHorizontal(operation === SseOperation.haddps ? 4 : 8, addLane, a, b);
      return 16;
    case SseOperation.hsubps:
    case SseOperation.hsubpd:
      executeHorizontal(operation === SseOperation.hsubps ? 4 : 8, subtractLane, a, b);
      return 16;
    case SseOperation.addsubps:
    case SseOperation.addsubpd:
      executeAlternating(operation === SseOperation.addsubps ? 4 : 8, a, b);
      return 16;
    case SseOperation.dpps:
    case SseOperation.dppd:
      return executeDotProduct(operation === SseOperation.dpps ? 4 : 8, a, b, immediate) ? stopped : 16;
    case SseOperation.rcpps:
    case SseOperation.rcpss:
      approximate(true, a, b, operation === SseOperation.rcpps ? 16 : 4);
      return 16;
    case SseOperation.rsqrtps:
    case SseOperation.rsqrtss:
      approximate(false, a, b, operation === SseOperation.rsqrtps ? 16 : 4);
      return 16;
    default:
      throw new RangeError(`The SSE unit has no operation ${operation}; use a value of SseOperation.`);
  }
}

/** A unit that works on the memory behind `view`, until another is attached. */
export function createSseUnit(view: DataView): SseUnit {
  let attached = view;
  return {
    attach(next) {
      attached = next;
    },
    execute(operation, mxcsr, destination, a, b, immediate) {
      memory = attached;
      context.rounding = ((mxcsr >>> Mxcsr.roundingShift) & 3) as RoundingMode;
      context.masked = (mxcsr >>> Mxcsr.maskShift) & FloatFlag.all;
      context.flushToZero = (mxcsr & Mxcsr.flushToZero) !== 0;
      context.denormalsAreZero = (mxcsr & Mxcsr.denormalsAreZero) !== 0;
      context.flags = 0;
      settled = 0;

      let size = 16;
      let eflags = 0;
      if (operation < SseOperation.comiss) executeLanes(operation, a, b, immediate);
      else if (operation <= SseOperation.ucomisd) {
        eflags = executeComparison(operation, a, b);
        size = 0;
      } else size = executeOther(operation, a, b, immediate);

      const exception = size === stopped || settleStep();
      const flags = (mxcsr & Mxcsr.flags) | settled;
      if (exception) return flags | SseResult.exception;
      for (let i = 0; i < size; i += 4) memory.setInt32(destination + i, lanes.getInt32(i, true), true);
      return flags | eflags;
    },
  };
}
