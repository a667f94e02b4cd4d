/** Shapes whose handlers are part of the interpreter's one function: what kernels and their programs execute most. */
export const HOT_SHAPES: readonly string[] = [];
