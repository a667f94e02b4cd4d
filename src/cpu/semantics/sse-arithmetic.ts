import { and, type Expression, type I32, i32, or, type V128 } from '../../wasm/expression.ts';
import * as float from '../../wasm/float.ts';
import * as simd from '../../wasm/simd.ts';
import { SseOperation, sseOperations } from '../float/sse-operations.ts';
import type { Context, Semantics } from './context.ts';
import {
  computeExactly,
  constant,
  type Float,
  finiteLanes,
  isOrdinary,
  LANES,
  leastNormal,
  loadFloat,
  ordinaryLanes,
  productFits,
  quickOrExact,
  readScalar,
  storeFloat,
  type Width,
} from './float-support.ts';
import { requireSse } from './vector-support.ts';

/** ADD, SUB, MUL, DIV, SQRT, HADD, HSUB, ADDSUB. See float-support.ts for what may be computed inline. */

type Name = 'add' | 'sub' | 'mul' | 'div' | 'sqrt';

const SCALAR: Record<Name, (a: Float, b: Float) => Float> = {
  add: float.floatAdd,
  sub: float.floatSub,
  mul: float.floatMul,
  div: float.floatDiv,
  sqrt: (_a, b) => float.floatSqrt(b),
};

const asF64 = (width: Width, a: Float): Float => (width === 4 ? float.promote(a as Expression<'f32'>) : a);

/**
 * Whether a rounded result is exact; `false` may also mean that it is hard to tell. Operands are ordinary and finite,
 * the result is zero or normal.
 */
function isExact(c: Context, name: Name, width: Width, a: Float, b: Float, result: Float): I32 {
  const { floatAdd: add, floatSub: sub, floatMul: mul } = float;
  const zero = constant(width, 0);
  // The error of a sum is computed exactly (Knuth's TwoSum); it is a NaN when a step overflows.
  if (name === 'add' || name === 'sub') {
    const other = c.let(sub(result, a));
    const lost = sub(a, sub(result, other));
    return float.floatEq(name === 'add' ? add(lost, sub(b, other)) : sub(lost, add(b, other)), zero);
  }
  // Products of singles are exact as doubles; a product of doubles is when its bits fit.
  const [x, y, z] = [asF64(width, a), asF64(width, b), asF64(width, result)];
  const [equal, left, right] =
    name === 'mul'
      ? [float.floatEq(mul(x, y), z), x, y]
      : name === 'div'
        ? [float.floatEq(mul(z, y), x), z, y]
        : [float.floatEq(mul(z, z), y), z, z];
  return width === 4 ? equal : and(equal, productFits(left, right));
}

/** Requires that neither overflow, underflow nor an invalid operation can have occurred. */
function requireRange(
  c: Context,
  require: (condition: I32) => void,
  name: Name,
  width: Width,
  a: Float,
  b: Float,
  result: Float,
): void {
  if (name === 'sqrt') {
    require(or(float.floatGe(b, constant(width, leastNormal(width))), float.floatEq(b, constant(width, 0))));
    return;
  }
  require(and(isOrdinary(width, a), isOrdinary(width, b)));
  const zero = constant(width, 0);
  const magnitude = c.let(float.floatAbs(result));
  const normal = float.floatGt(magnitude, constant(width, leastNormal(width)));
  c.fn.if(
    normal,
    () => require(float.floatLt(magnitude, constant(width, Number.POSITIVE_INFINITY))),
    () => {
      // A sum is zero only when it is exactly so; a product or quotient may have vanished.
      const isZero = float.floatEq(result, zero);
      if (name === 'add' || name === 'sub') require(isZero);
      else if (name === 'div') require(and(isZero, float.floatEq(a, zero)));
      else require(and(isZero, or(float.floatEq(a, zero), float.floatEq(b, zero))));
    },
  );
}

const scalar =
  (name: Name, width: Width, operation: SseOperation): Semantics =>
  (c) => {
    requireSse(c);
    const target = c.let(c.operandPointer(0));
    const b = readScalar(c, 1, width);
    quickOrExact(
      c,
      ({ require, requirePrecision }) => {
        const a = name === 'sqrt' ? b : c.let(loadFloat(width, target));
        const result = c.let(SCALAR[name](a, b));
        requireRange(c, require, name, width, a, b, result);
        requirePrecision(() => isExact(c, name, width, a, b, result));
        c.fn.store(storeFloat(width, target, result));
      },
      () => computeExactly(c, operation, b),
    );
  };

