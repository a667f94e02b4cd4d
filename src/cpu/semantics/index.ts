import type { Semantics } from './context.ts';
import { CONTROL } from './control.ts';
import { DECIMAL } from './decimal.ts';
import { INTEGER_ARITHMETIC } from './integer-arithmetic.ts';
import { INTEGER_MOVE } from './integer-move.ts';
import { INTEGER_SHIFT } from './integer-shift.ts';
import { SEGMENT } from './segment.ts';
import { STRING } from './string.ts';
import { VECTOR } from './vector.ts';

/** The meaning of every operation, by its name. */
export const SEMANTICS: ReadonlyMap<string, Semantics> = new Map<string, Semantics>([
  ...INTEGER_ARITHMETIC,
  ...INTEGER_SHIFT,
  ...INTEGER_MOVE,
  ...SEGMENT,
  ...CONTROL,
  ...STRING,
  ...DECIMAL,
  ...VECTOR,
]);

/** What is not defined has no other meaning than #UD. */
export const meaningOf = (operation: string): Semantics =>
  SEMANTICS.get(operation) ?? (SEMANTICS.get('ud2') as Semantics);
