import { createX87Unit, type X87Unit } from '../../src/cpu/float/x87.ts';
import { X87Result, X87Status } from '../../src/cpu/float/x87-machine.ts';
import { X87Operation, x87Operations } from '../../src/cpu/float/x87-operations.ts';
import { createQuickX87 } from '../../src/cpu/quick-x87/quick.ts';
import { State } from '../../src/cpu/state.ts';
import { type Batch, OracleKind, recordSize, runOnProcessor } from './oracle.ts';
import { Random, writeFloat32, writeFloat64, writeFloat80 } from './random.ts';

/** Comparison of the x87 unit with the processor. */

type Memory = 'none' | 'single' | 'double' | 'extended' | 'i16' | 'i32' | 'i64' | 'decimal' | 'control' | 'image';

export interface X87Case {
  name: string;
  operation: X87Operation;
  /** Bytes of the instruction; the ST index is added to the last one. */
  code: readonly number[];
  memory: Memory;
  register: boolean;
  /** FCMOVcc: the EFLAGS bits of which one must be set, and whether the condition is negated. */
  condition?: { mask: number; negated: boolean };
  /** `EnvironmentForm`. */
  form?: number;
  /** Results may be one unit in the last place away. */
  approximate?: boolean;
}

function collectCases(): X87Case[] {
  const cases: X87Case[] = [];
  const put = (key: string, code: readonly number[], memory: Memory = 'none', register = false): X87Case => {
    const description = x87Operations[key];
    if (description === undefined) throw new Error(`${key} is not in the table of x87 operations`);
    const item: X87Case = { name: key, operation: description.operation, code, memory, register };
    cases.push(item);
    return item;
  };
  /** ModR/M for [RDI] with an opcode extension. */
  const at = (extension: number) => (extension << 3) | 7;
  const families = ['add', 'mul', 'com', 'comp', 'sub', 'subr', 'div', 'divr'];
  for (const [extension, name] of families.entries()) {
    put(`f${name} m32`, [0xd8, at(extension)], 'single');
    put(`f${name} m64`, [0xdc, at(extension)], 'double');
    put(`fi${name} m16`, [0xde, at(extension)], 'i16');
    put(`fi${name} m32`, [0xda, at(extension)], 'i32');
    put(`f${name}`, [0xd8, 0xc0 | (extension << 3)], 'none', true);
    if (name.startsWith('com')) continue;
    // The encodings of the register forms of fsub and fsubr, fdiv and fdivr are exchanged.
    const reversed = extension >= 4 ? extension ^ 1 : extension;
    put(`f${name} sti`, [0xdc, 0xc0 | (reversed << 3)], 'none', true);
    put(`f${name}p`, [0xde, 0xc0 | (reversed << 3)], 'none', true);
  }
  put('fcompp', [0xde, 0xd9]);
  put('fucom', [0xdd, 0xe0], 'none', true);
  put('fucomp', [0xdd, 0xe8], 'none', true);
  put('fucompp', [0xda, 0xe9]);
  put('fcomi', [0xdb, 0xf0], 'none', true);
  put('fcomip', [0xdf, 0xf0], 'none', true);
  put('fucomi', [0xdb, 0xe8], 'none', true);
  put('fucomip', [0xdf, 0xe8], 'none', true);
  put('ftst', [0xd9, 0xe4]);
  put('fxam', [0xd9, 0xe5]);
  put('fld m32', [0xd9, at(0)], 'single');
  put('fld m64', [0xdd, at(0)], 'double');
  put('fld m80', [0xdb, at(5)], 'extended');
  put('fld', [0xd9, 0xc0], 'none', true);
  put('fild m16', [0xdf, at(0)], 'i16');
  put('fild m32', [0xdb, at(0)], 'i32');
  put('fild m64', [0xdf, at(5)], 'i64');
  put('fbld m80', [0xdf, at(4)], 'decimal');
  for (const [i, name] of ['fld1', 'fldl2t', 'fldl2e', 'fldpi', 'fldlg2', 'fldln2', 'fldz'].entries()) {
    put(name, [0xd9, 0xe8 + i]);
  }
  put('fst m32', [0xd9, at(2)]);
  put('fst m64', [0xdd, at(2)]);
  put('fst', [0xdd, 0xd0], 'none', true);
  put('fstp m32', [0xd9, at(3)]);
  put('fstp m64', [0xdd, at(3)]);
  put('fstp m80', [0xdb, at(7)]);
  put('fstp', [0xdd, 0xd8], 'none', true);
  put('fist m16', [0xdf, at(2)]);
  put('fist m32', [0xdb, at(2)]);
  put('fistp m16', [0xdf, at(3)]);
  put('fistp m32', [0xdb, at(3)]);
  put('fistp m64', [0xdf, at(7)]);
  put('fisttp m16', [0xdf, at(1)]);
  put('fisttp m32', [0xdb, at(1)]);
  put('fisttp m64', [0xdd, at(1)]);
  put('fbstp m80', [0xdf, at(6)]);
  put('fxch', [0xd9, 0xc8], 'none', true);
  for (const [i, mask] of [0x01, 0x40, 0x41, 0x04].entries()) {
    const suffix = ['b', 'e', 'be', 'u'][i] as string;
    put(`fcmov${suffix}`, [0xda, 0xc0 | (i << 3)], 'none', true).condition = { mask, negated: false };
    put(`fcmovn${suffix}`, [0xdb, 0xc0 | (i << 3)], 'none', true).condition = { mask, negated: true };
  }
  put('fchs', [0xd9, 0xe0]);
  put('fabs', [0xd9, 0xe1]);
  put('fsqrt', [0xd9, 0xfa]);
  put('frndint', [0xd9, 0xfc]);
  put('fscale', [0xd9, 0xfd]);
  put('fprem', [0xd9, 0xf8]);
  put('fprem1', [0xd9, 0xf5]);
  put('fxtract', [0xd9, 0xf4]);
  for (const [name, last] of [
    ['f2xm1', 0xf0],
    ['fyl2x', 0xf1],
    ['fptan', 0xf2],
    ['fpatan', 0xf3],
    ['fyl2xp1', 0xf9],
    ['fsincos', 0xfb],
    ['fsin', 0xfe],
    ['fcos', 0xff],
  ] as const) {
    put(name, [0xd9, last]).approximate = true;
  }
  put('fincstp', [0xd9, 0xf7]);
  put('fdecstp', [0xd9, 0xf6]);
  put('ffree', [0xdd, 0xc0], 'none', true);
  put('ffreep', [0xdf, 0xc0], 'none', true);
  put('fnop', [0xd9, 0xd0]);
  put('fwait', [0x9b]);
  put('fninit', [0xdb, 0xe3]);
  put('fnclex', [0xdb, 0xe2]);
  put('fldcw', [0xd9, at(5)], 'control');
  put('fnstcw', [0xd9, at(7)]);
  put('fnstsw', [0xdd, at(7)]);
  put('fldenv', [0xd9, at(4)], 'image').form = 1;
  put('fldenv', [0x66, 0xd9, at(4)], 'image').form = 0;
  put('fnstenv', [0xd9, at(6)]).form = 1;
  put('fnstenv', [0x66, 0xd9, at(6)]).form = 0;
  put('frstor', [0xdd, at(4)], 'image').form = 1;
  put('frstor', [0x66, 0xdd, at(4)], 'image').form = 0;
  put('fnsave', [0xdd, at(6)]).form = 1;
  put('fnsave', [0x66, 0xdd, at(6)]).form = 0;
  put('fndisi', [0xdb, 0xe1]);
  put('fneni', [0xdb, 0xe0]);
  put('fnsetpm', [0xdb, 0xe4]);
  return cases;
}

