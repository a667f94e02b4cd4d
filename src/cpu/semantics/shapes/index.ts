import type { CodeKind } from '../shape-key.ts';
import { FLAT_COMMON_SHAPES } from './flat-common.ts';
import { FLAT_HOT_SHAPES } from './flat-hot.ts';
import { LONG_COMMON_SHAPES } from './long-common.ts';
import { LONG_HOT_SHAPES } from './long-hot.ts';

/** Shapes, as keys, by the kind of code that has them. */
export type ShapeLists = Readonly<Partial<Record<CodeKind, readonly string[]>>>;

/** Shapes whose handlers are part of the interpreter's loops: what kernels and their programs execute most. */
export const HOT_SHAPES: ShapeLists = { long: LONG_HOT_SHAPES, flat: FLAT_HOT_SHAPES };

/** Where segments are not flat, programs consist of the same instructions, but their operands in memory are checked. */
const LEGACY_COMMON_SHAPES: ReadonlySet<string> = new Set(
  [...FLAT_HOT_SHAPES, ...FLAT_COMMON_SHAPES].map((key) =>
    key.replace(' flat none ', ' legacy none ').replace(/ flat \w+ /, ' legacy legacy '),
  ),
);

/** Shapes that they meet as well; their handlers are made together. */
export const COMMON_SHAPES: ShapeLists = {
  long: LONG_COMMON_SHAPES,
  flat: FLAT_COMMON_SHAPES,
  legacy: [...LEGACY_COMMON_SHAPES],
};
