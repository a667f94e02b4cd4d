/** Where regions end: budgets, single steps, faults and ways out are exact, whatever the code around them was made into. */
import { describe, expect, test } from 'vitest';
import { Exit } from '../src/cpu/exits.ts';
import type { ProcessorGroupOptions } from '../src/cpu/processor.ts';
import { State } from '../src/cpu/state.ts';
import { type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { Flag, Register } from '../src/x86/registers.ts';
import { listing } from './listing.ts';
import { CODE, DATA, STACK_TOP, TestMachine } from './system-machine.ts';

const FORMATS = ['four-level', 'pae'] as const;
type Format = (typeof FORMATS)[number];
const INTERPRETER: ProcessorGroupOptions = { jit: { threshold: 0 } };
const REGIONS: ProcessorGroupOptions = { jit: { threshold: 2, regionsPerModule: 1 } };

/** A machine with two pages of data and a program, the same in 64-bit and 32-bit code. */
function machineWith(format: Format, options: ProcessorGroupOptions, code: string): TestMachine {
  const machine = new TestMachine(format, 3, options);
  for (const page of [DATA, DATA + PAGE_SIZE]) machine.map(page, machine.allocate());
  machine.load(CODE, code);
  return machine;
}

function registersOf({ memory, processor }: TestMachine): BigUint64Array {
  return new BigUint64Array(memory.memory.buffer, processor.state + State.registers, 16);
}

/** Back to the program's first instruction. */
function restart(machine: TestMachine): void {
  const { processor } = machine;
  registersOf(machine).fill(0n);
  processor.setValue(Register.rsp, STACK_TOP);
  processor.flags = Flag.reserved;
  processor.rip = CODE as GuestVirtual;
}

function stateOf(machine: TestMachine): object {
  const { processor } = machine;
  return { registers: [...registersOf(machine)], flags: processor.flags, rip: processor.rip };
}

function instructionsInRegions({ memory, processor }: TestMachine): number {
  return Number(memory.view.getBigUint64(processor.state + State.regionInstructions, true));
}

/** Three times: a hundred additions, and a copy of 300 bytes over the end of a page. */
const LONG_WAY = listing(`
  bd 03000000   mov ebp, 3
  be 00508000   mov esi, DATA
  bf 805f8000   mov edi, DATA + 0xf80
  b9 2c010000   mov ecx, 300
  ${'83c001 '.repeat(100)}
  f3 a4         rep movsb
  01 c2         add edx, eax
  83 ed 01      sub ebp, 1
  0f85 b8feffff   jne: to mov esi
  f4            hlt
`);

/** The states before each instruction of a program, one repetition of a string instruction at a time. */
function statesOf(machine: TestMachine): object[] {
  restart(machine);
  const states = [stateOf(machine)];
  while (machine.processor.step() === Exit.budget) states.push(stateOf(machine));
  return states;
}

describe.each(FORMATS)('with %s page tables', (format) => {
  test('an exact run stops at its count, wherever in a region or a repeated instruction that is', () => {
    const states = statesOf(machineWith(format, INTERPRETER, LONG_WAY));
    expect(states.length).toBe(1 + 1 + 3 * (3 + 100 + 300 + 3));
    const machine = machineWith(format, REGIONS, LONG_WAY);
    const { processor } = machine;
    for (let count = 1; count < states.length; count++) {
      restart(machine);
      const before = processor.instructions;
      expect(processor.runExactly(count)).toBe(Exit.budget);
      expect({ count: processor.instructions - before, ...stateOf(machine) }).toEqual({ count, ...states[count] });
    }
    expect(instructionsInRegions(machine)).toBeGreaterThan(processor.instructions / 2);
  });

  test('a jump on the counter goes to its own target when a conditional jump follows it', () => {
    const machine = machineWith(
      format,
      REGIONS,
      listing(`
        83 c0 01   add eax, 1
        83 e9 01   sub ecx, 1
        e3 05      jecxz: to hlt
        83 f8 0a   cmp eax, 10
        75 f3      jne: to the start
        f4         hlt
      `),
    );
    machine.processor.setValue(Register.rcx, 7);
    machine.run();
    expect(machine.processor.value(Register.rax)).toBe(7);
  });
});
