import { SegmentRegister } from '../../cpu/decode/instruction.ts';
import { isCode, isCodeOfRing, isPresent, isStackOfRing } from '../../cpu/descriptor.ts';
import type { Descriptor } from '../../cpu/processor-api.ts';
import { DomainCrash } from '../../domain/crash.ts';
import { type GuestVirtual, joinSigned } from '../../x86/brand.ts';
import { Flag, Register } from '../../x86/registers.ts';
import type { XenVcpu } from './vcpu.ts';

/** The iret hypercall: how a kernel leaves an entry (iret_context, public/arch-x86/xen-x86_64.h and xen-x86_32.h). */

/** Words of the frame of a 64-bit kernel. */
const enum WideFrame {
  rax = 0,
  r11 = 2,
  rcx = 4,
  flags = 6,
  rip = 8,
  cs = 10,
  rflags = 12,
  rsp = 14,
  ss = 16,
  size = 18,
}
const IN_SYSCALL = 0x100;

/** Words of the frame of a 32-bit kernel; the stack follows when the return is to a program. */
const enum NarrowFrame {
  eax = 0,
  eip = 1,
  cs = 2,
  eflags = 3,
  esp = 4,
  ss = 5,
  size = 6,
  /** Of virtual-8086 mode: ES, DS, FS and GS follow. */
  virtual8086Size = 10,
}

const wideScratch = new Uint32Array(WideFrame.size);
const narrowScratch = new Uint32Array(NarrowFrame.size);
const narrowKernelPart = narrowScratch.subarray(0, NarrowFrame.esp);
const narrowStackPart = narrowScratch.subarray(NarrowFrame.esp);

/** Leaves an entry by the frame on the kernel's stack. @throws DomainCrash when it cannot be */
export function returnByFrame(vcpu: XenVcpu): void {
  const isTaken = vcpu.abi.bits === 64 ? returnByWideFrame(vcpu) : returnByNarrowFrame(vcpu);
  vcpu.inNmi = false;
  if (!isTaken) vcpu.entries.deliverFailsafe();
}

/** @returns whether the program's selectors could be loaded */
function returnByWideFrame(vcpu: XenVcpu): boolean {
  const { processor } = vcpu;
  const frame = wideScratch;
  readFrame(vcpu, processor.value(Register.rsp) as GuestVirtual, frame);
  const [cs = 0, ss = 0, rflags = 0] = [frame[WideFrame.cs], frame[WideFrame.ss], frame[WideFrame.rflags]];
  const isToProgram = (cs & 3) === 3;
  const isTaken = isReturnTaken(vcpu, (cs & 0xffff) | 3, (ss & 0xffff) | 3, isToProgram);
  const inSyscall = ((frame[WideFrame.flags] as number) & IN_SYSCALL) !== 0;
  const put = (register: Register, word: WideFrame) =>
    processor.set(register, frame[word] as number, frame[word + 1] as number);
  if (isToProgram) vcpu.enterUser();
  loadReturnSegments(vcpu, (cs & 0xffff) | 3, (ss & 0xffff) | 3, isTaken);
  processor.rip = joinSigned(frame[WideFrame.rip] as number, frame[WideFrame.rip + 1] as number) as GuestVirtual;
  put(Register.rsp, WideFrame.rsp);
  processor.flags = vcpu.permittedFlags(rflags);
  if (!inSyscall) {
    put(Register.rcx, WideFrame.rcx);
    put(Register.r11, WideFrame.r11);
  }
  put(Register.rax, WideFrame.rax);
  vcpu.eventsMasked = (rflags & Flag.interrupt) === 0;
  return isTaken;
}

