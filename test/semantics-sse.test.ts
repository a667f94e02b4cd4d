import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type SseOperation, sseOperations } from '../src/cpu/float/sse-operations.ts';
import { X87State } from '../src/cpu/float/x87-machine.ts';
import { State } from '../src/cpu/state.ts';
import { Cr0, Vector } from '../src/x86/registers.ts';
import { Bench, gpr, immediate, mmx, st, xmm } from './semantics-harness.ts';

const PRECISION = 0x20;
const DOWN = 0x2000;

/** Computes a scalar double operation on (a, b); how often the exact unit was called, the result, and MXCSR. */
function compute(operation: string, a: number, b: number, mxcsr = 0x1f80) {
  const bench = new Bench();
  bench.mxcsr = mxcsr;
  bench.setDouble(1, a);
  bench.setDouble(2, b);
  bench.execute(operation, [xmm(1), xmm(2)]);
  return { result: bench.double(1), mxcsr: bench.mxcsr, calls: bench.calls.get('sse') ?? 0 };
}

describe('SSE arithmetic', () => {
  it.each([
    ['addsd', 3, 5, 8],
    ['subsd', 1e15, 1, 1e15 - 1],
    ['mulsd', 12345, 67890, 838102050],
    ['divsd', 42, 6, 7],
    ['sqrtsd', 0, 144, 12],
    ['addsd', 0, -0, 0],
    ['mulsd', 0, 7, 0],
    ['minsd', 3, -5, -5],
    ['maxsd', 3, -5, 3],
  ])('computes the exact result of %s %d, %d inline', (operation, a, b, result) => {
    expect(compute(operation, a, b)).toEqual({ result, mxcsr: 0x1f80, calls: 0 });
  });

  it.each(['addsd', 'subsd', 'mulsd', 'divsd', 'sqrtsd'])('rounds %s inline once PE is set', (operation) => {
    const { calls, mxcsr } = compute(operation, 0.1, 0.7, 0x1f80 | PRECISION);
    expect({ calls, mxcsr }).toEqual({ calls: 0, mxcsr: 0x1f80 | PRECISION });
  });

  it.each(['addsd', 'subsd', 'mulsd', 'divsd', 'sqrtsd'])('sets PE when %s rounds for the first time', (operation) => {
    expect(compute(operation, 0.1, 0.7).mxcsr).toBe(0x1f80 | PRECISION);
  });

  it('stays inline under FTZ and DAZ while there is no denormal', () => {
    expect(compute('addsd', 0.1, 0.7, 0x9fc0 | PRECISION).calls).toBe(0);
    expect(compute('subsd', 2 ** -1022, 1.5 * 2 ** -1022, 0x9fc0)).toMatchObject({ result: -0, mxcsr: 0x9fc0 | 0x30 });
  });

  it('heeds the rounding mode', () => {
    const { result, calls } = compute('divsd', 2, 3, 0x1f80 | PRECISION | DOWN);
    expect({ result, calls }).toEqual({ result: 2 / 3, calls: 1 });
    expect(compute('divsd', 1, 3, 0x1f80 | PRECISION | (DOWN * 2)).result).toBe(1 / 3 + 2 ** -54);
  });

  it('raises #XM for an unmasked exception and keeps the register', () => {
    const bench = new Bench();
    bench.mxcsr = 0x1f80 & ~0x200;
    bench.setDouble(1, 1);
    expect(bench.execute('divsd', [xmm(1), xmm(2)])).toBe(Vector.simd);
    expect(bench.double(1)).toBe(1);
    expect(bench.mxcsr & 0x3f).toBe(0x04);
  });

  it('raises #UD instead when CR4.OSXMMEXCPT is clear', () => {
    const bench = new Bench();
    bench.set32(State.cr4, 0x200);
    bench.mxcsr = 0;
    expect(bench.execute('divsd', [xmm(1), xmm(2)])).toBe(Vector.invalidOpcode);
  });

  it.each([
    [-3.75, -3],
    [2 ** 31 - 1, 2 ** 31 - 1],
  ])('truncates %d to %d', (value, result) => {
    const bench = new Bench();
    bench.setDouble(2, value);
    bench.execute('cvttsd2si', [gpr(0, 4), xmm(2)]);
    expect(bench.get32(0) | 0).toBe(result);
  });

  it('converts 2^63 out of range to the indefinite integer', () => {
    const bench = new Bench();
    bench.setDouble(2, 2 ** 63);
    bench.execute('cvttsd2si', [gpr(0, 8), xmm(2)]);
    expect([bench.get32(4), bench.get32(0), bench.mxcsr]).toEqual([0x8000_0000, 0, 0x1f81]);
  });
});

