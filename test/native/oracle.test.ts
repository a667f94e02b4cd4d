import { describe, expect, it } from 'vitest';
import { Flag, Vector } from '../../src/x86/registers.ts';
import {
  BASE_WINDOW,
  CODE_BASE,
  changedWords,
  Ending,
  FS_BASE,
  GS_BASE,
  initialWindow,
  type Mode,
  type NativeCase,
  type NativeResult,
  oracleUnavailable,
  runNative,
  WINDOW_BASE,
} from './oracle.ts';
import { Random } from './random.ts';
import { floatingPointState } from './states.ts';

const PLAIN = floatingPointState(new Random(0), 'integer');
const OFFSET = 0x800;
const START = BigInt(CODE_BASE + OFFSET);

interface Setup {
  flags?: number;
  registers?: Readonly<Record<number, bigint>>;
  state?: Uint8Array;
  patches?: NativeCase['patches'];
  codeOffset?: number;
}

function makeCase(mode: Mode, code: string, setup: Setup = {}): NativeCase {
  const gprs = new BigUint64Array(16);
  for (const [register, value] of Object.entries(setup.registers ?? {})) gprs[Number(register)] = value;
  return {
    mode,
    code: Uint8Array.from(Buffer.from(code.replaceAll(' ', ''), 'hex')),
    codeOffset: setup.codeOffset ?? OFFSET,
    flags: setup.flags ?? 0,
    gprs,
    state: setup.state ?? PLAIN,
    patches: setup.patches ?? [],
  };
}

function run(mode: Mode, code: string, setup: Setup = {}): NativeResult {
  return runNative([makeCase(mode, code, setup)])[0] as NativeResult;
}

const window = (offset: number): bigint => BigInt(WINDOW_BASE + offset);
const baseByte = (offset: number): bigint => BigInt(BASE_WINDOW[offset] as number);
const STATUS_FLAGS = Flag.carry | Flag.parity | Flag.adjust | Flag.zero | Flag.sign | Flag.overflow;

