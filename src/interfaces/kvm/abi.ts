/**
 * KVM's paravirtual interface (Linux, Documentation/virt/kvm/x86/cpuid.rst, msr.rst and hypercalls.rst): what a guest finds
 * in CPUID, the registers by which it names pages of its own, and what stands in these.
 */
export const CPUID_BASE = 0x4000_0000;
export const CPUID_FEATURES = CPUID_BASE + 1;

/** Bits of EAX in the leaf of features. */
export const enum Feature {
  clock = 0,
  noIoDelay = 1,
  mmuOperations = 2,
  clockNumbers2 = 3,
  stealTime = 5,
  endOfInterrupt = 6,
  flushTlb = 9,
  clockStable = 24,
}

export const enum Msr {
  /** The numbers that the first clock had. */
  oldWallclock = 0x11,
  oldSystemTime = 0x12,
  wallclock = 0x4b56_4d00,
  systemTime = 0x4b56_4d01,
  stealTime = 0x4b56_4d03,
  endOfInterrupt = 0x4b56_4d04,
}

/** Offsets in the page part that the wall-clock register names. */
export const enum Wallclock {
  version = 0,
  seconds = 4,
  nanoseconds = 8,
  size = 12,
}

/** Offsets in the page part that the steal-time register names. */
export const enum StealTime {
  nanoseconds = 0,
  version = 8,
  preempted = 16,
  size = 64,
}

/** Bits of `StealTime.preempted`. */
export const enum Preempted {
  notRunning = 1,
  /** Set by another virtual processor: flush all translations before running again. */
  flushTlb = 2,
}

/** Results of hypercalls, negative. */
export const enum HypercallError {
  notPermitted = -1,
  fault = -14,
  invalid = -22,
  unknown = -1000,
}

export const enum Hypercall {
  mmuOperations = 2,
}

export const HYPERCALL_NAMES: readonly (string | undefined)[] = [
  undefined,
  'vapic_poll_irq',
  'mmu_op',
  undefined,
  undefined,
  'kick_cpu',
  undefined,
  undefined,
  undefined,
  'clock_pairing',
  'send_ipi',
  'sched_yield',
  'map_gpa_range',
];
