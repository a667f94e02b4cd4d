/** Turns templates into cases. A case is fixed by seed, template name, mode and index, so that any one can be repeated. */
import { Flag } from '../../src/x86/registers.ts';
import { CaseBuilder } from './case-builder.ts';
import type { Mode, NativeCase } from './oracle.ts';
import { Random } from './random.ts';
import type { Approximation, IgnoredBytes, Operation, Template } from './template.ts';
import { TEMPLATES } from './templates/index.ts';

/** What of a result is not compared exactly. */
export interface Mask {
  /** Bits of RFLAGS. */
  flags: number;
  /** Bits of the x87 status word. */
  status: number;
  approximate: Approximation | null;
  memory: readonly IgnoredBytes[];
  /** Whether memory is not compared after a fault. */
  memoryOpenAfterFault: boolean;
}

export interface GeneratedCase {
  template: string;
  mode: Mode;
  index: number;
  seed: number;
  native: NativeCase;
  mask: Mask;
}

const SEQUENCE = 'sequence';
const BRANCH = 'flags-and-branch';
const NOTHING_IGNORED: readonly IgnoredBytes[] = [];

/** Templates of several instructions, which stand in no table. */
export const COMPOSED: readonly string[] = [BRANCH, SEQUENCE];

/** Names of all templates that have a form in `mode`, in the order of the tables; at last, the composed ones. */
export function templateNames(mode: Mode): string[] {
  const has = (template: Template): boolean =>
    new CaseBuilder(mode, new Random(0), 'integer').formsOf(template).length > 0;
  return [...TEMPLATES.filter(has).map((template) => template.name), ...COMPOSED];
}

const byName = new Map(TEMPLATES.map((template) => [template.name, template]));

/** The case of that number. Throws for a template that is not in the tables or has no form in the mode. */
export function generateCase(seed: number, name: string, mode: Mode, index: number): GeneratedCase {
  if (name === SEQUENCE) return generateSequence(seed, mode, index);
  if (name === BRANCH) return generateBranch(seed, mode, index);
  const template = byName.get(name);
  if (!template) throw new RangeError(`there is no template "${name}"`);
  for (let attempt = 0; ; attempt++) {
    const random = new Random(seed, name, mode, index, attempt);
    const builder = new CaseBuilder(mode, random, template.domain ?? 'integer');
    const operation = builder.emitAny(template);
    if (!operation) throw new RangeError(`template "${name}" has no form in ${mode}-bit code`);
    if (template.reject?.(operation)) continue;
    return { template: name, mode, index, seed, native: builder.finish(), mask: maskOf(template, operation) };
  }
}

function maskOf(template: Template, operation: Operation): Mask {
  const { undefinedFlags } = template;
  return {
    flags: typeof undefinedFlags === 'function' ? undefinedFlags(operation) : (undefinedFlags ?? 0),
    status: template.undefinedStatus ?? 0,
    approximate: template.approximate ?? null,
    memory: template.ignoredBytes?.(operation) ?? NOTHING_IGNORED,
    memoryOpenAfterFault: template.severalStores ?? false,
  };
}

/** Registers of a sequence: those that addresses use are left alone by its operands as far as the encoding allows. */
const SEQUENCE_ADDRESSES = { 64: [3, 6, 7, 12, 13, 14], 32: [3, 6, 7] } as const;
const SEQUENCE_OPERANDS = { 64: [0, 1, 2, 5, 8, 9, 10, 11, 15], 32: [0, 1, 2, 5] } as const;
const LONGEST_SEQUENCE = 40;

const sequenced = TEMPLATES.filter((template) => !template.alone && !template.severalStores);

/**
 * Straight-line code of two to six instructions whose results are all defined: shows flags, registers and memory that
 * one instruction leaves to the next.
 */
function generateSequence(seed: number, mode: Mode, index: number): GeneratedCase {
  const random = new Random(seed, SEQUENCE, mode, index);
  const vectors = random.chance(35);
  const domain = vectors ? random.pick(['xmm', 'xmm-f32', 'xmm-f64'] as const) : 'integer';
  const builder = new CaseBuilder(mode, random, domain);
  const candidates = sequenced.filter((template) => {
    const own = template.domain ?? 'integer';
    return (own === 'integer' || (vectors && own !== 'xmm-text')) && builder.formsOf(template).length > 0;
  });
  builder.addressRegisters = SEQUENCE_ADDRESSES[mode];
  builder.operandRegisters = SEQUENCE_OPERANDS[mode];
  builder.faults = 20;
  const length = random.between(2, 6);
  for (let i = 0; i < length && builder.code.length < LONGEST_SEQUENCE; i++) builder.emitAny(random.pick(candidates));
  return {
    template: SEQUENCE,
    mode,
    index,
    seed,
    native: builder.finish(),
    mask: { flags: 0, status: 0, approximate: null, memory: NOTHING_IGNORED, memoryOpenAfterFault: false },
  };
}

const FLAG_SETTERS = ['cmp', 'test', 'sub', 'add', 'and', 'or', 'xor', 'inc', 'dec', 'neg', 'adc', 'sbb', 'cmpxchg']
  .map((name) => byName.get(name))
  .filter((template) => template !== undefined);
const CONDITIONAL_JUMPS = TEMPLATES.filter(({ name }) => name !== 'jmp' && /^j(?!mpf|cxz)/.test(name));

/** An instruction that sets flags, and one or two conditional jumps directly behind it. */
function generateBranch(seed: number, mode: Mode, index: number): GeneratedCase {
  const random = new Random(seed, BRANCH, mode, index);
  const builder = new CaseBuilder(mode, random, 'integer');
  builder.emitAny(random.pick(FLAG_SETTERS));
  const jumps = random.chance(70) ? 1 : 2;
  for (let i = 0; i < jumps; i++) builder.emitAny(random.pick(CONDITIONAL_JUMPS));
  return {
    template: BRANCH,
    mode,
    index,
    seed,
    native: builder.finish(),
    mask: {
      flags: Flag.adjust,
      status: 0,
      approximate: null,
      memory: NOTHING_IGNORED,
      memoryOpenAfterFault: false,
    },
  };
}