describe.skipIf(oracleUnavailable() !== null)('the oracle', () => {
  it.each([64, 32] as const)('executes an addition in %i-bit code and lands behind it', (mode) => {
    const result = run(mode, '01d8', { registers: { 0: 1n, 3: 0x7fffffffn } });
    expect(result.ending).toBe(Ending.landed);
    expect(result.rip).toBe(START + 2n);
    expect(result.gprs[0]).toBe(0x80000000n);
    expect(result.flags & STATUS_FLAGS).toBe(Flag.overflow | Flag.sign | Flag.adjust | Flag.parity);
  });

  it('runs 32-bit code as such: 40 increments EAX', () => {
    expect(run(32, '40', { registers: { 0: 0xffffffffn } }).gprs[0]).toBe(0n);
  });

  it('passes all sixteen registers in and out, RSP included', () => {
    const registers = Object.fromEntries(
      Array.from({ length: 16 }, (_, i) => [i, BigInt(i + 1) * 0x0101010101010101n]),
    );
    expect([...run(64, '90', { registers }).gprs]).toEqual(Object.values(registers));
  });

  it.each([64, 32] as const)('passes arithmetic, direction, ID, NT and AC flags in and out in %i-bit code', (mode) => {
    const flags = STATUS_FLAGS | Flag.direction | Flag.identification | Flag.nestedTask | Flag.alignmentCheck;
    expect(run(mode, '90', { flags }).flags).toBe(flags | Flag.interrupt | Flag.reserved);
    expect(run(mode, '90').flags).toBe(Flag.interrupt | Flag.reserved);
  });

  it('passes the x87 stack, XMM registers, control and status words in and out', () => {
    const state = floatingPointState(new Random(7), 'xmm-f64').slice();
    new DataView(state.buffer).setUint16(0, 0x37f, true);
    new DataView(state.buffer).setUint16(2, 0x3800, true);
    const result = run(64, '90', { state });
    expect(result.state.subarray(0, 5)).toEqual(state.subarray(0, 5));
    expect(result.state.subarray(24, 28)).toEqual(state.subarray(24, 28));
    for (let i = 0; i < 8; i++) {
      expect(result.state.subarray(32 + 16 * i, 42 + 16 * i)).toEqual(state.subarray(32 + 16 * i, 42 + 16 * i));
    }
    expect(result.state.subarray(160)).toEqual(state.subarray(160, 416));
  });

  it('reports changed words of the window only, and undoes them for the next case', () => {
    const store = makeCase(64, '8903', { registers: { 0: 0x11223344n, 3: window(0x1004) } });
    const load = makeCase(64, '8b03', { registers: { 3: window(0x1004) } });
    const [stored, loaded] = runNative([store, load]) as [NativeResult, NativeResult];
    const after = initialWindow(store);
    new DataView(after.buffer).setUint32(0x1004, 0x11223344, true);
    expect(stored.changed).toEqual(changedWords(initialWindow(store), after));
    expect(loaded.gprs[0]).toBe(BigInt(new DataView(BASE_WINDOW.buffer).getUint32(0x1004, true)));
    expect(loaded.changed).toHaveLength(0);
  });

  it('applies patches to one case, on the read-only page too', () => {
    const patches = [{ offset: 0x3010, bytes: Uint8Array.of(0xaa) }];
    const setup = { registers: { 3: window(0x3010) } };
    const [patched, plain] = runNative([makeCase(64, '0fb603', { ...setup, patches }), makeCase(64, '0fb603', setup)]);
    expect(patched?.gprs[0]).toBe(0xaan);
    expect(plain?.gprs[0]).toBe(baseByte(0x3010));
  });

  it.each([
    [64, '64 0f b6 04 25 10 00 00 00', FS_BASE],
    [64, '65 0f b6 04 25 10 00 00 00', GS_BASE],
    [32, '64 0f b6 05 10 00 00 00', FS_BASE],
    [32, '65 0f b6 05 10 00 00 00', GS_BASE],
  ] as const)('addresses through FS and GS: %i-bit %s', (mode, code, base) => {
    expect(run(mode, code).gprs[0]).toBe(baseByte(base + 0x10 - WINDOW_BASE));
  });

  it('ends the FS segment of 32-bit code at its limit', () => {
    expect(run(32, '64 a1 fc 0f 00 00').ending).toBe(Ending.landed);
    expect(run(32, '64 a1 fd 0f 00 00').ending).toBe(Vector.generalProtection);
  });

  it.each([
    [64, 'f7f1', Vector.divideError, 0],
    [32, 'f7f1', Vector.divideError, 0],
    [64, 'cc', Vector.breakpoint, 1],
    [64, 'cd03', Vector.breakpoint, 2],
    [32, 'ce', Vector.overflow, 1],
    [32, '62 05 00 00 00 10', Vector.boundRange, 0],
    [64, '0f0b', Vector.invalidOpcode, 0],
    [64, '06', Vector.invalidOpcode, 0],
    [64, 'f4', Vector.generalProtection, 0],
    [64, '0f 28 04 25 01 00 00 10', Vector.generalProtection, 0],
    [64, 'd8 c1 9b', Vector.x87, 2],
    [64, '0f 58 c1', Vector.simd, 0],
  ] as const)('reports the vector and place of a fault: %i-bit %s', (mode, code, vector, length) => {
    const state = floatingPointState(new Random(3), 'xmm-f32').slice();
    const view = new DataView(state.buffer);
    view.setUint16(0, 0x340, true);
    view.setUint16(2, 0, true);
    view.setUint32(24, 0, true);
    view.setUint32(160, 0x7f800001, true);
    state[4] = 0;
    const result = run(mode, code, { flags: Flag.overflow, state });
    expect([result.ending, result.rip]).toEqual([vector, START + BigInt(length)]);
  });

  it.each([
    ['read of an unmapped page', '8b03', 0x4000, 4, 0x4000],
    ['write to an unmapped page', '8903', 0x4abc, 6, 0x4abc],
    ['write to the read-only page', '8903', 0x3000, 7, 0x3000],
    ['write that crosses into the read-only page', '8903', 0x2ffe, 7, 0x3000],
    ['read that crosses into an unmapped page', '8b03', 0x3ffd, 4, 0x4000],
    ['read before the window', '8b03', -2, 4, -2],
    ['fetch from the window', 'ffe3', 0x10, 0x14 | 1, 0x10],
    ['fetch from an unmapped page', 'ffe3', 0x4000, 0x14, 0x4000],
  ] as const)('reports error code and address of a page fault: %s', (_, code, offset, error, address) => {
    const result = run(64, code, { registers: { 3: window(offset) } });
    expect([result.ending, result.errorCode, result.cr2]).toEqual([Vector.pageFault, error, window(address)]);
    expect(result.changed).toHaveLength(0);
  });

  it.each([
    ['a general register', '8b03', Vector.generalProtection],
    ['the stack pointer', '58', Vector.stackFault],
  ] as const)('faults on an address that is not canonical in %s', (_, code, vector) => {
    const registers = { 3: 0x8000_0000_0000_0000n, 4: 0x8000_0000_0000_0000n };
    expect(run(64, code, { registers }).ending).toBe(vector);
  });

  it('faults on the fetch of bytes behind the code pages', () => {
    const result = run(64, '0f', { codeOffset: 0x1fff });
    expect([result.ending, result.cr2]).toEqual([Vector.pageFault, BigInt(CODE_BASE + 0x2000)]);
  });

  it('reports a misaligned access with AC set', () => {
    const result = run(64, '8b03', { flags: Flag.alignmentCheck, registers: { 3: window(1) } });
    expect(result.ending).toBe(Vector.alignmentCheck);
  });

  it('reports where jumps, calls and returns lead', () => {
    expect(run(64, 'ffe3', { registers: { 3: BigInt(CODE_BASE + 0x123) } }).rip).toBe(BigInt(CODE_BASE + 0x123));
    const call = run(64, 'e8 00 01 00 00', { registers: { 4: window(0x108) } });
    expect([call.rip, call.gprs[4]]).toEqual([START + 0x105n, window(0x100)]);
    expect([...call.changed]).toEqual([0x20n, START + 5n]);
  });

  it('reports a selector that a case leaves in a segment register, and puts it back', () => {
    const [loaded, next] = runNative([makeCase(32, '8ed8'), makeCase(32, '90')]);
    expect([loaded?.selectors.ds, next?.selectors.ds]).toEqual([0, 0x2b]);
    const refused = run(32, '8ed8', { registers: { 0: 0x17n } });
    expect([refused.ending, refused.errorCode]).toEqual([Vector.generalProtection, 0x14]);
  });

  it('ends a case that never stops, and goes on with the next', () => {
    const [stuck, next] = runNative([makeCase(64, 'ebfe'), makeCase(64, '90')]);
    expect([stuck?.ending, next?.ending]).toEqual([Ending.timedOut, Ending.landed]);
  });

  it.each([
    [64, '0f05'],
    [32, 'cd80'],
  ] as const)('refuses system calls of a case: %i-bit %s', (mode, code) => {
    expect(run(mode, code, { registers: { 0: 39n } }).ending).toBe(Ending.forbidden);
  });

  it('runs sequences', () => {
    expect(run(64, '48c7c0 05000000 48ffc0 480fafc0').gprs[0]).toBe(36n);
  });
});
