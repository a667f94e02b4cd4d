/**
 * However execution is cut into runs, and however few translations are cached, the guest must not notice: the cases of
 * the instruction tests leave equal states behind, after equally many instructions.
 */
import { describe, expect, test } from 'vitest';
import { Exit } from '../src/cpu/exits.ts';
import { BLOCK_LIMIT } from '../src/cpu/interpreter/record.ts';
import type { Processor } from '../src/cpu/processor.ts';
import { differencesOf } from './native/compare.ts';
import { type EmulatorOptions, ProcessorEmulator } from './native/emulator.ts';
import { COMPOSED, type GeneratedCase, generateCase, type Mask, templateNames } from './native/generate.ts';
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

  test('ends equally when all translations are dropped between instructions', () => {
    expectEqualExecution({
      advance(processor) {
        processor.flushTlb();
        return processor.step();
      },
    });
  });
});
