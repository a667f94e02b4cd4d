import { readSystemMsr, writeSystemMsr } from '../cpu/protection/msr.ts';
import type { MicrovmDomain } from './domain.ts';
import { Physical } from './layout.ts';
import type { MicrovmVcpu } from './vcpu.ts';

/** Registers of the machine around protection: clocks, the APIC, what a kernel asks a processor of this model. */
const enum Msr {
  timeStamp = 0x10,
  platform = 0x17,
  apicBase = 0x1b,
  timeStampAdjust = 0x3b,
  microcode = 0x8b,
  miscellaneous = 0x1a0,
  deadline = 0x6e0,
}

const APIC_BOOTSTRAP = 0x100;
const APIC_ENABLED = 0x800;
/** Fast strings; no branch trace, no precise sampling. */
const MISCELLANEOUS = 1 | (1 << 11) | (1 << 12);

function apicBase(vcpu: MicrovmVcpu): number {
  return (Physical.localApic | APIC_ENABLED | (vcpu.index === 0 ? APIC_BOOTSTRAP : 0)) >>> 0;
}

/** @returns false when there is no such register */
export function readMsr(domain: MicrovmDomain, vcpu: MicrovmVcpu, register: number, out: Uint32Array): boolean {
  const give = (low: number, high = 0): boolean => {
    out[0] = low;
    out[1] = high;
    return true;
  };
  switch (register as Msr) {
    case Msr.timeStamp:
      domain.operations.cpu.readTsc(vcpu.index, out);
      return true;
    case Msr.apicBase:
      return give(apicBase(vcpu));
    case Msr.platform:
    case Msr.microcode:
    case Msr.timeStampAdjust:
      return give(0);
    case Msr.miscellaneous:
      return give(MISCELLANEOUS);
    case Msr.deadline: {
      const deadline = vcpu.apic.timer.tscDeadline;
      return give(deadline >>> 0, Math.floor(deadline / 0x1_0000_0000) >>> 0);
    }
    default:
      return readSystemMsr(vcpu.state, register, out) || domain.interface.readMsr(vcpu, register, out);
  }
}

/** @returns false when there is no such register, or it cannot have the value */
export function writeMsr(
  domain: MicrovmDomain,
  vcpu: MicrovmVcpu,
  register: number,
  low: number,
  high: number,
): boolean {
  switch (register as Msr) {
    case Msr.apicBase:
      // The APIC stays where it is, and on.
      return high === 0 && low === apicBase(vcpu);
    case Msr.timeStampAdjust:
      // All counters are one; none can be moved.
      return low === 0 && high === 0;
    case Msr.microcode:
    case Msr.miscellaneous:
      return true;
    case Msr.deadline: {
      const ticks = (high >>> 0) * 0x1_0000_0000 + low;
      vcpu.apic.timer.tscDeadline = ticks;
      return true;
    }
    default:
      return (
        writeSystemMsr(vcpu.state, register, low, high) ?? domain.interface.writeMsr(vcpu, register, low, high) ?? false
      );
  }
}
