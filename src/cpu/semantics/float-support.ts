import {
  add,
  and,
  bitsOfF64,
  ctz,
  type Expression,
  eq,
  eqz,
  f32,
  f64,
  geU,
  type I32,
  i32,
  i64,
  load32,
  loadF32,
  loadF64,
  or,
  reinterpretF32,
  reinterpretF64,
  type Store,
  store32,
  store128,
  storeF32,
  storeF64,
  type V128,
  wrap,
} from '../../wasm/expression.ts';
import * as float from '../../wasm/float.ts';
import type { Label } from '../../wasm/module.ts';
import * as simd from '../../wasm/simd.ts';
import { Cr4, Vector } from '../../x86/registers.ts';
import { Mxcsr, type SseOperation, SseResult } from '../float/sse-operations.ts';
import { State } from '../state.ts';
import type { Context } from './context.ts';
import { immediateByte, isMemory } from './vector-support.ts';

/**
 * How SSE floating point is computed quickly without giving up exactness.
 *
 * WebAssembly rounds to nearest, knows neither flags nor flush-to-zero, and does not promise which NaN it makes. So an
 * instruction is computed inline only where all of that cannot show:
 *
 *   - operands are zeros, normal numbers or, where it says so, infinities: never NaNs or denormals (DE, DAZ, payloads)
 *   - the result is zero or normal, and certainly was so before rounding too (OE, UE, FTZ)
 *   - it was rounded to nearest, or was exact
 *   - PE does not change: the result was exact, or PE is set and masked already
 *
 * Everything else goes through the host function `sse`. Programs that compute with fractions set PE with their first
 * rounded result and stay on the quick path from then on; programs that compute with whole numbers never leave it,
 * because their results are found to be exact.
 */

export type Float = Expression<'f32' | 'f64'>;
/** Bytes of a lane. */
export type Width = 4 | 8;

/** All masks set, round to nearest. FTZ and DAZ concern denormals only, of which there are none. */
const ORDINARY = 0x1f80;
const MODE_BITS = 0x7f80;
const PRECISION = 0x20;

export const constant = (width: Width, value: number): Float => (width === 4 ? f32(value) : f64(value));
export const leastNormal = (width: Width): number => (width === 4 ? 2 ** -126 : 2 ** -1022);

export const loadFloat = (width: Width, address: I32): Float => (width === 4 ? loadF32(address) : loadF64(address));
export const storeFloat = (width: Width, address: I32, value: Float): Store =>
  width === 4 ? storeF32(address, value) : storeF64(address, value);

/** The lowest lane of an XMM or memory operand. */
export function readScalar(c: Context, operand: number, width: Width): Float {
  if (!isMemory(c, operand)) return c.let(loadFloat(width, c.operandPointer(operand)));
  const bits = c.read(operand);
  return c.let(width === 4 ? reinterpretF32(wrap(bits)) : reinterpretF64(bits));
}

/** Zero, normal or infinite. */
export const isOrdinary = (width: Width, a: Float): I32 =>
  or(float.floatGe(float.floatAbs(a), constant(width, leastNormal(width))), float.floatEq(a, constant(width, 0)));

/** Lanes of the width, as the same functions for both. */
export const LANES = {
  4: {
    splat: (value: number) => simd.f32x4Splat(f32(value)),
    add: simd.f32x4Add,
    sub: simd.f32x4Sub,
    mul: simd.f32x4Mul,
    div: simd.f32x4Div,
    sqrt: simd.f32x4Sqrt,
    abs: simd.f32x4Abs,
    eq: simd.f32x4Eq,
    lt: simd.f32x4Lt,
    ge: simd.f32x4Ge,
    allTrue: simd.i32x4AllTrue,
    rounded: [simd.f32x4Nearest, simd.f32x4Floor, simd.f32x4Ceil, simd.f32x4Trunc],
  },
  8: {
    splat: (value: number) => simd.f64x2Splat(f64(value)),
    add: simd.f64x2Add,
    sub: simd.f64x2Sub,
    mul: simd.f64x2Mul,
    div: simd.f64x2Div,
    sqrt: simd.f64x2Sqrt,
    abs: simd.f64x2Abs,
    eq: simd.f64x2Eq,
    lt: simd.f64x2Lt,
    ge: simd.f64x2Ge,
    allTrue: simd.i64x2AllTrue,
    rounded: [simd.f64x2Nearest, simd.f64x2Floor, simd.f64x2Ceil, simd.f64x2Trunc],
  },
} as const;

