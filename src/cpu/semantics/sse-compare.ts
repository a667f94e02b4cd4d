import {
  add,
  and,
  eq,
  extendS,
  extendU,
  type I32,
  i32,
  load32,
  or,
  select,
  shl,
  shrU,
  storeInteger,
  sub,
  type V128,
} from '../../wasm/expression.ts';
import * as float from '../../wasm/float.ts';
import * as simd from '../../wasm/simd.ts';
import { SseOperation, SseResult, sseOperations } from '../float/sse-operations.ts';
import { State } from '../state.ts';
import type { Context, Semantics } from './context.ts';
import {
  callExact,
  computeExactly,
  type Float,
  isOrdinary,
  LANES,
  loadFloat,
  ordinaryLanes,
  quickOrExact,
  readScalar,
  SCRATCH_RESULT,
  sourcePointer,
  storeFloat,
  type Width,
} from './float-support.ts';
import { immediateByte, requireSse } from './vector-support.ts';

/**
 * MIN, MAX, CMP, COMI, ROUND, and what is always left to the exact unit: RCP, RSQRT, DPPS, DPPD.
 *
 * Comparisons of numbers that are neither NaNs nor denormals raise no flag and do not depend on MXCSR.
 */

/** Computes one lane from that of operands 0 and 1 when both are ordinary numbers, and leaves all others to the exact unit. */
const scalarOfTwo =
  (width: Width, operation: SseOperation, compute: (c: Context, target: I32, a: Float, b: Float) => void): Semantics =>
  (c) => {
    requireSse(c);
    const target = c.let(c.operandPointer(0));
    const b = readScalar(c, 1, width);
    quickOrExact(
      c,
      ({ require }) => {
        const a = c.let(loadFloat(width, target));
        require(and(isOrdinary(width, a), isOrdinary(width, b)));
        compute(c, target, a, b);
      },
      () => computeExactly(c, operation, b),
    );
  };

/** As `scalarOfTwo` for all lanes of a register. */
const packedOfTwo =
  (width: Width, operation: SseOperation, compute: (c: Context, a: V128, b: V128) => V128): Semantics =>
  (c) => {
    requireSse(c);
    const b = c.let(c.read128(1));
    quickOrExact(
      c,
      ({ require }) => {
        const a = c.let(c.read128(0));
        require(LANES[width].allTrue(simd.andV128(ordinaryLanes(width, a), ordinaryLanes(width, b))));
        c.write128(0, compute(c, a, b));
      },
      () => computeExactly(c, operation, b),
    );
  };

const scalarExtreme = (wanted: 'min' | 'max', width: Width, operation: SseOperation): Semantics =>
  scalarOfTwo(width, operation, (c, target, a, b) => {
    const first = wanted === 'min' ? float.floatLt(a, b) : float.floatGt(a, b);
    c.fn.store(storeFloat(width, target, select(first, a, b)));
  });

const packedExtreme = (wanted: 'min' | 'max', width: Width, operation: SseOperation): Semantics =>
  packedOfTwo(width, operation, (_c, a, b) => {
    const first = wanted === 'min' ? LANES[width].lt(a, b) : LANES[width].lt(b, a);
    return simd.bitSelect(a, b, first);
  });

/**
 * Predicates EQ, LT, LE, UNORD, NEQ, NLT, NLE, ORD that hold when a is below, equal to or above b: bit p for
 * predicate p (SDM vol. 2, CMPPS).
 */
const HOLDS_BELOW = 0b1001_0110;
const HOLDS_EQUAL = 0b1010_0101;
const HOLDS_ABOVE = 0b1111_0000;

const scalarCompare = (width: Width, operation: SseOperation): Semantics =>
  scalarOfTwo(width, operation, (c, target, a, b) => {
    const predicates = select(
      float.floatLt(a, b),
      i32(HOLDS_BELOW),
      select(float.floatEq(a, b), i32(HOLDS_EQUAL), i32(HOLDS_ABOVE)),
    );
    const holds = and(shrU(predicates, predicateOf(c)), i32(1));
    c.fn.store(storeInteger(width, target, extendS(sub(i32(0), holds))));
  });

const packedCompare = (width: Width, operation: SseOperation): Semantics =>
  packedOfTwo(width, operation, (c, a, b) => {
    // A bit of the immediate, as a mask over all lanes.
    const predicate = c.let(predicateOf(c));
    const when = (mask: number) => simd.i32x4Splat(sub(i32(0), and(shrU(i32(mask), predicate), i32(1))));
    const below = simd.andV128(LANES[width].lt(a, b), when(HOLDS_BELOW ^ HOLDS_ABOVE));
    const equal = simd.andV128(LANES[width].eq(a, b), when(HOLDS_EQUAL ^ HOLDS_ABOVE));
    return simd.xorV128(when(HOLDS_ABOVE), simd.orV128(below, equal));
  });

const predicateOf = (c: Context): I32 => and(immediateByte(c), i32(7));

