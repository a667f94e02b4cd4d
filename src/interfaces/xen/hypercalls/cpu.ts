import { FrameFlag } from '../../../paging/direct/frame-types.ts';
import { type GuestVirtual, highWord, isCanonical, joinSigned, type Mfn } from '../../../x86/brand.ts';
import { frameOfEntry } from '../../../x86/page-table.ts';
import { Cr0 } from '../../../x86/registers.ts';
import { GUEST_GDT_ENTRIES } from '../abi.ts';
import { raisedSelector } from '../guest-abi.ts';
import { Msr } from '../msr.ts';
import { ABSENT } from '../structures.ts';
import { type Call, FAULT, type Handler, INVALID, NOT_IMPLEMENTED, preemption, Special } from './call.ts';

const VECTORS = 256;

const NO_TABLE = 0 as GuestVirtual;

/** Gates in the guest's list, up to the empty one that ends it or the first that cannot be read. */
function countGates(call: Call, list: GuestVirtual): number {
  const { size, address } = call.abi.structures.trapInfo;
  let gates = 0;
  for (; gates < VECTORS; gates++) {
    const view = call.view(list + gates * size, size);
    if (!view || call.longAt(view, address) === 0) break;
  }
  return gates;
}

const setTrapTable: Handler = (call) => {
  const { cpu } = call.domain.operations;
  const { index: vcpu } = call.vcpu;
  const layout = call.abi.structures.trapInfo;
  const list = call.address(0);
  if (list === 0) return cpu.loadIdt(vcpu, NO_TABLE, 0);
  const gates = countGates(call, list);
  const loaded = cpu.loadIdt(vcpu, list, gates);
  if (loaded !== 0) return loaded;
  for (let index = 0; index < VECTORS; index++) {
    const view = call.view(list + index * layout.size, layout.size);
    if (!view) return FAULT;
    const address = call.longAt(view, layout.address) as GuestVirtual;
    if (address === 0) return 0;
    if (!isCanonical(highWord(address))) return INVALID;
    const result = cpu.writeIdtEntry(vcpu, view.getUint8(0), view.getUint16(2, true), address, view.getUint8(1));
    if (result !== 0) return result;
  }
  return 0;
};

const setGdt: Handler = (call) => {
  const entries = call.value(1);
  if (entries < 0 || entries > GUEST_GDT_ENTRIES) return INVALID;
  const frames: Mfn[] = [];
  for (let index = 0; index < Math.ceil(entries / 512); index++) {
    const mfn = call.readLong(call.value(0) + index * call.abi.longSize);
    if (mfn === undefined) return FAULT;
    if (mfn < 0 || mfn > 0xffff_ffff) return INVALID;
    frames.push(mfn as Mfn);
  }
  return preemption(call.domain.operations.cpu.loadGdt(call.vcpu.index, NO_TABLE, frames, entries));
};

const stackSwitch: Handler = (call) =>
  call.domain.operations.cpu.loadSp0(call.vcpu.index, (call.low[0] as number) & 0xffff, call.address(1));

const setCallbacks: Handler = (call) => {
  const { callbackArguments } = call.abi;
  if (!callbackArguments.every(({ address }) => isCanonical(call.high[address] as number))) return INVALID;
  for (const { type, address, selector } of callbackArguments) {
    const callback = call.vcpu.callbacks[type];
    if (!callback) continue;
    callback.address = call.address(address);
    if (selector !== undefined) callback.selector = raisedSelector(call.abi, (call.low[selector] as number) & 0xffff);
  }
  return 0;
};

const callbackOperation: Handler = (call) => {
  const command = call.low[0] as number;
  if (command !== 0 && command !== 1) return NOT_IMPLEMENTED;
  const layout = call.abi.structures.callback;
  const view = call.view(call.value(1), layout.size);
  if (!view) return FAULT;
  const type = view.getUint16(0, true);
  const callback = call.vcpu.callbacks[type];
  if (!call.abi.callbackTypes.has(type) || !callback) return NOT_IMPLEMENTED;
  if (command === 1) {
    // The event and failsafe entries cannot be taken back.
    if (type < 2) return INVALID;
    callback.address = 0 as GuestVirtual;
    return 0;
  }
  const address = call.longAt(view, layout.address) as GuestVirtual;
  if (!isCanonical(highWord(address))) return INVALID;
  callback.address = address;
  callback.masks = (view.getUint16(2, true) & 1) !== 0;
  if (layout.selector !== ABSENT) {
    callback.selector = raisedSelector(call.abi, view.getUint16(layout.selector, true));
  }
  return 0;
};

const fpuTaskSwitch: Handler = (call) => {
  const { cpu } = call.domain.operations;
  const { index, processor } = call.vcpu;
  if ((call.low[0] as number) !== 0) return cpu.writeCr0(index, (processor.cr0 | Cr0.taskSwitched) >>> 0);
  cpu.clts(index);
  return 0;
};

const pair = new Uint32Array(2);

const setDebug: Handler = (call) =>
  call.domain.operations.cpu.setDebugreg(call.vcpu.index, call.value(0), call.low[1] as number, call.high[1] as number);

const getDebug: Handler = (call) => {
  const register = call.value(0);
  if (register < 0 || register > 7) return INVALID;
  call.domain.operations.cpu.getDebugreg(call.vcpu.index, register, pair);
  return joinSigned(pair[0] as number, pair[1] as number);
};

const updateDescriptor: Handler = (call) => {
  const { operations, paging } = call.domain;
  const pointerLow = call.low[0] as number;
  const pointerHigh = call.high[0] as number;
  const low = call.low[1] as number;
  const high = call.high[1] as number;
  const page = frameOfEntry(pointerLow, pointerHigh) as Mfn;
  // What does not name a descriptor of the domain is no operation; the paging says what is wrong.
  if ((pointerLow & 7) !== 0 || !paging.types.isDomains(page)) {
    return preemption(paging.descriptors.update(pointerLow, pointerHigh, low, high));
  }
  const index = (pointerLow & 0xfff) >>> 3;
  const local = paging.types.hasFlag(page, FrameFlag.localDescriptors);
  return preemption(
    local
      ? operations.cpu.writeLdtEntry(call.vcpu.index, page, index, low, high)
      : operations.cpu.writeGdtEntry(call.vcpu.index, page, index, low, high),
  );
};

/** Register behind each base that set_segment_base names; 3 takes a selector. */
const SEGMENT_BASES = [Msr.fsBase, Msr.kernelGsBase, Msr.gsBase] as const;
const GS_SELECTOR = 3;

const setSegmentBase: Handler = (call) => {
  const { cpu } = call.domain.operations;
  const { index } = call.vcpu;
  const which = call.low[0] as number;
  if (which === GS_SELECTOR) return cpu.loadGsIndex(index, (call.low[1] as number) & 0xffff);
  const register = SEGMENT_BASES[which];
  if (register === undefined) return INVALID;
  return cpu.writeMsr(index, register, call.low[1] as number, call.high[1] as number);
};

const iret: Handler = (call) => {
  call.domain.operations.cpu.iret(call.vcpu.index);
  return Special.noResult;
};

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
