/**
 * Every instruction against this machine's own processor, with some random states each. The seed is new in each run
 * and stands in a failure's report with the command that repeats it. More states: `npx tsx test/native/run.ts`, for
 * generated code with `--emulator test/native/region-emulator.ts`.
 */
import { describe, expect, test } from 'vitest';
import { compareAll } from './native/compare.ts';
import { createEmulator } from './native/emulator.ts';
import { COMPOSED, templateNames } from './native/generate.ts';
import { type Mode, oracleUnavailable } from './native/oracle.ts';
import { createEmulator as createRegionEmulator } from './native/region-emulator.ts';
import { failureText } from './native/report.ts';
import { CONTROL_TEMPLATES } from './native/templates/control.ts';
import { INTEGER_TEMPLATES } from './native/templates/integer.ts';
import { SIMD_TEMPLATES } from './native/templates/simd.ts';
import { X87_TEMPLATES } from './native/templates/x87.ts';

/** Ways of execution with the number of states; those of several instructions stand for all instructions at once. */
const WAYS = [
  { way: 'interpreter', create: createEmulator, states: 200, composedStates: 4000 },
  { way: 'generated code', create: createRegionEmulator, states: 12, composedStates: 1000 },
] as const;

const GROUPS = [
  ['integer instructions', INTEGER_TEMPLATES],
  ['control, stack, string and segment instructions', CONTROL_TEMPLATES],
  ['x87 instructions', X87_TEMPLATES],
  ['MMX and SSE instructions', SIMD_TEMPLATES],
] as const;

const unavailable = oracleUnavailable();
const seed = Number(process.env.RING1_SEED ?? Math.floor(Math.random() * 0x1_0000_0000));
console.log(unavailable ? `not compared with a processor: ${unavailable}` : `seed ${seed}`);

describe.skipIf(unavailable !== null).each(WAYS)(
  'the $way agrees with this machine',
  ({ way, create, states, composedStates }) => {
    const emulator = create();

    const compare = (mode: Mode, only: readonly string[], count: number): void => {
      const reports = compareAll(emulator, { seed, count, modes: [mode], only, examples: 1 });
      const run = reports.reduce((sum, report) => sum + report.run, 0);
      expect(run).toBe(only.length * count);
      const failing = reports.filter((report) => report.failed > 0);
      expect(failing.map((report) => failureText(report, 3)).join('\n'), `seed ${seed}`).toBe('');
    };

    for (const mode of [64, 32] as const) {
      const names = new Set(templateNames(mode));
      for (const [title, templates] of GROUPS) {
        const only = templates.map(({ name }) => name).filter((name) => names.has(name));
        test(`on ${title} in ${mode}-bit code`, () => compare(mode, only, states));
      }
      test(`on sequences of instructions in ${mode}-bit code`, () => compare(mode, COMPOSED, composedStates));
    }

    test('and is what executed them', () => {
      const { instructions, inRegions } = emulator.executed;
      if (way === 'interpreter') expect(inRegions).toBe(0);
      // What is repeated in the interpreter counts each time: by seed that is more or less.
      else expect(inRegions).toBeGreaterThan(instructions / 5);
    });
  },
);
