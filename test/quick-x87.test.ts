/**
 * x87 in generated code against this machine's own processor, and what it leaves to the exact unit.
 *
 * FLOAT_CASES sets the random records for each instruction form, FLOAT_SEED the seed.
 */
import { describe, expect, it } from 'vitest';
import { X87State, X87Status } from '../src/cpu/float/x87-machine.ts';
import { x87Operations } from '../src/cpu/float/x87-operations.ts';
import { State } from '../src/cpu/state.ts';
import { compareX87, exactX87, type MakeX87, quickX87, type X87Case, x87Cases } from './float/x87-cases.ts';

const count = Number(process.env.FLOAT_CASES ?? 500);
const seed = Number(process.env.FLOAT_SEED ?? Math.floor(Math.random() * 0x1_0000_0000));

const stateAt = State.size;
const operandAt = 0x100;

/** Programs have these seldom, or they are no arithmetic. */
const EXACT_ONLY = [
  ...['fbld m80', 'fldl2t', 'fldl2e', 'fldpi', 'fldlg2', 'fldln2', 'fbstp m80'],
  ...['fsqrt', 'fscale', 'fprem', 'fprem1', 'fxtract'],
  ...['f2xm1', 'fyl2x', 'fyl2xp1', 'fptan', 'fpatan', 'fsin', 'fcos', 'fsincos'],
  ...['fincstp', 'fdecstp', 'ffree', 'ffreep', 'fnop', 'fwait', 'fninit', 'fnclex'],
  ...['fldenv', 'fnstenv', 'frstor', 'fnsave', 'fneni', 'fndisi', 'fnsetpm'],
];
const isQuick = ({ name }: X87Case): boolean => !EXACT_ONLY.includes(name);

/** A unit with 2.5 in ST(0) and 1.25 in ST(1), and how often it asked the exact one since. */
function createBench() {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const view = new DataView(memory.buffer);
  let asked = 0;
  const execute = quickX87(() => asked++)(memory);
  const run = (key: string, i = 0): number => {
    const description = x87Operations[key];
    if (description === undefined) throw new Error(`no x87 operation ${key}`);
    return execute(description.operation, stateAt, i, operandAt);
  };
  run('fninit');
  for (const value of [1.25, 2.5]) {
    view.setFloat64(operandAt, value, true);
    run('fld m64');
  }
  asked = 0;
  return { view, run, asked: () => asked };
}

describe(`x87 in generated code gives the processor's results, flags and traps (seed ${seed})`, () => {
  const named = x87Cases.filter(isQuick).map((item) => [item.name, item] as const);
  it.each(named)('%s', (_name, item) => expect(compareX87(item, count, seed, quickX87())).toEqual([]));
});

describe('x87 in generated code gives the results of the exact unit at the edges', () => {
  const significands = [
    0n,
    1n,
    2n,
    2n ** 31n,
    2n ** 32n + 1n,
    2n ** 62n,
    2n ** 62n + 1n,
    2n ** 63n - 2n,
    2n ** 63n - 1n,
  ].map((fraction) => 2n ** 63n + fraction);
  /** Distances at which a significand reaches the last place of another, and exponents at the ends of formats. */
  const exponents = [0, 1, 2, 15, 31, 52, 62, 63, 64, 65, 66, 126, 127, 128, 1023, 1024, 8191, 16383].flatMap(
    (exponent) => [16383 + exponent, 16384 - exponent],
  );
  const numbers = exponents.flatMap((exponent) => significands.map((significand) => ({ exponent, significand })));

  /** The state after an instruction, and what it stored. */
  const outcome = (make: MakeX87) => {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
    const view = new DataView(memory.buffer);
    const execute = make(memory);
    return (
      operation: number,
      control: number,
      a: (typeof numbers)[number],
      signs: number,
      b: (typeof numbers)[number],
    ) => {
      view.setBigUint64(operandAt, 0n, true);
      view.setUint16(stateAt + X87State.control, control, true);
      view.setUint16(stateAt + X87State.status, 0, true);
      view.setUint8(stateAt + X87State.occupied, 0x03);
      for (const [index, { exponent, significand }] of [a, b].entries()) {
        const slot = stateAt + index * X87State.registerSize;
        view.setBigUint64(slot, significand, true);
        view.setUint16(slot + 8, exponent | (((signs >> index) & 1) << 15), true);
      }
      const result = execute(operation, stateAt, 1, operandAt);
      const words = [stateAt, stateAt + 8, stateAt + X87State.control, operandAt].map((at) =>
        view.getBigUint64(at, true),
      );
      return [result, ...words].join();
    };
  };

  it.each(['fadd', 'fsub', 'fmul', 'fdiv', 'fdivr', 'fcom', 'fcomi'])('of %s', (key) => {
    const [quick, exact] = [outcome(quickX87()), outcome(exactX87)];
    const operation = x87Operations[key]?.operation ?? 0;
    for (const a of significands.map((significand) => ({ exponent: 16383, significand }))) {
      for (const b of numbers) {
        for (const signs of [0, 1, 2]) {
          const name = `${a.significand} and ${b.significand} ${b.exponent}, signs ${signs}`;
          expect(quick(operation, 0x37f, a, signs, b), name).toBe(exact(operation, 0x37f, a, signs, b));
        }
      }
    }
  });

  const conversions = ['fst m32', 'fst m64', 'fist m16', 'fist m32', 'fistp m64', 'fisttp m64', 'frndint'];
  it.each(conversions)('of %s', (key) => {
    const [quick, exact] = [outcome(quickX87()), outcome(exactX87)];
    const operation = x87Operations[key]?.operation ?? 0;
    for (const a of numbers) {
      for (const control of [0x37f, 0x77f, 0xb7f, 0xf7f]) {
        for (const signs of [0, 1]) {
          const name = `${a.significand} ${a.exponent} ${signs} ${control}`;
          expect(quick(operation, control, a, signs, a), name).toBe(exact(operation, control, a, signs, a));
        }
      }
    }
  });
});