/** As `isOrdinary`, a mask for each lane. */
export function ordinaryLanes(width: Width, a: V128): V128 {
  const lanes = LANES[width];
  return simd.orV128(lanes.ge(lanes.abs(a), lanes.splat(leastNormal(width))), lanes.eq(a, simd.zeroV128));
}

export function finiteLanes(width: Width, a: V128): V128 {
  const lanes = LANES[width];
  return lanes.lt(lanes.abs(a), lanes.splat(Number.POSITIVE_INFINITY));
}

/** The two ways of an instruction. `quick` leaves for the other one through `require`. */
export interface Quick {
  /** Goes the exact way unless the condition holds. */
  require(condition: I32): void;
  /** Requires ordinary modes, and that PE is set or the result is exact. */
  requirePrecision(exact: () => I32): void;
}

export function quickOrExact(c: Context, quick: (quick: Quick) => void, exact: () => void): void {
  const { fn } = c;
  fn.block((done: Label) => {
    fn.block((slow: Label) => {
      const require = (condition: I32) => fn.branchIf(eqz(condition), slow);
      quick({
        require,
        requirePrecision(isExact) {
          const control = c.let(load32(c.state, State.mxcsr));
          const ordinary = eq(and(control, i32(MODE_BITS)), i32(ORDINARY));
          require(ordinary);
          fn.if(eqz(and(control, i32(PRECISION))), () => require(isExact()));
        },
      });
      fn.branch(done);
    });
    exact();
  });
}

/** Where the exact unit finds operands that are not in registers, and leaves results that do not go into one. */
export const SCRATCH_OPERAND = State.scratch + 0x10;
export const SCRATCH_RESULT = State.scratch + 0x20;

/** Address of a source operand for the exact unit; `value` has been read from it before. */
export function sourcePointer(c: Context, operand: number, value: V128 | Float): I32 {
  if (!isMemory(c, operand)) return c.operandPointer(operand);
  const store = value.type === 'v128' ? store128 : value.type === 'f32' ? storeF32 : storeF64;
  c.fn.store(store(c.state, value, SCRATCH_OPERAND));
  return add(c.state, i32(SCRATCH_OPERAND));
}

/** Calls the exact unit, accumulates flags, raises #XM (or #UD, when the system does not expect #XM). */
export function callExact(c: Context, operation: SseOperation, destination: I32, a: I32, b: I32): I32 {
  const { fn, state } = c;
  const immediate = c.shape.operands[2] === undefined ? i32(0) : immediateByte(c);
  const result = c.let(c.host('sse', i32(operation), destination, a, b, immediate));
  const kept = and(load32(state, State.mxcsr), i32(~Mxcsr.flags));
  fn.store(store32(state, or(kept, and(result, i32(Mxcsr.flags))), State.mxcsr));
  fn.if(and(result, i32(SseResult.exception)), () => {
    const expected = and(load32(state, State.cr4), i32(Cr4.simdExceptions));
    fn.if(expected, () => c.raise(Vector.simd));
    c.raise(Vector.invalidOpcode);
  });
  return result;
}

/** The exact way of destination ← operation(destination, source). */
export function computeExactly(c: Context, operation: SseOperation, source: V128 | Float): void {
  const target = c.operandPointer(0);
  callExact(c, operation, target, target, sourcePointer(c, 1, source));
}

/** Zero bits at the end of a normal number's significand, 52 for powers of two. */
export const trailingZeros = (a: Float): Expression<'i64'> =>
  ctz(or(bitsOfF64(a as Expression<'f64'>), i64(1n << 52n)));

/** True only when a product of two doubles has at most 53 bits; false for some that just fit. */
export const productFits = (a: Float, b: Float): I32 => geU(add(trailingZeros(a), trailingZeros(b)), i64(53));
