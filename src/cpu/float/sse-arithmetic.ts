import { add, compare, divide, multiply, squareRoot } from './arithmetic.ts';
import { pack32, unpack32 } from './encoding.ts';
import { roundToIntegral } from './integers.ts';
import { FloatFlag, FloatKind, isNaNKind, type RoundingMode } from './softfloat.ts';
import { formatOf, type SseHandler, type SseHandlers, type SseMachine, stopped, type Width } from './sse-machine.ts';
import { SseOperation, SseResult } from './sse-operations.ts';

/** SSE arithmetic and comparison, lane by lane. */

/** Computes the scratch result z of a lane from x (destination operand) and y (source operand). */
type Lane = (sse: SseMachine, width: Width) => void;

const addLane: Lane = (sse, width) => {
  const { x, y, z } = sse;
  if (!sse.propagate(x, y, z)) add(sse.context, formatOf(width), x, y, 0, z);
};

const subtractLane: Lane = (sse, width) => {
  const { x, y, z } = sse;
  if (!sse.propagate(x, y, z)) add(sse.context, formatOf(width), x, y, 1, z);
};

const multiplyLane: Lane = (sse, width) => {
  const { x, y, z } = sse;
  if (!sse.propagate(x, y, z)) multiply(sse.context, formatOf(width), x, y, z);
};

const divideLane: Lane = (sse, width) => {
  const { x, y, z } = sse;
  if (!sse.propagate(x, y, z)) divide(sse.context, formatOf(width), x, y, z);
};

const squareRootLane: Lane = (sse, width) => {
  const { y, z } = sse;
  if (!sse.propagate(y, y, z)) squareRoot(sse.context, formatOf(width), y, z);
};

/** Compares x and y: −1, 0, 1, or 2 when unordered. `signals` makes quiet NaNs invalid as well. */
function order(sse: SseMachine, signals: boolean): -1 | 0 | 1 | 2 {
  const { context, x, y } = sse;
  if (isNaNKind(x.kind) || isNaNKind(y.kind)) {
    if (signals || x.kind === FloatKind.signalingNaN || y.kind === FloatKind.signalingNaN) {
      context.flags |= FloatFlag.invalid;
    }
    return 2;
  }
  if (x.denormal || y.denormal) context.flags |= FloatFlag.denormal;
  return compare(x, y);
}

/** Runs over the lanes of one of the four forms: packed single, packed double, scalar single, scalar double. */
function forLanes(
  form: number,
  lane: (sse: SseMachine, width: Width, offset: number, a: number, b: number, immediate: number) => void,
): SseHandler {
  const width: Width = (form & 1) !== 0 ? 8 : 4;
  const end = form >= 2 ? width : 16;
  return (sse, a, b, immediate) => {
    sse.keep(a, end, 16);
    for (let offset = 0; offset < end; offset += width) {
      sse.unpack(sse.memory, width, b + offset, sse.y);
      lane(sse, width, offset, a, b, immediate);
    }
    return 16;
  };
}

function arithmetic(form: number, lane: Lane): SseHandler {
  return forLanes(form, (sse, width, offset, a) => {
    sse.unpack(sse.memory, width, a + offset, sse.x);
    lane(sse, width);
    sse.pack(sse.lanes, width, offset, sse.z);
  });
}

/** MINxx and MAXxx are `a < b ? a : b` and `a > b ? a : b`: NaNs and equal zeros give the second operand, unquieted. */
function selection(form: number, wanted: -1 | 1): SseHandler {
  return forLanes(form, (sse, width, offset, a, b) => {
    sse.unpack(sse.memory, width, a + offset, sse.x);
    const first = order(sse, true) === wanted;
    const chosen = first ? sse.x : sse.y;
    // A denormal is copied as it is, unless it is read as zero.
    if (chosen.kind === FloatKind.zero) sse.pack(sse.lanes, width, offset, chosen);
    else sse.keep(first ? a : b, offset, offset + width);
  });
}

