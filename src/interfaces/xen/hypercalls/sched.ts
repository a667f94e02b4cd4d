import type { GuestVirtual, Mfn } from '../../../x86/brand.ts';
import { ShutdownReason } from '../abi.ts';
import { Errno } from '../errno.ts';
import { POLL_PORTS_LIMIT } from '../event-channels.ts';
import type { XenVcpu } from '../vcpu.ts';
import { type Call, FAULT, type Handler, INVALID, NOT_IMPLEMENTED, quadAt, Special } from './call.ts';
import { initialise } from './initialise.ts';

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
  const layout = call.abi.structures.poll;
  const view = call.view(call.value(1), layout.size);
  if (!view) return FAULT;
  const count = view.getUint32(layout.count, true);
  if (count > POLL_PORTS_LIMIT) return INVALID;
  const list = call.view(call.longAt(view, 0), count * 4);
  if (!list) return FAULT;
  const ports: number[] = [];
  for (let index = 0; index < count; index++) ports.push(list.getUint32(index * 4, true));
  const result = domain.events.poll(vcpu.index, ports, quadAt(view, layout.timeout));
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
      const period = call.readQuad(argument);
      return period === undefined ? FAULT : timers.setPeriodic(index, period, clock.now());
    }
    case VcpuOperation.stopPeriodic:
      return timers.stopPeriodic(index);
    case VcpuOperation.setSingleShot: {
      if (target !== call.vcpu) return INVALID;
      const layout = call.abi.structures.singleShot;
      const view = call.view(argument, layout.size);
      if (!view) return FAULT;
      const deadline = quadAt(view, 0);
      if ((view.getUint32(layout.flags, true) & SINGLE_SHOT_FUTURE) !== 0 && deadline < clock.now())
        return -Errno.ETIME;
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

const setTimer: Handler = (call) => {
  const { timers, clock } = call.domain;
  return timers.setTimer(call.vcpu.index, call.value(0), clock.now());
};

export const SCHED_HYPERCALLS: readonly (readonly [number, Handler])[] = [
  [15, setTimer],
  [24, vcpuOperation],
  [29, schedOperation],
];
