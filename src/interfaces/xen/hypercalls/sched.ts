import { SegmentRegister } from '../../../cpu/decode/instruction.ts';
import { PagingError } from '../../../paging/direct/errors.ts';
import { type GuestVirtual, type Mfn, PAGE_SIZE } from '../../../x86/brand.ts';
import { Cr0, Flag, Register } from '../../../x86/registers.ts';
import { GUEST_GDT_ENTRIES, ShutdownReason } from '../abi.ts';
import { Errno } from '../errno.ts';
import { POLL_PORTS_LIMIT } from '../event-channels.ts';
import { loadReturnSegments } from '../kernel-state.ts';
import type { XenVcpu } from '../vcpu.ts';
import { type Call, FAULT, type Handler, INVALID, longAt, NOT_IMPLEMENTED, Special } from './call.ts';

const enum Sched {
  yield = 0,
  block = 1,
  shutdown = 2,
  poll = 3,
  shutdownCode = 5,
  watchdog = 6,
  pinOverride = 7,
}

const schedOperation: Handler = (call) => {
  const { domain, vcpu } = call;
  switch (call.low[0] as Sched) {
    case Sched.yield:
      domain.yield();
      return 0;
    case Sched.block:
      domain.operations.irq.safeHalt(vcpu.index);
      return 0;
    case Sched.shutdown: {
      const view = call.view(call.value(1), 4);
      if (!view) return FAULT;
      const reason = view.getUint32(0, true);
      if (reason > ShutdownReason.softReset) return INVALID;
      if (reason === ShutdownReason.suspend) return 1;
      domain.shutdown(reason);
      return Special.noResult;
    }
    case Sched.poll:
      return poll(call);
    case Sched.shutdownCode: {
      const view = call.view(call.value(1), 4);
      if (!view) return FAULT;
      domain.shutdownCode = view.getUint32(0, true);
      return 0;
    }
    case Sched.watchdog:
      return watchdog(call);
    case Sched.pinOverride:
      return -Errno.EPERM;
    default:
      return NOT_IMPLEMENTED;
  }
};

function poll(call: Call): number {
  const { domain, vcpu } = call;
  const view = call.view(call.value(1), 24);
  if (!view) return FAULT;
  const count = view.getUint32(8, true);
  if (count > POLL_PORTS_LIMIT) return INVALID;
  const list = call.view(longAt(view, 0), count * 4);
  if (!list) return FAULT;
  const ports: number[] = [];
  for (let index = 0; index < count; index++) ports.push(list.getUint32(index * 4, true));
  const result = domain.events.poll(vcpu.index, ports, longAt(view, 16));
  if (result === 0 && domain.events.isPolling(vcpu.index)) domain.block(vcpu);
  return result;
}

const WATCHDOGS = 2;

function watchdog(call: Call): number {
  const view = call.view(call.value(1), 8);
  if (!view) return FAULT;
  const id = view.getUint32(0, true);
  const seconds = view.getUint32(4, true);
  const { watchdogs, clock } = call.domain;
  if (id > WATCHDOGS) return INVALID;
  if (id === 0) {
    if (seconds === 0) return INVALID;
    const free = watchdogs.indexOf(Number.POSITIVE_INFINITY);
    if (free < 0) return -Errno.ENOSPC;
    watchdogs[free] = clock.now() + seconds * 1e9;
    return free + 1;
  }
  watchdogs[id - 1] = seconds === 0 ? Number.POSITIVE_INFINITY : clock.now() + seconds * 1e9;
  return 0;
}

const enum VcpuOperation {
  initialise = 0,
  up = 1,
  down = 2,
  isUp = 3,
  runstateInfo = 4,
  registerRunstateArea = 5,
  setPeriodic = 6,
  stopPeriodic = 7,
  setSingleShot = 8,
  stopSingleShot = 9,
  registerVcpuInfo = 10,
  sendNmi = 11,
  physicalId = 12,
  registerTimeArea = 13,
}

/** Asks for −ETIME when the deadline has passed. */
const SINGLE_SHOT_FUTURE = 1;

