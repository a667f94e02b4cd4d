/**
 * The state block of one virtual processor in host memory.
 *
 *   0x000  general registers, 16 × 8
 *   0x080  a slot that is always zero (absent base and index registers, flat segments)
 *   0x088  pageBase: linear address of the code page that is executed; RIP = pageBase + offset of the record
 *   0x090  rip: exact at every exit
 *   0x098  flags: lazy arithmetic descriptor and the other bits
 *   0x0c0  segments: bases 6 × 8, limits 6 × 4, attributes 6 × 4, selectors 6 × 4
 *   0x180  modes, control registers
 *   0x1c0  budget and instruction count
 *   0x200  XMM registers, 16 × 16
 *   0x300  x87 and MMX (float/x87.ts draws this part), MXCSR
 *   0x400  mailbox between generated code and TypeScript: exits, memory misses
 *   0x440  what generated code needs for SYSCALL, SYSRET and IRET
 *   0x500  scratch operands
 *   0x800  end
 *
 * Generated code and TypeScript use the same offsets. A record of decoded code names a register by its offset here.
 */
export const enum State {
  registers = 0x000,
  zero = 0x080,
  pageBase = 0x088,
  /** Linear address (in legacy code CS base + EIP) of the next instruction; exact at exits. */
  rip = 0x090,
  /** FlagKind: how the four words of the descriptor are to be read. */
  flagKind = 0x098,
  /** RFLAGS without the six arithmetic bits. */
  flagsRest = 0x09c,
  flagA = 0x0a0,
  flagB = 0x0a8,
  flagResult = 0x0b0,
  segmentBase = 0x0c0,
  segmentLimit = 0x0f0,
  /** Bits 8–23 of a descriptor's high word, in place (type, S, DPL, P, AVL, L, D/B, G); 0 for a null selector. */
  segmentAttributes = 0x108,
  segmentSelector = 0x120,
  /** CodeSize of the current code segment: 64, 32 or 16. */
  codeSize = 0x180,
  /** 1 when page-table entries are checked as user accesses. Xen PV kernels run in ring 3 with 0 here. */
  userAccess = 0x184,
  cpl = 0x188,
  /** Width of the stack pointer in bytes: 8, 4 or 2. */
  stackSize = 0x18c,
  cr0 = 0x190,
  cr4 = 0x194,
  efer = 0x198,
  /** Low and high word of CR2. */
  cr2 = 0x1a0,
  /** One word a segment: 0 when it is flat, present and writable, so that offsets need no check in legacy code. */
  segmentChecked = 0x138,
  /** Address of the TLB that the current privilege uses. */
  tlb = 0x1a8,
  /** Non-zero: a debug or shadow condition demands single steps (TF, DR7, mov-ss shadow). */
  stepping = 0x1ac,
  /** Non-zero: an interrupt would be delivered if interrupts were on; what switches them on leaves to the host. */
  interruptWaiting = 0x1b0,
  /** Low word of the address behind STI or a load of SS: at this instruction no interrupt is delivered. */
  interruptShadow = 0x1b4,
  /** The base that SWAPGS exchanges with that of GS. */
  inactiveGsBase = 0x1b8,
  /** Instructions that may still execute before the run returns; signed; exact at exits. */
  budget = 0x1c0,
  /** Instructions that regions executed, 64 bits. */
  regionInstructions = 0x1d0,
  /** CodeMode: follows from `codeSize` and the segments. */
  codeMode = 0x1e0,
  /** Non-zero when an x87, MMX or SSE instruction may have to fault (CR0.TS, CR0.EM, CR4.OSFXSR clear). */
  fpuTrap = 0x1c8,
  xmm = 0x200,
  x87 = 0x300,
  mxcsr = 0x3f0,
  /** Exit kind of the last return, see exits.ts. */
  exitKind = 0x400,
  /** Vector, hypercall number, port …; meaning per kind. */
  exitDetail = 0x404,
  /** Error code of an exception. */
  exitError = 0x408,
  /** Bytes of the instruction that exits. */
  exitLength = 0x40c,
  /** Linear address of the access that missed the TLB, 64 bits. */
  missAddress = 0x410,
  /** Value loaded or to be stored, up to 16 bytes. */
  missValue = 0x420,
  /** Bytes of a write that was translated to `scratch` and must be committed; 0 when none is pending. */
  missPending = 0x430,
  /**
   * Non-zero: generated code carries out SYSCALL and SYSRET. This and what follows to `scratch` is made from registers that
   * TypeScript has.
   */
  fastCalls = 0x440,
  /** Selectors that SYSCALL gives to CS, in the lower half, and SS. */
  kernelSelectors = 0x444,
  /** The same of SYSRET to 64-bit code. */
  userSelectors = 0x448,
  /** Flags that SYSCALL clears. */
  callMask = 0x44c,
  callEntry = 0x450,
  /** Addresses of the TLBs of both privileges. */
  kernelTlb = 0x458,
  userTlb = 0x45c,
  /** Non-zero: generated code carries out IRET to the selectors of SYSRET too, if they name the same segments. */
  fastReturns = 0x460,
  /** Linear address of the GDT, a multiple of 8. */
  callTable = 0x468,
  scratch = 0x500,
  size = 0x800,
}

/**
 * The parts of a state block that outlive a run, each with its first byte and its end. The others are the host's: where
 * the TLB stands, the budget of the run, what follows from segments, accesses that are being carried out.
 */
export const SAVED_STATE: readonly (readonly [name: string, start: State, end: State])[] = [
  ['registers', State.registers, State.tlb],
  ['interrupts', State.stepping, State.budget],
  ['floatingPointTrap', State.fpuTrap, State.codeMode],
  ['floatingPoint', State.xmm, State.exitKind],
  ['mailbox', State.exitKind, State.missAddress],
];

export const enum FlagKind {
  /** All six bits stand in flagA; flagResult is 0 exactly when ZF is set. */
  explicit = 0,
  /** result = a + b (+ carry), each sign-extended from the operand size. */
  add = 1,
  /** result = a − b. */
  sub = 2,
  /** CF, OF and AF are 0; the rest follow from the result. */
  logic = 3,
  /** CF, OF and AF stand in flagA; the rest follow from the result. */
  result = 4,
  /** result = a − b − 1: the borrow came in. */
  sbb = 5,
  /** result = b + 1; CF is flagA, which is 0 or 1. */
  increment = 6,
  /** result = b − 1; CF is flagA, which is 0 or 1. */
  decrement = 7,
}
