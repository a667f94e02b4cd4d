/**
 * Random programs of several blocks: loops, jumps in both directions, calls and returns, jumps through registers and
 * tables, and code that changes itself. A program is built from a plan, which a property test can shrink; each item of a
 * plan has a seed of its own, so that the others stay what they are when one is left out.
 *
 * Every way backward spends fuel, so all programs end. RBP holds the fuel, RSP the stack; addresses are formed from
 * registers that no operand names.
 */
import { Flag } from '../../src/x86/registers.ts';
import { CaseBuilder } from './case-builder.ts';
import type { GeneratedCase } from './generate.ts';
import { CODE_BASE, CODE_BYTES, type Mode, PAGE, STATE_BYTES, WINDOW_BASE } from './oracle.ts';
import { PROGRAM_ITEMS } from './program-items.ts';
import { Random } from './random.ts';
import { floatingPointState } from './states.ts';

/** One or a few instructions that control only passes through. */
export interface ItemPlan {
  readonly kind: keyof typeof PROGRAM_ITEMS;
  readonly seed: number;
}

/** How a block ends. */
export type EndKind = 'fall' | 'jump' | 'condition' | 'counter' | 'call' | 'return' | 'register' | 'table';

export interface BlockPlan {
  readonly items: readonly ItemPlan[];
  readonly end: EndKind;
  /** Number of the block that control may go to; any number. */
  readonly target: number;
  readonly seed: number;
}

export interface ProgramPlan {
  readonly mode: Mode;
  readonly seed: number;
  /** Jumps backward that are made before the program ends, at least 1. */
  readonly fuel: number;
  /** Whether the program changes its own code. */
  readonly patching: boolean;
  readonly blocks: readonly BlockPlan[];
}

/** Registers that addresses are formed from, and those that operands name: never 7, which is BH where it is a byte. */
const ADDRESS_REGISTERS = { 64: [3, 12, 13, 14], 32: [3] } as const;
const OPERAND_REGISTERS = { 64: [0, 1, 2, 6, 8, 9, 10, 11, 15], 32: [0, 1, 2, 6] } as const;
const RSP = 4;
const RBP = 5;

/** Places of jump tables and of the stack in the window. */
const TABLES = 5 * PAGE + 0x800;
const TABLE_ENTRIES = 4;
const STACK_TOPS = [2 * PAGE + 0x800, 2 * PAGE + 0x804, 2 * PAGE + 0x10, 2 * PAGE + 3];
/** Entries above the top of the stack that lead into the program, for returns that no call matches. */
const RETURNS = 4;

/** Percent of programs whose vectors are ordinary numbers, in the usual modes. */
const ORDINARY = 60;
/** All exceptions masked, and an inexact result met before: then nothing needs to be exact but the result. */
const MXCSR_IN_USE = 0x1fa0;
/** Offsets in an FXSAVE image. */
const MXCSR = 24;
const XMM = 160;

/** Random states have every special value; most code meets none of them. */
function ordinaryState(random: Random, bytes: 4 | 8): Uint8Array {
  const state = floatingPointState(random, 'integer').slice();
  const view = new DataView(state.buffer);
  view.setUint32(MXCSR, MXCSR_IN_USE, true);
  for (let at = XMM; at < STATE_BYTES; at += bytes) {
    const value = random.between(-4096, 4096) / random.pick([1, 3, 16, 1000]);
    if (bytes === 8) view.setFloat64(at, value, true);
    else view.setFloat32(at, value, true);
  }
  return state;
}

/** A number in the code that is known when the program is complete. */
interface Fixup {
  readonly at: number;
  readonly bytes: 1 | 4;
  readonly value: () => number;
}

