import type { CodeSize } from './decode/instruction.ts';

/**
 * What decoded and generated code depends on besides its bytes: it is found by the place of these and this. In 32-bit code
 * most of what an access costs is the segment's, so code is made for flat segments where they are flat; all that makes
 * them anything else leaves generated code.
 */
export const enum CodeMode {
  bits16 = 16,
  bits32 = 32,
  /** 32-bit code while CS, SS, DS and ES begin at 0, the last three need no checks, and the stack pointer has 32 bits. */
  flat32 = 33,
  bits64 = 64,
}

export function codeSizeOf(mode: CodeMode): CodeSize {
  return mode === CodeMode.flat32 ? 32 : mode;
}
