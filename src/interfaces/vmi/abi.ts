/**
 * VMware's Virtual Machine Interface, revision 3.0, as 32-bit Linux has it from 2.6.21 to 2.6.36 (asm-x86/vmi.h). A kernel
 * finds a ROM, asks it for the code of each call, and calls that code; what the code does is between the ROM and the host.
 *
 * Two calls are of the draft of early 2006 (revision 13.3), and have the numbers that they had there, which 3.0 uses for
 * nothing: those by which a kernel reads entries that its host has translated.
 */
export const enum Call {
  cpuid = 0,
  writeMsr = 1,
  readMsr = 2,
  setGdt = 3,
  setLdt = 4,
  setIdt = 5,
  setTask = 6,
  getGdt = 7,
  getLdt = 8,
  getIdt = 9,
  getTask = 10,
  writeGdtEntry = 11,
  writeLdtEntry = 12,
  writeIdtEntry = 13,
  updateKernelStack = 14,
  setCr0 = 15,
  setCr2 = 16,
  setCr3 = 17,
  setCr4 = 18,
  getCr0 = 19,
  getCr2 = 20,
  getCr3 = 21,
  getCr4 = 22,
  writeBack = 23,
  setDebug = 24,
  getDebug = 25,
  readCounter = 26,
  readTimeStamp = 27,
  clearTaskSwitched = 28,
  enableInterrupts = 29,
  disableInterrupts = 30,
  getInterruptMask = 31,
  setInterruptMask = 32,
  interruptReturn = 33,
  systemExit = 34,
  halt = 35,
  reboot = 36,
  shutDown = 37,
  setEntry = 38,
  setEntryLong = 39,
  updateEntry = 40,
  updateEntryLong = 41,
  machineToPhysical = 42,
  physicalToMachine = 43,
  allocatePage = 44,
  releasePage = 45,
  invalidatePage = 46,
  flushTlb = 47,
  setLinearMapping = 48,
  getEntryLong = 49,
  swapEntryLong = 50,
  setIoPrivilege = 61,
  setInitialApState = 62,
  apicWrite = 63,
  apicRead = 64,
  ioDelay = 65,
  getCycleFrequency = 66,
  getCycleCounter = 67,
  setAlarm = 68,
  cancelAlarm = 69,
  getWallclock = 70,
  wallclockUpdated = 71,
  setLazyMode = 73,
}

/** Calls that a kernel may ask for: all numbers below. */
export const CALL_COUNT = Call.setLazyMode + 1;