const vcpuOperation: Handler = (call) => {
  const { domain } = call;
  const { timers, clock } = domain;
  const target = domain.vcpus[call.low[1] as number];
  if (!target) return -Errno.ENOENT;
  const { index } = target;
  const argument = call.value(2);
  switch (call.low[0] as VcpuOperation) {
    case VcpuOperation.initialise:
      return initialise(call, target);
    case VcpuOperation.up:
      if (!target.initialised) return INVALID;
      domain.bringUp(target);
      return 0;
    case VcpuOperation.down:
      domain.operations.irq.halt(index);
      return 0;
    case VcpuOperation.isUp:
      return target.down ? 0 : 1;
    case VcpuOperation.runstateInfo:
      return call.write(argument, domain.runstates.info(index, clock.now())) ? 0 : FAULT;
    case VcpuOperation.registerRunstateArea: {
      const area = call.readLong(argument);
      // A processor that is still to be brought up has no tables of its own: the caller's say where the area is.
      return area === undefined
        ? FAULT
        : domain.runstates.register(index, area as GuestVirtual, call.vcpu.processor.memory);
    }
    case VcpuOperation.setPeriodic: {
      const period = call.readLong(argument);
      return period === undefined ? FAULT : timers.setPeriodic(index, period, clock.now());
    }
    case VcpuOperation.stopPeriodic:
      return timers.stopPeriodic(index);
    case VcpuOperation.setSingleShot: {
      if (target !== call.vcpu) return INVALID;
      const view = call.view(argument, 16);
      if (!view) return FAULT;
      const deadline = longAt(view, 0);
      if ((view.getUint32(8, true) & SINGLE_SHOT_FUTURE) !== 0 && deadline < clock.now()) return -Errno.ETIME;
      return timers.setSingleShot(index, deadline);
    }
    case VcpuOperation.stopSingleShot:
      return target === call.vcpu ? timers.stopSingleShot(index) : INVALID;
    case VcpuOperation.registerVcpuInfo:
      return registerVcpuInfo(call, target);
    case VcpuOperation.sendNmi:
      target.nmiPending = true;
      domain.wake(index);
      return 0;
    case VcpuOperation.physicalId:
      return INVALID;
    case VcpuOperation.registerTimeArea: {
      const area = call.readLong(argument);
      if (area === undefined) return FAULT;
      return domain.writeTimeArea(area as GuestVirtual, call.vcpu) ? 0 : FAULT;
    }
    default:
      return NOT_IMPLEMENTED;
  }
};

function registerVcpuInfo(call: Call, target: XenVcpu): number {
  const view = call.view(call.value(2), 16);
  if (!view) return FAULT;
  if (view.getUint32(4, true) !== 0) return INVALID;
  const mfn = view.getUint32(0, true) as Mfn;
  const { domain } = call;
  const held = domain.paging.holdWritable(mfn);
  if (held !== 0) return INVALID;
  const result = domain.shared.registerVcpuInfo(target.index, mfn, view.getUint32(8, true));
  if (result !== 0) domain.paging.dropWritable(mfn);
  return result;
}

/** Offsets of vcpu_guest_context for 64-bit guests (public/arch-x86/xen.h). */
const enum Context {
  flags = 0x200,
  registers = 0x208,
  traps = 0x2d0,
  ldtBase = 0x12d0,
  ldtEntries = 0x12d8,
  gdtFrames = 0x12e0,
  gdtEntries = 0x1360,
  kernelSs = 0x1368,
  kernelSp = 0x1370,
  controlRegisters = 0x1378,
  eventCallback = 0x13f8,
  failsafeCallback = 0x1400,
  syscallCallback = 0x1408,
  fsBase = 0x1418,
  gsBaseKernel = 0x1420,
  gsBaseUser = 0x1428,
  size = 0x1430,
}

const CONTEXT_IN_KERNEL = 4;
const CONTEXT_SYSCALL_MASKS = 0x10;

/** cpu_user_regs: the general registers by offset in longs. */
const USER_REGISTERS = [
  Register.r15,
  Register.r14,
  Register.r13,
  Register.r12,
  Register.rbp,
  Register.rbx,
  Register.r11,
  Register.r10,
  Register.r9,
  Register.r8,
  Register.rax,
  Register.rcx,
  Register.rdx,
  Register.rsi,
  Register.rdi,
] as const;
const USER_RIP = 0x80;
const USER_CS = 0x88;
const USER_FLAGS = 0x90;
const USER_RSP = 0x98;
const USER_SS = 0xa0;