export const x87Cases: readonly X87Case[] = collectCases();

const size = recordSize[OracleKind.x87];
const stateOffset = 112;
const eflagsOffset = 228;
const eflagsMask = 0x8d5;

function writeControl(random: Random): number {
  let control = (random.word() & 0x0c00) | random.pick([0x000, 0x200, 0x300, 0x300, 0x300]) | 0x7f;
  if (random.once(2)) control = (control & ~0x3f) | (random.word() & 0x3f);
  return control;
}

/** A number whose size suits the operation: angles, exponents, or anything. */
function centerOf(random: Random, operation: X87Operation): number {
  switch (operation) {
    case X87Operation.fsin:
    case X87Operation.fcos:
    case X87Operation.fsincos:
    case X87Operation.fptan:
      return 16383 + random.below(90) - 24;
    case X87Operation.f2xm1:
      return 16382 - random.below(70);
    case X87Operation.fyl2xp1:
      return 16376 - random.below(70);
    case X87Operation.fscale:
      return random.pick([16383 + random.below(16), random.below(32768)]);
    case X87Operation.fstM32:
    case X87Operation.fstpM32:
      return random.pick([16383, 16383 - 127, 16383 + 128, 16383 - 145]);
    case X87Operation.fstM64:
    case X87Operation.fstpM64:
      return random.pick([16383, 16383 - 1023, 16383 + 1024, 16383 - 1070]);
    default:
      return random.pick([16383, 16383, 16383 + random.below(70), random.below(32768), 4, 32760]);
  }
}

