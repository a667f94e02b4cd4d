import type { Archive, Archived } from '../archive/archive.ts';
import { SIGNATURE } from '../cpu/cpuid.ts';
import { SegmentRegister } from '../cpu/decode/instruction.ts';
import type { Processor } from '../cpu/processor.ts';
import type { Descriptor } from '../cpu/processor-api.ts';
import { SystemState } from '../cpu/protection/system-state.ts';
import type { TableFormat, Translation } from '../cpu/translation.ts';
import type { ApicBus } from '../devices/pc/apic-bus.ts';
import type { InterruptPair } from '../devices/pc/interrupt-pair.ts';
import { type ApicProcessor, LocalApic } from '../devices/pc/local-apic.ts';
import { type GuestVirtual, PAGE_SHIFT } from '../x86/brand.ts';
import { Cr0, Cr4, Efer, Flag, Register } from '../x86/registers.ts';
import { Physical } from './layout.ts';
import { type Entry, EntrySelector } from './loader.ts';

/** CR0 after reset (SDM vol. 3A, table 10-1). */
const CR0_RESET = (Cr0.cacheDisable | Cr0.notWriteThrough | Cr0.extensionType) >>> 0;

const ALL_SEGMENTS = [
  SegmentRegister.es,
  SegmentRegister.cs,
  SegmentRegister.ss,
  SegmentRegister.ds,
  SegmentRegister.fs,
  SegmentRegister.gs,
] as const;

/** Present, accessed, 64 KiB: a segment of real mode. */
const REAL_DATA = 0x9300;
const REAL_CODE = 0x9b00;

function realSegment(base: number, type: number): Descriptor {
  return { low: (((base & 0xffff) << 16) | 0xffff) >>> 0, high: (((base >>> 16) & 0xff) | type) >>> 0 };
}

export interface MicrovmVcpuOptions {
  readonly index: number;
  readonly processor: Processor;
  readonly translations: Readonly<Record<TableFormat, Translation>>;
  readonly apicBus: ApicBus;
  /** At the first local line of every processor's APIC. */
  readonly legacyInterrupts: InterruptPair;
  /** System time in nanoseconds, which is also the time-stamp counter. */
  readonly now: () => number;
  readonly onReset: (vcpu: MicrovmVcpu) => void;
  /** Whether a processor that is started has been given other registers than those of real mode. */
  readonly onStartUp: (vcpu: MicrovmVcpu) => boolean;
}

/** One virtual processor of a microVM, with its interrupt controller. */
export class MicrovmVcpu implements ApicProcessor, Archived {
  readonly index: number;
  readonly processor: Processor;
  readonly state: SystemState;
  readonly apic: LocalApic;
  /** HLT was executed, and nothing has come since. */
  halted = false;
  /** After INIT, or from the start: a message tells where to begin. */
  waitsForStartUp = true;
  nonMaskablePending = false;
  /** Waits for a page that the host brings in. */
  awaitsHost = false;
  /** An exception stands in the processor's mailbox, because a page for its delivery was absent. */
  exceptionWaits = false;
  /** What CR3 gets below the root's page when it is written next. */
  cr3Low = 0;
  readonly #legacyInterrupts: InterruptPair;
  readonly #onReset: (vcpu: MicrovmVcpu) => void;
  readonly #onStartUp: (vcpu: MicrovmVcpu) => boolean;

  constructor(options: MicrovmVcpuOptions) {
    this.index = options.index;
    this.processor = options.processor;
    this.state = new SystemState(options.processor, options.translations);
    this.apic = new LocalApic(options.index, options.apicBus, this, options.now);
    this.#legacyInterrupts = options.legacyInterrupts;
    this.#onReset = options.onReset;
    this.#onStartUp = options.onStartUp;
    this.#resetRegisters();
  }

  archive(archive: Archive): void {
    archive.part('processor', this.processor);
    archive.part('system', this.state);
    archive.part('apic', this.apic);
    this.halted = archive.value('halted', this.halted);
    this.waitsForStartUp = archive.value('waitsForStartUp', this.waitsForStartUp);
    this.nonMaskablePending = archive.value('nonMaskablePending', this.nonMaskablePending);
    this.exceptionWaits = archive.value('exceptionWaits', this.exceptionWaits);
    this.state.inNonMaskable = archive.value('inNonMaskable', this.state.inNonMaskable);
  }