const EDGES_64 = [
  0x0n,
  0x1n,
  0xfffffffffffffn,
  0x10000000000000n,
  0x10000000000001n,
  0x20000000000000n,
  0x1ff0000000000000n,
  0x3ca0000000000000n,
  0x3ff0000000000000n,
  0x3ff0000000000001n,
  0x4330000000000000n,
  0x433fffffffffffffn,
  0x43e0000000000000n,
  0x7fe0000000000000n,
  0x7fefffffffffffffn,
  0x7ff0000000000000n,
  0x7ff0000000000001n,
  0x7ff8000000000000n,
];
const EDGES_32 = [
  0x0, 0x1, 0x7fffff, 0x800000, 0x800001, 0x1000000, 0x20000000, 0x33800000, 0x3f800000, 0x3f800001, 0x4b7fffff,
  0x4f000000, 0x5f000000, 0x7f000000, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc00000,
];
const sign64 = fc.constantFrom(0n, 1n << 63n);
const double = fc.oneof(
  fc.tuple(fc.constantFrom(...EDGES_64), sign64).map(([value, sign]) => value | sign),
  fc.integer({ min: -10000, max: 10000 }).map((value) => bitsOf(value)),
  fc.double({ noNaN: true, min: -1e6, max: 1e6 }).map(bitsOf),
  fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
);
const single = fc.oneof(
  fc.tuple(fc.constantFrom(...EDGES_32), fc.constantFrom(0, 0x8000_0000)).map(([value, sign]) => (value | sign) >>> 0),
  fc.integer({ min: -10000, max: 10000 }).map((value) => bitsOfSingle(value)),
  fc.float({ noNaN: true, min: -1e6, max: 1e6 }).map(bitsOfSingle),
  fc.integer({ min: 0, max: 0xffff_ffff }),
);
const control = fc
  .tuple(
    fc.constantFrom(0x1f80, 0x1f80, 0x1f80, 0x1f80, 0x3f80, 0x9f80, 0x1fc0, 0x9fc0, 0x1d80),
    fc.constantFrom(0, PRECISION),
  )
  .map(([modes, flags]) => modes | flags);

function bitsOf(value: number): bigint {
  return new BigUint64Array(new Float64Array([value]).buffer)[0] as bigint;
}

function bitsOfSingle(value: number): number {
  return new Uint32Array(new Float32Array([value]).buffer)[0] as number;
}

const FORMS = ['ss', 'sd', 'ps', 'pd'];
const FAMILIES = ['add', 'sub', 'mul', 'div', 'sqrt', 'min', 'max', 'cmp', 'round'];
const OTHERS = [
  ...['haddps', 'haddpd', 'hsubps', 'hsubpd', 'addsubps', 'addsubpd', 'cvtss2sd', 'cvtsd2ss', 'cvtps2pd', 'cvtpd2ps'],
  ...['cvtdq2ps', 'cvtdq2pd', 'cvtps2dq', 'cvttps2dq', 'cvtpd2dq', 'cvttpd2dq'],
];

