import {
  add,
  and,
  type F32,
  type F64,
  type I32,
  type I64,
  i32,
  i64,
  load64,
  ltU,
  or,
  store64,
  type V128,
  wrap,
} from '../../wasm/expression.ts';
import * as float from '../../wasm/float.ts';
import * as simd from '../../wasm/simd.ts';
import { SseOperation, sseOperations } from '../float/sse-operations.ts';
import type { Context, Semantics } from './context.ts';
import {
  callExact,
  computeExactly,
  constant,
  type Float,
  isOrdinary,
  LANES,
  leastNormal,
  ordinaryLanes,
  type Quick,
  quickOrExact,
  readScalar,
  SCRATCH_OPERAND,
  SCRATCH_RESULT,
  sourcePointer,
  storeFloat,
  type Width,
} from './float-support.ts';
import { enterMmx, isMmx, requireMmx, requireSse, writeMmx } from './vector-support.ts';

/** Conversions between integers, singles and doubles. See float-support.ts for what may be done inline. */

/** Whether −limit ≤ value < limit. */
const isWithin = (value: I64, limit: bigint): I32 => ltU(add(value, i64(limit)), i64(limit * 2n));

/** CVTSI2SS, CVTSI2SD: exact for integers that fit into the significand. */
const fromInteger =
  (width: Width, mnemonic: string): Semantics =>
  (c) => {
    requireSse(c);
    const bytes = c.shape.operands[1]?.size === 8 ? 8 : 4;
    const target = c.let(c.operandPointer(0));
    const value = c.let(c.readSigned(1));
    const operation = sseOperations[`${mnemonic}${bytes * 8}`] as SseOperation;
    if (width === 8 && bytes === 4) {
      c.fn.store(storeFloat(8, target, float.f64OfI32(wrap(value))));
      return;
    }
    quickOrExact(
      c,
      (quick) => {
        const exact = c.let(isWithin(value, width === 4 ? 1n << 24n : 1n << 53n));
        c.fn.if(
          exact,
          () => {},
          () => quick.requirePrecision(() => i32(0)),
        );
        c.fn.store(storeFloat(width, target, width === 4 ? float.f32OfI64(value) : float.f64OfI64(value)));
      },
      () => {
        c.fn.store(store64(c.state, value, SCRATCH_OPERAND));
        callExact(c, operation, target, target, add(c.state, i32(SCRATCH_OPERAND)));
      },
    );
  };

const asF64 = (width: Width, value: Float): F64 => (width === 4 ? float.promote(value as F32) : (value as F64));

/** CVTxx2SI and CVTTxx2SI: inline when the value is in range. An exact one does not depend on the rounding mode. */
const toInteger =
  (width: Width, truncates: boolean, mnemonic: string): Semantics =>
  (c) => {
    requireSse(c);
    const bytes = c.shape.operands[0]?.size === 8 ? 8 : 4;
    const limit = bytes === 8 ? 2 ** 63 : 2 ** 31;
    const value = readScalar(c, 1, width);
    const operation = sseOperations[`${mnemonic}${bytes * 8}`] as SseOperation;
    const result = c.fn.local('i64');
    quickOrExact(
      c,
      (quick) => {
        const exact = c.let(asF64(width, value));
        const rounded = c.let(truncates ? float.floatTrunc(exact) : float.floatNearest(exact));
        quick.require(and(float.floatGe(rounded, constant(8, -limit)), float.floatLt(rounded, constant(8, limit))));
        c.fn.if(
          float.floatEq(rounded, exact),
          () => {},
          () => quick.requirePrecision(() => i32(0)),
        );
        c.fn.set(result, float.i64OfF64(rounded as F64));
      },
      () => {
        const target = add(c.state, i32(SCRATCH_RESULT));
        callExact(c, operation, target, target, sourcePointer(c, 1, value));
        c.fn.set(result, load64(c.state, SCRATCH_RESULT));
      },
    );
    c.write(0, result);
  };

/** CVTSS2SD: exact. */
const widen: Semantics = (c) => {
  requireSse(c);
  const value = readScalar(c, 1, 4);
  quickOrExact(
    c,
    (quick) => {
      quick.require(isOrdinary(4, value));
      c.fn.store(storeFloat(8, c.operandPointer(0), float.promote(value as F32)));
    },
    () => computeExactly(c, SseOperation.cvtss2sd, value),
  );
};

const narrow: Semantics = (c) => {
  requireSse(c);
  const value = readScalar(c, 1, 8) as F64;
  quickOrExact(
    c,
    (quick) => {
      quick.require(isOrdinary(8, value));
      const result = c.let(float.demote(value));
      const magnitude = c.let(float.floatAbs(result));
      const normal = and(
        float.floatGt(magnitude, constant(4, leastNormal(4))),
        float.floatLt(magnitude, constant(4, Number.POSITIVE_INFINITY)),
      );
      quick.require(or(normal, float.floatEq(value, constant(8, 0))));
      quick.requirePrecision(() => float.floatEq(float.promote(result), value));
      c.fn.store(storeFloat(4, c.operandPointer(0), result));
    },
    () => computeExactly(c, SseOperation.cvtsd2ss, value),
  );
};

/** A packed conversion with an inline way. */
const packed =
  (operation: SseOperation, convert: (c: Context, source: V128, quick: Quick) => V128): Semantics =>
  (c) => {
    requireSse(c);
    const source = c.let(c.read128(1));
    quickOrExact(
      c,
      (quick) => c.write128(0, convert(c, source, quick)),
      () => computeExactly(c, operation, source),
    );
  };