describe('x87 in generated code', () => {
  it.each(Object.keys(x87Operations))('does %s by itself, or never does', (key) => {
    const { view, run, asked } = createBench();
    if (key.endsWith('m32') && !key.startsWith('fi')) view.setFloat32(operandAt, 1.5, true);
    else if (key === 'fldcw') view.setUint16(operandAt, 0x037f, true);
    else view.setBigInt64(operandAt, 5n, true);
    if (key.endsWith('m64') && !key.startsWith('fi')) view.setFloat64(operandAt, 1.5, true);
    run(key, 1);
    expect(asked()).toBe(EXACT_ONLY.includes(key) ? 1 : 0);
  });

  const unusual: readonly (readonly [string, string, (view: DataView) => void])[] = [
    ['another precision', 'fmul m64', (view) => view.setUint16(stateAt + X87State.control, 0x027f, true)],
    ['another rounding', 'fmul m64', (view) => view.setUint16(stateAt + X87State.control, 0x077f, true)],
    ['an unmasked inexact result', 'fmul m64', (view) => view.setUint16(stateAt + X87State.control, 0x035f, true)],
    ['an empty register', 'fmul m64', (view) => view.setUint8(stateAt + X87State.occupied, 0)],
    ['a full stack', 'fld m64', (view) => view.setUint8(stateAt + X87State.occupied, 0xff)],
    ['something pending', 'fld1', (view) => view.setUint16(stateAt + X87State.status, 0xb081, true)],
    ['a denormal', 'fmul m64', (view) => view.setFloat64(operandAt, 2 ** -1074, true)],
    ['a NaN', 'fmul m64', (view) => view.setFloat64(operandAt, Number.NaN, true)],
    ['an infinity', 'fmul m64', (view) => view.setFloat64(operandAt, Number.POSITIVE_INFINITY, true)],
    ['a division by zero', 'fdiv m64', (view) => view.setFloat64(operandAt, 0, true)],
  ];
  it.each(unusual)('leaves %s to the exact unit', (_name, key, arrange) => {
    const { view, run, asked } = createBench();
    view.setFloat64(operandAt, 1.1, true);
    arrange(view);
    run(key);
    expect(asked()).toBe(1);
  });

  it('is compared by what notices a wrong operation', () => {
    const sum = x87Cases.find(({ name }) => name === 'fadd m64') as X87Case;
    const difference = x87Operations['fsub m64']?.operation ?? 0;
    expect(compareX87({ ...sum, operation: difference }, 100, seed, quickX87())).not.toEqual([]);
    expect(compareX87(sum, 100, seed, exactX87)).toEqual([]);
  });

  it('stores the largest number, which programs compare with', () => {
    const { view, run, asked } = createBench();
    view.setFloat64(operandAt, Number.MAX_VALUE, true);
    run('fld m64');
    view.setFloat64(operandAt, 0, true);
    run('fstp m64');
    expect(view.getFloat64(operandAt, true)).toBe(Number.MAX_VALUE);
    expect(asked()).toBe(0);
  });

  it('keeps the status word of a rounded sum', () => {
    const { view, run } = createBench();
    view.setFloat64(operandAt, 2 ** -80, true);
    run('fadd m64');
    expect(view.getUint16(stateAt + X87State.status, true) & (0x3f | X87Status.c1)).toBe(0x20);
  });
});
