import { SegmentRegister } from '../../cpu/decode/instruction.ts';
import type { Descriptor } from '../../cpu/processor-api.ts';
import { isInHostWindow, TABLE_RULES } from '../../paging/direct/table-rules.ts';
import { type GuestVirtual, joinSigned } from '../../x86/brand.ts';
import { Errno } from './errno.ts';
import type { XenVcpu } from './vcpu.ts';

/** What operations of the cpu group do to one virtual processor: segments, debug registers. */

const descriptorScratch: Descriptor = { low: 0, high: 0 };

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
    const address = joinSigned(low, high);
    if (address < 0 || isInHostWindow(TABLE_RULES[vcpu.abi.tables], address as GuestVirtual)) return -Errno.EPERM;
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
