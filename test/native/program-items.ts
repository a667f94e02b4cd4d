/** What random programs consist of between their jumps; see program.ts. */
import { Flag } from '../../src/x86/registers.ts';
import { PAGE, WINDOW_BASE } from './oracle.ts';
import type { ProgramBuilder } from './program.ts';
import type { Random } from './random.ts';
import type { Template } from './template.ts';
import { TEMPLATES } from './templates/index.ts';

/** Programs do not read AF, which logical instructions leave undefined. */
const READS_ADJUST = new Set(['lahf', 'pushf']);
/** Those whose flags are undefined in nothing but AF. */
const LOGICAL = new Set(['and', 'or', 'xor', 'test']);
/** Those that leave more flags undefined; something that defines all of them follows. */
const VAGUE = new Set(
  ['mul', 'imul', 'bt', 'bts', 'btr', 'btc'].concat(['rol', 'ror', 'rcl', 'rcr', 'shl', 'shr', 'sal', 'sar']),
);

const DEFINED = TEMPLATES.filter(
  ({ name, alone, severalStores, before }) =>
    LOGICAL.has(name) || (!alone && !severalStores && !before && !READS_ADJUST.has(name)),
);
const isInteger = ({ domain }: Template): boolean => (domain ?? 'integer') === 'integer';
const INTEGER = DEFINED.filter(isInteger);
const FLOAT = DEFINED.filter((template) => !isInteger(template));
const VAGUE_FLAGS = TEMPLATES.filter(({ name }) => VAGUE.has(name));

/** Flags that POPF is given: all that is defined. */
const STATUS = Flag.carry | Flag.parity | Flag.zero | Flag.sign | Flag.overflow;

/** Opcodes of add, or, adc, sbb, and, sub and xor with registers: each may become any other. */
const EXCHANGEABLE = [0x01, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31];
/** movs, cmps, stos, lods and scas of bytes; the odd opcode is the wider one. */
const STRINGS = [0xa4, 0xa6, 0xaa, 0xac, 0xae];

/** An instruction in a form whose address does not depend on an operand. */
function emitFrom(program: ProgramBuilder, templates: readonly Template[]): void {
  const { cases, random } = program;
  for (;;) {
    const template = random.pick(templates);
    const forms = cases.formsOf(template).filter(({ bits }) => !bits);
    if (forms.length === 0) continue;
    cases.emit(template, random.pick(forms));
    return;
  }
}

/** ModRM of an operation between two of EAX, ECX, EDX, ESI and EDI. */
function registerPair(random: Random): number {
  const registers = [0, 1, 2, 6, 7];
  return 0xc0 | (random.pick(registers) << 3) | random.pick(registers);
}

/** add, cmp, sbb or adc of two registers: all flags are defined behind them. */
function defineFlags(program: ProgramBuilder): void {
  const { random } = program;
  program.push(random.pick([0x01, 0x39, 0x19, 0x11]), registerPair(random));
}

/** Near the edge of a page, or anywhere in the first pages. */
function stringPlace(random: Random): number {
  const offset = random.chance(40) ? random.pick([1, 2]) * PAGE - random.below(64) : 0x200 + random.below(2 * PAGE);
  return WINDOW_BASE + offset;
}

/** Loads ESI, EDI and ECX, and repeats a string instruction. */
function emitString(program: ProgramBuilder): void {
  const { random } = program;
  for (const opcode of [0xbe, 0xbf]) {
    program.push(opcode);
    program.push32(stringPlace(random));
  }
  program.push(0xb9);
  program.push32(random.chance(5) ? 0 : random.between(1, 70));
  if (random.chance(70)) program.push(0xfc, 0x39, 0xd2); // cld; cmp edx, edx
  if (random.chance(80)) program.push(random.pick([0xf3, 0xf2]));
  if (program.mode === 64 && random.chance(30)) program.push(0x48);
  else if (random.chance(20)) program.push(0x66);
  program.push(random.pick(STRINGS) + random.below(2));
}

/** Pushes a register or a number, and pops it into a register. */
function emitStack(program: ProgramBuilder): void {
  const { random } = program;
  if (random.chance(60)) program.push(0x50 + random.pick([0, 1, 2, 4, 5, 6, 7]));
  else program.push(0x6a, random.below(256));
  const inner = random.below(3);
  for (let count = 0; count < inner; count++) defineFlags(program);
  program.push(0x58 + random.pick([0, 1, 2, 6, 7]));
}

function popFlags(program: ProgramBuilder, flags: number): void {
  program.push(0x68);
  program.push32(flags);
  program.push(0x9d);
}

/** Two instructions that patches change: one by its opcode, one by its immediate. */
function emitSite(program: ProgramBuilder): void {
  const { random } = program;
  program.opcodeSites.push(program.at);
  program.push(random.pick(EXCHANGEABLE), registerPair(random));
  program.push(0xb8 + random.pick([0, 1, 2])); // mov r32, imm32
  program.immediateSites.push(program.at);
  program.push32(random.word());
}

/** A store into one of the program's sites, before or behind it in the code. */
function emitPatch(program: ProgramBuilder): void {
  const { mode, random } = program;
  const which = random.word();
  const kind = random.below(3);
  const sites = kind === 0 ? program.opcodeSites : program.immediateSites;
  // mov byte, imm8; mov dword, imm32; add dword, edx
  program.push([0xc6, 0xc7, 0x01][kind] as number);
  // [disp32] takes a SIB byte in 64-bit code.
  const register = kind === 2 ? 0x10 : 0;
  program.push(...(mode === 64 ? [0x04 | register, 0x25] : [0x05 | register]));
  program.absolute(() => sites[which % sites.length] as number); // programs that patch begin with a site
  if (kind === 0) program.push(random.pick(EXCHANGEABLE));
  if (kind === 1) program.push32(random.word());
}

/** A conditional jump over something. */
function emitSkip(program: ProgramBuilder): void {
  const { random } = program;
  const opcode = random.chance(80) ? 0x70 + random.below(16) : 0xe3;
  program.skip(opcode, () => {
    const inner = random.between(1, 3);
    for (let count = 0; count < inner; count++) emitFrom(program, INTEGER);
  });
}

/** The items of programs by name. */
export const PROGRAM_ITEMS = {
  integer: (program: ProgramBuilder) => emitFrom(program, INTEGER),
  float: (program: ProgramBuilder) => emitFrom(program, FLOAT),
  vague: (program: ProgramBuilder) => {
    emitFrom(program, VAGUE_FLAGS);
    defineFlags(program);
  },
  string: emitString,
  stack: emitStack,
  flags: (program: ProgramBuilder) => popFlags(program, 2 | (program.random.word() & STATUS)),
  skip: emitSkip,
  site: emitSite,
  patch: emitPatch,
  /** The trap comes behind the instruction that follows. */
  singleStep: (program: ProgramBuilder) => {
    popFlags(program, 2 | Flag.trap);
    defineFlags(program);
  },
} as const;
