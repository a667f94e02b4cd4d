import { SegmentRegister } from '../../cpu/decode/instruction.ts';
import type { Descriptor } from '../../cpu/processor-api.ts';
import { DomainCrash } from '../../domain/crash.ts';
import { type GuestVirtual, joinSigned } from '../../x86/brand.ts';
import { Flag, Register } from '../../x86/registers.ts';
import { Errno } from './errno.ts';
import type { XenVcpu } from './vcpu.ts';

/** What operations of the cpu group do to one virtual processor: returns, segments, debug registers. */
const IRET_FRAME_BYTES = 72;

/** Words of the frame that the iret hypercall finds on the stack (iret_context, public/arch-x86/xen-x86_64.h). */
const enum IretFrame {
  rax = 0,
  r11 = 2,
  rcx = 4,
  flags = 6,
  rip = 8,
  cs = 10,
  rflags = 12,
  rsp = 14,
  ss = 16,
}
const IN_SYSCALL = 0x100;

/** Of a selector: it names a descriptor of the LDT. */
const IN_LDT = 4;

const descriptorScratch: Descriptor = { low: 0, high: 0 };
const frameScratch = new Uint32Array(IRET_FRAME_BYTES / 4);

/** Leaves an entry by the frame on the kernel's stack. @throws DomainCrash when it cannot be */
export function returnByFrame(vcpu: XenVcpu): void {
  const { processor } = vcpu;
  const stack = processor.value(Register.rsp) as GuestVirtual;
  const frame = frameScratch;
  if (!vcpu.readWords(stack, frame)) {
    throw new DomainCrash('the iret hypercall found no frame on the stack');
  }
  const cs = (frame[IretFrame.cs] as number) & 0xffff;
  const ss = (frame[IretFrame.ss] as number) & 0xffff;
  const rflags = frame[IretFrame.rflags] as number;
  touchDescriptors(vcpu, cs | 3, ss | 3);
  const inSyscall = ((frame[IretFrame.flags] as number) & IN_SYSCALL) !== 0;
  if ((cs & 3) === 3) vcpu.enterUser();
  loadReturnSegments(vcpu, cs | 3, ss | 3);
  processor.rip = joinSigned(frame[IretFrame.rip] as number, frame[IretFrame.rip + 1] as number) as GuestVirtual;
  processor.set(Register.rsp, frame[IretFrame.rsp] as number, frame[IretFrame.rsp + 1] as number);
  processor.flags = vcpu.permittedFlags(rflags);
  if (!inSyscall) {
    processor.set(Register.rcx, frame[IretFrame.rcx] as number, frame[IretFrame.rcx + 1] as number);
    processor.set(Register.r11, frame[IretFrame.r11] as number, frame[IretFrame.r11 + 1] as number);
  }
  processor.set(Register.rax, frame[IretFrame.rax] as number, frame[IretFrame.rax + 1] as number);
  vcpu.eventsMasked = (rflags & Flag.interrupt) === 0;
  vcpu.inNmi = false;
}

/** Brings LDT pages into use, before anything changes. @throws PageAbsent */
function touchDescriptors(vcpu: XenVcpu, ...selectors: readonly number[]): void {
  for (const selector of selectors) if ((selector & IN_LDT) !== 0) vcpu.read(selector, descriptorScratch);
}

/** CS and SS of a return. A selector that cannot be used crashes the domain: the guest's kernel chose it. */
export function loadReturnSegments(vcpu: XenVcpu, cs: number, ss: number): void {
  const { processor } = vcpu;
  touchDescriptors(vcpu, cs, ss);
  if (processor.selector(SegmentRegister.cs) !== cs) {
    const readable = vcpu.read(cs, descriptorScratch);
    const isCode = readable && (descriptorScratch.high & 0x9800) === 0x9800;
    if (!isCode) throw new DomainCrash(`return to code selector 0x${cs.toString(16)}, which is none`);
    processor.loadSegment(SegmentRegister.cs, cs, descriptorScratch);
  }
  if (processor.selector(SegmentRegister.ss) !== ss) {
    const usable = (ss & ~3) !== 0 && vcpu.read(ss, descriptorScratch) && (descriptorScratch.high & 0x9a00) === 0x9200;
    processor.loadSegment(SegmentRegister.ss, ss, usable ? descriptorScratch : null);
  }
}

/** Loads the GS selector; its base becomes the inactive one. A bad selector loads null. */
export function loadUserGs(vcpu: XenVcpu, selector: number): void {
  const { processor } = vcpu;
  const active = processor.segmentBase(SegmentRegister.gs);
  const descriptor = descriptorScratch;
  const usable = (selector & ~3) !== 0 && vcpu.read(selector, descriptor) && (descriptor.high & 0x9800) === 0x9000;
  processor.loadSegment(SegmentRegister.gs, usable ? selector | 3 : 0, usable ? descriptor : null);
  vcpu.inactiveGsBase = processor.segmentBase(SegmentRegister.gs);
  processor.setSegmentBase(SegmentRegister.gs, active);
}

/** Debug registers hold guest addresses only; DR7 may not ask for detection of their use. */
export function setDebugRegister(vcpu: XenVcpu, register: number, low: number, high: number): number {
  const { debugRegisters } = vcpu;
  if (register < 0 || register > 7) return -Errno.EINVAL;
  if (register < 4) {
    if (joinSigned(low, high) < 0) return -Errno.EPERM;
    debugRegisters[register * 2] = low;
    debugRegisters[register * 2 + 1] = high;
    return 0;
  }
  if (high !== 0) return -Errno.EPERM;
  const isStatus = register === 4 || register === 6;
  if (isStatus) {
    debugRegisters[12] = (low & 0xe00f) | 0xffff_0ff0;
    return 0;
  }
  if ((low & 0x2000) !== 0) return -Errno.EPERM;
  debugRegisters[14] = low | 0x400;
  return 0;
}

/** @param register 0–7; 4 and 5 are other names of 6 and 7 */
export function getDebugRegister(vcpu: XenVcpu, register: number, out: Uint32Array): void {
  const slot = register === 4 ? 6 : register === 5 ? 7 : register;
  out[0] = vcpu.debugRegisters[slot * 2] as number;
  out[1] = vcpu.debugRegisters[slot * 2 + 1] as number;
}
