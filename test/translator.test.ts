/** What regions cost: long instructions make them no larger than an engine can compile in a moment. */
import { expect, test } from 'vitest';
import { CodeMode } from '../src/cpu/code-mode.ts';
import { Translator } from '../src/cpu/jit/translator.ts';
import { meaningOf } from '../src/cpu/semantics/index.ts';
import { type HostAddress, PAGE_SIZE } from '../src/x86/brand.ts';

/** As few instructions as it takes to call something a region. */
const FEW = 20;
const MOST_BYTES = 48 << 10;

function translate(hex: string, mode: CodeMode) {
  const bytes = new Uint8Array(PAGE_SIZE).fill(0xf4);
  const instruction = Buffer.from(hex, 'hex');
  for (let offset = 0; offset + instruction.length < PAGE_SIZE; offset += instruction.length) {
    bytes.set(instruction, offset);
  }
  const source = {
    page: 0 as HostAddress,
    bytes,
    behind: new Uint8Array(0),
    mode,
    entry: 0,
    reached: Uint16Array.of(0),
  };
  const [outcome] = new Translator({ tlbEntries: 16384, meaningOf }).translateAll([source]);
  if (typeof outcome !== 'object') throw new Error('no region was made');
  return outcome;
}

test.each([
  ['rep movsb', 'f3a4'],
  ['rep cmpsq', 'f348a7'],
  ['shld [rax], edx, cl', '0fa510'],
  ['adc [rax+rcx*4+16], rdx', '4811548810'],
  ['cmpxchg16b [rax]', '480fc708'],
])('a page full of %s', (_name, hex) => {
  const { code, instructions, ranges } = translate(hex, CodeMode.bits64);
  expect(code.body.bytes.length).toBeLessThanOrEqual(MOST_BYTES);
  expect(instructions).toBeGreaterThan(FEW);
  expect(ranges).toEqual([0, (instructions * hex.length) / 2]);
});