function writeMemory(random: Random, view: DataView, offset: number, memory: Memory): void {
  for (let i = 0; i < 112; i += 4) view.setInt32(offset + i, random.word(), true);
  switch (memory) {
    case 'single':
      writeFloat32(random, view, offset, random.pick([127, random.below(256)]));
      break;
    case 'double':
      writeFloat64(random, view, offset, random.pick([1023, random.below(2048)]));
      break;
    case 'extended':
      writeFloat80(random, view, offset, random.pick([16383, random.below(32768)]));
      break;
    case 'i16':
    case 'i32':
    case 'i64': {
      const bits = memory === 'i16' ? 16 : memory === 'i32' ? 32 : 64;
      const value = random.pattern(bits);
      view.setBigInt64(offset, BigInt.asIntN(64, random.once(2) ? -value : value), true);
      break;
    }
    case 'decimal':
      for (let i = 0; i < 9; i++) {
        const few = random.once(3);
        view.setUint8(offset + i, few ? 0 : (random.below(10) << 4) | random.below(10));
      }
      break;
    case 'control':
      view.setUint16(offset, random.word() & 0xffff, true);
      break;
    default:
      break;
  }
}

function writeRecord(random: Random, view: DataView, offset: number, item: X87Case): void {
  writeMemory(random, view, offset, item.memory);
  const state = offset + stateOffset;
  for (let i = 0; i < 28; i += 4) view.setUint32(state + i, 0xffff0000, true);
  const control = writeControl(random);
  view.setUint16(state, control, true);
  // Sticky flags that are masked, and once in a while one that is pending.
  let status = random.word() & 0x7f00;
  if (random.once(4)) status |= random.word() & control & 0x3f;
  if (random.once(16)) status |= random.word() & 0x7f;
  view.setUint16(state + 4, status, true);
  let tags = 0;
  const emptiness = random.pick([0, 0, 3, 8]);
  for (let i = 0; i < 8; i++) {
    const empty = emptiness !== 0 && random.once(emptiness);
    tags |= (empty ? 3 : random.below(3)) << (i * 2);
  }
  // Loads need room: R(TOP − 1) is ST(7).
  if (random.once(2)) tags |= 3 << ((((status >>> 11) - 1) & 7) * 2);
  view.setUint16(state + 8, tags, true);
  view.setUint32(state + 12, random.word() >>> 0, true);
  view.setUint32(state + 16, ((random.word() & 0x7ff) << 16) >>> 0, true);
  view.setUint32(state + 20, random.word() >>> 0, true);
  const center = centerOf(random, item.operation);
  for (let i = 0; i < 8; i++) {
    const near = random.once(8) ? 16383 : center + (i === 0 ? 0 : random.pick([0, 0, random.below(70) - 35]));
    writeFloat80(random, view, state + 28 + i * 10, near);
    // Equal and opposite numbers.
    if (i > 0 && random.once(16))
      for (let j = 0; j < 8; j++) view.setUint8(state + 28 + i * 10 + j, view.getUint8(state + 28 + j));
  }
  view.setUint32(offset + eflagsOffset, 0x202 | (random.word() & eflagsMask), true);
}