/** As `requireRange`, for all lanes at once. */
function rangeOfLanes(name: Name, width: Width, a: V128, b: V128, result: V128): V128 {
  const lanes = LANES[width];
  const least = lanes.splat(leastNormal(width));
  if (name === 'sqrt') return simd.orV128(lanes.ge(b, least), lanes.eq(b, simd.zeroV128));
  const operands = simd.andV128(ordinaryLanes(width, a), ordinaryLanes(width, b));
  const finite = simd.andV128(operands, finiteLanes(width, result));
  const isZero = (value: V128) => lanes.eq(value, simd.zeroV128);
  let zero = isZero(result);
  if (name === 'div') zero = simd.andV128(zero, isZero(a));
  if (name === 'mul') zero = simd.andV128(zero, simd.orV128(isZero(a), isZero(b)));
  const normal = lanes.lt(least, lanes.abs(result));
  return simd.andV128(finite, simd.orV128(normal, zero));
}

/** As `isExact`, for all lanes at once; products of doubles are left to the exact unit. */
function exactLanes(c: Context, name: Name, width: Width, a: V128, b: V128, result: V128): I32 {
  const lanes = LANES[width];
  if (name === 'add' || name === 'sub') {
    const other = c.let(lanes.sub(result, a));
    const lost = lanes.sub(a, lanes.sub(result, other));
    const error = name === 'add' ? lanes.add(lost, lanes.sub(b, other)) : lanes.sub(lost, lanes.add(b, other));
    return lanes.allTrue(lanes.eq(error, simd.zeroV128));
  }
  if (width === 8) return i32(0);
  const upper = (value: V128) =>
    simd.shuffle(value, value, [8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15]);
  const half = (of: (value: V128) => V128) => {
    const [x, y, z] = [a, b, result].map((value) => simd.f64x2PromoteLow(of(value))) as [V128, V128, V128];
    if (name === 'mul') return simd.f64x2Eq(simd.f64x2Mul(x, y), z);
    return name === 'div' ? simd.f64x2Eq(simd.f64x2Mul(z, y), x) : simd.f64x2Eq(simd.f64x2Mul(z, z), y);
  };
  return simd.i64x2AllTrue(
    simd.andV128(
      half((value) => value),
      half(upper),
    ),
  );
}

/** Lanes as the instruction combines them: the operands of one packed operation, from destination and source. */
type Arrangement = (a: V128, b: V128) => readonly [V128, V128];

const packed =
  (name: Name, width: Width, operation: SseOperation, arrange: Arrangement = (a, b) => [a, b]): Semantics =>
  (c) => {
    requireSse(c);
    const source = c.let(c.read128(1));
    quickOrExact(
      c,
      ({ require, requirePrecision }) => {
        const [first, second] = arrange(c.let(c.read128(0)), source);
        const [a, b] = [c.let(first), c.let(second)];
        const lanes = LANES[width];
        const result = c.let(name === 'sqrt' ? lanes.sqrt(b) : lanes[name](a, b));
        require(lanes.allTrue(rangeOfLanes(name, width, a, b, result)));
        requirePrecision(() => exactLanes(c, name, width, a, b, result));
        c.write128(0, result);
      },
      () => computeExactly(c, operation, source),
    );
  };

const LOWER = {
  4: [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27],
  8: [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23],
};
const neighbours =
  (width: Width): Arrangement =>
  (a, b) => [
    simd.shuffle(a, b, LOWER[width]),
    simd.shuffle(
      a,
      b,
      LOWER[width].map((byte) => byte + width),
    ),
  ];

/** ADDSUBxx adds in odd lanes: the sign of the source's even lanes is changed, and everything is added. */
const alternating =
  (width: Width): Arrangement =>
  (a, b) => [
    a,
    simd.xorV128(
      b,
      width === 4 ? simd.dwordsV128(0x8000_0000, 0, 0x8000_0000, 0) : simd.dwordsV128(0, 0x8000_0000, 0, 0),
    ),
  ];

function operationOf(name: string): SseOperation {
  const operation = sseOperations[name];
  if (operation === undefined) throw new Error(`the SSE unit has no ${name}`);
  return operation;
}

const NAMES: readonly Name[] = ['add', 'sub', 'mul', 'div', 'sqrt'];

export const SSE_ARITHMETIC: ReadonlyMap<string, Semantics> = new Map<string, Semantics>([
  ...NAMES.flatMap((name): [string, Semantics][] => [
    [`${name}ss`, scalar(name, 4, operationOf(`${name}ss`))],
    [`${name}sd`, scalar(name, 8, operationOf(`${name}sd`))],
    [`${name}ps`, packed(name, 4, operationOf(`${name}ps`))],
    [`${name}pd`, packed(name, 8, operationOf(`${name}pd`))],
  ]),
  ['haddps', packed('add', 4, SseOperation.haddps, neighbours(4))],
  ['haddpd', packed('add', 8, SseOperation.haddpd, neighbours(8))],
  ['hsubps', packed('sub', 4, SseOperation.hsubps, neighbours(4))],
  ['hsubpd', packed('sub', 8, SseOperation.hsubpd, neighbours(8))],
  ['addsubps', packed('add', 4, SseOperation.addsubps, alternating(4))],
  ['addsubpd', packed('add', 8, SseOperation.addsubpd, alternating(8))],
]);
