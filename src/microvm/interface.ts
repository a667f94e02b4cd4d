import type { Archived } from '../archive/archive.ts';
import type { CpuidResult } from '../cpu/cpuid.ts';
import type { SystemResult } from '../cpu/operands.ts';
import type { Processor } from '../cpu/processor.ts';
import type { Caller } from '../inspect/live-table-observer.ts';
import type { GuestVirtual, Pfn } from '../x86/brand.ts';
import type { MicrovmVcpu } from './vcpu.ts';

/** Who examines page tables that are walked as they stand. Tables are pages by their guest-physical number. */
export interface ExaminedTables {
  /** @returns 0; otherwise the guest has ended. @throws PageAbsent */
  setEntry(vcpu: number, table: Pfn, index: number, low: number, high: number): number;
  /** The page is a table from here on, and then none any more. @throws PageAbsent, DomainCrash */
  announce(vcpu: number, page: Pfn, level: 1 | 2 | 3): void;
  retract(page: Pfn): void;
  /** Makes of an entry in a table the value that the kernel has asked for. */
  showAsStored(entry: Uint32Array): void;
  /** Whether entries hold machine frame numbers, so that a kernel that loads one by itself does not find a page of its own. */
  readonly holdsMachineFrames: boolean;
}

/**
 * What distinguishes the interfaces of a microVM: how a guest recognises the host, and what it may ask of it beyond what a
 * machine has. `native` adds next to nothing; `kvm` has leaves, registers and hypercalls of its own.
 */
export interface MicrovmInterface extends Archived {
  /** By number, as statistics give them. */
  readonly hypercallNames: readonly (string | undefined)[];
  cpuid(leaf: number, subleaf: number, vcpu: number): CpuidResult;
  /** False when the register is none of the interface's. */
  readMsr(vcpu: MicrovmVcpu, register: number, out: Uint32Array): boolean;
  /** Undefined when the register is none of the interface's, false for a value that it cannot have. */
  writeMsr(vcpu: MicrovmVcpu, register: number, low: number, high: number): boolean | undefined;
  /**
   * VMCALL. Registers hold the arguments and take the result; `interface` when there is no such call.
   * @throws PageAbsent before anything was done that must not be done twice
   */
  hypercall(vcpu: MicrovmVcpu): SystemResult;
  /** Lets the time that the guest is behind pass at once, where its kernel can be told that it was stopped, and not stuck. */
  noteAbsence?(): void;
  /** The turn of a virtual processor begins. */
  resume(vcpu: MicrovmVcpu): void;
  /** Its turn is over. */
  suspend(vcpu: MicrovmVcpu): void;
  /** Pending interrupts are about to be looked at: what the guest left in memory for the APIC is carried out. */
  refresh(vcpu: MicrovmVcpu): void;
  /** An interrupt is about to be delivered; the APIC has taken it into service. */
  acknowledged(vcpu: MicrovmVcpu, vector: number): void;
  /** The processor goes back to its state after a reset. */
  reset(vcpu: MicrovmVcpu): void;
  /** The processor is started, its registers as after a reset: whether the interface has given it others than real mode's. */
  startUp?(vcpu: MicrovmVcpu): boolean;
  /** When `expire` has something to do next; system time in nanoseconds, Infinity for never. */
  readonly deadline?: number;
  expire?(): void;
  /** What a PC's BIOS would find as an option ROM; kernels look for one of the interface's there. */
  readonly rom?: Uint8Array;
  /** Where the kernel has called the interface's own code from, when that is at an entry of a table for it. */
  callerOf?(processor: Processor): Caller | undefined;
  /** Where a word stands that is another one for each thread of the kernel; undefined while it has none. */
  threadAt?(vcpu: MicrovmVcpu): GuestVirtual | undefined;
  /** Examines what gets into the guest's page tables, where these are walked as they stand. */
  readonly tables?: ExaminedTables | undefined;
  /** The reason why the guest has ended, with what may have led to it; nothing of the guest runs any more. */
  explain?(reason: string): string;
  /** For `--stats`. */
  readonly figures?: object;
  /** Gives back what it has of the host; the processors are gone. */
  release?(): void;
}
