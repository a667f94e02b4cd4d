import type { Archive, Archived } from '../../archive/archive.ts';
import { SegmentRegister } from '../../cpu/decode/instruction.ts';
import { Access } from '../../cpu/exits.ts';
import type { Processor } from '../../cpu/processor.ts';
import type { Descriptor, DescriptorSource } from '../../cpu/processor-api.ts';
import { DomainCrash } from '../../domain/crash.ts';
import type { DirectPaging } from '../../paging/direct/direct-paging.ts';
import { type GuestVirtual, PAGE_SIZE } from '../../x86/brand.ts';
import { Cr0, Cr4, Efer, Flag, Register } from '../../x86/registers.ts';
import { FLAT_DESCRIPTORS, FlatSelector, GUEST_GDT_ENTRIES } from './abi.ts';
import { type SharedInfo, VcpuInfo } from './shared-info.ts';

/** One entry of the virtual IDT; address 0 is empty. */
export interface TrapGate {
  address: GuestVirtual;
  selector: number;
  /** Bits 1:0 the DPL for INT n, bit 2 masks events on entry. */
  flags: number;
}

export const enum CallbackType {
  event = 0,
  failsafe = 1,
  syscall = 2,
  nmi = 4,
  sysenter = 5,
  syscall32 = 7,
}

export interface Callback {
  address: GuestVirtual;
  /** Events are masked on entry. */
  masks: boolean;
}

const VECTORS = 256;
const NOWHERE = 0 as GuestVirtual;

/** Bytes of a frame without an error code: five longs, RCX and R11 (§5.2). */
const FRAME_BYTES = 56;

/** RFLAGS bits that a guest can give itself. */
const SETTABLE_FLAGS =
  Flag.carry |
  Flag.parity |
  Flag.adjust |
  Flag.zero |
  Flag.sign |
  Flag.trap |
  Flag.direction |
  Flag.overflow |
  Flag.nestedTask |
  Flag.resume |
  Flag.alignmentCheck |
  Flag.identification;

/** What the kernel of a PV guest told the host about one of its virtual processors, and how it is entered. */
export class XenVcpu implements DescriptorSource, Archived {
  readonly index: number;
  readonly processor: Processor;
  readonly #paging: DirectPaging;
  readonly #shared: SharedInfo;
  /** VCPUOP_initialise was done (always for the first). */
  initialised = false;
  /** Stopped by VCPUOP_down, or never started. */
  down = true;
  blocked = false;
  /** Waits for a page that the host brings in. */
  awaitsHost = false;
  /** An exception stands in the processor's mailbox, because the page for its frame was absent. */
  exceptionWaits = false;
  kernelMode = true;
  kernelStackSegment = FlatSelector.data as number;
  kernelStack = NOWHERE;
  /** The GS base that SWAPGS would bring: the user's in kernel mode, the kernel's in user mode. */
  inactiveGsBase = NOWHERE;
  traps: TrapGate[] = Array.from({ length: VECTORS }, () => ({ address: NOWHERE, selector: 0, flags: 0 }));
  callbacks: Callback[] = Array.from({ length: 8 }, () => ({ address: NOWHERE, masks: false }));
  gdtEntries = 0;
  ldtBase = NOWHERE;
  ldtEntries = 0;
  ioPrivilege = 0;
  readonly debugRegisters = new Uint32Array(16);
  nmiPending = false;
  inNmi = false;

  constructor(index: number, processor: Processor, paging: DirectPaging, shared: SharedInfo) {
    this.index = index;
    this.processor = processor;
    this.#paging = paging;
    this.#shared = shared;
    processor.descriptors = this;
    processor.translation = paging;
    processor.cr0 =
      (Cr0.protection |
        Cr0.monitorCoprocessor |
        Cr0.numericError |
        Cr0.writeProtect |
        Cr0.alignmentMask |
        Cr0.paging |
        0x10) >>>
      0;
    processor.cr4 = Cr4.physicalAddressExtension | Cr4.fxsave | Cr4.simdExceptions;
    processor.efer = Efer.syscall | Efer.longModeEnable | Efer.longModeActive | Efer.noExecute;
    processor.flags = Flag.reserved | Flag.interrupt;
    this.debugRegisters[12] = 0xffff_0ff0;
    this.debugRegisters[14] = 0x400;
    this.enterFlatKernel();
  }

