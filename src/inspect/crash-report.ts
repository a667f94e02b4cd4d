import { SegmentRegister } from '../cpu/decode/instruction.ts';
import type { Processor } from '../cpu/processor.ts';
import { PageAbsent } from '../memory/page-absent.ts';
import type { Register } from '../x86/registers.ts';
import { type CrashState, formatCrash } from './crash.ts';
import type { Symbolizer } from './text.ts';

/** Registers and stack of the virtual processor that a domain crashed on, as text. */
export function crashReport(
  processor: Processor,
  crash: Pick<CrashState, 'reason' | 'domain' | 'vcpu' | 'cr3'>,
  symbolize: Symbolizer,
): string {
  const registers = new Uint32Array(32);
  for (let register = 0; register < 16; register++) {
    registers[register * 2] = processor.low(register as Register);
    registers[register * 2 + 1] = processor.high(register as Register);
  }
  return formatCrash(
    {
      ...crash,
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
      cr4: processor.cr4,
      wordSize: processor.wordSize,
    },
    {
      symbolize,
      readStack: (address, out) => {
        try {
          return processor.memory.readLong(address, out);
        } catch (absent) {
          // A report does not wait for pages.
          if (absent instanceof PageAbsent) return false;
          throw absent;
        }
      },
    },
  );
}
