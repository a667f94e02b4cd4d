import type { Context } from './context.ts';

/** The size of the destination in bytes, which is the size of most operations. */
export function sizeOf(c: Context): number {
  return c.shape.operands[0]?.size ?? c.shape.operandSize;
}

/** By how many bits a count of elements is shifted to be one of bytes. @param size of an element: 1, 2, 4 or 8 */
export function sizeShift(size: number): number {
  return 31 - Math.clz32(size);
}