  archive(archive: Archive): void {
    archive.part('processor', this.processor);
    this.initialised = archive.value('initialised', this.initialised);
    this.down = archive.value('down', this.down);
    this.blocked = archive.value('blocked', this.blocked);
    this.exceptionWaits = archive.value('exceptionWaits', this.exceptionWaits);
    this.kernelMode = archive.value('kernelMode', this.kernelMode);
    this.kernelStackSegment = archive.value('kernelStackSegment', this.kernelStackSegment);
    this.kernelStack = archive.value('kernelStack', this.kernelStack);
    this.inactiveGsBase = archive.value('inactiveGsBase', this.inactiveGsBase);
    this.traps = archive.value('traps', this.traps);
    this.callbacks = archive.value('callbacks', this.callbacks);
    this.gdtEntries = archive.value('gdtEntries', this.gdtEntries);
    this.ldtBase = archive.value('ldtBase', this.ldtBase);
    this.ldtEntries = archive.value('ldtEntries', this.ldtEntries);
    this.ioPrivilege = archive.value('ioPrivilege', this.ioPrivilege);
    archive.words('debugRegisters', this.debugRegisters);
    this.nmiPending = archive.value('nmiPending', this.nmiPending);
    this.inNmi = archive.value('inNmi', this.inNmi);
  }

  /** The domain's roots have been read back before. */
  restored(): void {
    this.useRoots();
  }

  // Descriptors

  read(selector: number, out: Descriptor): boolean {
    const { memory } = this.#shared;
    if ((selector & 4) !== 0) return this.#readLocal(selector, out);
    const entry = selector >> 3;
    if (entry >= GUEST_GDT_ENTRIES) {
      const flat = FLAT_DESCRIPTORS[selector & ~7];
      if (!flat) return false;
      out.low = flat.low;
      out.high = flat.high;
      return true;
    }
    if (entry >= this.gdtEntries) return false;
    const mfn = this.#paging.descriptors.gdtFrames(this.index)[entry >> 9];
    if (mfn === undefined) return false;
    const address = this.#shared.space.addressOf(mfn);
    if (address < 0) return false;
    const word = (address + (entry & 511) * 8) >>> 2;
    out.low = memory.u32[word] as number;
    out.high = memory.u32[word + 1] as number;
    return true;
  }

  /** LDT pages are validated when a selector in them is first used. */
  #readLocal(selector: number, out: Descriptor): boolean {
    const entry = selector >> 3;
    if (entry >= this.ldtEntries) return false;
    const address = (this.ldtBase + entry * 8) as GuestVirtual;
    const mfn = this.#paging.entries.frameNumberAt(this.#paging.root(this.index), address);
    if (mfn < 0 || this.#paging.descriptors.holdLdtFrame(mfn) !== 0) return false;
    const page = this.#shared.space.addressOf(mfn);
    const word = (page + (address & (PAGE_SIZE - 1))) >>> 2;
    out.low = this.#shared.memory.u32[word] as number;
    out.high = this.#shared.memory.u32[word + 1] as number;
    return true;
  }

  // Memory

  /** Reads 32-bit words of the guest's kernel into `out`; false when any of them cannot be read. */
  readWords(address: GuestVirtual, out: Uint32Array): boolean {
    const { memory } = this.processor;
    if ((address & 3) === 0 && (address & (PAGE_SIZE - 1)) + out.byteLength <= PAGE_SIZE) {
      const from = memory.translate(address, Access.read);
      if (from < 0) return false;
      const { u32 } = this.#shared.memory;
      for (let word = 0; word < out.length; word++) out[word] = u32[(from >>> 2) + word] as number;
      return true;
    }
    return memory.read(address, new Uint8Array(out.buffer, out.byteOffset, out.byteLength));
  }

  // Modes

  enterFlatKernel(): void {
    this.loadFlat(SegmentRegister.cs, FlatSelector.code64);
    this.loadFlat(SegmentRegister.ss, FlatSelector.data);
  }

