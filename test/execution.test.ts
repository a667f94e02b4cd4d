/**
 * However execution is cut into runs, and however few translations are cached, the guest must not notice: the cases of
 * the instruction tests leave equal states behind, after equally many instructions.
 */
import { describe, expect, test } from 'vitest';
import { operationNames } from '../src/cpu/decode/decoder.ts';
import { Exit } from '../src/cpu/exits.ts';
import { BLOCK_LIMIT } from '../src/cpu/interpreter/record.ts';
import type { Processor } from '../src/cpu/processor.ts';
import { SEMANTICS } from '../src/cpu/semantics/index.ts';
import { differencesOf } from './native/compare.ts';
import { type EmulatorOptions, ProcessorEmulator } from './native/emulator.ts';
import { COMPOSED, type GeneratedCase, generateCase, type Mask, templateNames } from './native/generate.ts';
import { WINDOW_BASE, WINDOW_BYTES } from './native/oracle.ts';
import { Random } from './native/random.ts';
import { CONTROL_TEMPLATES } from './native/templates/control.ts';

const seed = Number(process.env.RING1_SEED ?? Math.floor(Math.random() * 0x1_0000_0000));
const NOTHING_OPEN: Mask = { flags: 0, status: 0, approximate: null, memory: [], memoryOpenAfterFault: false };
const MODES = [64, 32] as const;

/** Repetitions, changes of flow and several instructions in a row are what a cut could harm. */
function makeCases(): GeneratedCase[] {
  const names = new Set([...CONTROL_TEMPLATES.map(({ name }) => name), ...COMPOSED]);
  return MODES.flatMap((mode) =>
    templateNames(mode)
      .filter((name) => names.has(name))
      .flatMap((name) =>
        Array.from({ length: COMPOSED.includes(name) ? 1500 : 40 }, (_, index) => ({
          ...generateCase(seed, name, mode, index),
          mask: NOTHING_OPEN,
        })),
      ),
  );
}

const cases = makeCases();
const plain = new ProcessorEmulator();
const expected = cases.map(({ native }) => ({ result: plain.run(native), instructions: plain.instructions }));

function expectEqualExecution(options: EmulatorOptions): void {
  const emulator = new ProcessorEmulator(options);
  for (const [index, generated] of cases.entries()) {
    const { result, instructions } = expected[index] as (typeof expected)[number];
    const found = differencesOf(generated, result, emulator.run(generated.native)).map(({ what }) => what);
    if (emulator.instructions !== instructions) found.push('instructions');
    const { template, mode, index: number } = generated;
    expect(found, `${template} ${mode} seed ${seed} case ${number}`).toEqual([]);
  }
}

/** Counts what a call of the processor completes. */
function completed(processor: Processor, call: () => Exit): { exit: Exit; count: number } {
  const before = processor.instructions;
  const exit = call();
  return { exit, count: processor.instructions - before };
}

describe('the same program', () => {
  test('ends equally when each step executes one instruction', () => {
    expectEqualExecution({
      advance(processor) {
        const { exit, count } = completed(processor, () => processor.step());
        // Traps count as completed, faults and instructions that the host carries out do not.
        if (count > 1 || (exit === Exit.budget && count !== 1))
          throw new Error(`a step completed ${count} instructions`);
        return exit;
      },
    });
  });

  test('ends equally in runs of any length, none far beyond its budget', () => {
    const random = new Random(seed);
    expectEqualExecution({
      advance(processor, left) {
        const budget = Math.min(left, random.between(1, 20));
        const { exit, count } = completed(processor, () => processor.run(budget));
        if (count >= budget + BLOCK_LIMIT) throw new Error(`a run of ${budget} completed ${count} instructions`);
        return exit;
      },
    });
  });

  test('ends equally with one translation cached', () => {
    expectEqualExecution({ tlbEntries: 1 });
  });

  test('ends equally with its memory in the highest addresses of the host', () => {
    expectEqualExecution({ memoryBytes: 0xffff_0000 });
  });

  test('ends equally when all translations are dropped between instructions', () => {
    expectEqualExecution({
      advance(processor) {
        processor.flushTlb();
        return processor.step();
      },
    });
  });
});

test('every operation that the decoder names has a meaning', () => {
  const alone = [...SEMANTICS.keys()];
  const special = ['mov-system', 'mov-cr2', 'load-segment', 'pop-segment'];
  expect(operationNames().filter((name) => !SEMANTICS.has(name))).toEqual([]);
  expect(alone.filter((name) => !operationNames().includes(name) && !special.includes(name))).toEqual([]);
});

test('no bytes make the host fail', () => {
  const random = new Random(seed);
  for (let count = 0; count < 10_000; count++) {
    const mode = random.pick(MODES);
    const code = Uint8Array.from({ length: 15 }, () => random.below(256));
    // Half of them from the two-byte map.
    if (random.chance(50)) code[random.below(3)] = 0x0f;
    const registers = Array.from({ length: 16 }, () => BigInt(WINDOW_BASE + random.below(WINDOW_BYTES)));
    const native = { ...generateCase(seed, 'sequence', mode, count).native, code, codeOffset: 0x800 };
    native.gprs = BigUint64Array.from(registers);
    expect(() => plain.run(native), `${mode} ${Buffer.from(code).toString('hex')}`).not.toThrow();
  }
});
