/** XMM registers of regions: random programs with branches, loops and calls leave in them what the interpreter leaves. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { State } from '../src/cpu/state.ts';
import { AGAIN, AT_ONCE, FORMATS, INTERPRETER, RegionMachine } from './region-machine.ts';
import { CODE, DATA } from './system-machine.ts';

/** Instructions with two registers in ModRM: whole registers, parts of them, and what computes either. */
const TWO_REGISTERS = {
  'movaps x, y': '0f28',
  'movaps y, x': '0f29',
  paddd: '660ffe',
  pxor: '660fef',
  psubq: '660ffb',
  shufps: '0fc6',
  pshufd: '660f70',
  unpcklps: '0f14',
  pinsrw: '660fc4',
  movss: 'f30f10',
  movsd: 'f20f10',
  movhlps: '0f12',
  movq: 'f30f7e',
  addsd: 'f20f58',
  addps: '0f58',
  cvtsi2sd: 'f20f2a',
  pcmpestrm: '660f3a60',
  pblendvb: '660f3810',
} as const;
type TwoRegisters = keyof typeof TWO_REGISTERS;
const WITH_IMMEDIATE: ReadonlySet<TwoRegisters> = new Set(['shufps', 'pshufd', 'pinsrw', 'pcmpestrm']);
/** The same with memory at RBX, or EBX, and an offset. */
const WITH_MEMORY = { load: '0f10', store: '0f11', 'load of 8 bytes': 'f30f7e', 'load of half': '0f16' } as const;

const byte = (value: number): string => (value & 0xff).toString(16).padStart(2, '0');
const small = fc.nat(7);
const twoRegisters = fc
  .record({
    name: fc.constantFrom(...(Object.keys(TWO_REGISTERS) as TwoRegisters[])),
    x: small,
    y: small,
    immediate: small,
  })
  .map(({ name, x, y, immediate }) => {
    const last = WITH_IMMEDIATE.has(name) ? byte(immediate) : '';
    return TWO_REGISTERS[name] + byte(0xc0 | (x << 3) | y) + last;
  });
const withMemory = fc
  .record({ opcode: fc.constantFrom(...Object.values(WITH_MEMORY)), x: small, offset: fc.nat(6) })
  .map(({ opcode, x, offset }) => opcode + byte(0x43 | (x << 3)) + byte(offset * 16));
const straight = fc
  .array(fc.oneof({ weight: 3, arbitrary: twoRegisters }, withMemory), { maxLength: 4 })
  .map((instructions) => instructions.join(''));

const relative = (bytes: number): string => Buffer.from(Int32Array.of(bytes).buffer).toString('hex');
const length = (hex: string): number => hex.length / 2;

/** A loop with a branch and a loop in it, and a call of what stands behind it. */
const programs = fc.array(straight, { minLength: 7, maxLength: 7 }).map((parts) => {
  const [first = '', skipped = '', second = '', inner = '', third = '', fourth = '', called = ''] = parts;
  // test ecx, 1; jz behind what is skipped
  const branch = `f7c101000000 0f84${relative(length(skipped))}`.replaceAll(' ', '');
  // mov esi, 3; inner: …; sub esi, 1; jnz inner
  const loop = `be03000000${inner}83ee010f85${relative(-(length(inner) + 9))}`;
  const before = first + branch + skipped + second + loop + third;
  // sub ecx, 1; jnz start; hlt
  const end = (at: number): string => `83e9010f85${relative(-(at + 9))}f4`;
  const atEnd = length(before) + 5 + length(fourth);
  const call = `e8${relative(length(fourth) + length(end(0)))}`;
  return [before, call, fourth, end(atEnd), called, 'c3'].join('');
});

/** What a program leaves in the registers and in memory, each time that it is executed. */
function statesAfter(machine: RegionMachine, program: string): object[] {
  const { processor, memory, pool } = machine;
  machine.load(CODE, program);
  const registers = memory.u8.subarray(processor.state + State.xmm, processor.state + State.xmm + 8 * 16);
  const at = pool.addressOf(machine.frameOf(machine.numberAt(DATA)));
  return [1, 2, 3].map((round) => {
    for (const [index] of registers.entries()) registers[index] = (index * 7 + round) & 0x7f;
    memory.u8.fill(0x40 + round, at, at + 128);
    const { vector } = machine.execute({ rcx: 6, rbx: DATA, rax: 5, rdx: 9 });
    return { vector, registers: [...registers], data: [...memory.u8.subarray(at, at + 128)] };
  });
}

test.each(
  FORMATS.flatMap((format) => [[format, 'at once', AT_ONCE] as const, [format, 'when it comes again', AGAIN] as const]),
)('the same in %s tables, with code compiled %s', (format, _name, options) => {
  const compiling = new RegionMachine(format, options, 'f4');
  const interpreting = new RegionMachine(format, INTERPRETER, 'f4');
  fc.assert(
    fc.property(programs, (program) => {
      const before = compiling.group.jit?.counters.compiled ?? 0;
      const states = statesAfter(compiling, program);
      expect(compiling.group.jit?.counters.compiled).toBeGreaterThan(before);
      expect(states).toEqual(statesAfter(interpreting, program));
    }),
    { numRuns: 150 },
  );
});
