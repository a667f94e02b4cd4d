/**
 * Accesses of one page whose translation a region keeps (cpu/jit/windows.ts), and code that goes on over the end of a page:
 * random programs around the ends of pages of data, at the end of a page of code, end as those of the interpreter do.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ProcessorGroupOptions } from '../src/cpu/processor.ts';
import type { GuestVirtual } from '../src/x86/brand.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import { Pte } from '../src/x86/registers.ts';
import { listing } from './listing.ts';
import { AGAIN, AT_ONCE, INTERPRETER, RegionMachine } from './region-machine.ts';
import { ALL_RIGHTS, CODE, DATA } from './system-machine.ts';

/** Pages from DATA on: some to write, one to read, and behind them one that is not there. */
const WRITABLE = 6;
const READ_ONLY = DATA + WRITABLE * PAGE_SIZE;
/** An end of a page that stacks are around. */
const STACK = DATA + 5 * PAGE_SIZE;
const CODE_END = CODE + PAGE_SIZE;
const ROUNDS = 6;

const BASES = { rbx: 3, rsi: 6, rdi: 7 } as const;
const base = fc.constantFrom(...Object.values(BASES));
/** Registers whose values are no addresses: RAX, RCX, RDX. */
const other = fc.integer({ min: 0, max: 2 });
const nearby = fc.oneof(
  { weight: 12, arbitrary: fc.integer({ min: -24, max: 24 }) },
  { weight: 1, arbitrary: fc.constantFrom(-PAGE_SIZE, PAGE_SIZE, -PAGE_SIZE + 4, PAGE_SIZE - 4) },
);

const dword = (value: number): number[] => [value, value >> 8, value >> 16, value >> 24].map((byte) => byte & 0xff);
/** REX.W (or another prefix), opcode, and a memory operand of a base and 32 bits. */
const access =
  (...opcode: number[]) =>
  ([register, address, displacement]: readonly [number, number, number]): number[] => [
    ...opcode,
    0x80 | (register << 3) | address,
    ...dword(displacement),
  ];
const operands = fc.tuple(other, base, nearby);

const plain: fc.Arbitrary<number[]> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.oneof(
      operands.map(access(0x48, 0x8b)), // mov r64, m
      operands.map(access(0x8b)), // mov r32, m
      operands.map(access(0x0f, 0xb7)), // movzx r32, m16
      operands.map(access(0x8a)), // mov r8, m
      operands.map(access(0x48, 0x89)), // mov m, r64
      operands.map(access(0x66, 0x89)), // mov m, r16
      operands.map(access(0x88)), // mov m, r8
      operands.map(access(0x48, 0x01)), // add m, r64
      operands.map(access(0x0f, 0x10)), // movups xmm, m
      operands.map(access(0x0f, 0x11)), // movups m, xmm
    ),
  },
  {
    weight: 4,
    arbitrary: fc.oneof(
      fc.tuple(base, nearby).map(([register, by]) => [0x48, 0x81, 0xc0 | register, ...dword(by)]), // add r64, by
      fc.tuple(base, nearby).map(([register, by]) => [0x81, 0xc0 | register, ...dword(by)]), // add r32, by
      fc.tuple(base, base).map(([to, from]) => [0x48, 0x89, 0xc0 | (from << 3) | to]), // mov r64, r64
      fc.tuple(base, base, nearby).map(access(0x48, 0x8d)), // lea
      fc.integer({ min: 0, max: 255 }).map((byte) => [0xb3, byte]), // mov bl, byte
      base.map((register) => [0x50 | register]), // push
      other.map((register) => [0x58 | register]), // pop
      fc.constant<number[]>([0xb9, 3, 0, 0, 0, 0xf3, 0xaa]), // mov ecx, 3; rep stosb
      fc.constant<number[]>([0xb9, 2, 0, 0, 0, 0xf3, 0x48, 0xa5]), // mov ecx, 2; rep movsq
      fc.constant<number[]>([0x48, 0x87, 0xdf]), // xchg rdi, rbx
    ),
  },
);
/** test cl, 1; jz over the instruction */
const sometimes = plain.map((instruction) => [0xf6, 0xc1, 0x01, 0x74, instruction.length, ...instruction]);
/** A jump to another statement, named by its place among all of them, from 0 to 1: forward by a bit of RCX, back by the count. */
interface Jump {
  readonly to: number;
}
const CALL = 'call';
type Statement = number[] | Jump | typeof CALL;
const statement: fc.Arbitrary<Statement> = fc.oneof(
  { weight: 8, arbitrary: plain },
  { weight: 2, arbitrary: sometimes },
  { weight: 2, arbitrary: fc.double({ min: 0, max: 1, noNaN: true }).map((to) => ({ to })) },
  { weight: 1, arbitrary: fc.constant(CALL) },
);

/** The statements ROUNDS times, by a count in RBP, and fewer the more jumps go back; what they call adds 8 to RBX. */
function assemble(statements: readonly Statement[]): number[] {
  const SUBROUTINE = [0x48, 0x83, 0xc3, 0x08, 0xc3];
  const bytes = [0xeb, SUBROUTINE.length, ...SUBROUTINE];
  const length = (each: Statement): number => (each === CALL ? 5 : Array.isArray(each) ? each.length : 9);
  const starts = [bytes.length];
  for (const each of statements) starts.push((starts.at(-1) as number) + length(each));
  for (const [index, each] of [...statements, { to: 0 }].entries()) {
    if (each === CALL) bytes.push(0xe8, ...dword(2 - (bytes.length + 5)));
    else if (Array.isArray(each)) bytes.push(...each);
    else {
      const target = Math.floor(each.to * statements.length);
      // test cl, 1; jnz: or sub ebp, 1; jg
      bytes.push(...(target > index ? [0xf6, 0xc1, 0x01, 0x0f, 0x85] : [0x83, 0xed, 0x01, 0x0f, 0x8f]));
      bytes.push(...dword((starts[target] as number) - (bytes.length + 4)));
    }
  }
  return [...bytes, 0xf4];
}