/** As above; a return within ring 1 keeps the stack. */
function returnByNarrowFrame(vcpu: XenVcpu): boolean {
  const { processor } = vcpu;
  const stack = processor.low(Register.rsp);
  const frame = narrowScratch;
  readFrame(vcpu, stack as GuestVirtual, narrowKernelPart);
  const [cs = 0, eflags = 0] = [(frame[NarrowFrame.cs] as number) & 0xffff, frame[NarrowFrame.eflags]];
  const ring = cs & 3;
  if ((eflags & Flag.virtual8086) !== 0) {
    refuseVirtual8086(vcpu, stack as GuestVirtual);
    return true;
  }
  if (ring !== 1 && ring !== 3) throw new DomainCrash(`return to ring ${ring}`);
  const above = (stack + NarrowFrame.esp * 4) as GuestVirtual;
  if (ring === 3) readFrame(vcpu, above, narrowStackPart);
  const ss = ring === 3 ? (frame[NarrowFrame.ss] as number) & 0xffff : processor.selector(SegmentRegister.ss);
  const isTaken = isReturnTaken(vcpu, cs, ss, ring === 3);
  if (ring === 3) vcpu.enterUser();
  loadReturnSegments(vcpu, cs, ss, isTaken);
  processor.rip = frame[NarrowFrame.eip] as GuestVirtual;
  processor.set(Register.rsp, ring === 3 ? (frame[NarrowFrame.esp] as number) : above, 0);
  processor.flags = vcpu.permittedFlags(eflags);
  processor.set(Register.rax, frame[NarrowFrame.eax] as number, 0);
  vcpu.eventsMasked = (eflags & Flag.interrupt) === 0;
  return isTaken;
}

function refuseVirtual8086(vcpu: XenVcpu, stack: GuestVirtual): void {
  const frame = new Uint32Array(NarrowFrame.virtual8086Size);
  readFrame(vcpu, stack, frame);
  vcpu.entries.deliverVirtual8086Fault(frame.subarray(NarrowFrame.eip));
  vcpu.processor.set(Register.rax, frame[NarrowFrame.eax] as number, 0);
}

/** @throws DomainCrash when there is no frame, PageAbsent */
function readFrame(vcpu: XenVcpu, address: GuestVirtual, out: Uint32Array): void {
  if (!vcpu.readWords(address, out)) throw new DomainCrash('the iret hypercall found no frame on the stack');
}

/**
 * Whether a return can be carried out as it is; if not, what the kernel is told it by is ready. Nothing has changed yet.
 * @throws DomainCrash when the kernel itself cannot go on, PageAbsent
 */
function isReturnTaken(vcpu: XenVcpu, cs: number, ss: number, isToProgram: boolean): boolean {
  if (findReturnSegments(vcpu, cs, ss)) return true;
  if (!isToProgram) refuse(cs);
  vcpu.entries.prepareFailsafe();
  return false;
}

function refuse(cs: number): never {
  throw new DomainCrash(`return to code selector 0x${cs.toString(16)}, which is none`);
}

const codeScratch: Descriptor = { low: 0, high: 0 };
/** Not present when SS is to be null. */
const stackScratch: Descriptor = { low: 0, high: 0 };

/** Looks up what a return is to load, for the ring of `cs`; whether it can be. @throws PageAbsent */
function findReturnSegments(vcpu: XenVcpu, cs: number, ss: number): boolean {
  const ring = cs & 3;
  const hasStack = (ss & ~3) !== 0 && vcpu.read(ss, stackScratch) && isStackOfRing(stackScratch, ring);
  if (!hasStack) stackScratch.high = 0;
  if (!vcpu.read(cs, codeScratch)) return false;
  // A 64-bit kernel may have its code segments conforming or not, and needs no stack segment.
  return vcpu.abi.bits === 64
    ? isPresent(codeScratch) && isCode(codeScratch)
    : hasStack && isCodeOfRing(codeScratch, ring);
}

/** What was found, or only the selectors, for the frame that tells of them. */
function loadReturnSegments({ processor }: XenVcpu, cs: number, ss: number, isFound: boolean): void {
  processor.loadSegment(SegmentRegister.cs, cs, isFound ? codeScratch : null);
  processor.loadSegment(SegmentRegister.ss, ss, isFound && isPresent(stackScratch) ? stackScratch : null);
}

/** CS and SS that a kernel gives a processor by other means. @throws DomainCrash when CS cannot be used, PageAbsent */
export function loadKernelsChoice(vcpu: XenVcpu, cs: number, ss: number): void {
  if (!findReturnSegments(vcpu, cs, ss)) refuse(cs);
  loadReturnSegments(vcpu, cs, ss, true);
}
