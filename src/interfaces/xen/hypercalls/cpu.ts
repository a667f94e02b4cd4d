import { Access } from '../../../cpu/exits.ts';
import { SegmentRegister } from '../../../cpu/decode/instruction.ts';
import type { Descriptor } from '../../../cpu/processor-api.ts';
import { type GuestVirtual, isCanonical, joinSigned, type Mfn } from '../../../x86/brand.ts';
import { Cr0, Flag, Register } from '../../../x86/registers.ts';
import { GUEST_GDT_ENTRIES } from '../abi.ts';
import { Errno } from '../errno.ts';
import { DomainCrash } from '../vcpu.ts';
import { type Call, FAULT, type Handler, INVALID, longAt, NOT_IMPLEMENTED, Special } from './call.ts';

const TRAP_INFO_BYTES = 16;
const VECTORS = 256;

const setTrapTable: Handler = (call) => {
  const { traps } = call.vcpu;
  const list = call.value(0);
  if (list === 0) {
    for (const gate of traps) gate.address = 0 as GuestVirtual;
    return 0;
  }
  for (let index = 0; index < VECTORS; index++) {
    const view = call.view(list + index * TRAP_INFO_BYTES, TRAP_INFO_BYTES);
    if (!view) return FAULT;
    const address = longAt(view, 8);
    if (address === 0) return 0;
    if (!isCanonical(view.getUint32(12, true))) return INVALID;
    const gate = traps[view.getUint8(0)];
    if (!gate) return INVALID;
    gate.address = address as GuestVirtual;
    gate.flags = view.getUint8(1);
    gate.selector = view.getUint16(2, true) | 3;
  }
  return 0;
};

const setGdt: Handler = (call) => {
  const entries = call.value(1);
  if (entries < 0 || entries > GUEST_GDT_ENTRIES) return INVALID;
  const frames: Mfn[] = [];
  for (let index = 0; index < Math.ceil(entries / 512); index++) {
    const mfn = call.readLong(call.value(0) + index * 8);
    if (mfn === undefined) return FAULT;
    if (mfn < 0 || mfn > 0xffff_ffff) return INVALID;
    frames.push(mfn as Mfn);
  }
  const result = call.domain.paging.setGdt(call.vcpu.index, frames, entries);
  if (result === 0) call.vcpu.gdtEntries = entries;
  return result;
};

const stackSwitch: Handler = (call) => {
  call.vcpu.kernelStackSegment = (call.low[0] as number) | 3;
  call.vcpu.kernelStack = call.address(1);
  return 0;
};

const setCallbacks: Handler = (call) => {
  for (let type = 0; type < 3; type++) {
    if (!isCanonical(call.high[type] as number)) return INVALID;
  }
  for (let type = 0; type < 3; type++) {
    const callback = call.vcpu.callbacks[type];
    if (callback) callback.address = call.address(type);
  }
  return 0;
};

const CALLBACK_TYPES = new Set([0, 1, 2, 4, 5, 7]);

const callbackOperation: Handler = (call) => {
  const command = call.low[0] as number;
  if (command !== 0 && command !== 1) return NOT_IMPLEMENTED;
  const view = call.view(call.value(1), 16);
  if (!view) return FAULT;
  const type = view.getUint16(0, true);
  const callback = call.vcpu.callbacks[type];
  if (!CALLBACK_TYPES.has(type) || !callback) return NOT_IMPLEMENTED;
  if (command === 1) {
    // The event and failsafe entries cannot be taken back.
    if (type < 2) return INVALID;
    callback.address = 0 as GuestVirtual;
    return 0;
  }
  if (!isCanonical(view.getUint32(12, true))) return INVALID;
  callback.address = longAt(view, 8) as GuestVirtual;
  callback.masks = (view.getUint16(2, true) & 1) !== 0;
  return 0;
};

const fpuTaskSwitch: Handler = (call) => {
  const { processor } = call.vcpu;
  const set = (call.low[0] as number) !== 0;
  processor.cr0 = (set ? processor.cr0 | Cr0.taskSwitched : processor.cr0 & ~Cr0.taskSwitched) >>> 0;
  return 0;
};

