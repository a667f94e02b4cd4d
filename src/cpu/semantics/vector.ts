import type { Semantics } from './context.ts';
import { FXSAVE } from './fxsave.ts';
import { PACKED_INTEGER } from './packed-integer.ts';
import { SHUFFLE } from './shuffle.ts';
import { SSE_ARITHMETIC } from './sse-arithmetic.ts';
import { SSE_COMPARE } from './sse-compare.ts';
import { SSE_CONVERT } from './sse-convert.ts';
import { STRING_COMPARE } from './string-compare.ts';
import { VECTOR_MOVE } from './vector-move.ts';
import { X87 } from './x87.ts';

/**
 * The meaning of x87, MMX and SSE to SSE4.2, by operation.
 *
 *   vector-support.ts   availability, the MMX registers, packed operations in general
 *   vector-move.ts      moves, MXCSR
 *   packed-integer.ts   packed integer arithmetic and logic
 *   shuffle.ts          moves of lanes
 *   string-compare.ts   PCMPxSTRx
 *   float-support.ts    what may be computed inline, and the exact unit for the rest
 *   sse-arithmetic.ts, sse-compare.ts, sse-convert.ts
 *   x87.ts, fxsave.ts
 */
export const VECTOR: ReadonlyMap<string, Semantics> = new Map<string, Semantics>([
  ...VECTOR_MOVE,
  ...PACKED_INTEGER,
  ...SHUFFLE,
  ...STRING_COMPARE,
  ...SSE_ARITHMETIC,
  ...SSE_COMPARE,
  ...SSE_CONVERT,
  ...X87,
  ...FXSAVE,
]);
