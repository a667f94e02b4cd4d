/**
 * Random programs of several blocks on this machine's own processor, in the interpreter, and in regions that are made
 * early or late, with few translations and with many. A failure prints the seed, and the smallest program that fails.
 * More programs: RING1_PROGRAMS=5000; the same ones again: RING1_SEED=….
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Exit } from '../src/cpu/exits.ts';
import { ALL_THE_TIME } from './gathering.ts';
import { differencesOf } from './native/compare.ts';
import { ProcessorEmulator } from './native/emulator.ts';
import type { GeneratedCase } from './native/generate.ts';
import { Ending, type Mode, type NativeResult, oracleUnavailable, runNative } from './native/oracle.ts';
import { type BlockPlan, buildProgram, type EndKind, type ItemPlan, type ProgramPlan } from './native/program.ts';
import { Random } from './native/random.ts';
import { disassemble } from './native/report.ts';

const PROGRAMS = Number(process.env.RING1_PROGRAMS ?? 40);
const seed = Number(process.env.RING1_SEED ?? Math.floor(Math.random() * 0x8000_0000));
/** Milliseconds that one program may take on a busy machine. */
const TIME_LIMIT = 3000;
const THRESHOLDS = [0, 1, 2, 7, 50];
const TLB_ENTRIES = [1, 16, 1024];

/** Differences that a report names for each way of execution. */
const SHOWN = 8;

const number = fc.noShrink(fc.nat());

function itemPlans(kinds: readonly (readonly [ItemPlan['kind'], number])[]): fc.Arbitrary<ItemPlan> {
  const kind = fc.oneof(...kinds.map(([name, weight]) => ({ weight, arbitrary: fc.constant(name) })));
  return fc.record({ kind, seed: number });
}

const ITEMS = [
  ['integer', 48],
  ['float', 16],
  ['vague', 16],
  ['string', 8],
  ['stack', 8],
  ['flags', 4],
  ['skip', 12],
  ['singleStep', 1],
] as const;
const PATCHES = [
  ['site', 16],
  ['patch', 16],
] as const;
const ENDS: readonly (readonly [EndKind, number])[] = [
  ['fall', 1],
  ['jump', 2],
  ['condition', 10],
  ['counter', 2],
  ['call', 2],
  ['return', 1],
  ['register', 1],
  ['table', 1],
];

function programPlans(mode: Mode, patching: boolean): fc.Arbitrary<ProgramPlan> {
  const block: fc.Arbitrary<BlockPlan> = fc.record({
    items: fc.array(itemPlans(patching ? [...ITEMS, ...PATCHES] : ITEMS), { minLength: 1, maxLength: 8 }),
    end: fc.oneof(...ENDS.map(([end, weight]) => ({ weight, arbitrary: fc.constant(end) }))),
    target: number,
    seed: number,
  });
  return fc.record({
    mode: fc.constant(mode),
    seed: number,
    fuel: fc.integer({ min: 1, max: 120 }),
    patching: fc.constant(patching),
    blocks: fc.array(block, { minLength: 1, maxLength: 8 }),
  });
}

interface Way {
  readonly name: string;
  /** Whether much of a program should be executed in regions. */
  readonly warm: boolean;
  readonly emulator: ProcessorEmulator;
}

const UNCUT: readonly Way[] = THRESHOLDS.flatMap((threshold) =>
  TLB_ENTRIES.map((tlbEntries) => ({
    name: `threshold ${threshold}, ${tlbEntries} TLB entries`,
    warm: threshold > 0 && threshold < 50 && tlbEntries > 1,
    emulator: new ProcessorEmulator({
      tlbEntries,
      codeBytes: 1 << 20,
      jit: { threshold, regionsPerModule: threshold === 7 ? 4 : 1, isAside: false },
    }),
  })),
);

/** Instructions that a call of the processor executes; now and then too few for any region. */
const cuts = new Random(seed, 'cuts');
const nextCut = (left: number): number => Math.min(left, cuts.between(1, 300));

/** In pieces, and with hardly any room for regions. */
const CUT: readonly Way[] = [
  {
    name: 'threshold 2, in runs of any length',
    warm: false,
    emulator: new ProcessorEmulator({
      codeBytes: 1 << 16,
      jit: { threshold: 2, regionsPerModule: 1, regionSlots: 4 },
      advance: (processor, left) => processor.run(nextCut(left)),
    }),
  },
  {
    name: 'threshold 2, in runs of any length between which regions are gathered',
    warm: false,
    emulator: new ProcessorEmulator({
      jit: { threshold: 2, regionsPerModule: 2, isAside: false, gathering: ALL_THE_TIME },
      advance: (processor, left) => processor.run(nextCut(left)),
    }),
  },
  {
    name: 'threshold 2, in exact runs of any length',
    warm: false,
    emulator: new ProcessorEmulator({
      codeBytes: 1 << 16,
      jit: { threshold: 2, regionsPerModule: 1, maximumModules: 3, isAside: false, gathering: ALL_THE_TIME },
      advance: (processor, left) => {
        const count = nextCut(left);
        const end = processor.instructions + count;
        const exit = processor.runExactly(count);
        const exact = exit === Exit.budget ? processor.instructions === end : processor.instructions <= end;
        if (!exact) throw new Error(`an exact run of ${count} stopped ${processor.instructions - end} behind its end`);
        return exit;
      },
    }),
  },
];

const WAYS = [...UNCUT, ...CUT];

function differencesByWay(program: GeneratedCase, native: NativeResult): string[] {
  const found: string[] = [];
  let instructions = -1;
  for (const { name, emulator } of WAYS) {
    const result = emulator.run(program.native);
    const differences = differencesOf(program, native, result).map(
      ({ what, native: is, emulated }) => `${what}: processor ${is}, emulated ${emulated}`,
    );
    // The oracle does not count; the first way, the interpreter's, does.
    if (instructions < 0) instructions = emulator.instructions;
    if (emulator.instructions !== instructions)
      differences.push(`${emulator.instructions} instructions, not ${instructions}`);
    if (differences.length > 0) found.push(`with ${name}: ${differences.slice(0, SHOWN).join('; ')}`);
  }
  return found;
}

function expectEqual(plan: ProgramPlan): void {
  const program = buildProgram(plan);
  const { code, codeOffset } = program.native;
  const [native] = runNative([program.native]) as [NativeResult];
  expect(native.ending, 'every program ends').not.toBe(Ending.timedOut);
  const found = differencesByWay(program, native);
  if (found.length > 0) throw new Error([...found, ...disassemble(code, plan.mode, codeOffset)].join('\n'));
}

const unavailable = oracleUnavailable();

describe.skipIf(unavailable !== null)('programs of several blocks agree with this machine', () => {
  for (const mode of [64, 32] as const) {
    for (const patching of [false, true]) {
      const agree = () =>
        fc.assert(fc.property(programPlans(mode, patching), expectEqual), { numRuns: PROGRAMS, seed });
      test(`in ${mode}-bit code${patching ? ' that changes itself' : ''}`, agree, PROGRAMS * TIME_LIMIT);
    }
  }

  test('a good part of it in regions', () => {
    const executed = WAYS.filter(({ warm }) => warm).map(({ emulator }) => emulator.executed);
    const sum = (field: keyof (typeof executed)[number]) => executed.reduce((total, each) => total + each[field], 0);
    expect(sum('inRegions')).toBeGreaterThan(sum('instructions') / 20);
  });
});
