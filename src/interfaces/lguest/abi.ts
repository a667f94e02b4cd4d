import type { LguestEra } from '../../api.ts';
import { Register } from '../../x86/registers.ts';

/**
 * What lguest kernels and their hosts agree on (Linux 2.6.24 to 4.x: include/linux/lguest.h, lguest_launcher.h and
 * arch/x86/include/asm/lguest_hcall.h). Host and guest were always built from one tree, so that the numbers changed from
 * release to release: an era is what a range of releases has in common.
 */

/** INT 0x1f, and VMCALL in the releases that use it, are hypercalls when the kernel executes them. */
export const HYPERCALL_VECTOR = 0x1f;
export const FIRST_EXTERNAL_VECTOR = 0x20;
export const SYSTEM_CALL_VECTOR = 0x80;

/** Lines of the interrupt controller; line 0 is the timer. */
export const INTERRUPT_LINES = 32;
export const TIMER_LINE = 0;

/** The ring that the kernel runs in. */
export const KERNEL_RING = 1;
/** Selectors of the kernel's code and data, with that ring. */
export const KERNEL_CODE = 0x61;
export const KERNEL_DATA = 0x69;

/** Entries of the descriptor table. */
export const DESCRIPTORS = 32;
export const TLS_FIRST = 6;
export const TLS_ENTRIES = 3;
/** Entries that belong to the host: what the guest says of them is ignored (task, host code, host data, double fault). */
export const HOST_DESCRIPTORS: ReadonlySet<number> = new Set([10, 11, 16, 31]);

/** Vectors for which the guest has no say: NMI, double fault, the reserved 15, hypercalls. */
export const HOST_VECTORS: ReadonlySet<number> = new Set([2, 8, 15, HYPERCALL_VECTOR]);

/** What shutdown calls name. */
export const RESTART = 2;
/** The text with which a kernel says that it ends as it should; all others tell of a panic. */
export const POWER_DOWN = 'Power down';

/** Slots of the ring for calls that may wait. */
export const RING_SLOTS = 64;
/** State of a slot without a call that waits. */
export const SLOT_FREE = 0xff;

/** The interrupt flag, as it stands in words of the shared data. */
export const INTERRUPTS_ON = 0x200;

/** What the guest keeps clear at the end of its addresses; the original host has its own code there. */
export const RESERVED_TOP = { 'two-level': 4 << 20, pae: 2 << 20 } as const;

/** Where things stand in the structure that guest and host share. */
export interface DataLayout {
  readonly irqEnabled: number;
  readonly blockedInterrupts: number;
  readonly cr2: number;
  /** Seconds and nanoseconds of the date. */
  readonly time: number;
  /** Undefined where the guest does not ask. */
  readonly irqPending: number | undefined;
  readonly slotStates: number;
  readonly slots: number;
  readonly slotBytes: number;
  readonly reserveMemory: number;
  readonly tscKilohertz: number;
  /** Undefined where the guest brings tables of its own to begin with. */
  readonly rootTable: number | undefined;
  readonly noInterruptsStart: number;
  readonly noInterruptsEnd: number;
  readonly kernelAddress: number;
  readonly systemCallVector: number;
  readonly size: number;
}

const START = { irqEnabled: 0x00, blockedInterrupts: 0x04, cr2: 0x08, time: 0x0c } as const;

/** What follows the ring, at `from`; the fields stand one behind the other. */
function afterRing(from: number, hasRootTable: boolean) {
  const next = from + (hasRootTable ? 12 : 8);
  return {
    reserveMemory: from,
    tscKilohertz: from + 4,
    rootTable: hasRootTable ? from + 8 : undefined,
    noInterruptsStart: next,
    noInterruptsEnd: next + 4,
    kernelAddress: next + 8,
    systemCallVector: next + 12,
    size: next + 16,
  };
}

const LATER_RING = { irqPending: 0x14, slotStates: 0x18, slots: 0x58, slotBytes: 20 } as const;

/** Names of hypercalls, as statistics give them. */
export type CallName =
  | 'flushAsync'
  | 'initialize'
  | 'shutdown'
  | 'loadGdt'
  | 'newPageTable'
  | 'flushTlb'
  | 'loadIdtEntry'
  | 'setStack'
  | 'taskSwitched'
  | 'setClockEvent'
  | 'halt'
  | 'setMiddleEntry'
  | 'setPte'
  | 'setTopEntry'
  | 'loadTls'
  | 'notify'
  | 'loadGdtEntry'
  | 'sendInterrupts';

type CallTable = readonly (CallName | undefined)[];

/** By number. */
const COMMON: CallTable = [
  'flushAsync',
  'initialize',
  'shutdown',
  undefined,
  'newPageTable',
  'flushTlb',
  'loadIdtEntry',
  'setStack',
  'taskSwitched',
  'setClockEvent',
  'halt',
  undefined,
  undefined,
  undefined,
  'setPte',
  'setTopEntry',
  'loadTls',
  'notify',
];
const EARLY: CallTable = COMMON.with(3, 'loadGdt');
const LATER: CallTable = [...COMMON.with(13, 'setMiddleEntry'), 'loadGdtEntry', 'sendInterrupts'];

export interface Era {
  readonly name: LguestEra;
  readonly layout: DataLayout;
  /** By number. */
  readonly calls: CallTable;
  /** Registers of the first, second … argument; the number stands in EAX. */
  readonly argumentRegisters: readonly Register[];
  /** The words of a ring slot, from the second on: which argument each holds. */
  readonly slotArguments: readonly number[];
}

const EARLY_REGISTERS = [Register.rdx, Register.rbx, Register.rcx] as const;
const LATER_REGISTERS = [Register.rbx, Register.rcx, Register.rdx, Register.rsi] as const;
const IN_ORDER = [0, 1, 2, 3] as const;

export const ERAS: Readonly<Record<LguestEra, Era>> = {
  /** 2.6.24 to 2.6.29. */
  L1: {
    name: 'L1',
    layout: {
      ...START,
      irqPending: undefined,
      slotStates: 0x14,
      slots: 0x54,
      slotBytes: 16,
      ...afterRing(0x454, true),
    },
    calls: EARLY,
    argumentRegisters: EARLY_REGISTERS,
    slotArguments: [1, 2, 0],
  },
  /** 2.6.30 to 3.0: the host makes the first page tables. */
  L2: {
    name: 'L2',
    layout: { ...START, ...LATER_RING, ...afterRing(0x558, true) },
    calls: LATER,
    argumentRegisters: LATER_REGISTERS,
    slotArguments: IN_ORDER,
  },
  /** 3.1 to 3.x: the kernel brings its own. */
  L3: {
    name: 'L3',
    layout: { ...START, ...LATER_RING, ...afterRing(0x558, false) },
    calls: LATER,
    argumentRegisters: LATER_REGISTERS,
    slotArguments: IN_ORDER,
  },
};

export const ERA_NAMES = Object.keys(ERAS) as LguestEra[];
