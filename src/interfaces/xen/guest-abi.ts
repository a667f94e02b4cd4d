import type { Descriptor } from '../../cpu/processor-api.ts';
import type { DirectFormat } from '../../paging/direct/table-rules.ts';
import { type Mfn, PAGE_SHIFT, PAGE_SIZE } from '../../x86/brand.ts';
import { Register } from '../../x86/registers.ts';
import { CallbackType } from './abi.ts';
import { type HypercallStubs, STUBS_32, STUBS_64 } from './hypercall-page.ts';
import { RUNSTATE_32, RUNSTATE_64, type RunstateLayout } from './runstate.ts';
import { SHARED_INFO_32, SHARED_INFO_64, type SharedInfoLayout } from './shared-info.ts';
import { STRUCTURES_32, STRUCTURES_64, type Structures } from './structures.ts';

/** An argument of set_callbacks: which entry, and where its address and, if it has one, its selector stand. */
export interface CallbackArgument {
  readonly type: CallbackType;
  readonly address: number;
  readonly selector?: number;
}

/**
 * What differs between 64-bit guests and 32-bit ones with PAE. A call means the same for both; this says how it is made,
 * and how what it takes is laid out.
 *
 * A 64-bit kernel runs in ring 3, beside its programs: the host knows the two apart, swaps the GS base and the page tables
 * between them, and enters the kernel with selectors of its own. A 32-bit kernel runs in ring 1 and is entered, by its
 * own selectors, as by an interrupt gate.
 */
export interface GuestAbi {
  readonly bits: 64 | 32;
  /** Bytes of the guest's `long`. */
  readonly longSize: 8 | 4;
  /** What start_info begins with. */
  readonly magic: string;
  readonly tables: DirectFormat;
  /** Selectors that a kernel names get at least this privilege. */
  readonly kernelRing: 3 | 1;
  /** Flat selectors that the host provides: those that a kernel begins with, and those of its programs. */
  readonly kernelCode: number;
  readonly kernelData: number;
  readonly userCode: number;
  readonly userData: number;
  /** Programs in 32-bit code below a 64-bit kernel. */
  readonly compatibilityCode: number;
  /** Data segments of a kernel that begins. */
  readonly hasDataSegments: boolean;
  /** The descriptors behind flat selectors, by selector without its privilege. */
  readonly flatDescriptors: Readonly<Record<number, Readonly<Descriptor>>>;
  /** Registers with the arguments of a hypercall. */
  readonly argumentRegisters: readonly Register[];
  /** Arguments of 64 bits that take two registers, by number of the hypercall. */
  readonly pairedArguments: Readonly<Record<number, readonly number[]>>;
  /** Software interrupt that makes a hypercall; a 64-bit kernel's is SYSCALL. */
  readonly hypercallVector: number | undefined;
  readonly stubs: HypercallStubs;
  readonly callbackArguments: readonly CallbackArgument[];
  readonly callbackTypes: ReadonlySet<number>;
  /** Hypercalls that guests of this kind do not have. */
  readonly missingCalls: ReadonlySet<number>;
  readonly assists: ReadonlySet<number>;
  readonly sharedInfo: SharedInfoLayout;
  readonly runstate: RunstateLayout;
  readonly structures: Structures;
  /** cpu_user_regs: the general registers, in order of their offsets. */
  readonly userRegisters: readonly Register[];
  /** Where the kernel's half of the address space begins, in a guest as Linux divides it. */
  readonly isKernelAddress: (address: number) => boolean;
  /** The table that a value of CR3 names, and the value that names a table. */
  readonly rootOfCr3: (low: number, high: number) => Mfn;
  readonly cr3OfRoot: (root: Mfn) => number;
}

/** vm_assist: segments of 4 GiB with and without notice, stores into tables, CR3 beyond 4 GiB, IOPL, runstate, strict M2P. */
export const enum Assist {
  fourGigabyteSegments = 0,
  fourGigabyteSegmentsNotify = 1,
  writablePageTables = 2,
  paeExtendedCr3 = 3,
  architecturalIopl = 4,
  runstateUpdateFlag = 5,
  strictMachineToPhysical = 32,
}

/** Selectors of the flat segments that the host provides (public/arch-x86/xen-x86_64.h and xen-x86_32.h). */
const enum Flat64 {
  ring3Code32 = 0xe023,
  ring3Data = 0xe02b,
  ring3Code64 = 0xe033,
}

const enum Flat32 {
  ring1Code = 0xe019,
  ring1Data = 0xe021,
  ring3Code = 0xe02b,
  ring3Data = 0xe033,
}

const PRIVILEGE = 3;

/** Hypercalls whose arguments depend on the width of a register, or that only guests of one width have. */
const enum WidthCall {
  updateDescriptor = 10,
  updateVaMapping = 14,
  setTimer = 15,
  setSegmentBase = 25,
}

/** INT's vector for hypercalls. */
const HYPERCALL_VECTOR = 0x82;
/** Where Linux divides the addresses of 32 bits. */
const KERNEL_START_32 = 0xc000_0000;
/** Pages of 4 GiB: what a number's bits above those of a 32-bit CR3 count in. */
const PAGES_OF_4_GIB = 0x10_0000;
const PAGE_OFFSET = PAGE_SIZE - 1;
/** Bits of a number that stand in a 32-bit CR3 where those of an address do. */
const UPPER_SHIFT = 32 - PAGE_SHIFT;

