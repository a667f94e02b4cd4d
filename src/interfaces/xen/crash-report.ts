import { SegmentRegister } from '../../cpu/decode/instruction.ts';
import { formatCrash } from '../../inspect/crash.ts';
import type { Symbolizer } from '../../inspect/text.ts';
import type { Register } from '../../x86/registers.ts';
import type { XenDomain } from './domain.ts';
import type { XenVcpu } from './vcpu.ts';

/** Registers and stack of the virtual processor that a domain crashed on, as text. */
export function crashReport(domain: XenDomain, vcpu: XenVcpu, reason: string, symbolize: Symbolizer): string {
  const { processor } = vcpu;
  const registers = new Uint32Array(32);
  for (let register = 0; register < 16; register++) {
    registers[register * 2] = processor.low(register as Register);
    registers[register * 2 + 1] = processor.high(register as Register);
  }
  return formatCrash(
    {
      reason,
      domain: `guest ${domain.id}`,
      vcpu: vcpu.index,
      registers,
      rip: processor.rip,
      flags: processor.flags,
      selectors: {
        cs: processor.selector(SegmentRegister.cs),
        ss: processor.selector(SegmentRegister.ss),
        ds: processor.selector(SegmentRegister.ds),
        es: processor.selector(SegmentRegister.es),
        fs: processor.selector(SegmentRegister.fs),
        gs: processor.selector(SegmentRegister.gs),
      },
      fsBase: processor.segmentBase(SegmentRegister.fs),
      gsBase: processor.segmentBase(SegmentRegister.gs),
      cr0: processor.cr0,
      cr2: processor.cr2,
      cr3: domain.paging.root(vcpu.index),
      cr4: processor.cr4,
      wordSize: 8,
    },
    {
      symbolize,
      readStack: (address, out) => processor.memory.readLong(address, out),
    },
  );
}
