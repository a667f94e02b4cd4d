import type { Processor } from '../cpu/processor.ts';
import type { Symbolizer } from '../inspect/text.ts';
import { PageAbsent } from '../memory/page-absent.ts';
import { type GuestVirtual, joinSigned } from '../x86/brand.ts';
import { Register } from '../x86/registers.ts';

/** A kernel stack. */
const STACK_BYTES = 16 << 10;

/** Functions of the kernel that a return address on the stack may lie in, from the top. */
export function stackNames(processor: Processor, symbolize: Symbolizer): string[] {
  const names: string[] = [];
  const word = new Uint32Array(2);
  const { wordSize } = processor;
  const top = wordSize === 8 ? processor.value(Register.rsp) : processor.low(Register.rsp);
  for (let offset = 0; offset < STACK_BYTES; offset += wordSize) {
    if (!readWord(processor, (top + offset) as GuestVirtual, word)) break;
    const value = wordSize === 8 ? joinSigned(word[0] as number, word[1] as number) : (word[0] as number);
    const symbol = Number.isSafeInteger(value) ? symbolize(value) : undefined;
    if (symbol !== undefined && symbol.offset > 0) names.push(symbol.name);
  }
  return names;
}

/** A page that is not in memory ends the search: a kernel's stack was used a moment ago. */
function readWord({ memory }: Processor, address: GuestVirtual, out: Uint32Array): boolean {
  try {
    return memory.readLong(address, out);
  } catch (absent) {
    if (absent instanceof PageAbsent) return false;
    throw absent;
  }
}