/** CMPxx predicates 0–3; 4–7 are their negations: EQ, LT, LE, UNORD, NEQ, NLT, NLE, ORD. */
function predicateHolds(sse: SseMachine, predicate: number): boolean {
  const kind = predicate & 3;
  const outcome = order(sse, kind === 1 || kind === 2);
  let holds: boolean;
  if (kind === 0) holds = outcome === 0;
  else if (kind === 1) holds = outcome === -1;
  else if (kind === 2) holds = outcome === -1 || outcome === 0;
  else holds = outcome === 2;
  return holds !== ((predicate & 4) !== 0);
}

function predicate(form: number): SseHandler {
  return forLanes(form, (sse, width, offset, a, _b, immediate) => {
    sse.unpack(sse.memory, width, a + offset, sse.x);
    const mask = predicateHolds(sse, immediate) ? -1 : 0;
    sse.lanes.setInt32(offset, mask, true);
    if (width === 8) sse.lanes.setInt32(offset + 4, mask, true);
  });
}

/** ROUNDxx. Immediate bits 0–1 are the mode, bit 2 takes MXCSR's instead, bit 3 suppresses the precision flag. */
function rounding(form: number): SseHandler {
  return forLanes(form, (sse, width, offset, _a, _b, immediate) => {
    const { context, y, z } = sse;
    if (!sse.propagate(y, y, z)) {
      const mode = (immediate & 4) !== 0 ? context.rounding : ((immediate & 3) as RoundingMode);
      const before = context.flags;
      roundToIntegral(context, mode, y, z);
      if ((immediate & 8) !== 0) context.flags = before;
    }
    sse.pack(sse.lanes, width, offset, z);
  });
}

/** COMISx and UCOMISx: the outcome goes to EFLAGS. */
function comparison(width: Width, signals: boolean): SseHandler {
  return (sse, a, b) => {
    sse.unpack(sse.memory, width, a, sse.x);
    sse.unpack(sse.memory, width, b, sse.y);
    const outcome = order(sse, signals);
    if (outcome === 2) sse.eflags = SseResult.zero | SseResult.parity | SseResult.carry;
    else if (outcome === 0) sse.eflags = SseResult.zero;
    else if (outcome === -1) sse.eflags = SseResult.carry;
    return 0;
  };
}

/** HADDxx and HSUBxx: neighbours in the first operand make the lower half, those in the second the upper half. */
function horizontal(width: Width, lane: Lane): SseHandler {
  return (sse, a, b) => {
    const half = 8 / width;
    for (let i = 0; i < 2 * half; i++) {
      const address = i < half ? a + i * 2 * width : b + (i - half) * 2 * width;
      sse.unpack(sse.memory, width, address, sse.x);
      sse.unpack(sse.memory, width, address + width, sse.y);
      lane(sse, width);
      sse.pack(sse.lanes, width, i * width, sse.z);
    }
    return 16;
  };
}

/** ADDSUBxx subtracts in even lanes and adds in odd ones. */
function alternating(width: Width): SseHandler {
  return (sse, a, b) => {
    for (let i = 0; i < 16 / width; i++) {
      sse.unpack(sse.memory, width, a + i * width, sse.x);
      sse.unpack(sse.memory, width, b + i * width, sse.y);
      const lane = (i & 1) === 0 ? subtractLane : addLane;
      lane(sse, width);
      sse.pack(sse.lanes, width, i * width, sse.z);
    }
    return 16;
  };
}

/** Lanes of the dot product on its way; scratch. */
const sums = new DataView(new ArrayBuffer(16));

/** Adds lanes of `sums` at two offsets and leaves the sum at the first. */
function addSums(sse: SseMachine, width: Width, first: number, second: number): void {
  sse.unpack(sums, width, first, sse.x);
  sse.unpack(sums, width, second, sse.y);
  addLane(sse, width);
  sse.pack(sums, width, first, sse.z);
}

/**
 * DPPS and DPPD. Immediate bits 4–7 choose the products that count, bits 0–3 the lanes that receive the sum. The
 * products are rounded, then added in pairs: two or three steps.
 */
