import { SegmentRegister } from '../../cpu/decode/instruction.ts';
import { type GuestVirtual, highWord, isCanonical, joinSigned, lowWord, PAGE_SIZE } from '../../x86/brand.ts';
import type { XenDomain } from './domain.ts';
import { Errno } from './errno.ts';
import type { XenVcpu } from './vcpu.ts';

/** Model-specific registers that a PV guest may name. */
export const enum Msr {
  tsc = 0x10,
  apicBase = 0x1b,
  miscEnable = 0x1a0,
  microcode = 0x8b,
  pat = 0x277,
  perfCapabilities = 0x345,
  efer = 0xc000_0080,
  fsBase = 0xc000_0100,
  gsBase = 0xc000_0101,
  kernelGsBase = 0xc000_0102,
  tscAux = 0xc000_0103,
  hypercallPage = 0x4000_0000,
}

const PAT_LOW = 0x0007_0406;
const PAT_HIGH = 0x0000_0501;
/** Fast strings, no branch trace, no precise sampling, xTPR disabled. */
const MISC_ENABLE = 1 | (1 << 11) | (1 << 12) | (1 << 23);
const APIC_BASE = 0xfee0_0800;
const APIC_BOOTSTRAP = 0x100;

/** No such register. */
export const NO_REGISTER = -Errno.ENXIO;
const REFUSED = -Errno.EINVAL;

/** Registers that exist for 64-bit code only. */
function isBaseOf64Bits(register: number): boolean {
  return register === Msr.fsBase || register === Msr.gsBase || register === Msr.kernelGsBase;
}

/** @returns 0 with the value in `out`, or `NO_REGISTER` */
export function readMsr(domain: XenDomain, vcpu: XenVcpu, register: number, out: Uint32Array): number {
  const { processor } = vcpu;
  if (isBaseOf64Bits(register) && domain.abi.bits === 32) return NO_REGISTER;
  const give = (low: number, high = 0): number => {
    out[0] = low;
    out[1] = high;
    return 0;
  };
  const giveAddress = (address: number) => give(lowWord(address), highWord(address));
  switch (register) {
    case Msr.efer:
      return give(processor.efer);
    case Msr.fsBase:
      return giveAddress(processor.segmentBase(SegmentRegister.fs));
    case Msr.gsBase:
      return giveAddress(processor.segmentBase(SegmentRegister.gs));
    case Msr.kernelGsBase:
      return giveAddress(vcpu.inactiveGsBase);
    case Msr.tscAux:
      return give(vcpu.index);
    case Msr.apicBase:
      return give(APIC_BASE | (vcpu.index === 0 ? APIC_BOOTSTRAP : 0));
    case Msr.pat:
      return give(PAT_LOW, PAT_HIGH);
    case Msr.tsc:
      domain.services(vcpu).timeStamp(out);
      return 0;
    case Msr.miscEnable:
      return give(MISC_ENABLE);
    case Msr.perfCapabilities:
    case Msr.microcode:
      return give(0);
    default:
      return NO_REGISTER;
  }
}

/** @returns 0, `NO_REGISTER`, or −EINVAL for a value that the register cannot have */
export function writeMsr(domain: XenDomain, vcpu: XenVcpu, register: number, low: number, high: number): number {
  const { processor } = vcpu;
  if (isBaseOf64Bits(register) && domain.abi.bits === 32) return NO_REGISTER;
  switch (register) {
    case Msr.fsBase:
    case Msr.gsBase:
    case Msr.kernelGsBase: {
      if (!isCanonical(high)) return REFUSED;
      const base = joinSigned(low, high) as GuestVirtual;
      if (register === Msr.fsBase) processor.setSegmentBase(SegmentRegister.fs, base);
      else if (register === Msr.gsBase) processor.setSegmentBase(SegmentRegister.gs, base);
      else vcpu.inactiveGsBase = base;
      return 0;
    }
    case Msr.efer:
      return low === processor.efer && high === 0 ? 0 : REFUSED;
    case Msr.pat:
      return low === PAT_LOW && high === PAT_HIGH ? 0 : REFUSED;
    case Msr.miscEnable:
    case Msr.microcode:
      return 0;
    case Msr.hypercallPage:
      return domain.writeHypercallPage(Math.floor(joinSigned(low, high) / PAGE_SIZE)) ? 0 : REFUSED;
    default:
      return NO_REGISTER;
  }
}