/** VCPUOP_initialise: the state that a processor starts with when it is brought up. */
function initialise(call: Call, target: XenVcpu): number {
  if (target.initialised) return -Errno.EEXIST;
  const view = call.view(call.value(2), Context.size);
  if (!view) return FAULT;
  const { domain } = call;
  const { paging } = domain;
  const { processor } = target;
  const entries = view.getUint32(Context.gdtEntries, true);
  if (entries > GUEST_GDT_ENTRIES) return INVALID;
  const frames: Mfn[] = [];
  for (let index = 0; index < Math.ceil(entries / 512); index++) {
    frames.push(view.getUint32(Context.gdtFrames + index * 8, true) as Mfn);
  }
  let result = paging.descriptors.setGdt(target.index, frames, entries);
  if (result !== 0) return result;
  target.gdtEntries = entries;
  const root = Math.floor(longAt(view, Context.controlRegisters + 3 * 8) / PAGE_SIZE) as Mfn;
  paging.finish();
  do result = paging.newBasePointer(target.index, root);
  while (result === PagingError.preempted);
  if (result !== 0) return INVALID;
  const userRoot = Math.floor(longAt(view, Context.controlRegisters + 8) / PAGE_SIZE) as Mfn;
  if (userRoot > 0) {
    do result = paging.newUserBasePointer(target.index, userRoot);
    while (result === PagingError.preempted);
    if (result !== 0) return INVALID;
  }
  target.useRoots();
  for (let vector = 0; vector < target.traps.length; vector++) {
    const gate = target.traps[vector];
    const offset = Context.traps + vector * 16;
    const address = longAt(view, offset + 8);
    if (!gate || address === 0) continue;
    gate.flags = view.getUint8(offset + 1);
    gate.selector = view.getUint16(offset + 2, true) | 3;
    gate.address = address as GuestVirtual;
  }
  target.ldtBase = longAt(view, Context.ldtBase) as GuestVirtual;
  target.ldtEntries = Math.min(8192, view.getUint32(Context.ldtEntries, true));
  target.kernelStackSegment = view.getUint16(Context.kernelSs, true) | 3;
  target.kernelStack = longAt(view, Context.kernelSp) as GuestVirtual;
  const flags = view.getUint32(Context.flags, true);
  const callbackOffsets = [Context.eventCallback, Context.failsafeCallback, Context.syscallCallback];
  callbackOffsets.forEach((offset, type) => {
    const callback = target.callbacks[type];
    if (callback) callback.address = longAt(view, offset) as GuestVirtual;
  });
  const syscall = target.callbacks[2];
  if (syscall) syscall.masks = (flags & CONTEXT_SYSCALL_MASKS) !== 0;
  USER_REGISTERS.forEach((register, position) => {
    const offset = Context.registers + position * 8;
    processor.set(register, view.getUint32(offset, true), view.getUint32(offset + 4, true));
  });
  const registers = Context.registers;
  loadReturnSegments(
    target,
    view.getUint16(registers + USER_CS, true) | 3,
    view.getUint16(registers + USER_SS, true) | 3,
  );
  processor.setValue(Register.rsp, longAt(view, registers + USER_RSP));
  processor.rip = longAt(view, registers + USER_RIP) as GuestVirtual;
  const userFlags = view.getUint32(registers + USER_FLAGS, true);
  processor.flags = target.permittedFlags(userFlags);
  target.ioPrivilege = (userFlags & Flag.iopl) >> 12;
  processor.setSegmentBase(SegmentRegister.fs, longAt(view, Context.fsBase) as GuestVirtual);
  processor.setSegmentBase(SegmentRegister.gs, longAt(view, Context.gsBaseKernel) as GuestVirtual);
  target.inactiveGsBase = longAt(view, Context.gsBaseUser) as GuestVirtual;
  if ((flags & CONTEXT_IN_KERNEL) === 0) target.enterUser();
  processor.cr0 = (processor.cr0 & ~Cr0.taskSwitched) >>> 0;
  target.initialised = true;
  return 0;
}

const setTimer: Handler = (call) => {
  const { timers, clock } = call.domain;
  return timers.setTimer(call.vcpu.index, call.value(0), clock.now());
};

export const SCHED_HYPERCALLS: readonly (readonly [number, Handler])[] = [
  [15, setTimer],
  [24, vcpuOperation],
  [29, schedOperation],
];
