import type { Archive, Archived } from '../../archive/archive.ts';
import { SegmentRegister } from '../../cpu/decode/instruction.ts';
import { isCodeOfRing, isStackOfRing } from '../../cpu/descriptor.ts';
import { Access } from '../../cpu/exits.ts';
import type { Processor } from '../../cpu/processor.ts';
import type { Descriptor, DescriptorSource } from '../../cpu/processor-api.ts';
import { DomainCrash } from '../../domain/crash.ts';
import type { DirectPaging } from '../../paging/direct/direct-paging.ts';
import { type GuestVirtual, highWord, lowWord, PAGE_SIZE } from '../../x86/brand.ts';
import { Cr0, Cr4, Efer, Flag, Register, Vector } from '../../x86/registers.ts';
import { CallbackType, GUEST_GDT_ENTRIES } from './abi.ts';
import { EntryFrame } from './entry-frame.ts';
import type { GuestAbi } from './guest-abi.ts';
import { type SharedInfo, VcpuInfo } from './shared-info.ts';

/** One entry of the virtual IDT; address 0 is empty. */
export interface TrapGate {
  address: GuestVirtual;
  selector: number;
  /** Bits 1:0 the DPL for INT n, bit 2 masks events on entry. */
  flags: number;
}

export interface Callback {
  /** Of 32-bit kernels. */
  selector: number;
  address: GuestVirtual;
  /** Events are masked on entry. */
  masks: boolean;
}

const VECTORS = 256;
const NOWHERE = 0 as GuestVirtual;
const NO_GATE: Readonly<TrapGate> = { address: NOWHERE, selector: 0, flags: 0 };
/** Of a gate's flags. */
const GATE_MASKS = 4;

/** In the order in which the failsafe frame has them, from the top down. */
const DATA_SEGMENTS = [SegmentRegister.gs, SegmentRegister.fs, SegmentRegister.es, SegmentRegister.ds] as const;

/** Longs of a frame without error code and data segments: SS and stack, flags, CS, RIP, R11, RCX. */
const PLAIN_FRAME_LONGS = 7;

/** 64-bit kernels get their frames at multiples of this. */
const FRAME_ALIGNMENT = 16;

/** Where an entry leads. */
interface KernelEntry {
  readonly selector: number;
  readonly address: GuestVirtual;
}

