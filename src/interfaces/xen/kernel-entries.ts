import { SegmentRegister } from '../../cpu/decode/instruction.ts';
import { isCodeOfRing, isStackOfRing } from '../../cpu/descriptor.ts';
import { Access } from '../../cpu/exits.ts';
import type { Descriptor } from '../../cpu/processor-api.ts';
import { DomainCrash } from '../../domain/crash.ts';
import { type GuestVirtual, lowWord } from '../../x86/brand.ts';
import { Flag, Register, Vector } from '../../x86/registers.ts';
import { CallbackType } from './abi.ts';
import { EntryFrame } from './entry-frame.ts';
import type { Callback, TrapGate, XenVcpu } from './vcpu.ts';

/** Longs of a frame without error code and data segments: SS and stack, flags, CS, RIP, R11, RCX. */
const PLAIN_FRAME_LONGS = 7;

/** 64-bit kernels get their frames at multiples of this. */
const FRAME_ALIGNMENT = 16;

/** In the order in which the failsafe frame has them, from the top down. */
export const DATA_SEGMENTS = [SegmentRegister.gs, SegmentRegister.fs, SegmentRegister.es, SegmentRegister.ds] as const;

/** Where an entry leads. */
interface KernelEntry {
  readonly selector: number;
  readonly address: GuestVirtual;
}

/** Flags that a handler does not begin with. */
const LEFT_FLAGS = Flag.alignmentCheck | Flag.virtual8086 | Flag.resume | Flag.nestedTask | Flag.trap;

const NOWHERE = 0 as GuestVirtual;
const NO_GATE: Readonly<TrapGate> = { address: NOWHERE, selector: 0, flags: 0 };
/** Of a gate's flags. */
const GATE_MASKS = 4;

const codeScratch: Descriptor = { low: 0, high: 0 };
const stackScratch: Descriptor = { low: 0, high: 0 };

/** The ways into a guest's kernel: exceptions, events, system calls, and returns that fail. */
export class KernelEntries {
  readonly #vcpu: XenVcpu;
  readonly #frame: EntryFrame;

  constructor(vcpu: XenVcpu) {
    this.#vcpu = vcpu;
    this.#frame = new EntryFrame(vcpu.abi.longSize);
  }

