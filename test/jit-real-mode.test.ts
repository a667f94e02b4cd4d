/** 16-bit code, which no oracle executes here: generated code does what the interpreter does, for all kinds of bytes. */
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Exit } from '../src/cpu/exits.ts';
import { RealModeMachine } from './real-mode-machine.ts';

const PROGRAMS = Number(process.env.RING1_PROGRAMS ?? 200);
const BUDGET = 3000;
const seed = Number(process.env.RING1_SEED ?? Math.floor(Math.random() * 0x8000_0000));

const byte = fc.nat(0xff);
const near = fc.integer({ min: -40, max: 40 }).map((distance) => distance & 0xff);

/** Instructions of 16-bit code with operands of any kind. */
const instruction = fc.oneof(
  // add … cmp with ModRM, of 8, 16 and 32 bits
  fc.tuple(fc.nat(7), fc.nat(3), byte).map(([operation, form, modrm]) => [operation * 8 + form, modrm | 0xc0]),
  fc.tuple(fc.nat(7), fc.nat(3), byte).map(([operation, form, modrm]) => [0x66, operation * 8 + form, modrm | 0xc0]),
  // the same with memory: [bx + si] … [bx]
  fc.tuple(fc.nat(7), fc.nat(3), fc.nat(0x3f)).map(([operation, form, modrm]) => [operation * 8 + form, modrm]),
  // mov r16, imm16; inc, dec, push and pop
  fc.tuple(fc.nat(7), byte, fc.nat(3)).map(([register, low, high]) => [0xb8 + register, low, high]),
  fc.nat(0x1f).map((opcode) => [0x40 + opcode]),
  // shifts by a number, string instructions
  fc
    .tuple(fc.nat(7), fc.nat(7), byte)
    .map(([operation, register, count]) => [0xc1, 0xc0 | (operation << 3) | register, count]),
  fc
    .tuple(fc.constantFrom(0xf2, 0xf3), fc.constantFrom(0xa4, 0xa5, 0xa6, 0xaa, 0xab, 0xac, 0xae))
    .map((bytes) => [...bytes]),
  // conditional jumps, loops, jumps and calls that are near, a return
  fc.tuple(fc.nat(0xf), near).map(([condition, distance]) => [0x70 + condition, distance]),
  fc.tuple(fc.integer({ min: 0xe0, max: 0xe3 }), near).map((bytes) => [...bytes]),
  near.map((distance) => [0xeb, distance]),
  near.map((distance) => [0xe8, distance, distance > 0x7f ? 0xff : 0]),
  fc.constant([0xc3]),
  fc.constant([0x90]),
);

/** Machines that make regions never, at once, and of what was executed before. */
const [interpreter, ...compilers] = [0, 1, 3].map(
  (threshold) => new RealModeMachine('real', { codeBytes: 1 << 20, jit: { threshold, regionsPerModule: 1 } }),
) as [RealModeMachine, ...RealModeMachine[]];

/** What a program leaves after its first instructions. */
function run(machine: RealModeMachine, bytes: readonly number[]) {
  const { processor } = machine;
  machine.start(bytes);
  const { instructions } = processor;
  const exit = processor.runExactly(BUDGET);
  return {
    exit,
    detail: exit === Exit.exception ? processor.exitDetail : 0,
    count: processor.instructions - instructions,
    rip: processor.rip,
    flags: processor.flags,
    registers: Array.from({ length: 8 }, (_, register) => processor.low(register)),
    memory: createHash('sha256').update(machine.contents()).digest('hex'),
  };
}

test('generated code does in 16-bit code what the interpreter does', () => {
  let executed = 0;
  const programs = fc.array(instruction, { minLength: 3, maxLength: 40 });
  fc.assert(
    fc.property(programs, (instructions) => {
      // What follows the program is HLT.
      const bytes = [...instructions.flat(), ...new Array<number>(64).fill(0xf4)];
      const expected = run(interpreter, bytes);
      for (const machine of compilers) {
        expect(run(machine, bytes)).toEqual(expected);
        executed += expected.count;
      }
    }),
    { numRuns: PROGRAMS, seed },
  );
  const inRegions = compilers.reduce((sum, machine) => sum + machine.instructionsInRegions, 0);
  expect(inRegions).toBeGreaterThan(executed / 20);
});