/** Whether the manual leaves the result open: F2XM1 beyond ±1, FYL2XP1 beyond ±(1 − √½). */
function isUndefined(operation: X87Operation, view: DataView, offset: number): boolean {
  const number = offset + stateOffset + 28;
  const exponent = (view.getUint16(number + 8, true) & 0x7fff) - 16383;
  if (operation === X87Operation.f2xm1) {
    return exponent > 0 || (exponent === 0 && (view.getBigUint64(number, true) & (2n ** 63n - 1n)) !== 0n);
  }
  if (operation === X87Operation.fyl2xp1) {
    return exponent > -2 || (exponent === -2 && view.getUint32(number + 4, true) > 0x95f61998);
  }
  return false;
}

function hex(view: DataView, offset: number, length: number): string {
  let text = '';
  for (let i = length - 1; i >= 0; i--)
    text += view
      .getUint8(offset + i)
      .toString(16)
      .padStart(2, '0');
  return text;
}

function describe(view: DataView, offset: number): string {
  const state = offset + stateOffset;
  const word = (i: number) => view.getUint16(state + i, true).toString(16);
  const registers = [0, 1, 2].map((i) => hex(view, state + 28 + i * 10, 10)).join(' ');
  return `cw ${word(0)} sw ${word(4)} tw ${word(8)} st ${registers} m ${hex(view, offset, 10)}`;
}

/** Addresses in the memory of the unit under test. */
const memoryAt = 0;
const imageAt = 512;
const stateAt = State.size;

/** What executes instructions on the unit's state. */
export type MakeX87 = (memory: WebAssembly.Memory) => X87Unit['execute'];

export const exactX87: MakeX87 = (memory) => createX87Unit(new DataView(memory.buffer)).execute;

/** @param onExact is told of each instruction that goes on to the exact unit */
export const quickX87 =
  (onExact: () => void = () => {}): MakeX87 =>
  (memory) => {
    const exact = exactX87(memory);
    const execute = createQuickX87(memory, (state, operation, i, operand) => {
      onExact();
      return exact(operation, state + State.x87, i, operand);
    });
    return (operation, state, i, operand) => execute(state - State.x87, operation, i, operand);
  };

/** Runs `count` random records of a case on both. Returns a line for each difference, at most `limit` of them. */
export function compareX87(item: X87Case, count: number, seed: number, make = exactX87, limit = 5): string[] {
  const random = new Random(seed);
  const indices = item.register ? [0, 1, 2, 3, 4, 5, 6, 7] : [0];
  const each = Math.ceil(count / indices.length);
  const batches: Batch[] = indices.map((index) => {
    const records = new Uint8Array(each * size);
    const view = new DataView(records.buffer);
    for (let i = 0; i < each; i++) writeRecord(random, view, i * size, item);
    const code = [...item.code];
    code[code.length - 1] = (code[code.length - 1] as number) + index;
    return { kind: OracleKind.x87, code, records };
  });
  const answers = runOnProcessor(batches);

  const wasm = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const memory = new DataView(wasm.buffer);
  const bytes = new Uint8Array(wasm.buffer);
  const unit = createX87Unit(memory);
  const execute = make(wasm);
  const differences: string[] = [];
  batches.forEach((batch, batchIndex) => {
    const index = indices[batchIndex] as number;
    const input = new DataView(batch.records.buffer);
    const answer = answers[batchIndex] as Uint8Array;
    const expected = new DataView(answer.buffer, answer.byteOffset, answer.length);
    for (let offset = 0; offset < batch.records.length; offset += size) {
      const eflags = input.getUint32(offset + eflagsOffset, true);
      bytes.set(batch.records.subarray(offset, offset + stateOffset), memoryAt);
      bytes.set(batch.records.subarray(offset + stateOffset, offset + stateOffset + 108), imageAt);
      unit.initialise(stateAt);
      unit.execute(X87Operation.frstor, stateAt, 1, imageAt);
      let operand = memoryAt;
      if (item.condition !== undefined) {
        operand = ((eflags & item.condition.mask) !== 0) !== item.condition.negated ? 1 : 0;
      }
      const result = execute(item.operation, stateAt, item.form ?? index, operand);
      unit.execute(X87Operation.fnsave, stateAt, 1, imageAt);
      if (item.approximate === true && isUndefined(item.operation, input, offset)) continue;
      const status = input.getUint16(offset + stateOffset + 4, true);
      const problem = judge(item, result, eflags, status, memory, expected, offset);
      if (problem !== '' && differences.length < limit) {
        differences.push(`${item.name} ${index} ${describe(input, offset)}: ${problem}`);
      }
    }
  });
  return differences;
}