/** Flat descriptors, accessed bit set: 32-bit code and data in rings 1 and 3, 64-bit code in ring 3. */
const RING1_CODE = { low: 0x0000_ffff, high: 0x00cf_bb00 };
const RING1_DATA = { low: 0x0000_ffff, high: 0x00cf_b300 };
const RING3_CODE = { low: 0x0000_ffff, high: 0x00cf_fb00 };
const RING3_DATA = { low: 0x0000_ffff, high: 0x00cf_f300 };
const RING3_CODE_64 = { low: 0x0000_ffff, high: 0x00af_fb00 };

const ABI_64: GuestAbi = {
  bits: 64,
  longSize: 8,
  magic: 'xen-3.0-x86_64',
  tables: 'four-level',
  kernelRing: 3,
  kernelCode: Flat64.ring3Code64,
  kernelData: Flat64.ring3Data,
  userCode: Flat64.ring3Code64,
  userData: Flat64.ring3Data,
  compatibilityCode: Flat64.ring3Code32,
  hasDataSegments: false,
  flatDescriptors: {
    [Flat64.ring3Code32 & ~PRIVILEGE]: RING3_CODE,
    [Flat64.ring3Data & ~PRIVILEGE]: RING3_DATA,
    [Flat64.ring3Code64 & ~PRIVILEGE]: RING3_CODE_64,
  },
  argumentRegisters: [Register.rdi, Register.rsi, Register.rdx, Register.r10, Register.r8],
  pairedArguments: {},
  hypercallVector: undefined,
  stubs: STUBS_64,
  callbackArguments: [
    { type: CallbackType.event, address: 0 },
    { type: CallbackType.failsafe, address: 1 },
    { type: CallbackType.syscall, address: 2 },
  ],
  callbackTypes: new Set([
    CallbackType.event,
    CallbackType.failsafe,
    CallbackType.syscall,
    CallbackType.nmi,
    CallbackType.sysenter,
    CallbackType.syscall32,
  ]),
  missingCalls: new Set(),
  assists: new Set([
    Assist.writablePageTables,
    Assist.architecturalIopl,
    Assist.runstateUpdateFlag,
    Assist.strictMachineToPhysical,
  ]),
  sharedInfo: SHARED_INFO_64,
  runstate: RUNSTATE_64,
  structures: STRUCTURES_64,
  userRegisters: [
    Register.r15,
    Register.r14,
    Register.r13,
    Register.r12,
    Register.rbp,
    Register.rbx,
    Register.r11,
    Register.r10,
    Register.r9,
    Register.r8,
    Register.rax,
    Register.rcx,
    Register.rdx,
    Register.rsi,
    Register.rdi,
  ],
  isKernelAddress: (address) => address < 0,
  rootOfCr3: (low, high) => (high * PAGES_OF_4_GIB + (low >>> PAGE_SHIFT)) as Mfn,
  cr3OfRoot: (root) => root * PAGE_SIZE,
};

const ABI_32: GuestAbi = {
  bits: 32,
  longSize: 4,
  magic: 'xen-3.0-x86_32p',
  tables: 'pae',
  kernelRing: 1,
  kernelCode: Flat32.ring1Code,
  kernelData: Flat32.ring1Data,
  userCode: Flat32.ring3Code,
  userData: Flat32.ring3Data,
  compatibilityCode: Flat32.ring3Code,
  hasDataSegments: true,
  flatDescriptors: {
    [Flat32.ring1Code & ~PRIVILEGE]: RING1_CODE,
    [Flat32.ring1Data & ~PRIVILEGE]: RING1_DATA,
    [Flat32.ring3Code & ~PRIVILEGE]: RING3_CODE,
    [Flat32.ring3Data & ~PRIVILEGE]: RING3_DATA,
  },
  argumentRegisters: [Register.rbx, Register.rcx, Register.rdx, Register.rsi, Register.rdi],
  pairedArguments: {
    [WidthCall.updateDescriptor]: [0, 1],
    [WidthCall.updateVaMapping]: [1],
    [WidthCall.setTimer]: [0],
  },
  hypercallVector: HYPERCALL_VECTOR,
  stubs: STUBS_32,
  callbackArguments: [
    { type: CallbackType.event, selector: 0, address: 1 },
    { type: CallbackType.failsafe, selector: 2, address: 3 },
  ],
  callbackTypes: new Set([CallbackType.event, CallbackType.failsafe, CallbackType.nmi, CallbackType.sysenter]),
  missingCalls: new Set([WidthCall.setSegmentBase]),
  assists: new Set([
    Assist.fourGigabyteSegments,
    Assist.fourGigabyteSegmentsNotify,
    Assist.writablePageTables,
    Assist.paeExtendedCr3,
    Assist.architecturalIopl,
    Assist.runstateUpdateFlag,
  ]),
  sharedInfo: SHARED_INFO_32,
  runstate: RUNSTATE_32,
  structures: STRUCTURES_32,
  userRegisters: [Register.rbx, Register.rcx, Register.rdx, Register.rsi, Register.rdi, Register.rbp, Register.rax],
  isKernelAddress: (address) => address >= KERNEL_START_32,
  // The upper bits of a number beyond 4 GiB stand where a page's offset would be.
  rootOfCr3: (low) => ((low >>> PAGE_SHIFT) | ((low & PAGE_OFFSET) << UPPER_SHIFT)) as Mfn,
  cr3OfRoot: (root) => ((root << PAGE_SHIFT) | (root >>> UPPER_SHIFT)) >>> 0,
};

export const GUEST_ABIS: Readonly<Record<64 | 32, GuestAbi>> = { 64: ABI_64, 32: ABI_32 };

/** A selector as the host takes it from a kernel: with the kernel's privilege at least. */
export function raisedSelector({ kernelRing }: GuestAbi, selector: number): number {
  return (selector & PRIVILEGE) < kernelRing ? (selector & ~PRIVILEGE) | kernelRing : selector;
}
