import { Decoder, DecoderOptions } from 'iced-x86';
import { describe, expect, it } from 'vitest';
import { compareAll, differencesOf, type Emulator } from './compare.ts';
import { type GeneratedCase, generateCase, templateNames } from './generate.ts';
import { CODE_BYTES, Ending, type NativeResult, oracleUnavailable, runNative } from './oracle.ts';
import { failureText } from './report.ts';

const SEED = 20_240_601;
const MODES = [64, 32] as const;
/** Templates that are about what must not decode. */
const INVALID_ON_PURPOSE = new Set(['invalid', 'mov-to-segment', 'flags-and-branch', 'sequence']);

describe('the generator', () => {
  it('makes the same case from the same seed', () => {
    for (const name of ['add', 'movs', 'fadd-f32', 'pcmpestri', 'flags-and-branch', 'sequence']) {
      expect(generateCase(SEED, name, 64, 5)).toEqual(generateCase(SEED, name, 64, 5));
      expect(generateCase(SEED, name, 64, 5).native).not.toEqual(generateCase(SEED, name, 64, 6).native);
    }
  });

  it.each(MODES)('encodes every template as one instruction in %i-bit code', (mode) => {
    for (const name of templateNames(mode)) {
      if (INVALID_ON_PURPOSE.has(name)) continue;
      for (let index = 0; index < 25; index++) {
        const { native } = generateCase(SEED, name, mode, index);
        const { code, codeOffset } = native;
        if (codeOffset + code.length === CODE_BYTES || code.subarray(0, 5).includes(0xf0)) continue;
        const decoder = new Decoder(mode, code, DecoderOptions.None);
        const instruction = decoder.decode();
        expect([name, index, instruction.isInvalid, instruction.length]).toEqual([name, index, false, code.length]);
        instruction.free();
        decoder.free();
      }
    }
  });
});

describe.skipIf(oracleUnavailable() !== null)('the comparison', () => {
  const again: Emulator = { run: (nativeCase) => runNative([nativeCase])[0] as NativeResult, runAll: runNative };

  it.each(MODES)('finds the processor equal to itself, and most cases complete, in %i-bit code', (mode) => {
    const reports = compareAll(again, { seed: SEED, count: 25, modes: [mode] });
    expect(reports.filter((report) => report.failed > 0).map((report) => failureText(report))).toEqual([]);
    const completing = reports.filter(({ endings, run }) => (endings.get(Ending.landed) ?? 0) * 2 >= run);
    expect(completing.length).toBeGreaterThan(reports.length * 0.97);
  });

  const generated = (name: string, suits = (_: NativeResult): boolean => true): [GeneratedCase, NativeResult] => {
    for (let index = 0; ; index++) {
      const candidate = generateCase(SEED, name, 64, index);
      const result = runNative([candidate.native])[0] as NativeResult;
      if (result.ending === Ending.landed && suits(result)) return [candidate, result];
    }
  };

  it.each([
    ['a register', (result: NativeResult) => Object.assign(result, { gprs: result.gprs.map((value) => value ^ 1n) })],
    ['a flag', (result: NativeResult) => Object.assign(result, { flags: result.flags ^ 1 })],
    ['the instruction pointer', (result: NativeResult) => Object.assign(result, { rip: result.rip + 1n })],
    ['the ending', (result: NativeResult) => Object.assign(result, { ending: 6 })],
    ['memory', (result: NativeResult) => Object.assign(result, { changed: BigUint64Array.of(3n, 4n) })],
    [
      'the vector state',
      (result: NativeResult) => Object.assign(result, { state: result.state.map((byte) => byte ^ 1) }),
    ],
    ['a selector', (result: NativeResult) => Object.assign(result, { selectors: { ...result.selectors, fs: 7 } })],
  ])('notices a change of %s', (_, change) => {
    const [candidate, result] = generated('add');
    expect(differencesOf(candidate, result, result)).toEqual([]);
    expect(differencesOf(candidate, result, change({ ...result }))).not.toEqual([]);
  });

  it('ignores undefined flags but not the defined ones', () => {
    const [candidate, result] = generated('mul');
    expect(differencesOf(candidate, result, { ...result, flags: result.flags ^ 0x40 })).toEqual([]);
    expect(differencesOf(candidate, result, { ...result, flags: result.flags ^ 0x01 })).not.toEqual([]);
  });

  it('allows one unit in the last place after a transcendental function, not two', () => {
    const [candidate, result] = generated('fpatan', ({ state }) => ((state[41] as number) & 0x7f) === 0x3f);
    const shifted = (units: number): NativeResult => {
      const state = result.state.slice();
      const view = new DataView(state.buffer);
      view.setBigUint64(32, view.getBigUint64(32, true) ^ BigInt(units), true);
      return { ...result, state };
    };
    expect(differencesOf(candidate, result, shifted(1))).toEqual([]);
    expect(differencesOf(candidate, result, shifted(4))).not.toEqual([]);
  });
});