const widenPacked = packed(SseOperation.cvtps2pd, (_c, source, quick) => {
  // Only the lower two lanes count.
  const lower = simd.shuffle(source, source, [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7]);
  quick.require(LANES[4].allTrue(ordinaryLanes(4, lower)));
  return simd.f64x2PromoteLow(source);
});

const narrowPacked = packed(SseOperation.cvtpd2ps, (c, source, quick) => {
  const result = c.let(simd.f32x4DemoteF64x2Zero(source));
  const widened = c.let(simd.f64x2PromoteLow(result));
  const { abs, lt, eq, splat, allTrue } = LANES[8];
  const magnitude = abs(widened);
  const normal = simd.andV128(lt(splat(leastNormal(4)), magnitude), lt(magnitude, splat(Number.POSITIVE_INFINITY)));
  quick.require(allTrue(simd.orV128(normal, eq(source, simd.zeroV128))));
  quick.requirePrecision(() => allTrue(eq(widened, source)));
  return result;
});

/** CVTDQ2PS: exact when converting back gives the integers again; 2^31, where the way back saturates, never is. */
const singlesOfIntegers = packed(SseOperation.cvtdq2ps, (c, source, quick) => {
  const result = c.let(simd.f32x4ConvertI32x4S(source));
  quick.requirePrecision(() => {
    const same = simd.i32x4Eq(simd.i32x4TruncSatF32x4S(result), source);
    return simd.i32x4AllTrue(simd.andV128(same, simd.f32x4Lt(result, LANES[4].splat(2 ** 31))));
  });
  return result;
});

const doublesOfIntegers: Semantics = (c) => {
  requireSse(c);
  c.write128(0, simd.f64x2ConvertLowI32x4S(c.read128(1)));
};

const integersOfSingles = (operation: SseOperation, truncates: boolean): Semantics =>
  packed(operation, (c, source, quick) => {
    const { abs, lt, eq, splat, allTrue } = LANES[4];
    const rounded = c.let(truncates ? simd.f32x4Trunc(source) : simd.f32x4Nearest(source));
    quick.require(allTrue(lt(abs(rounded), splat(2 ** 31))));
    c.fn.if(
      allTrue(eq(rounded, source)),
      () => {},
      () => quick.requirePrecision(() => i32(0)),
    );
    return simd.i32x4TruncSatF32x4S(rounded);
  });

const integersOfDoubles = (operation: SseOperation, truncates: boolean): Semantics =>
  packed(operation, (c, source, quick) => {
    const { abs, lt, eq, splat, allTrue } = LANES[8];
    const rounded = c.let(truncates ? simd.f64x2Trunc(source) : simd.f64x2Nearest(source));
    quick.require(allTrue(lt(abs(rounded), splat(2 ** 31))));
    c.fn.if(
      allTrue(eq(rounded, source)),
      () => {},
      () => quick.requirePrecision(() => i32(0)),
    );
    return simd.i32x4TruncSatF64x2SZero(rounded);
  });

/** CVTPI2PS, CVTPI2PD: from an MMX register or memory, by the exact unit. */
const fromMmx =
  (operation: SseOperation): Semantics =>
  (c) => {
    requireSse(c);
    if (isMmx(c, 1)) requireMmx(c);
    const target = c.let(c.operandPointer(0));
    const value = c.let(c.read(1));
    // The transition happens even if an unmasked exception ends the instruction.
    if (isMmx(c, 1)) enterMmx(c);
    c.fn.store(store64(c.state, value, SCRATCH_OPERAND));
    callExact(c, operation, target, target, add(c.state, i32(SCRATCH_OPERAND)));
  };

/** CVTPS2PI and its like: to an MMX register, by the exact unit. */
const toMmx =
  (operation: SseOperation): Semantics =>
  (c) => {
    requireSse(c);
    requireMmx(c);
    const source = c.let(c.read128(1));
    enterMmx(c);
    const target = add(c.state, i32(SCRATCH_RESULT));
    callExact(c, operation, target, target, sourcePointer(c, 1, source));
    writeMmx(c, 0, load64(c.state, SCRATCH_RESULT));
  };

export const SSE_CONVERT: ReadonlyMap<string, Semantics> = new Map<string, Semantics>([
  ['cvtsi2ss', fromInteger(4, 'cvtsi2ss')],
  ['cvtsi2sd', fromInteger(8, 'cvtsi2sd')],
  ['cvtss2si', toInteger(4, false, 'cvtss2si')],
  ['cvtsd2si', toInteger(8, false, 'cvtsd2si')],
  ['cvttss2si', toInteger(4, true, 'cvttss2si')],
  ['cvttsd2si', toInteger(8, true, 'cvttsd2si')],
  ['cvtss2sd', widen],
  ['cvtsd2ss', narrow],
  ['cvtps2pd', widenPacked],
  ['cvtpd2ps', narrowPacked],
  ['cvtdq2ps', singlesOfIntegers],
  ['cvtdq2pd', doublesOfIntegers],
  ['cvtps2dq', integersOfSingles(SseOperation.cvtps2dq, false)],
  ['cvttps2dq', integersOfSingles(SseOperation.cvttps2dq, true)],
  ['cvtpd2dq', integersOfDoubles(SseOperation.cvtpd2dq, false)],
  ['cvttpd2dq', integersOfDoubles(SseOperation.cvttpd2dq, true)],
  ['cvtpi2ps', fromMmx(SseOperation.cvtpi2ps)],
  ['cvtpi2pd', fromMmx(SseOperation.cvtpi2pd)],
  ['cvtps2pi', toMmx(SseOperation.cvtps2pi)],
  ['cvttps2pi', toMmx(SseOperation.cvttps2pi)],
  ['cvtpd2pi', toMmx(SseOperation.cvtpd2pi)],
  ['cvttpd2pi', toMmx(SseOperation.cvttpd2pi)],
]);