function dotProduct(width: Width): SseHandler {
  const count = 16 / width;
  return (sse, a, b, immediate) => {
    for (let i = 0; i < count; i++) {
      sse.z.set(FloatKind.zero, 0);
      if ((immediate & (0x10 << i)) !== 0) {
        sse.unpack(sse.memory, width, a + i * width, sse.x);
        sse.unpack(sse.memory, width, b + i * width, sse.y);
        multiplyLane(sse, width);
      }
      sse.pack(sums, width, i * width, sse.z);
    }
    if (sse.settleStep()) return stopped;
    addSums(sse, width, 0, width);
    if (count === 4) {
      addSums(sse, width, 8, 12);
      if (sse.settleStep()) return stopped;
      addSums(sse, width, 0, 8);
    }
    for (let offset = 0; offset < 16; offset += 4) {
      const receives = (immediate & (1 << Math.floor(offset / width))) !== 0;
      sse.lanes.setInt32(offset, receives ? sums.getInt32(offset % width, true) : 0, true);
    }
    return 16;
  };
}

/**
 * RCPxx and RSQRTxx promise a relative error of at most 1.5 · 2^−12 and raise nothing. This unit rounds the true value
 * to single precision. Denormal operands count as zeros and tiny results become zeros whatever MXCSR says.
 */
function approximation(form: number, compute: (value: number) => number): SseHandler {
  const end = form >= 2 ? 4 : 16;
  return (sse, a, b) => {
    const { y, z } = sse;
    sse.keep(a, end, 16);
    for (let offset = 0; offset < end; offset += 4) {
      unpack32(sse.memory, b + offset, y, true);
      if (isNaNKind(y.kind)) z.setQuieted(y);
      else if (y.kind === FloatKind.zero) z.set(FloatKind.infinity, y.sign);
      else {
        const value = compute(sse.memory.getFloat32(b + offset, true));
        sse.lanes.setFloat32(offset, value, true);
        unpack32(sse.lanes, offset, z, true);
        if (isNaNKind(z.kind)) z.setIndefinite();
      }
      pack32(sse.lanes, offset, z);
    }
    return 16;
  };
}

export const arithmeticHandlers: SseHandlers = {
  [SseOperation.comiss]: comparison(4, true),
  [SseOperation.comisd]: comparison(8, true),
  [SseOperation.ucomiss]: comparison(4, false),
  [SseOperation.ucomisd]: comparison(8, false),
  [SseOperation.haddps]: horizontal(4, addLane),
  [SseOperation.haddpd]: horizontal(8, addLane),
  [SseOperation.hsubps]: horizontal(4, subtractLane),
  [SseOperation.hsubpd]: horizontal(8, subtractLane),
  [SseOperation.addsubps]: alternating(4),
  [SseOperation.addsubpd]: alternating(8),
  [SseOperation.dpps]: dotProduct(4),
  [SseOperation.dppd]: dotProduct(8),
};

const reciprocal = (value: number) => 1 / value;
const reciprocalRoot = (value: number) => 1 / Math.sqrt(value);
arithmeticHandlers[SseOperation.rcpps] = approximation(0, reciprocal);
arithmeticHandlers[SseOperation.rcpss] = approximation(2, reciprocal);
arithmeticHandlers[SseOperation.rsqrtps] = approximation(0, reciprocalRoot);
arithmeticHandlers[SseOperation.rsqrtss] = approximation(2, reciprocalRoot);

/** The families whose four forms follow one another in `SseOperation`. */
for (let form = 0; form < 4; form++) {
  arithmeticHandlers[SseOperation.addps + form] = arithmetic(form, addLane);
  arithmeticHandlers[SseOperation.mulps + form] = arithmetic(form, multiplyLane);
  arithmeticHandlers[SseOperation.subps + form] = arithmetic(form, subtractLane);
  arithmeticHandlers[SseOperation.divps + form] = arithmetic(form, divideLane);
  arithmeticHandlers[SseOperation.sqrtps + form] = arithmetic(form, squareRootLane);
  arithmeticHandlers[SseOperation.minps + form] = selection(form, -1);
  arithmeticHandlers[SseOperation.maxps + form] = selection(form, 1);
  arithmeticHandlers[SseOperation.cmpps + form] = predicate(form);
  arithmeticHandlers[SseOperation.roundps + form] = rounding(form);
}
