import type { Processor } from '../../cpu/processor.ts';
import { PageAbsent } from '../../memory/page-absent.ts';
import type { GuestVirtual } from '../../x86/brand.ts';
import { Register } from '../../x86/registers.ts';

/** Bytes of the instruction by which a kernel asks. */
const CALL_BYTES = 2;

/**
 * What stands behind that instruction in a stub of the hypercall page, and in those that kernels have of the same kind;
 * and how many words it has pushed on top of its return address.
 */
const STUB_ENDS = [
  { bytes: [0x41, 0x5b, 0x59], pushed: 2 }, // pop r11; pop rcx; and a return, or a jump to one
  { bytes: [0xc3], pushed: 0 }, // ret
] as const;

/** How many words a stub has pushed, by the code behind its instruction; undefined when it is no stub. */
export function pushedByStub(code: Uint8Array): number | undefined {
  return STUB_ENDS.find(({ bytes }) => bytes.every((byte, index) => code[index] === byte))?.pushed;
}

/**
 * The place that a hypercall comes from: in a stub, the last byte of the call that leads there. RIP is behind the
 * instruction.
 */
export function askingPlace(processor: Processor, wordBytes: 4 | 8): number {
  const { memory, rip } = processor;
  const own = rip - CALL_BYTES;
  try {
    const code = new Uint8Array(4);
    const pushed = memory.read(rip, code) ? pushedByStub(code) : undefined;
    if (pushed === undefined) return own;
    const word = new Uint8Array(wordBytes);
    if (!memory.read((processor.value(Register.rsp) + pushed * wordBytes) as GuestVirtual, word)) return own;
    const view = new DataView(word.buffer);
    return (wordBytes === 8 ? Number(view.getBigInt64(0, true)) : view.getUint32(0, true)) - 1;
  } catch (absent) {
    // The call has been carried out: nothing may be waited for any more.
    if (!(absent instanceof PageAbsent)) throw absent;
    return own;
  }
}
