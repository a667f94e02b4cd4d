/** Why generated code returned to TypeScript. RIP and all registers are exact at each of them. */
export const enum Exit {
  /** The budget is used up. */
  budget = 1,
  /**
   * `exitDetail` is the vector, `exitError` the error code (of #DB: the bits that DR6 gets), `cr2` the address of a page
   * fault. Faults leave RIP at the instruction, traps (INT3, INTO, single step) behind it.
   */
  exception = 2,
  /** INT n: `exitDetail` is n. RIP is at the instruction, `exitLength` its length; the interface checks the gate. */
  softwareInterrupt = 3,
  /** SYSCALL; RIP is at the instruction, `exitLength` is 2. */
  syscall = 4,
  /** SYSENTER; RIP is at the instruction. */
  sysenter = 5,
  /**
   * An instruction whose meaning depends on the interface: privileged ones, far transfers, segment loads, I/O, CPUID,
   * RDTSC when trapped. RIP is at the instruction, `exitLength` its length; `Processor.currentInstruction()` decodes it.
   */
  system = 6,
  /**
   * An access met a page that the host has to bring in, or to make writable, first: `exitDetail` is its number in the
   * paging's own numbering, `exitError` 1 for a write. RIP is at the instruction, which is to be executed again.
   */
  hostFault = 7,
  /**
   * A data access met a device's page. RIP is at the instruction; `Processor.stepWithDevices` executes it, so that
   * devices see time and interrupts as they are at that instruction.
   */
  device = 8,
  /** A data access met a page that someone observes. RIP is at the instruction; `Processor.stepObserved` executes it. */
  observed = 9,
}

/** Result of a host-side step that a guest's instruction asked for. */
export const enum Access {
  read = 0,
  write = 1,
  fetch = 2,
}
