import { loadDataSegment } from '../../../cpu/data-segment.ts';
import { SegmentRegister } from '../../../cpu/decode/instruction.ts';
import { PagingError } from '../../../paging/direct/errors.ts';
import { type GuestVirtual, type Mfn, PAGE_SIZE } from '../../../x86/brand.ts';
import { Cr0, Flag, Register } from '../../../x86/registers.ts';
import { CallbackType, GUEST_GDT_ENTRIES } from '../abi.ts';
import { Errno } from '../errno.ts';
import { raisedSelector } from '../guest-abi.ts';
import { loadKernelsChoice } from '../kernel-returns.ts';
import { ABSENT } from '../structures.ts';
import type { XenVcpu } from '../vcpu.ts';
import { type Call, FAULT, INVALID, preemption, Special } from './call.ts';

/** VCPUOP_initialise: the state that a processor starts with when it is brought up (vcpu_guest_context, public/arch-x86/xen.h). */

const CONTEXT_IN_KERNEL = 4;
const FAILSAFE_MASKS = 8;
const SYSCALL_MASKS = 0x10;

const LDT_LIMIT = 8192;

export function initialise(call: Call, target: XenVcpu): number {
  if (target.initialised) return -Errno.EEXIST;
  const { abi } = call;
  const context = abi.structures.context;
  const view = call.view(call.value(2), context.size);
  if (!view) return FAULT;
  const ldtBase = call.longAt(view, context.ldtBase);
  const ldtEntries = view.getUint32(context.ldtEntries, true);
  if (ldtBase % PAGE_SIZE !== 0 || ldtEntries > LDT_LIMIT) return INVALID;
  const result = initialiseTables(call, target, view);
  if (result !== 0) return result;
  initialiseEntries(call, target, view);
  target.ldtBase = ldtBase as GuestVirtual;
  target.ldtEntries = ldtEntries;
  target.kernelStackSegment = raisedSelector(abi, view.getUint16(context.kernelSs, true));
  target.kernelStack = call.longAt(view, context.kernelSp) as GuestVirtual;
  initialiseRegisters(call, target, view);
  const { processor } = target;
  processor.cr0 = (processor.cr0 & ~Cr0.taskSwitched) >>> 0;
  target.initialised = true;
  return 0;
}

function initialiseTables({ abi, domain }: Call, target: XenVcpu, view: DataView): number {
  const { context } = abi.structures;
  const { paging } = domain;
  const entries = view.getUint32(context.gdtEntries, true);
  if (entries > GUEST_GDT_ENTRIES) return INVALID;
  const frames: Mfn[] = [];
  for (let index = 0; index < Math.ceil(entries / 512); index++) {
    frames.push(view.getUint32(context.gdtFrames + index * abi.longSize, true) as Mfn);
  }
  const loaded = preemption(paging.descriptors.setGdt(target.index, frames, entries));
  if (loaded !== 0) return loaded;
  target.gdtEntries = entries;
  const rootIn = (register: number) => {
    const at = context.controlRegisters + register * abi.longSize;
    return abi.rootOfCr3(view.getUint32(at, true), abi.longSize === 8 ? view.getUint32(at + 4, true) : 0);
  };
  // What was examined before a preemption is a table by then, and is not examined again.
  let result = paging.newBasePointer(target.index, rootIn(3));
  const userRoot = abi.bits === 64 ? rootIn(1) : 0;
  if (result === 0 && userRoot > 0) result = paging.newUserBasePointer(target.index, userRoot as Mfn);
  if (result !== 0) return result === PagingError.preempted ? Special.preempted : INVALID;
  target.useRoots();
  return 0;
}

/** Gates and callbacks. */
function initialiseEntries(call: Call, target: XenVcpu, view: DataView): void {
  const { abi } = call;
  const { context, trapInfo } = abi.structures;
  for (let vector = 0; vector < target.traps.length; vector++) {
    const gate = target.traps[vector];
    const offset = context.traps + vector * trapInfo.size;
    const address = call.longAt(view, offset + trapInfo.address);
    if (!gate || address === 0) continue;
    gate.flags = view.getUint8(offset + 1);
    gate.selector = raisedSelector(abi, view.getUint16(offset + 2, true));
    gate.address = address as GuestVirtual;
  }
  const flags = view.getUint32(context.flags, true);
  for (const [type, address, selector, masks] of [
    [CallbackType.event, context.eventAddress, context.eventSelector, 0],
    [CallbackType.failsafe, context.failsafeAddress, context.failsafeSelector, FAILSAFE_MASKS],
    [CallbackType.syscall, context.syscallAddress, ABSENT, SYSCALL_MASKS],
  ] as const) {
    const callback = target.callbacks[type];
    if (!callback || address === ABSENT) continue;
    callback.address = call.longAt(view, address) as GuestVirtual;
    callback.masks = (flags & masks) !== 0;
    if (selector !== ABSENT) callback.selector = raisedSelector(abi, view.getUint16(selector, true));
  }
}

function initialiseRegisters(call: Call, target: XenVcpu, view: DataView): void {
  const { abi } = call;
  const { context, userRegisters } = abi.structures;
  const { processor } = target;
  const base = context.registers;
  const set = (register: Register, at: number) =>
    processor.set(register, view.getUint32(at, true), abi.longSize === 8 ? view.getUint32(at + 4, true) : 0);
  for (const [position, register] of abi.userRegisters.entries()) set(register, base + position * abi.longSize);
  const selectorAt = (at: number) => view.getUint16(base + at, true);
  loadKernelsChoice(
    target,
    raisedSelector(abi, selectorAt(userRegisters.cs)),
    raisedSelector(abi, selectorAt(userRegisters.ss)),
  );
  set(Register.rsp, base + userRegisters.rsp);
  processor.rip = call.longAt(view, base + userRegisters.rip) as GuestVirtual;
  const flags = view.getUint32(base + userRegisters.flags, true);
  processor.flags = target.permittedFlags(flags);
  target.ioPrivilege = (flags & Flag.iopl) >> 12;
  if (abi.bits === 64) {
    processor.setSegmentBase(SegmentRegister.fs, call.longAt(view, context.fsBase) as GuestVirtual);
    processor.setSegmentBase(SegmentRegister.gs, call.longAt(view, context.gsBaseKernel) as GuestVirtual);
    target.inactiveGsBase = call.longAt(view, context.gsBaseUser) as GuestVirtual;
    if ((view.getUint32(context.flags, true) & CONTEXT_IN_KERNEL) === 0) target.enterUser();
    return;
  }
  if (processor.privilege === 3) target.enterUser();
  for (const [segment, at] of [
    [SegmentRegister.es, userRegisters.es],
    [SegmentRegister.ds, userRegisters.ds],
    [SegmentRegister.fs, userRegisters.fs],
    [SegmentRegister.gs, userRegisters.gs],
  ] as const) {
    // What cannot be loaded is null, as behind a return of the host's own.
    if (!loadDataSegment(processor, segment, selectorAt(at))) processor.loadSegment(segment, 0, null);
  }
}