/** The documented names, which statistics give. */
export const CALL_NAMES: Readonly<Record<Call, string>> = {
  [Call.cpuid]: 'CPUID',
  [Call.writeMsr]: 'WRMSR',
  [Call.readMsr]: 'RDMSR',
  [Call.setGdt]: 'SetGDT',
  [Call.setLdt]: 'SetLDT',
  [Call.setIdt]: 'SetIDT',
  [Call.setTask]: 'SetTR',
  [Call.getGdt]: 'GetGDT',
  [Call.getLdt]: 'GetLDT',
  [Call.getIdt]: 'GetIDT',
  [Call.getTask]: 'GetTR',
  [Call.writeGdtEntry]: 'WriteGDTEntry',
  [Call.writeLdtEntry]: 'WriteLDTEntry',
  [Call.writeIdtEntry]: 'WriteIDTEntry',
  [Call.updateKernelStack]: 'UpdateKernelStack',
  [Call.setCr0]: 'SetCR0',
  [Call.setCr2]: 'SetCR2',
  [Call.setCr3]: 'SetCR3',
  [Call.setCr4]: 'SetCR4',
  [Call.getCr0]: 'GetCR0',
  [Call.getCr2]: 'GetCR2',
  [Call.getCr3]: 'GetCR3',
  [Call.getCr4]: 'GetCR4',
  [Call.writeBack]: 'WBINVD',
  [Call.setDebug]: 'SetDR',
  [Call.getDebug]: 'GetDR',
  [Call.readCounter]: 'RDPMC',
  [Call.readTimeStamp]: 'RDTSC',
  [Call.clearTaskSwitched]: 'CLTS',
  [Call.enableInterrupts]: 'EnableInterrupts',
  [Call.disableInterrupts]: 'DisableInterrupts',
  [Call.getInterruptMask]: 'GetInterruptMask',
  [Call.setInterruptMask]: 'SetInterruptMask',
  [Call.interruptReturn]: 'IRET',
  [Call.systemExit]: 'SYSEXIT',
  [Call.halt]: 'Halt',
  [Call.reboot]: 'Reboot',
  [Call.shutDown]: 'Shutdown',
  [Call.setEntry]: 'SetPxE',
  [Call.setEntryLong]: 'SetPxELong',
  [Call.updateEntry]: 'UpdatePxE',
  [Call.updateEntryLong]: 'UpdatePxELong',
  [Call.machineToPhysical]: 'MachineToPhysical',
  [Call.physicalToMachine]: 'PhysicalToMachine',
  [Call.allocatePage]: 'AllocatePage',
  [Call.releasePage]: 'ReleasePage',
  [Call.invalidatePage]: 'InvalPage',
  [Call.flushTlb]: 'FlushTLB',
  [Call.setLinearMapping]: 'SetLinearMapping',
  [Call.getEntryLong]: 'GetPxELong',
  [Call.swapEntryLong]: 'SwapPxELongAtomic',
  [Call.setIoPrivilege]: 'SetIOPLMask',
  [Call.setInitialApState]: 'SetInitialAPState',
  [Call.apicWrite]: 'APICWrite',
  [Call.apicRead]: 'APICRead',
  [Call.ioDelay]: 'IODelay',
  [Call.getCycleFrequency]: 'GetCycleFrequency',
  [Call.getCycleCounter]: 'GetCycleCounter',
  [Call.setAlarm]: 'SetAlarm',
  [Call.cancelAlarm]: 'CancelAlarm',
  [Call.getWallclock]: 'GetWallclockTime',
  [Call.wallclockUpdated]: 'WallclockUpdated',
  [Call.setLazyMode]: 'SetLazyMode',
};

/** What the kernel is to do with the site of a call. */
export const enum Relocation {
  /** Leave the native code there. */
  none = 0,
  call = 1,
  jump = 2,
  /** Nothing is to be done; no-ops take its place. */
  nothing = 3,
}

/** Argument of AllocatePage and ReleasePage for a table of level 1; others say their level by bits of their own. */
export const LEVEL_1 = 1;

/** The same of one that begins as a copy. With PAE that is the top table, which shares the kernel's table with others. */
export const CLONE = 0x20;

/** Argument of FlushTLB besides the bit that is always set. */
export const FLUSH_GLOBAL = 2;

/** Kinds of cycles, and the bits of an alarm's flags above them. */
export const enum Cycles {
  real = 0,
  /** Without those that others had. */
  available = 1,
  stolen = 2,
}

export const enum Alarm {
  counter = 0xff,
  periodic = 0x100,
  /** At the local APIC's timer entry, and not at the PC's line 0. */
  localTimer = 0x1_0000,
}

/** Offsets of what SetInitialAPState names. */
export const enum ApState {
  cr0 = 0x00,
  cr2 = 0x04,
  cr3 = 0x08,
  cr4 = 0x0c,
  efer = 0x10,
  eip = 0x18,
  eflags = 0x1c,
  eax = 0x20,
  ebx = 0x24,
  ecx = 0x28,
  edx = 0x2c,
  esp = 0x30,
  ebp = 0x34,
  esi = 0x38,
  edi = 0x3c,
  cs = 0x40,
  ss = 0x42,
  ds = 0x44,
  es = 0x46,
  fs = 0x48,
  gs = 0x4a,
  ldtr = 0x4c,
  gdtLimit = 0x4e,
  gdtBase = 0x50,
  idtBase = 0x54,
  idtLimit = 0x58,
  size = 0x5a,
}