  /**
   * Pushes a frame on the kernel's stack and goes to a handler. From the top down: SS and stack pointer, flags, CS with
   * the saved event mask in its upper half, instruction pointer, and the error code; for the failsafe entry the data
   * segments. A 64-bit kernel finds R11 and RCX below; in a 32-bit one an entry from itself has no stack, as with an
   * interrupt gate.
   * @param error error code, or null for entries without one
   * @throws DomainCrash when there is no handler or no stack
   */
  #bounce(entry: KernelEntry, masks: boolean, error: number | null, what: string, isFailsafe = false): void {
    const { processor, abi } = this.#vcpu;
    if (entry.address === 0) throw new DomainCrash(`${what}, but the guest has no handler for it`);
    const isWide = abi.bits === 64;
    const fromKernel = this.#vcpu.kernelMode;
    if (!isWide) this.#findSegments(entry, fromKernel, what);
    const masked = this.#vcpu.eventsMasked;
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
    this.#vcpu.changeMode(false);
    if (!frame.writeBelow(top, processor)) {
      throw new DomainCrash(`${what}, but the kernel stack at 0x${(top >>> 0).toString(16)} cannot be written`);
    }
    if (masks) this.#vcpu.eventsMasked = true;
    this.#go(entry, top, fromKernel);
  }

  /** Begins to execute a handler whose frame stands below `top`. */
  #go(entry: KernelEntry, top: number, fromKernel: boolean): void {
    const { processor, abi } = this.#vcpu;
    processor.setValue(Register.rsp, top - this.#frame.bytes);
    if (abi.bits === 64) this.#vcpu.enterFlatKernel();
    else this.#loadFoundSegments(entry, fromKernel);
    processor.flags = processor.flags & ~LEFT_FLAGS;
    processor.rip = entry.address;
  }

  /** Looks up the kernel's own segments for an entry. @throws DomainCrash when it cannot run with them */
  #findSegments({ selector }: KernelEntry, fromKernel: boolean, what: string): void {
    const ring = this.#vcpu.abi.kernelRing;
    if (!this.#vcpu.read(selector, codeScratch) || !isCodeOfRing(codeScratch, ring)) {
      throw new DomainCrash(
        `${what}, but the selector 0x${selector.toString(16)} of its handler is no code of ring ${ring}`,
      );
    }
    if (fromKernel) return;
    const stack = this.#vcpu.kernelStackSegment;
    if (!this.#vcpu.read(stack, stackScratch) || !isStackOfRing(stackScratch, ring)) {
      throw new DomainCrash(`${what}, but the kernel's stack segment 0x${stack.toString(16)} is none of ring ${ring}`);
    }
  }

  #loadFoundSegments({ selector }: KernelEntry, fromKernel: boolean): void {
    this.#vcpu.processor.loadSegment(SegmentRegister.cs, selector, codeScratch);
    if (!fromKernel) this.#vcpu.processor.loadSegment(SegmentRegister.ss, this.#vcpu.kernelStackSegment, stackScratch);
  }

  /** Where a frame is pushed. */
  #frameTop(): number {
    const { processor } = this.#vcpu;
    return this.#align(this.#vcpu.kernelMode ? processor.value(Register.rsp) : this.#vcpu.kernelStack);
  }

  #align(stack: number): number {
    return this.#vcpu.abi.bits === 32 ? lowWord(stack) : Math.floor(stack / FRAME_ALIGNMENT) * FRAME_ALIGNMENT;
  }

  /** Makes sure that the pages for a frame are there, before anything changes. @throws PageAbsent */
  #prepareFrame(bytes = PLAIN_FRAME_LONGS * this.#vcpu.abi.longSize, top = this.#frameTop()): void {
    const { memory } = this.#vcpu.processor;
    memory.translate((top - bytes) as GuestVirtual, Access.write);
    memory.translate((top - 1) as GuestVirtual, Access.write);
  }

  /** Delivers an exception or a permitted software interrupt. RIP is what the frame shall hold. */
  deliverTrap(vector: number, error: number | null): void {
    const gate = this.#vcpu.traps[vector] ?? NO_GATE;
    const what = `exception ${vector}${error === null ? '' : ` (error code 0x${error.toString(16)})`}`;
    this.#bounce(gate, (gate.flags & GATE_MASKS) !== 0, error, what);
  }

  /** Delivers a pending event when the guest takes events. */
  deliverEvent(): void {
    if (this.#vcpu.nmiPending && !this.#vcpu.inNmi) {
      const callback = this.#vcpu.callbacks[CallbackType.nmi];
      const entry = callback && callback.address !== 0 ? callback : this.#vcpu.traps[Vector.nonMaskable];
      if (entry && entry.address !== 0) {
        this.#prepareFrame();
        this.#vcpu.nmiPending = false;
        this.#vcpu.inNmi = true;
        this.#bounce(entry, false, null, 'an NMI');
        return;
      }
    }
    if (!this.#vcpu.eventPending || this.#vcpu.eventsMasked) return;
    const callback = this.#vcpu.callbacks[CallbackType.event];
    if (!callback || callback.address === 0) return;
    this.#bounce(callback, true, null, 'an event');
  }

  /** SYSCALL from user mode. */
  deliverSyscall(next: GuestVirtual): boolean {
    const { abi } = this.#vcpu;
    // Outside 64-bit code of a 64-bit guest there is the instruction with some processors only, not with this one.
    if (abi.bits === 32) return false;
    const compatibility = this.#vcpu.processor.codeSize !== 64;
    const callback = this.#vcpu.callbacks[compatibility ? CallbackType.syscall32 : CallbackType.syscall];
    if (!callback || callback.address === 0) return false;
    this.#prepareFrame();
    const { processor } = this.#vcpu;
    const { flags } = processor;
    processor.setValue(Register.rcx, next);
    processor.set(Register.r11, flags >>> 0, 0);
    this.#vcpu.loadFlat(SegmentRegister.ss, abi.userData);
    // The frame names the flat selectors, whatever the program ran with.
    this.#vcpu.loadFlat(SegmentRegister.cs, compatibility ? abi.compatibilityCode : abi.userCode);
    processor.rip = next;
    this.#bounce(callback, callback.masks, null, 'a system call');
    processor.flags = processor.flags & ~Flag.direction;
    return true;
  }

  /** SYSENTER from user mode: the return address is the guest's own business. */
  deliverSysenter(): boolean {
    const callback = this.#vcpu.callbacks[CallbackType.sysenter];
    if (!callback || callback.address === 0) return false;
    this.#prepareFrame();
    const { processor } = this.#vcpu;
    this.#vcpu.loadFlat(SegmentRegister.ss, this.#vcpu.abi.userData);
    this.#vcpu.loadFlat(SegmentRegister.cs, this.#vcpu.abi.userCode);
    processor.setValue(Register.rsp, 0);
    processor.rip = NOWHERE;
    this.#bounce(callback, callback.masks, null, 'SYSENTER');
    return true;
  }

  /** Makes sure that `deliverFailsafe` will not have to wait. @throws PageAbsent */
  prepareFailsafe(): void {
    const bytes = (PLAIN_FRAME_LONGS + DATA_SEGMENTS.length) * this.#vcpu.abi.longSize;
    this.#prepareFrame(bytes, this.#align(this.#vcpu.kernelStack));
  }

  /**
   * A return to a program with selectors that cannot be loaded: the kernel is told, in a frame that is the program's.
   * The processor holds what the return named, and the selectors without descriptors.
   */
  deliverFailsafe(): void {
    const callback = this.#vcpu.callbacks[CallbackType.failsafe] as Callback; // always there;
    this.#bounce(callback, callback.masks, null, 'a return to selectors that cannot be loaded', true);
  }

  /**
   * A 32-bit kernel returns to virtual-8086 mode, which a program can ask it for but no PV guest has: the first instruction
   * there faults, and its frame is the one that the kernel left by.
   * @param frame from EIP up to GS
   * @throws DomainCrash when there is no handler, PageAbsent before anything changes
   */
  deliverVirtual8086Fault(frame: Uint32Array): void {
    const vcpu = this.#vcpu;
    const { processor } = vcpu;
    const gate = vcpu.traps[Vector.generalProtection] ?? NO_GATE;
    const what = 'a return to virtual-8086 mode';
    if (gate.address === 0) throw new DomainCrash(`${what}, but the guest has no handler for what follows`);
    this.#findSegments(gate, false, what);
    this.#frame.begin();
    for (const word of frame.toReversed()) this.#frame.push(word, 0);
    this.#frame.push(0, 0);
    const top = this.#align(vcpu.kernelStack);
    this.#prepareFrame(this.#frame.bytes, top);
    if (!this.#frame.writeBelow(top, processor)) throw new DomainCrash(`${what} without a stack`);
    const [, , flags = 0] = frame;
    vcpu.eventsMasked = (flags & Flag.interrupt) === 0 || (gate.flags & GATE_MASKS) !== 0;
    this.#go(gate, top, false);
  }
}