function judge(
  item: X87Case,
  result: number,
  eflags: number,
  status: number,
  memory: DataView,
  expected: DataView,
  offset: number,
): string {
  const pending = (result & X87Result.pending) !== 0;
  const expectedPending = expected.getUint32(offset + 224, true) !== 0;
  if (pending !== expectedPending) return expectedPending ? 'the processor traps' : 'the processor does not trap';
  const state = offset + stateOffset;
  const registers: string[] = [];
  for (let i = 0; i < 8; i++) {
    const ours = hex(memory, imageAt + 28 + i * 10, 10);
    const theirs = hex(expected, state + 28 + i * 10, 10);
    if (ours === theirs) continue;
    if (item.approximate === true && i < 2 && isNeighbour(ours, theirs)) continue;
    registers.push(`ST(${i}) ${ours} instead of ${theirs}`);
  }
  const problems: string[] = [];
  for (const [name, at] of [
    ['control', 0],
    ['status', 4],
    ['tags', 8],
  ] as const) {
    let ours = memory.getUint16(imageAt + at, true);
    let theirs = expected.getUint16(state + at, true);
    // C1 tells about the last bit of a result that may differ in its last bit, unless it tells of a stack fault.
    if (item.approximate === true && at === 4 && (theirs & ~status & X87Status.stackFault) === 0) {
      ours &= ~X87Status.c1;
      theirs &= ~X87Status.c1;
    }
    if (ours !== theirs) problems.push(`${name} ${ours.toString(16)} instead of ${theirs.toString(16)}`);
  }
  problems.push(...registers);
  const compares = item.operation >= X87Operation.fcomi && item.operation <= X87Operation.fucomip;
  const replaced = X87Result.carry | X87Result.parity | X87Result.zero;
  let flags = eflags & eflagsMask;
  if (compares && (result & (X87Result.pending | X87Result.suppressed)) === 0) {
    // The family also clears OF, SF and AF.
    flags = result & replaced;
  }
  const expectedFlags = expected.getUint32(offset + eflagsOffset, true) & eflagsMask;
  if (flags !== expectedFlags) problems.push(`eflags ${flags.toString(16)} instead of ${expectedFlags.toString(16)}`);
  for (let i = 0; i < 112; i++) {
    if (memory.getUint8(memoryAt + i) === expected.getUint8(offset + i)) continue;
    if (isLostPointer(item, i) && expected.getUint8(offset + i) === 0) continue;
    const from = i - (i % 2);
    problems.push(
      `memory ${from}: ${hex(memory, memoryAt + from, 10)} instead of ${hex(expected, offset + from, 10)} (result ${result.toString(16)})`,
    );
    break;
  }
  return problems.join(', ');
}

/**
 * Whether a byte of an image belongs to the last opcode or pointers. AMD's XSAVE leaves them out unless an exception is
 * pending, so that they are zeros in a record during which the kernel has switched tasks.
 */
function isLostPointer(item: X87Case, offset: number): boolean {
  if (item.operation !== X87Operation.fnstenv && item.operation !== X87Operation.fnsave) return false;
  return item.form === 0 ? offset >= 6 && offset < 14 : offset >= 12 && offset < 26;
}

/** Whether two 80-bit numbers, in hexadecimal, follow one another. */
function isNeighbour(a: string, b: string): boolean {
  const magnitude = (text: string) => {
    const value = BigInt(`0x${text}`);
    // The integer bit of normal numbers is redundant; without it the encodings count up one by one.
    return ((value >> 64n) & 0x7fffn) * 2n ** 63n + (value & (2n ** 63n - 1n));
  };
  const sameSign = Number.parseInt(a.slice(0, 1), 16) >> 3 === Number.parseInt(b.slice(0, 1), 16) >> 3;
  const distance = magnitude(a) - magnitude(b);
  return sameSign && (distance === 1n || distance === -1n);
}