  /** Whether it has nothing to execute. */
  get isIdle(): boolean {
    return this.waitsForStartUp || (this.halted && !this.#wakes);
  }

  /** Whether nothing but another processor can make it execute again. */
  get isStopped(): boolean {
    const canBeInterrupted = this.interruptsOn && this.apic.canInterrupt;
    return this.waitsForStartUp || (this.halted && !canBeInterrupted && !this.nonMaskablePending);
  }

  get interruptsOn(): boolean {
    return (this.processor.flags & Flag.interrupt) !== 0;
  }

  /** Whether an interrupt is to be delivered as soon as the processor takes it. */
  get hasInterrupt(): boolean {
    return this.interrupts !== undefined;
  }

  /** The controller whose interrupt is to be delivered next. */
  get interrupts(): LocalApic | InterruptPair | undefined {
    if (this.apic.pending >= 0) return this.apic;
    return this.apic.takesExternal && this.#legacyInterrupts.pending >= 0 ? this.#legacyInterrupts : undefined;
  }

  get #wakes(): boolean {
    return (this.nonMaskablePending && !this.state.inNonMaskable) || (this.interruptsOn && this.hasInterrupt);
  }

  // What the APIC asks for

  nonMaskable(): void {
    this.nonMaskablePending = true;
  }

  reset(): void {
    this.#resetRegisters();
    this.halted = false;
    this.exceptionWaits = false;
    this.waitsForStartUp = true;
    this.nonMaskablePending = false;
    this.state.inNonMaskable = false;
    this.#onReset(this);
  }

  /** @throws PageAbsent, and waits on then */
  startUp(page: number): void {
    if (!this.waitsForStartUp) return;
    const hasRegisters = this.#onStartUp(this);
    this.waitsForStartUp = false;
    if (hasRegisters) return;
    const { processor } = this;
    processor.loadSegment(SegmentRegister.cs, page << 8, realSegment(page << PAGE_SHIFT, REAL_CODE));
    processor.rip = 0 as GuestVirtual;
  }

  #resetRegisters(): void {
    const { processor, state } = this;
    for (let register = 0; register < 16; register++) processor.set(register as Register, 0, 0);
    processor.set(Register.rdx, SIGNATURE, 0);
    processor.flags = Flag.reserved;
    processor.efer = 0;
    processor.cr4 = 0;
    processor.cr0 = CR0_RESET;
    state.reset();
    for (const segment of ALL_SEGMENTS) {
      processor.loadSegment(segment, 0, realSegment(0, segment === SegmentRegister.cs ? REAL_CODE : REAL_DATA));
    }
    processor.userMode = false;
  }

  /** Begins as a boot loader leaves the first processor: in 64-bit mode with paging, or in 32-bit mode without. */
  enter(entry: Entry): void {
    const { processor, state } = this;
    this.waitsForStartUp = false;
    this.apic.takeExternal();
    const { descriptors } = entry;
    if (entry.root === undefined) {
      processor.cr0 = (Cr0.protection | Cr0.extensionType) >>> 0;
    } else {
      processor.cr4 = Cr4.physicalAddressExtension;
      processor.efer = Efer.longModeEnable | Efer.longModeActive;
      processor.cr0 = (Cr0.protection | Cr0.extensionType | Cr0.paging) >>> 0;
      state.cr3 = entry.root;
    }
    state.usePaging();
    state.gdt.base = Physical.descriptorTable as number as GuestVirtual;
    state.gdt.limit = descriptors.length * 4 - 1;
    state.useCalls();
    const load = (segment: SegmentRegister, selector: EntrySelector) => {
      const [low = 0, high = 0] = descriptors.slice(selector / 4, selector / 4 + 2);
      processor.loadSegment(segment, selector, { low, high });
    };
    for (const segment of ALL_SEGMENTS) {
      load(segment, segment === SegmentRegister.cs ? EntrySelector.code : EntrySelector.data);
    }
    processor.rip = entry.rip;
    processor.setValue(Register.rsi, Physical.bootParameters);
  }
}