describe('inline floating point agrees with the exact unit', () => {
  const names = [...FAMILIES.flatMap((family) => FORMS.map((form) => family + form)), ...OTHERS];
  const bench = new Bench();

  it.each(names)('%s', (name) => {
    const singles = /(ss|ps)$|^cvt(t?ps|ss|dq)2/.test(name);
    const lanes: fc.Arbitrary<readonly bigint[]> = singles
      ? fc
          .tuple(single, single, single, single)
          .map(([a, b, c, d]) => [BigInt(a) | (BigInt(b) << 32n), BigInt(c) | (BigInt(d) << 32n)])
      : fc.tuple(double, double);
    const withImmediate = /^(cmp|round)/.test(name);
    const operands = withImmediate ? [xmm(1), xmm(2), immediate] : [xmm(1), xmm(2)];
    fc.assert(
      fc.property(lanes, lanes, control, fc.integer({ min: 0, max: 15 }), (a, b, mxcsr, value) => {
        const registers = new BigUint64Array(
          bench.bytes(State.xmm + 16, 32).buffer,
          bench.bytes(State.xmm + 16, 32).byteOffset,
          4,
        );
        registers.set([...a, ...b]);
        bench.mxcsr = mxcsr;
        const expected = bench.exactly(sseOperations[name] as SseOperation, 1, 2, value);
        const vector = bench.execute(name, operands, value);
        if (expected === null) {
          expect(vector).toBe(Vector.simd);
          return;
        }
        expect(vector).toBe(0);
        expect([...bench.bytes(State.xmm + 16, 16)]).toEqual([...expected.result]);
        expect(bench.mxcsr).toBe(expected.mxcsr);
      }),
      { numRuns: 400 },
    );
  });
});

describe('availability', () => {
  it.each([
    ['addsd', [xmm(1), xmm(2)], Cr0.emulation, 0x200, Vector.invalidOpcode],
    ['addsd', [xmm(1), xmm(2)], 0, 0, Vector.invalidOpcode],
    ['addsd', [xmm(1), xmm(2)], Cr0.taskSwitched, 0x200, Vector.deviceNotAvailable],
    ['paddb', [mmx(1), mmx(2)], Cr0.emulation, 0x200, Vector.invalidOpcode],
    ['paddb', [mmx(1), mmx(2)], 0, 0, 0],
    ['paddb', [mmx(1), mmx(2)], Cr0.taskSwitched, 0x200, Vector.deviceNotAvailable],
    ['fld1', [], Cr0.emulation, 0x200, Vector.deviceNotAvailable],
    ['fld1', [], Cr0.taskSwitched, 0x200, Vector.deviceNotAvailable],
    ['fnclex', [], Cr0.taskSwitched, 0x200, Vector.deviceNotAvailable],
    ['fwait', [], Cr0.taskSwitched, 0x200, 0],
    ['fwait', [], Cr0.taskSwitched | Cr0.monitorCoprocessor, 0x200, Vector.deviceNotAvailable],
  ])('%s %o with CR0 %i and CR4 %i ends with vector %i', (operation, operands, cr0, cr4, vector) => {
    const bench = new Bench();
    bench.set32(State.cr0, cr0);
    bench.set32(State.cr4, cr4);
    bench.set32(State.fpuTrap, 1);
    expect(bench.execute(operation, operands)).toBe(vector);
  });

  it.each([
    ['fadd', [st(0), st(1)]],
    ['fwait', []],
    ['paddb', [mmx(1), mmx(2)]],
    ['emms', []],
  ])('%s raises #MF while an x87 exception is pending', (operation, operands) => {
    const bench = new Bench();
    bench.view.setUint16(0x1_0000 + State.x87 + X87State.status, 0x8081, true);
    expect(bench.execute(operation, operands)).toBe(Vector.x87);
  });

  it('fnclex executes while an x87 exception is pending', () => {
    const bench = new Bench();
    bench.view.setUint16(0x1_0000 + State.x87 + X87State.status, 0x8081, true);
    expect(bench.execute('fnclex', [])).toBe(0);
    expect(bench.view.getUint16(0x1_0000 + State.x87 + X87State.status, true)).toBe(0);
  });
});

describe('MMX', () => {
  it('makes TOP 0, all registers valid, and the written exponent all ones', () => {
    const bench = new Bench();
    bench.execute('fld1', []);
    bench.bytes(State.x87 + 16, 8).fill(0x70);
    bench.bytes(State.x87 + 32, 8).fill(0x20);
    expect(bench.execute('paddsb', [mmx(1), mmx(2)])).toBe(0);
    const part = (offset: number, count: number) => [...bench.bytes(State.x87 + offset, count)];
    expect(part(16, 10)).toEqual([...new Array<number>(8).fill(0x7f), 0xff, 0xff]);
    expect(part(X87State.status, 3)).toEqual([0, 0, 0xff]);
    bench.execute('emms', []);
    expect(part(X87State.occupied, 1)).toEqual([0]);
  });
});