/** Debug registers hold guest addresses only; DR7 may not ask for detection of their use. */
export function setDebugRegister(call: Call | { vcpu: Call['vcpu'] }, register: number, low: number, high: number): number {
  const { debugRegisters } = call.vcpu;
  if (register > 7) return INVALID;
  if (register < 4) {
    const address = joinSigned(low, high);
    if (address < 0) return -Errno.EPERM;
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

const setDebug: Handler = (call) => setDebugRegister(call, call.value(0), call.low[1] as number, call.high[1] as number);

const getDebug: Handler = (call) => {
  const register = call.value(0);
  if (register < 0 || register > 7) return INVALID;
  const slot = register === 4 ? 6 : register === 5 ? 7 : register;
  return joinSigned(call.vcpu.debugRegisters[slot * 2] as number, call.vcpu.debugRegisters[slot * 2 + 1] as number);
};

const updateDescriptor: Handler = (call) =>
  call.domain.paging.updateDescriptor(
    call.low[0] as number,
    call.high[0] as number,
    call.low[1] as number,
    call.high[1] as number,
  );

const enum SegmentBase {
  fs = 0,
  gsUser = 1,
  gsKernel = 2,
  gsUserSelector = 3,
}

const setSegmentBase: Handler = (call) => {
  const { vcpu } = call;
  const { processor } = vcpu;
  const which = call.low[0] as number;
  if (which !== SegmentBase.gsUserSelector && !isCanonical(call.high[1] as number)) return INVALID;
  const base = call.address(1);
  switch (which) {
    case SegmentBase.fs:
      processor.setSegmentBase(SegmentRegister.fs, base);
      return 0;
    case SegmentBase.gsUser:
      vcpu.inactiveGsBase = base;
      return 0;
    case SegmentBase.gsKernel:
      processor.setSegmentBase(SegmentRegister.gs, base);
      return 0;
    case SegmentBase.gsUserSelector:
      loadUserGs(call, (call.low[1] as number) & 0xffff);
      return 0;
    default:
      return INVALID;
  }
};

/** Loads the GS selector; its base becomes the inactive one. A bad selector loads null. */
function loadUserGs(call: Call, selector: number): void {
  const { vcpu } = call;
  const { processor } = vcpu;
  const active = processor.segmentBase(SegmentRegister.gs);
  const descriptor: Descriptor = { low: 0, high: 0 };
  const usable =
    (selector & ~3) !== 0 && vcpu.read(selector, descriptor) && (descriptor.high & 0x9800) === 0x9000;
  processor.loadSegment(SegmentRegister.gs, usable ? selector | 3 : 0, usable ? descriptor : null);
  vcpu.inactiveGsBase = processor.segmentBase(SegmentRegister.gs);
  processor.setSegmentBase(SegmentRegister.gs, active);
}

const IRET_FRAME_BYTES = 72;

/** Words of the frame that the iret hypercall finds on the stack [§5.4]. */
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

const descriptorScratch: Descriptor = { low: 0, high: 0 };
const frameScratch = new Uint32Array(IRET_FRAME_BYTES / 4);

const iret: Handler = (call) => {
  const { vcpu, domain } = call;
  const { processor } = vcpu;
  const stack = processor.value(Register.rsp);
  const { u32 } = domain.memory;
  const frame = frameScratch;
  const pointer = call.pointer(stack, IRET_FRAME_BYTES, Access.read);
  if (pointer >= 0 && (pointer & 3) === 0) {
    for (let word = 0; word < frame.length; word++) frame[word] = u32[(pointer >> 2) + word] as number;
  } else {
    const view = call.view(stack, IRET_FRAME_BYTES);
    if (!view) throw new DomainCrash('the iret hypercall found no frame on the stack');
    for (let word = 0; word < frame.length; word++) frame[word] = view.getUint32(word * 4, true);
  }
  const cs = (frame[IretFrame.cs] as number) & 0xffff;
  const ss = (frame[IretFrame.ss] as number) & 0xffff;
  const rflags = frame[IretFrame.rflags] as number;
  const inSyscall = ((frame[IretFrame.flags] as number) & IN_SYSCALL) !== 0;
  if ((cs & 3) === 3) vcpu.enterUser();
  loadReturnSegments(call, cs | 3, ss | 3);
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
  return Special.noResult;
};

/** CS and SS of a return. A selector that cannot be used crashes the domain: the guest's kernel chose it. */
export function loadReturnSegments(call: { vcpu: Call['vcpu'] }, cs: number, ss: number): void {
  const { vcpu } = call;
  const { processor } = vcpu;
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

export const CPU_HYPERCALLS: readonly (readonly [number, Handler])[] = [
  [0, setTrapTable],
  [2, setGdt],
  [3, stackSwitch],
  [4, setCallbacks],
  [5, fpuTaskSwitch],
  [8, setDebug],
  [9, getDebug],
  [10, updateDescriptor],
  [23, iret],
  [25, setSegmentBase],
  [30, callbackOperation],
];