interface Program {
  readonly code: readonly number[];
  /** How much of it is on the first page. */
  readonly before: number;
  readonly registers: Readonly<Record<keyof typeof BASES | 'rsp', number>>;
}

/** Near the end of a page; few are near those that cannot be written or are not there. */
const address = fc
  .tuple(
    fc.oneof(
      { weight: 12, arbitrary: fc.integer({ min: 2, max: 4 }) },
      { weight: 1, arbitrary: fc.constantFrom(0, WRITABLE, WRITABLE + 1) },
    ),
    fc.integer({ min: -30, max: 20 }),
  )
  .map(([page, offset]) => DATA + page * PAGE_SIZE + offset);
const program: fc.Arbitrary<Program> = fc
  .tuple(fc.array(statement, { minLength: 2, maxLength: 24 }), fc.nat(), address, address, address, fc.nat(8))
  .map(([statements, before, rbx, rsi, rdi, slots]) => {
    const code = assemble(statements);
    return { code, before: before % code.length, registers: { rbx, rsi, rdi, rsp: STACK + slots * 8 } };
  });

/** A machine for many programs: what they leave behind is cleared. */
function machineWith(options: ProcessorGroupOptions) {
  const machine = new RegionMachine('four-level', options, 'f4');
  const data = Array.from({ length: WRITABLE }, (_, page) => DATA + page * PAGE_SIZE);
  for (const page of data) machine.map(page, machine.allocate());
  machine.map(READ_ONLY, machine.allocate(), ALL_RIGHTS & ~Pte.writable);
  data.push(READ_ONLY);
  const pageOf = (linear: number): Uint8Array => {
    const start = machine.pool.addressOf(machine.frameOf(machine.numberAt(linear)));
    return machine.memory.u8.subarray(start, start + PAGE_SIZE);
  };
  const hex = (bytes: readonly number[]) => bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('');
  const run = ({ code, before, registers }: Program): object => {
    for (const [index, page] of data.entries()) {
      const bytes = pageOf(page);
      for (let at = 0; at < PAGE_SIZE; at++) bytes[at] = at * 7 + index;
    }
    machine.load(CODE_END - before, hex(code));
    machine.processor.invalidatePage(CODE as GuestVirtual);
    machine.restart(registers, CODE_END - before);
    machine.registers[5] = BigInt(ROUNDS);
    const end = machine.run(CODE_END - before);
    return { end, state: machine.stateNow(), data: data.map((page) => Buffer.from(pageOf(page)).toString('base64')) };
  };
  return { machine, run };
}

/** Dominators count edges that no code is made for: what is behind those may use no window of who is in front of it. */
describe.each([
  [
    'a branch that is never taken',
    `
      85 ff      test edi, edi
      72 03      jc: over the next
      48 89 03   mov [rbx], rax
      48 8b 0a   mov rcx, [rdx]
      48 89 3b   mov [rbx], rdi
      f4         hlt
    `,
    5 + 2,
  ],
  [
    'a jump into a loop',
    `
      85 ff         test edi, edi
      75 0a         jnz: to the first store
      49 ff c0      inc r8
      49 83 f8 02   cmp r8, 2
      72 04         jc: to the load
      f4            hlt
      48 89 03      mov [rbx], rax
      48 8b 0a      mov rcx, [rdx]
      48 89 3b      mov [rbx], rdi
      eb eb         jmp: to the increment
    `,
    undefined,
  ],
])('a page that only one of two ways has been to: %s', (_what, code, entry) => {
  test.each([
    ['at once', AT_ONCE],
    ['when it is executed again', AGAIN],
  ])('stores go where they belong, compiled %s', (_when, options) => {
    const machine = new RegionMachine('four-level', options, listing(code));
    machine.map(READ_ONLY, machine.allocate(), ALL_RIGHTS & ~Pte.writable);
    const valueAt = (address: number) => {
      const start = machine.pool.addressOf(machine.frameOf(machine.numberAt(address)));
      return machine.memory.u32[(start + (address % PAGE_SIZE)) >> 2];
    };
    const registers = { rbx: DATA + 0x100, rdx: READ_ONLY + 0x200, rdi: 7 };
    if (entry) machine.execute(registers, CODE + entry);
    for (let round = 0; round < 3; round++) {
      expect(machine.execute(registers)).toMatchObject({ vector: null });
      expect([valueAt(DATA + 0x100), valueAt(READ_ONLY + 0x200)]).toEqual([7, 0]);
    }
  });
});

describe.each([
  ['at once', AT_ONCE],
  ['when it is executed again', AGAIN],
])('code that becomes regions %s', (_when, options) => {
  test('ends as interpreted code does, at the ends of pages', () => {
    const interpreted = machineWith(INTERPRETER);
    const compiled = machineWith(options);
    fc.assert(
      fc.property(program, (given) => {
        expect(compiled.run(given)).toEqual(interpreted.run(given));
      }),
      { numRuns: 500 },
    );
    // Most of the programs go through, and so through regions.
    expect(compiled.machine.instructionsInRegions).toBeGreaterThan(500 * 10);
  });
});
