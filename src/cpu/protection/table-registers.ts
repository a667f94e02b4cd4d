import { type GuestVirtual, isCanonical, joinSigned } from '../../x86/brand.ts';
import { Vector } from '../../x86/registers.ts';
import { isPresent, isSystem, SystemType, systemTypeOf } from '../descriptor.ts';
import { fault, SystemResult } from '../operands.ts';
import type { Processor } from '../processor.ts';
import type { Descriptor } from '../processor-api.ts';
import type { SystemState, TableRegister } from './system-state.ts';

/** LGDT, LIDT, SGDT, SIDT, LLDT, LTR: where the tables of segments and gates stand (SDM vol. 3A, 2.4). */

/** What makes an available task's descriptor a busy one's, and its type a busy one's. */
const BUSY = 0x200;
const BUSY_TYPE = 2;

const pair = new Uint32Array(2);
const descriptor: Descriptor = { low: 0, high: 0 };

/** @param operandBytes of the instruction: with 2, outside 64-bit code, the base has 24 bits */
export function loadTableRegister(processor: Processor, register: TableRegister, operandBytes: number): SystemResult {
  const address = processor.operandAddress();
  if (!processor.memory.loadAt(address, 2)) return SystemResult.fault;
  processor.loadedValue(pair);
  const limit = (pair[0] as number) & 0xffff;
  const long = processor.codeSize === 64;
  if (!processor.memory.loadAt((address + 2) as GuestVirtual, long ? 8 : 4)) return SystemResult.fault;
  processor.loadedValue(pair);
  const low = pair[0] as number;
  const high = pair[1] as number;
  if (long && !isCanonical(high)) return fault(processor, Vector.generalProtection);
  register.base = (long ? joinSigned(low, high) : operandBytes === 2 ? low & 0xff_ffff : low) as GuestVirtual;
  register.limit = limit;
  return SystemResult.done;
}

export function storeTableRegister(processor: Processor, { base, limit }: TableRegister): SystemResult {
  const address = processor.operandAddress();
  processor.setStoredValue(limit, 0);
  if (!processor.memory.storeAt(address, 2)) return SystemResult.fault;
  processor.setStoredValue(base >>> 0, Math.floor(base / 0x1_0000_0000) >>> 0);
  const bytes = processor.codeSize === 64 ? 8 : 4;
  return processor.memory.storeAt((address + 2) as GuestVirtual, bytes) ? SystemResult.done : SystemResult.fault;
}

export function loadLocalTable(state: SystemState, selector: number): SystemResult {
  const { processor, ldt } = state;
  if ((selector & ~3) === 0) {
    Object.assign(ldt, { selector, base: 0, limit: 0, type: 0 });
    return SystemResult.done;
  }
  const found = state.readSystem(selector, descriptor);
  const error = selector & 0xfffc;
  if (!found || !isSystem(descriptor) || systemTypeOf(descriptor) !== SystemType.localTable) {
    return fault(processor, Vector.generalProtection, error);
  }
  if (!isPresent(descriptor)) return fault(processor, Vector.segmentNotPresent, error);
  Object.assign(ldt, { selector, ...found, type: SystemType.localTable });
  return SystemResult.done;
}

export function loadTaskRegister(state: SystemState, selector: number): SystemResult {
  const { processor, task } = state;
  const error = selector & 0xfffc;
  const found = error === 0 ? undefined : state.readSystem(selector, descriptor);
  const type = systemTypeOf(descriptor);
  const isTask = type === SystemType.task || (type === SystemType.task16 && !state.longMode);
  if (!found || !isSystem(descriptor) || !isTask) return fault(processor, Vector.generalProtection, error);
  if (!isPresent(descriptor)) return fault(processor, Vector.segmentNotPresent, error);
  state.changeDescriptor(selector, BUSY, 0);
  Object.assign(task, { selector, ...found, type: type | BUSY_TYPE });
  return SystemResult.done;
}
