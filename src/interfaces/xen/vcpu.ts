import type { Archive, Archived } from '../../archive/archive.ts';
import { SegmentRegister } from '../../cpu/decode/instruction.ts';
import { DescriptorBit } from '../../cpu/descriptor.ts';
import { Access } from '../../cpu/exits.ts';
import type { Processor } from '../../cpu/processor.ts';
import type { Descriptor, DescriptorSource } from '../../cpu/processor-api.ts';
import { DomainCrash } from '../../domain/crash.ts';
import { PageAbsent } from '../../memory/page-absent.ts';
import type { DomainPaging } from '../../paging/domain-paging.ts';
import { type GuestVirtual, highWord, lowWord, type Mfn, PAGE_SIZE } from '../../x86/brand.ts';
import { Cr0, Cr4, Efer, Flag } from '../../x86/registers.ts';
import type { GuestAbi } from './guest-abi.ts';
import { DATA_SEGMENTS, KernelEntries } from './kernel-entries.ts';
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

/** Of a selector: it names a descriptor of the LDT. */
const IN_LDT = 4;
const DESCRIPTORS_OF_PAGE = PAGE_SIZE / 8;
const NO_PAGE = -1 as Mfn;

const scratch: Descriptor = { low: 0, high: 0 };

const VECTORS = 256;
const NOWHERE = 0 as GuestVirtual;

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
  readonly #paging: DomainPaging;
  readonly #shared: SharedInfo;
  readonly abi: GuestAbi;
  readonly entries: KernelEntries;
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

  constructor(index: number, processor: Processor, paging: DomainPaging, shared: SharedInfo, abi: GuestAbi) {
    this.index = index;
    this.abi = abi;
    this.entries = new KernelEntries(this);
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
    this.enterFlatKernel();
    if (abi.hasDataSegments) for (const segment of DATA_SEGMENTS) this.loadFlat(segment, abi.kernelData);
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
    const flat = this.#flatDescriptor(selector);
    if (flat) {
      out.low = flat.low;
      out.high = flat.high;
      return true;
    }
    const mfn = this.#pageOf(selector);
    const address = mfn < 0 ? mfn : this.#shared.pages.space.addressOf(mfn);
    if (address < 0) return false;
    const word = (address >>> 2) + this.#indexOf(selector) * 2;
    const { u32 } = this.#shared.memory;
    const high = this.#paging.descriptors.asLoaded(u32[word + 1] as number);
    if (high < 0) return false;
    out.low = u32[word] as number;
    out.high = high;
    return true;
  }

  /**
   * A data segment was loaded: its descriptor is marked as accessed, so that generated code loads it from here on. Where the
   * page is not the guest's alone at present it stays as it is, since what was loaded is loaded.
   */
  markAccessed(selector: number): void {
    if ((selector & ~3) === 0 || this.#flatDescriptor(selector) || !this.read(selector, scratch)) return;
    if ((scratch.high & DescriptorBit.accessed) !== 0) return;
    try {
      const high = (scratch.high | DescriptorBit.accessed) >>> 0;
      this.#paging.entries.store(this.#pageOf(selector), this.#indexOf(selector), scratch.low, high);
    } catch (absent) {
      if (!(absent instanceof PageAbsent)) throw absent;
    }
  }

  #flatDescriptor(selector: number): Readonly<Descriptor> | undefined {
    return (selector & IN_LDT) === 0 ? this.abi.flatDescriptors[selector & ~7] : undefined;
  }

  /** The page that a descriptor of the guest's is in, or −1. LDT pages are validated when they are first used. */
  #pageOf(selector: number): Mfn {
    const entry = selector >> 3;
    const { descriptors, entries } = this.#paging;
    if ((selector & IN_LDT) === 0) {
      const frame = entry < this.gdtEntries ? descriptors.gdtFrames(this.index)[entry >> 9] : undefined;
      return frame ?? NO_PAGE;
    }
    if (entry >= this.ldtEntries) return NO_PAGE;
    const mfn = entries.frameNumberAt(this.#paging.root(this.index), (this.ldtBase + entry * 8) as GuestVirtual);
    return mfn < 0 || descriptors.holdLdtFrame(mfn) !== 0 ? NO_PAGE : mfn;
  }

  /** Tables begin with a page. */
  #indexOf(selector: number): number {
    return (selector >> 3) % DESCRIPTORS_OF_PAGE;
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

  enterFlatKernel(): void {
    this.loadFlat(SegmentRegister.cs, this.abi.kernelCode);
    this.loadFlat(SegmentRegister.ss, this.abi.kernelData);
  }

  loadFlat(segment: SegmentRegister, selector: number): void {
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

  /** Changes between the kernel and its programs. */
  changeMode(userMode: boolean): void {
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
    this.changeMode(true);
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
    if (info >= 0) this.#shared.pages.storeByte(info + VcpuInfo.upcallMask, masked ? 1 : 0);
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
    this.#shared.pages.written(address, this.abi.longSize);
  }

  /** RFLAGS as a guest may load them. */
  permittedFlags(wanted: number): number {
    return (wanted & SETTABLE_FLAGS) | Flag.reserved | Flag.interrupt;
  }
}