/** The code of one program while it is made. */
export class ProgramBuilder {
  readonly cases: CaseBuilder;
  readonly plan: ProgramPlan;
  /** Offsets of opcodes and of 32-bit immediates that the program may change. */
  readonly opcodeSites: number[] = [];
  readonly immediateSites: number[] = [];
  readonly #starts: number[] = [];
  readonly #fixups: Fixup[] = [];
  /** Addresses of code that stand in the window. */
  readonly #words: { readonly place: number; readonly offsets: readonly (() => number)[] }[] = [];
  #tables = 0;
  #end = 0;

  constructor(plan: ProgramPlan) {
    this.plan = plan;
    const { mode, seed } = plan;
    const random = new Random(seed, 'program');
    const domain = random.pick(['integer', 'integer', 'xmm', 'xmm-f32', 'xmm-f64'] as const);
    this.cases = new CaseBuilder(mode, random, domain);
    this.cases.faults = 10;
    this.cases.edges = 10;
    this.cases.addressRegisters = ADDRESS_REGISTERS[mode];
    this.cases.operandRegisters = OPERAND_REGISTERS[mode];
    if (random.chance(ORDINARY)) this.cases.state = ordinaryState(random, domain === 'xmm-f64' ? 8 : 4);
    this.cases.pin(RBP, plan.fuel);
    this.cases.pin(RSP, WINDOW_BASE + random.pick(STACK_TOPS));
  }

  get random(): Random {
    return this.cases.random;
  }

  get mode(): Mode {
    return this.plan.mode;
  }

  get at(): number {
    return this.cases.code.length;
  }

  push(...bytes: readonly number[]): void {
    this.cases.code.push(...bytes);
  }

  push32(value: number): void {
    this.cases.pushNumber(BigInt(value), 4);
  }

  item({ kind, seed }: ItemPlan): void {
    this.cases.random = new Random(seed, kind);
    PROGRAM_ITEMS[kind](this);
  }

  /** Code that `body` emits, behind a short jump over it with this opcode. */
  skip(opcode: number, body: () => void): void {
    this.push(opcode, 0);
    const from = this.at;
    body();
    this.cases.code[from - 1] = this.at - from;
    if (this.at - from > 127) throw new RangeError('a short jump does not reach over its body');
  }

  /** Leaves room for a number that is known later. */
  later(bytes: 1 | 4, value: () => number): void {
    this.#fixups.push({ at: this.at, bytes, value });
    this.push(...new Array<number>(bytes).fill(0));
  }

  /** Four bytes: the address of a place in the code. */
  absolute(offset: () => number): void {
    this.later(4, () => CODE_BASE + this.cases.codeOffset + offset());
  }

