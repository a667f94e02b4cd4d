/**
 * One decoded instruction, 32 bytes, as the interpreter reads it. Records of a block follow one another.
 *
 *   0  u16 handler      index of the branch table, or (from `hot` on) a slot of the function table
 *   2  u8  length       bytes of the instruction
 *   3  u8  index        instructions of the block before this one
 *   4  u16 next         offset of the next instruction from the page's base
 *   6  u16 first        state offset of the first register operand
 *   8  u16 second       state offset of the second register operand
 *  10  u16 base         state offset of the base register, the zero slot or pageBase
 *  12  u16 index        state offset of the index register or the zero slot
 *  14  u8  scale        shift count
 *  15  u8  segment      long code: state offset >> 3 of the segment base or the zero slot; legacy: segment number
 *  16  i64 immediate
 *  20  i32 target       of a direct branch, relative to the next instruction; the immediate is then i32
 *  24  i32 displacement
 *  28  u32 link         direct branches: a `Link` or the record of the target; else second immediate
 */
export const enum RecordField {
  handler = 0,
  length = 2,
  index = 3,
  next = 4,
  first = 6,
  second = 8,
  base = 10,
  indexRegister = 12,
  scale = 14,
  segment = 15,
  immediate = 16,
  target = 20,
  displacement = 24,
  link = 28,
  size = 32,
}

/** Values of `link` that are no record. */
export const enum Link {
  /** Not looked up yet. */
  unknown = 0,
  otherPage = 1,
  /** As `unknown`, of a call. */
  unknownCall = 2,
}

/** Handlers with a fixed index. */
export const enum PseudoHandler {
  /** The record's block was dropped: look up the code again. */
  stale = 0,
  /** End of a block that goes on behind it; not an instruction. */
  fallThrough = 1,
  /** Before an instruction that crosses into the next page: the page must still be the one that was decoded. */
  guard = 2,
  /** Ends a block that was made to execute one instruction. */
  stop = 3,
  /** First record of a block that may become the entry of a region: `displacement` executions are still to come. */
  warming = 4,
  /** First record of a block that a region begins with: RegionWord in `displacement`, budget that it needs in `link`. */
  region = 5,
  count = 6,
}

/** Instructions in one block; the overshoot of a budget is below this. */
export const BLOCK_LIMIT = 64;

/** What regions, and the loop that goes from one to the next, answer; positive answers are an Exit. */
export const enum RegionAnswer {
  /** Control goes on at State.rip, in whatever way. */
  goOn = 0,
  /** The interpreter is to execute the instruction at State.rip, even if a region begins there. */
  interpret = -1,
  /** No region can be entered at State.rip. */
  leaveRegions = -2,
}

/** A region as the table of decoded code names it: its slot plus 1 in the low half, the budget that it needs in the high one. */
export const enum RegionWord {
  slotMask = 0xffff,
  budgetShift = 16,
}
