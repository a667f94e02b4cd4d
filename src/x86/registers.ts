/** Register numbers and flag bits as the architecture encodes them (Intel SDM vol. 1, 3.4; vol. 3A, 2.3 and 2.5). */
export const enum Register {
  rax = 0,
  rcx = 1,
  rdx = 2,
  rbx = 3,
  rsp = 4,
  rbp = 5,
  rsi = 6,
  rdi = 7,
  r8 = 8,
  r9 = 9,
  r10 = 10,
  r11 = 11,
  r12 = 12,
  r13 = 13,
  r14 = 14,
  r15 = 15,
}

/** Bits of RFLAGS. */
export const enum Flag {
  carry = 0x1,
  /** Always one. */
  reserved = 0x2,
  parity = 0x4,
  adjust = 0x10,
  zero = 0x40,
  sign = 0x80,
  trap = 0x100,
  interrupt = 0x200,
  direction = 0x400,
  overflow = 0x800,
  ioplShift = 12,
  iopl = 0x3000,
  nestedTask = 0x4000,
  resume = 0x1_0000,
  virtual8086 = 0x2_0000,
  alignmentCheck = 0x4_0000,
  identification = 0x20_0000,
}

export const ARITHMETIC_FLAGS = Flag.carry | Flag.parity | Flag.adjust | Flag.zero | Flag.sign | Flag.overflow;

export const enum Vector {
  divideError = 0,
  debug = 1,
  nonMaskable = 2,
  breakpoint = 3,
  overflow = 4,
  boundRange = 5,
  invalidOpcode = 6,
  deviceNotAvailable = 7,
  doubleFault = 8,
  invalidTss = 10,
  segmentNotPresent = 11,
  stackFault = 12,
  generalProtection = 13,
  pageFault = 14,
  x87 = 16,
  alignmentCheck = 17,
  machineCheck = 18,
  simd = 19,
}

/** Bits of a page fault's error code (SDM vol. 3A, 4.7). */
export const enum PageFaultError {
  present = 1,
  write = 2,
  user = 4,
  reserved = 8,
  fetch = 16,
}

/** Bits of a page-table entry that all levels share (SDM vol. 3A, 4.5). */
export const enum Pte {
  present = 0x1,
  writable = 0x2,
  user = 0x4,
  writeThrough = 0x8,
  cacheDisable = 0x10,
  accessed = 0x20,
  dirty = 0x40,
  /** Page size at levels 2 and 3, PAT at level 1. */
  large = 0x80,
  global = 0x100,
}
/** Bit 63 of an 8-byte entry, as a bit of its high word. */
export const PTE_NO_EXECUTE_HIGH = 0x8000_0000;

export const enum Cr0 {
  protection = 0x1,
  monitorCoprocessor = 0x2,
  emulation = 0x4,
  taskSwitched = 0x8,
  /** Always one. */
  extensionType = 0x10,
  numericError = 0x20,
  writeProtect = 0x1_0000,
  alignmentMask = 0x4_0000,
  notWriteThrough = 0x2000_0000,
  cacheDisable = 0x4000_0000,
  paging = 0x8000_0000,
}

export const enum Cr4 {
  timeStampDisable = 0x4,
  debuggingExtensions = 0x8,
  pageSizeExtensions = 0x10,
  physicalAddressExtension = 0x20,
  machineCheck = 0x40,
  globalPages = 0x80,
  performanceCounters = 0x100,
  fxsave = 0x200,
  simdExceptions = 0x400,
  fsgsbase = 0x1_0000,
  /** PCIDE. */
  processContexts = 0x2_0000,
}

export const enum Efer {
  syscall = 0x1,
  longModeEnable = 0x100,
  longModeActive = 0x400,
  noExecute = 0x800,
}
