import type { GuestVirtual, HostAddress } from '../x86/brand.ts';
import type { Register } from '../x86/registers.ts';
import type { Instruction, SegmentRegister } from './decode/instruction.ts';
import type { Exit } from './exits.ts';
import type { GuestMemory, Translation } from './translation.ts';

/** A segment descriptor as it stands in a table. */
export interface Descriptor {
  low: number;
  high: number;
}

/** What the time-stamp counter reads. */
export interface TimeSource {
  /** Time-stamp counter as halves. */
  timeStamp(out: Uint32Array): void;
  /** TSC_AUX, for RDTSCP. */
  timeStampAuxiliary(): number;
}

/** Where segment loads find descriptors: a native machine's GDTR and LDTR, or an interface's validated frames. */
export interface DescriptorSource {
  /** Fills `out`; false when the selector is beyond its table. Null selectors never come here. */
  read(selector: number, out: Descriptor): boolean;
}

/** One virtual processor, as interfaces and domains use it. `Processor` in processor.ts implements it. */
export interface ProcessorApi {
  readonly index: number;
  /** Address of the state block (state.ts). */
  readonly state: HostAddress;
  readonly memory: GuestMemory;

  /** Low and high 32 bits of a general register, unsigned. */
  low(register: Register): number;
  high(register: Register): number;
  /** A register as a signed number; exact for canonical addresses and values below 2^53. */
  value(register: Register): number;
  set(register: Register, low: number, high: number): void;
  /** Stores a signed safe integer, sign-extended to 64 bits. */
  setValue(register: Register, value: number): void;

  rip: GuestVirtual;
  /** RFLAGS bits 0–31, arithmetic flags materialised. */
  flags: number;

  selector(segment: SegmentRegister): number;
  segmentBase(segment: SegmentRegister): GuestVirtual;
  /** FS and GS bases of 64-bit code, canonical. */
  setSegmentBase(segment: SegmentRegister, base: GuestVirtual): void;
  /** Loads selector and hidden part as they are given; no checks. `descriptor` null makes the segment null. CS also sets code size and CPL, SS the stack size. */
  loadSegment(segment: SegmentRegister, selector: number, descriptor: Descriptor | null): void;

  /** Page tables: roots in the paging's numbering (of PAE as `PageWalker.walk` counts them); a kernel and a user root (equal unless the interface has two), −1 for none. */
  translation: Translation;
  setRoots(kernelRoot: number, userRoot: number): void;
  /** Whether entries are checked (and the user root is walked) as user accesses. */
  userMode: boolean;
  flushTlb(): void;
  invalidatePage(address: GuestVirtual): void;

  descriptors: DescriptorSource;

  /** Low 32 bits of a control register. */
  cr0: number;
  cr4: number;
  efer: number;
  cr2: GuestVirtual;

  /** Executes until an exit; at most `budget` instructions. */
  run(budget: number): Exit;
  readonly exitDetail: number;
  readonly exitError: number;
  readonly exitLength: number;
  /** Decodes the instruction at RIP; valid after Exit.system until the next call. */
  currentInstruction(): Instruction;
  /** Linear address of the memory operand of `currentInstruction()`. */
  operandAddress(): GuestVirtual;
  /** Makes a current or the next `run` return soon. */
  kick(): void;
  /** Completed instructions, exact at exits. */
  readonly instructions: number;
}