  loadFlat(segment: SegmentRegister, selector: FlatSelector): void {
    if (this.processor.selector(segment) === selector) return;
    this.processor.loadSegment(segment, selector, FLAT_DESCRIPTORS[selector & ~7] as Descriptor);
  }

  /** Roots changed, or the mode: the processor walks what the paging holds for this vCPU. */
  useRoots(): void {
    this.processor.setRoots(this.#paging.root(this.index), this.#paging.userRoot(this.index));
  }

  #toggle(): void {
    const active = this.processor.segmentBase(SegmentRegister.gs);
    this.processor.setSegmentBase(SegmentRegister.gs, this.inactiveGsBase);
    this.inactiveGsBase = active;
    this.kernelMode = !this.kernelMode;
    this.processor.userMode = !this.kernelMode;
  }

  #enterKernel(): void {
    if (!this.kernelMode) this.#toggle();
  }

  /** @throws DomainCrash when there is no user root */
  enterUser(): void {
    if (!this.kernelMode) return;
    if (this.#paging.userRoot(this.index) < 0) throw new DomainCrash('return to user mode without a user page table');
    this.#toggle();
  }

  // Events

  get #info(): number {
    return this.#shared.vcpuInfo(this.index);
  }

  get eventsMasked(): boolean {
    const info = this.#info;
    return info < 0 || this.#shared.memory.u8[info + VcpuInfo.upcallMask] !== 0;
  }

  set eventsMasked(masked: boolean) {
    const info = this.#info;
    if (info >= 0) this.#shared.memory.u8[info + VcpuInfo.upcallMask] = masked ? 1 : 0;
  }

  get eventPending(): boolean {
    const info = this.#info;
    return info >= 0 && this.#shared.memory.u8[info + VcpuInfo.upcallPending] !== 0;
  }

  /** Bits that DR6 gets from a debug exception. */
  noteDebugConditions(bits: number): void {
    this.debugRegisters[12] = (this.debugRegisters[12] as number) | bits;
  }

  /** The address that a page fault's handler reads. */
  publishCr2(): void {
    const info = this.#info;
    if (info < 0) return;
    const cr2 = this.processor.cr2;
    const address = info + this.#shared.layout.cr2;
    this.#shared.memory.view.setUint32(address, cr2 >>> 0, true);
    this.#shared.memory.view.setUint32(address + 4, Math.floor(cr2 / 0x1_0000_0000) >>> 0, true);
  }

  // Entries

  /**
   * Pushes a frame on the kernel's stack and goes to a handler. From the top down: SS, RSP, RFLAGS, CS with the saved
   * event mask in its upper half, RIP, the error code, R11, RCX.
   * @param error error code, or null for entries without one
   * @throws DomainCrash when there is no handler or no stack
   */
  bounce(handler: GuestVirtual, masks: boolean, error: number | null, what: string): void {
    if (handler === 0) throw new DomainCrash(`${what}, but the guest has no handler for it`);
    this.#prepareFrame(error === null ? FRAME_BYTES : FRAME_BYTES + 8);
    const { processor } = this;
    const fromKernel = this.kernelMode;
    const oldStack = processor.value(Register.rsp);
    const oldSelector = processor.selector(SegmentRegister.ss);
    const oldCode = processor.selector(SegmentRegister.cs);
    const oldRip = processor.rip;
    const masked = this.eventsMasked;
    const flags = (processor.flags & ~(Flag.iopl | Flag.interrupt)) | (masked ? 0 : Flag.interrupt) | Flag.reserved;
    let stack = this.#frameTop();
    this.#enterKernel();
    const code = (fromKernel ? oldCode & 0xfffc : oldCode & 0xffff) >>> 0;
    const { memory } = processor;
    let written = true;
    const push = (low: number, high: number) => {
      stack -= 8;
      written = written && memory.writeLong(stack as GuestVirtual, low, high);
    };
    const pushNumber = (value: number) => push(value >>> 0, Math.floor(value / 0x1_0000_0000) >>> 0);
    push(oldSelector, 0);
    push(oldStack >>> 0, Math.floor(oldStack / 0x1_0000_0000) >>> 0);
    push(flags >>> 0, 0);
    push(code, masked ? 1 : 0);
    pushNumber(oldRip);
    if (error !== null) push(error, 0);
    push(processor.low(Register.r11), processor.high(Register.r11));
    push(processor.low(Register.rcx), processor.high(Register.rcx));
    if (!written) {
      throw new DomainCrash(`${what}, but the kernel stack at 0x${(stack >>> 0).toString(16)} cannot be written`);
    }
    if (masks) this.eventsMasked = true;
    processor.setValue(Register.rsp, stack);
    this.enterFlatKernel();
    processor.flags =
      processor.flags & ~(Flag.alignmentCheck | Flag.virtual8086 | Flag.resume | Flag.nestedTask | Flag.trap);
    processor.rip = handler;
  }

  /** Where a frame is pushed. */
  #frameTop(): number {
    const stack = (this.kernelMode ? this.processor.value(Register.rsp) : this.kernelStack) as number;
    return stack - (((stack % 16) + 16) % 16);
  }

  /** Makes sure that the pages for a frame are there, before anything changes. @throws PageAbsent */
  #prepareFrame(bytes: number): void {
    const { memory } = this.processor;
    const top = this.#frameTop();
    memory.translate((top - bytes) as GuestVirtual, Access.write);
    memory.translate((top - 1) as GuestVirtual, Access.write);
  }

  /** Delivers an exception or a permitted software interrupt. RIP is what the frame shall hold. */
  deliverTrap(vector: number, error: number | null): void {
    const gate = this.traps[vector];
    const what = `exception ${vector}${error === null ? '' : ` (error code 0x${error.toString(16)})`}`;
    this.bounce(gate?.address ?? NOWHERE, ((gate?.flags ?? 0) & 4) !== 0, error, what);
  }

  /** Delivers a pending event when the guest takes events. */
  deliverEvent(): void {
    if (this.nmiPending && !this.inNmi) {
      const nmi = this.callbacks[CallbackType.nmi];
      const address = nmi && nmi.address !== 0 ? nmi.address : (this.traps[2]?.address ?? NOWHERE);
      if (address !== 0) {
        this.#prepareFrame(FRAME_BYTES);
        this.nmiPending = false;
        this.inNmi = true;
        this.bounce(address, false, null, 'an NMI');
        return;
      }
    }
    if (!this.eventPending || this.eventsMasked) return;
    const callback = this.callbacks[CallbackType.event];
    if (!callback || callback.address === 0) return;
    this.bounce(callback.address, true, null, 'an event');
  }

  /** SYSCALL from user mode. */
  deliverSyscall(next: GuestVirtual): boolean {
    const compatibility = this.processor.codeSize !== 64;
    const callback = this.callbacks[compatibility ? CallbackType.syscall32 : CallbackType.syscall];
    if (!callback || callback.address === 0) return false;
    this.#prepareFrame(FRAME_BYTES);
    const { processor } = this;
    const { flags } = processor;
    processor.setValue(Register.rcx, next);
    processor.set(Register.r11, flags >>> 0, 0);
    this.loadFlat(SegmentRegister.ss, FlatSelector.data);
    // The frame names the flat selectors, whatever the program ran with.
    this.loadFlat(SegmentRegister.cs, compatibility ? FlatSelector.user32Code : FlatSelector.code64);
    processor.rip = next;
    this.bounce(callback.address, callback.masks, null, 'a system call');
    processor.flags = processor.flags & ~Flag.direction;
    return true;
  }

  /** SYSENTER from user mode: the return address is the guest's own business. */
  deliverSysenter(): boolean {
    const callback = this.callbacks[CallbackType.sysenter];
    if (!callback || callback.address === 0) return false;
    this.#prepareFrame(FRAME_BYTES);
    const { processor } = this;
    this.loadFlat(SegmentRegister.ss, FlatSelector.data);
    this.loadFlat(SegmentRegister.cs, FlatSelector.code64);
    processor.setValue(Register.rsp, 0);
    processor.rip = NOWHERE;
    this.bounce(callback.address, callback.masks, null, 'SYSENTER');
    return true;
  }

  /** RFLAGS as a guest may load them. */
  permittedFlags(wanted: number): number {
    return (wanted & SETTABLE_FLAGS) | Flag.reserved | Flag.interrupt;
  }
}
