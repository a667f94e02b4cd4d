/** Regions that were made where all segments are flat, executed where they are not, and the other way round. */
import { expect, test } from 'vitest';
import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import type { ProcessorGroupOptions } from '../src/cpu/processor.ts';
import { Register, Vector } from '../src/x86/registers.ts';
import { listing } from './listing.ts';
import { AT_ONCE, INTERPRETER, RegionMachine } from './region-machine.ts';
import { CODE, DATA, descriptor, FLAT_DATA, STACK_TOP } from './system-machine.ts';

/** Adds words through DS and the stack. */
const PROGRAM = listing(`
  03 03         add eax, [ebx]
  ff 33         push dword [ebx]
  03 04 24      add eax, [esp]
  5a            pop edx
  83 e9 01      sub ecx, 1
  75 f3         jne: to the start
  f4            hlt
`);
const PUSHES = listing(`
  ff 33         push dword [ebx]
  5a            pop edx
  01 d0         add eax, edx
  83 e9 01      sub ecx, 1
  75 f6         jne: to the start
  f4            hlt
`);
const ROUNDS = 4;

/** Present, DPL 3, writable; G and D. */
const WRITABLE = 0xc0f3;
const SMALL_LIMIT = 0x40f3;

function machineWith(options: ProcessorGroupOptions): RegionMachine {
  const machine = new RegionMachine('pae', options, PROGRAM);
  machine.load(DATA, '01 00 00 00 10 00 00 00');
  return machine;
}

const flat = { low: FLAT_DATA.low, high: FLAT_DATA.high | 0x6000 };
const moved = descriptor(4, 0xf_ffff, WRITABLE);

test.each([
  ['the interpreter', INTERPRETER],
  ['regions', AT_ONCE],
])('a data segment that begins elsewhere is followed by %s', (_what, options) => {
  const machine = machineWith(options);
  const sums: number[] = [];
  for (const segment of [flat, moved, flat]) {
    machine.processor.loadSegment(SegmentRegister.ds, 0x13, segment);
    machine.execute({ rbx: DATA, rcx: ROUNDS });
    sums.push(machine.processor.value(Register.rax));
  }
  expect(sums).toEqual([2 * ROUNDS, 0x20 * ROUNDS, 2 * ROUNDS]);
});

test('the interpreter goes on as before when code with flat segments gets a loop of its own', () => {
  const machine = machineWith(INTERPRETER);
  const rounds = 30_000;
  const sums: number[] = [];
  for (const segment of [flat, flat, moved, flat]) {
    machine.processor.loadSegment(SegmentRegister.ds, 0x13, segment);
    machine.execute({ rbx: DATA, rcx: rounds });
    sums.push(machine.processor.value(Register.rax));
  }
  expect(sums).toEqual([2 * rounds, 2 * rounds, 0x20 * rounds, 2 * rounds]);
  const { interpreter } = machine.group;
  const before = interpreter.coldHandlers;
  machine.load(CODE, PUSHES);
  machine.execute({ rbx: DATA, rcx: ROUNDS });
  expect(machine.processor.value(Register.rax)).toBe(ROUNDS);
  // An addition of registers, which the first program has none of, is part of the loop.
  expect(interpreter.coldHandlers).toBe(before);
});

test('a region that was made elsewhere is right where segments are flat', () => {
  const machine = machineWith(AT_ONCE);
  machine.processor.loadSegment(SegmentRegister.ds, 0x13, moved);
  machine.execute({ rbx: DATA, rcx: ROUNDS });
  machine.processor.loadSegment(SegmentRegister.ds, 0x13, flat);
  machine.execute({ rbx: DATA, rcx: ROUNDS });
  expect(machine.processor.value(Register.rax)).toBe(2 * ROUNDS);
  expect(machine.instructionsInRegions).toBeGreaterThan(ROUNDS);
});

test('a limit that was set after a region was made is kept', () => {
  const machine = machineWith(AT_ONCE);
  machine.execute({ rbx: DATA, rcx: ROUNDS });
  machine.processor.loadSegment(SegmentRegister.ds, 0x13, descriptor(DATA, 3, SMALL_LIMIT));
  expect(machine.execute({ rbx: 0, rcx: ROUNDS })).toMatchObject({ vector: null });
  expect(machine.execute({ rbx: 1, rcx: ROUNDS })).toMatchObject({ vector: Vector.generalProtection });
});

test('a stack segment with a pointer of 16 bits is pushed to by its low half', () => {
  const machine = machineWith(AT_ONCE);
  machine.load(CODE, PUSHES);
  machine.execute({ rbx: DATA, rcx: ROUNDS });
  const stack = descriptor(STACK_TOP - 0x1000, 0xffff, 0x00f3);
  machine.processor.loadSegment(SegmentRegister.ss, 0x13, stack);
  const outcome = machine.execute({ rbx: DATA, rcx: ROUNDS, rsp: 0x7_0800 });
  expect(outcome).toMatchObject({ vector: null });
  expect(machine.processor.value(Register.rax)).toBe(ROUNDS);
  expect(machine.processor.value(Register.rsp)).toBe(0x7_0800);
});