const codeScratch: Descriptor = { low: 0, high: 0 };
const stackScratch: Descriptor = { low: 0, high: 0 };

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
  readonly abi: GuestAbi;
  readonly #frame: EntryFrame;
  /** VCPUOP_initialise was done (always for the first). */
  initialised = false;
  /** Stopped by VCPUOP_down, or never started. */
  down = true;
  blocked = false;
  /** Waits for a page that the host brings in. */
  awaitsHost = false;
  /** An exception stands in the processor's mailbox, because the page for its frame was absent. */
  exceptionWaits = false;
  kernelStackSegment: number;
  kernelStack = NOWHERE;
  /** The GS base that SWAPGS would bring: the user's in kernel mode, the kernel's in user mode. */
  inactiveGsBase = NOWHERE;
  traps: TrapGate[] = Array.from({ length: VECTORS }, () => ({ address: NOWHERE, selector: 0, flags: 0 }));
  callbacks: Callback[] = Array.from({ length: 8 }, () => ({ selector: 0, address: NOWHERE, masks: false }));
  gdtEntries = 0;
  ldtBase = NOWHERE;
  ldtEntries = 0;
  ioPrivilege = 0;
  readonly debugRegisters = new Uint32Array(16);
  nmiPending = false;
  inNmi = false;

  constructor(index: number, processor: Processor, paging: DirectPaging, shared: SharedInfo, abi: GuestAbi) {
    this.index = index;
    this.abi = abi;
    this.#frame = new EntryFrame(abi.longSize);
    this.kernelStackSegment = abi.kernelData;
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
    processor.efer =
      abi.bits === 64 ? Efer.syscall | Efer.longModeEnable | Efer.longModeActive | Efer.noExecute : Efer.noExecute;
    processor.flags = Flag.reserved | Flag.interrupt;
    this.debugRegisters[12] = 0xffff_0ff0;
    this.debugRegisters[14] = 0x400;
    this.#enterFlatKernel();
    if (abi.hasDataSegments) for (const segment of DATA_SEGMENTS) this.#loadFlat(segment, abi.kernelData);
  }

  archive(archive: Archive): void {
    archive.part('processor', this.processor);
    this.initialised = archive.value('initialised', this.initialised);
    this.down = archive.value('down', this.down);
    this.blocked = archive.value('blocked', this.blocked);
    this.exceptionWaits = archive.value('exceptionWaits', this.exceptionWaits);
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

  /** Nobody but the host is in long mode below a 32-bit guest. */
  get longMode(): boolean {
    return this.abi.bits === 64;
  }

  loadSegment(segment: SegmentRegister, selector: number, descriptor: Descriptor | null): void {
    this.processor.loadSegment(segment, selector, descriptor);
  }

  read(selector: number, out: Descriptor): boolean {
    const { memory } = this.#shared;
    if ((selector & 4) !== 0) return this.#readLocal(selector, out);
    const entry = selector >> 3;
    if (entry >= GUEST_GDT_ENTRIES) {
      const flat = this.abi.flatDescriptors[selector & ~7];
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

  /** Whether the kernel executes, and not one of its programs. */
  get kernelMode(): boolean {
    return !this.processor.userMode;
  }

  #enterFlatKernel(): void {
    this.#loadFlat(SegmentRegister.cs, this.abi.kernelCode);
    this.#loadFlat(SegmentRegister.ss, this.abi.kernelData);
  }

  #loadFlat(segment: SegmentRegister, selector: number): void {
    if (this.processor.selector(segment) === selector) return;
    // The host provides the descriptors of all its selectors.
    this.processor.loadSegment(segment, selector, this.abi.flatDescriptors[selector & ~7] as Descriptor);
  }

  /** Roots changed, or the mode: the processor walks what the paging holds for this vCPU. */
  useRoots(): void {
    const paging = this.#paging;
    const kernel = paging.walkedRoot(paging.root(this.index));
    const user = this.abi.bits === 64 ? paging.walkedRoot(paging.userRoot(this.index)) : kernel;
    this.processor.setRoots(kernel, user);
  }

  #changeMode(userMode: boolean): void {
    const { processor } = this;
    if (processor.userMode === userMode) return;
    if (this.abi.bits === 64) {
      const active = processor.segmentBase(SegmentRegister.gs);
      processor.setSegmentBase(SegmentRegister.gs, this.inactiveGsBase);
      this.inactiveGsBase = active;
    }
    processor.userMode = userMode;
  }

  /** @throws DomainCrash when a 64-bit guest has no user root */
  enterUser(): void {
    if (!this.kernelMode) return;
    if (this.abi.bits === 64 && this.#paging.userRoot(this.index) < 0) {
      throw new DomainCrash('return to user mode without a user page table');
    }
    this.#changeMode(true);
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
    const { cr2 } = this.processor;
    const { view } = this.#shared.memory;
    const address = info + this.#shared.layout.cr2;
    view.setUint32(address, lowWord(cr2), true);
    if (this.abi.longSize === 8) view.setUint32(address + 4, highWord(cr2), true);
  }

  // Entries

  /**
   * Pushes a frame on the kernel's stack and goes to a handler. From the top down: SS and stack pointer, flags, CS with
   * the saved event mask in its upper half, instruction pointer, and the error code; for the failsafe entry the data
   * segments. A 64-bit kernel finds R11 and RCX below; in a 32-bit one an entry from itself has no stack, as with an
   * interrupt gate.
   * @param error error code, or null for entries without one
   * @throws DomainCrash when there is no handler or no stack
   */
  #bounce(entry: KernelEntry, masks: boolean, error: number | null, what: string, isFailsafe = false): void {
    const { processor, abi } = this;
    if (entry.address === 0) throw new DomainCrash(`${what}, but the guest has no handler for it`);
    const isWide = abi.bits === 64;
    const fromKernel = this.kernelMode;
    if (!isWide) this.#findSegments(entry, fromKernel, what);
    const masked = this.eventsMasked;
    const flags = (processor.flags & ~(Flag.iopl | Flag.interrupt)) | (masked ? 0 : Flag.interrupt) | Flag.reserved;
    const code = processor.selector(SegmentRegister.cs);
    const frame = this.#frame;
    frame.begin();
    if (isWide || !fromKernel) {
      frame.push(processor.selector(SegmentRegister.ss), 0);
      frame.push(processor.low(Register.rsp), processor.high(Register.rsp));
    }
    frame.push(flags >>> 0, 0);
    if (isWide) frame.push(fromKernel ? code & ~3 : code, masked ? 1 : 0);
    else frame.push(code | (masked ? 0x1_0000 : 0), 0);
    frame.pushNumber(processor.rip);
    if (error !== null) frame.push(error, 0);
    if (isFailsafe) for (const segment of DATA_SEGMENTS) frame.push(processor.selector(segment), 0);
    if (isWide) {
      frame.push(processor.low(Register.r11), processor.high(Register.r11));
      frame.push(processor.low(Register.rcx), processor.high(Register.rcx));
    }
    const top = this.#frameTop();
    this.#prepareFrame(frame.bytes);
    this.#changeMode(false);
    if (!frame.writeBelow(top, processor)) {
      throw new DomainCrash(`${what}, but the kernel stack at 0x${(top >>> 0).toString(16)} cannot be written`);
    }
    if (masks) this.eventsMasked = true;
    processor.setValue(Register.rsp, top - frame.bytes);
    if (isWide) this.#enterFlatKernel();
    else this.#loadFoundSegments(entry, fromKernel);
    processor.flags =
      processor.flags & ~(Flag.alignmentCheck | Flag.virtual8086 | Flag.resume | Flag.nestedTask | Flag.trap);
    processor.rip = entry.address;
  }

  /** Looks up the kernel's own segments for an entry. @throws DomainCrash when it cannot run with them */
  #findSegments({ selector }: KernelEntry, fromKernel: boolean, what: string): void {
    const ring = this.abi.kernelRing;
    if (!this.read(selector, codeScratch) || !isCodeOfRing(codeScratch, ring)) {
      throw new DomainCrash(
        `${what}, but the selector 0x${selector.toString(16)} of its handler is no code of ring ${ring}`,
      );
    }
    if (fromKernel) return;
    const stack = this.kernelStackSegment;
    if (!this.read(stack, stackScratch) || !isStackOfRing(stackScratch, ring)) {
      throw new DomainCrash(`${what}, but the kernel's stack segment 0x${stack.toString(16)} is none of ring ${ring}`);
    }
  }

  #loadFoundSegments({ selector }: KernelEntry, fromKernel: boolean): void {
    this.processor.loadSegment(SegmentRegister.cs, selector, codeScratch);
    if (!fromKernel) this.processor.loadSegment(SegmentRegister.ss, this.kernelStackSegment, stackScratch);
  }

  /** Where a frame is pushed. */
  #frameTop(): number {
    const { processor } = this;
    return this.#align(this.kernelMode ? processor.value(Register.rsp) : this.kernelStack);
  }

  #align(stack: number): number {
    return this.abi.bits === 32 ? lowWord(stack) : Math.floor(stack / FRAME_ALIGNMENT) * FRAME_ALIGNMENT;
  }

  /** Makes sure that the pages for a frame are there, before anything changes. @throws PageAbsent */
  #prepareFrame(bytes = PLAIN_FRAME_LONGS * this.abi.longSize, top = this.#frameTop()): void {
    const { memory } = this.processor;
    memory.translate((top - bytes) as GuestVirtual, Access.write);
    memory.translate((top - 1) as GuestVirtual, Access.write);
  }

  /** Delivers an exception or a permitted software interrupt. RIP is what the frame shall hold. */
  deliverTrap(vector: number, error: number | null): void {
    const gate = this.traps[vector] ?? NO_GATE;
    const what = `exception ${vector}${error === null ? '' : ` (error code 0x${error.toString(16)})`}`;
    this.#bounce(gate, (gate.flags & GATE_MASKS) !== 0, error, what);
  }

  /** Delivers a pending event when the guest takes events. */
  deliverEvent(): void {
    if (this.nmiPending && !this.inNmi) {
      const callback = this.callbacks[CallbackType.nmi];
      const entry = callback && callback.address !== 0 ? callback : this.traps[Vector.nonMaskable];
      if (entry && entry.address !== 0) {
        this.#prepareFrame();
        this.nmiPending = false;
        this.inNmi = true;
        this.#bounce(entry, false, null, 'an NMI');
        return;
      }
    }
    if (!this.eventPending || this.eventsMasked) return;
    const callback = this.callbacks[CallbackType.event];
    if (!callback || callback.address === 0) return;
    this.#bounce(callback, true, null, 'an event');
  }

  /** SYSCALL from user mode. */
  deliverSyscall(next: GuestVirtual): boolean {
    const { abi } = this;
    // Outside 64-bit code of a 64-bit guest there is the instruction with some processors only, not with this one.
    if (abi.bits === 32) return false;
    const compatibility = this.processor.codeSize !== 64;
    const callback = this.callbacks[compatibility ? CallbackType.syscall32 : CallbackType.syscall];
    if (!callback || callback.address === 0) return false;
    this.#prepareFrame();
    const { processor } = this;
    const { flags } = processor;
    processor.setValue(Register.rcx, next);
    processor.set(Register.r11, flags >>> 0, 0);
    this.#loadFlat(SegmentRegister.ss, abi.userData);
    // The frame names the flat selectors, whatever the program ran with.
    this.#loadFlat(SegmentRegister.cs, compatibility ? abi.compatibilityCode : abi.userCode);
    processor.rip = next;
    this.#bounce(callback, callback.masks, null, 'a system call');
    processor.flags = processor.flags & ~Flag.direction;
    return true;
  }

  /** SYSENTER from user mode: the return address is the guest's own business. */
  deliverSysenter(): boolean {
    const callback = this.callbacks[CallbackType.sysenter];
    if (!callback || callback.address === 0) return false;
    this.#prepareFrame();
    const { processor } = this;
    this.#loadFlat(SegmentRegister.ss, this.abi.userData);
    this.#loadFlat(SegmentRegister.cs, this.abi.userCode);
    processor.setValue(Register.rsp, 0);
    processor.rip = NOWHERE;
    this.#bounce(callback, callback.masks, null, 'SYSENTER');
    return true;
  }

  /** Makes sure that `deliverFailsafe` will not have to wait. @throws PageAbsent */
  prepareFailsafe(): void {
    const bytes = (PLAIN_FRAME_LONGS + DATA_SEGMENTS.length) * this.abi.longSize;
    this.#prepareFrame(bytes, this.#align(this.kernelStack));
  }

  /**
   * A return to a program with selectors that cannot be loaded: the kernel is told, in a frame that is the program's.
   * The processor holds what the return named, and the selectors without descriptors.
   */
  deliverFailsafe(): void {
    const callback = this.callbacks[CallbackType.failsafe] as Callback; // always there;
    this.#bounce(callback, callback.masks, null, 'a return to selectors that cannot be loaded', true);
  }

  /** RFLAGS as a guest may load them. */
  permittedFlags(wanted: number): number {
    return (wanted & SETTABLE_FLAGS) | Flag.reserved | Flag.interrupt;
  }
}