  /** Displacement of a branch that ends with it. */
  #relative(bytes: 1 | 4, offset: () => number): void {
    const from = this.at + bytes;
    this.later(bytes, () => offset() - from);
  }

  #jump(offset: () => number): void {
    this.push(0xe9);
    this.#relative(4, offset);
  }

  readonly #toEnd = (): number => this.#end;

  /** Ends the program when the fuel is used up, with or without a change of flags. */
  #spendFuel(): void {
    if (this.random.chance(50)) {
      this.push(0x83, 0xed, 0x01, 0x0f, 0x86); // sub ebp, 1; jbe end
      this.#relative(4, this.#toEnd);
      return;
    }
    this.push(0x87, 0xe9); // xchg ecx, ebp
    this.push(0x8d, 0x49, 0xff); // lea ecx, [rcx - 1]
    if (this.mode === 64) this.push(0x67);
    this.push(0xe3, 0x04); // jecxz: to the jump to the end
    this.push(0x87, 0xe9, 0xeb, 0x05); // xchg ecx, ebp; jmp over it
    this.#jump(this.#toEnd);
  }

  /** The block of that number, or the program's end. */
  #offsetOf(index: number): () => number {
    return () => this.#starts[index] ?? this.#end;
  }

  block(index: number, { items, end, target, seed }: BlockPlan): void {
    this.#starts[index] = this.at;
    for (const item of items) this.item(item);
    this.cases.random = new Random(seed, 'end');
    const to = target % (this.plan.blocks.length + 1);
    const backward = to <= index;
    if (backward && end !== 'fall' && end !== 'return') this.#spendFuel();
    this.#emitEnd(end, to);
  }

  #emitEnd(end: EndKind, to: number): void {
    const { random } = this;
    const offset = this.#offsetOf(to);
    const start = this.#starts[to];
    const near = start !== undefined && this.at - start < 100 && random.chance(70);
    switch (end) {
      case 'fall':
        break;
      case 'jump':
        this.#branch(near, [0xeb], [0xe9], offset);
        break;
      case 'condition': {
        const condition = random.below(16);
        this.#branch(near, [0x70 + condition], [0x0f, 0x80 + condition], offset);
        break;
      }
      case 'counter': {
        const opcode = random.between(0xe0, 0xe3);
        if (near) this.#branch(true, [opcode], [], offset);
        else this.push(opcode, 0x02, 0xeb, 0x05); // over the jump that is not taken
        if (!near) this.#jump(offset);
        break;
      }
      case 'call':
        this.push(0xe8);
        this.#relative(4, offset);
        break;
      case 'return':
        this.push(...random.pick([[0xc3], [0xc3], [0xf3, 0xc3], [0xc2, this.mode / 8, 0]]));
        break;
      case 'register':
        this.push(0xb8); // mov eax, imm32
        this.absolute(offset);
        this.push(0xff, random.chance(50) ? 0xe0 : 0xd0); // jmp or call rax
        break;
      case 'table':
        this.#jumpThroughTable(to);
        break;
    }
  }

  #branch(short: boolean, shortOpcode: readonly number[], opcode: readonly number[], offset: () => number): void {
    this.push(...(short ? shortOpcode : opcode));
    this.#relative(short ? 1 : 4, offset);
  }

  /** and ecx, 3; jmp [rcx * size + table]: the entries are blocks from the target on, forward only. */
  #jumpThroughTable(to: number): void {
    const bytes = this.mode / 8;
    const table = TABLES + this.#tables++ * TABLE_ENTRIES * bytes;
    this.push(0x83, 0xe1, 0x03, 0xff, 0x24, bytes === 8 ? 0xcd : 0x8d);
    this.push32(WINDOW_BASE + table);
    this.#words.push({ place: table, offsets: [0, 1, 2, 3].map((more) => this.#offsetOf(to + more)) });
  }

  finish(): GeneratedCase {
    const { cases, plan } = this;
    const { mode, seed, patching: codeWritable } = plan;
    this.#end = this.at;
    cases.random = new Random(seed, 'place');
    cases.codeOffset = cases.random.below(CODE_BYTES - this.at);
    const top = Number(cases.gprs[RSP]) - WINDOW_BASE;
    const blocks = Array.from({ length: RETURNS }, () => this.#offsetOf(cases.random.below(plan.blocks.length + 1)));
    this.#words.push({ place: top, offsets: blocks });
    for (const { place, offsets } of this.#words) {
      offsets.forEach((offset, index) => {
        cases.patchNumber(WINDOW_BASE + place + (index * mode) / 8, CODE_BASE + cases.codeOffset + offset(), mode / 8);
      });
    }
    for (const { at, bytes, value } of this.#fixups) {
      const number = value();
      for (let byte = 0; byte < bytes; byte++) cases.code[at + byte] = (number >> (8 * byte)) & 0xff;
    }
    return {
      template: 'program',
      mode,
      index: 0,
      seed,
      native: { ...cases.finish(), codeWritable },
      mask: { flags: Flag.adjust, status: 0, approximate: null, memory: [], memoryOpenAfterFault: false },
    };
  }
}

export function buildProgram(plan: ProgramPlan): GeneratedCase {
  const builder = new ProgramBuilder(plan);
  // Code that changes itself needs something to change.
  if (plan.patching) builder.item({ kind: 'site', seed: plan.seed });
  for (const [index, block] of plan.blocks.entries()) builder.block(index, block);
  return builder.finish();
}
