/** What generated code of an instruction does to the arithmetic flags, and how it can end. */
export interface Effects {
  /** Reads flags that were there before. */
  readonly readsFlags: boolean;
  /** Sets all flags, on every way through. */
  readonly setsFlags: boolean;
  /** Can leave the region with the flags from before: faults, misses, indirect jumps. */
  readonly mayLeave: boolean;
  /** Has a direct branch. */
  readonly branches: boolean;
  /** Cannot be carried out in a region at all. */
  readonly needsInterpreter: boolean;
}