/** COMISx and UCOMISx: ZF, PF and CF; OF, AF and SF are cleared. */
const compareFlags =
  (width: Width, operation: SseOperation): Semantics =>
  (c) => {
    requireSse(c);
    const b = readScalar(c, 1, width);
    const flags = c.fn.local('i32');
    quickOrExact(
      c,
      ({ require }) => {
        const a = c.let(loadFloat(width, c.operandPointer(0)));
        require(and(isOrdinary(width, a), isOrdinary(width, b)));
        c.fn.set(flags, or(shl(float.floatEq(a, b), i32(6)), float.floatLt(a, b)));
      },
      () => {
        const nowhere = add(c.state, i32(SCRATCH_RESULT));
        const result = callExact(c, operation, nowhere, c.operandPointer(0), sourcePointer(c, 1, b));
        c.fn.set(flags, and(shrU(result, i32(SseResult.eflagsShift)), i32(0x45)));
      },
    );
    c.setFlagsExplicit(extendU(flags));
  };

/** Rounding mode of ROUNDxx: bits 0–1 of the immediate, or MXCSR's when bit 2 is set. */
function roundingMode(c: Context): I32 {
  const immediate = c.let(immediateByte(c));
  const own = and(shrU(load32(c.state, State.mxcsr), i32(13)), i32(3));
  return c.let(select(and(immediate, i32(4)), own, and(immediate, i32(3))));
}

/** PE is not reported when bit 3 of the immediate is set. */
const ignoresPrecision = (c: Context): I32 => and(shrU(immediateByte(c), i32(3)), i32(1));

const scalarRound =
  (width: Width, operation: SseOperation): Semantics =>
  (c) => {
    requireSse(c);
    const target = c.let(c.operandPointer(0));
    const b = readScalar(c, 1, width);
    quickOrExact(
      c,
      ({ require }) => {
        require(isOrdinary(width, b));
        const mode = roundingMode(c);
        const is = (value: number) => eq(mode, i32(value));
        const result: Float = c.let(
          select(
            is(0),
            float.floatNearest(b),
            select(is(1), float.floatFloor(b), select(is(2), float.floatCeil(b), float.floatTrunc(b))),
          ),
        );
        require(or(float.floatEq(result, b), ignoresPrecision(c)));
        c.fn.store(storeFloat(width, target, result));
      },
      () => computeExactly(c, operation, b),
    );
  };

const packedRound =
  (width: Width, operation: SseOperation): Semantics =>
  (c) => {
    requireSse(c);
    const b = c.let(c.read128(1));
    const lanes = LANES[width];
    quickOrExact(
      c,
      ({ require }) => {
        require(lanes.allTrue(ordinaryLanes(width, b)));
        const mode = roundingMode(c);
        const result = c.fn.local('v128');
        for (const [value, round] of lanes.rounded.entries()) {
          c.fn.if(eq(mode, i32(value)), () => c.fn.set(result, round(b)));
        }
        require(or(lanes.allTrue(lanes.eq(result, b)), ignoresPrecision(c)));
        c.write128(0, result);
      },
      () => computeExactly(c, operation, b),
    );
  };

const alwaysExact =
  (operation: SseOperation, width: Width | 16): Semantics =>
  (c) => {
    requireSse(c);
    const source = width === 16 ? c.let(c.read128(1)) : readScalar(c, 1, width);
    computeExactly(c, operation, source);
  };

type Maker = (width: Width, operation: SseOperation) => Semantics;

/** The four forms of an operation. */
function forms(name: string, scalar: Maker, packed: Maker): [string, Semantics][] {
  const make = (suffix: string, width: Width, maker: Maker): [string, Semantics] => {
    const operation = sseOperations[name + suffix];
    if (operation === undefined) throw new Error(`the SSE unit has no ${name}${suffix}`);
    return [name + suffix, maker(width, operation)];
  };
  return [make('ss', 4, scalar), make('sd', 8, scalar), make('ps', 4, packed), make('pd', 8, packed)];
}

export const SSE_COMPARE: ReadonlyMap<string, Semantics> = new Map<string, Semantics>([
  ...(['min', 'max'] as const).flatMap((name) =>
    forms(
      name,
      (width, operation) => scalarExtreme(name, width, operation),
      (width, operation) => packedExtreme(name, width, operation),
    ),
  ),
  ...forms('cmp', scalarCompare, packedCompare),
  ...forms('round', scalarRound, packedRound),
  ['comiss', compareFlags(4, SseOperation.comiss)],
  ['comisd', compareFlags(8, SseOperation.comisd)],
  ['ucomiss', compareFlags(4, SseOperation.ucomiss)],
  ['ucomisd', compareFlags(8, SseOperation.ucomisd)],
  ['rcpss', alwaysExact(SseOperation.rcpss, 4)],
  ['rcpps', alwaysExact(SseOperation.rcpps, 16)],
  ['rsqrtss', alwaysExact(SseOperation.rsqrtss, 4)],
  ['rsqrtps', alwaysExact(SseOperation.rsqrtps, 16)],
  ['dpps', alwaysExact(SseOperation.dpps, 16)],
  ['dppd', alwaysExact(SseOperation.dppd, 16)],
]);
