/** The stack, flow of control, strings, flags and segment registers. */
import { Flag } from '../../../src/x86/registers.ts';
import type { CaseBuilder } from '../case-builder.ts';
import {
  CODE_BASE,
  CODE_SELECTOR_32,
  CODE_SELECTOR_64,
  DATA_SELECTOR,
  FS_SELECTOR_32,
  GS_SELECTOR_32,
} from '../oracle.ts';
import type { Form, Operation, Template } from '../template.ts';

const RAX = 0;
const RCX = 1;
const RSP = 4;
const RBP = 5;
const RSI = 6;
const RDI = 7;

/** Puts RSP where `bytes` bytes can be pushed. */
const pushing =
  (bytes: number) =>
  (builder: CaseBuilder): void =>
    builder.pin(RSP, builder.target(bytes) + bytes);

/** Puts RSP where `bytes` bytes can be popped. */
const popping =
  (bytes: number) =>
  (builder: CaseBuilder): void =>
    builder.pin(RSP, builder.target(bytes));

/** An address in the code pages, before or behind the code itself, or, seldom, one that cannot be fetched from. */
function landing(builder: CaseBuilder): bigint {
  const { random } = builder;
  if (random.chance(94))
    return BigInt(CODE_BASE + (random.chance(50) ? random.below(0x7f0) : random.between(0x1100, 0x1fff)));
  if (builder.mode === 64 && random.chance(40)) return (BigInt(random.word()) << 32n) | BigInt(random.word());
  return BigInt(random.pick([CODE_BASE - 1, CODE_BASE + 0x2000, 0x1000_0000, 0x1000_4000, 0x3000_0000]));
}

function stackBytes({ builder, size }: Operation): number {
  return size || (builder.mode === 64 ? 8 : 4);
}

function patchReturn(operation: Operation): void {
  const { builder } = operation;
  builder.patchNumber(Number(builder.gprs[RSP] as bigint), landing(builder), stackBytes(operation));
}

/** The target of an indirect near jump or call. */
function patchTarget({ builder, address, rm, size }: Operation): void {
  if (address >= 0) builder.patchNumber(address, landing(builder), size);
  else builder.suggest(rm, landing(builder));
}

function codeSelector(builder: CaseBuilder): number {
  const { random, mode } = builder;
  if (random.chance(75)) return mode === 64 ? CODE_SELECTOR_64 : CODE_SELECTOR_32;
  return random.pick([CODE_SELECTOR_64, CODE_SELECTOR_32, 0, DATA_SELECTOR, 0x17, FS_SELECTOR_32]);
}

const DATA_SELECTORS = [0, DATA_SELECTOR, DATA_SELECTOR, FS_SELECTOR_32, GS_SELECTOR_32, CODE_SELECTOR_32, 0x17, 3];

/** Loads of a segment register find a selector of the tables that the oracle has. */
function patchSelector({ builder, address, rm }: Operation): void {
  const selector = builder.random.pick(DATA_SELECTORS);
  if (address >= 0) builder.patchNumber(address, selector, 2);
  else builder.suggest(rm, ((builder.gprs[rm] as bigint) & ~0xffffn) | BigInt(selector));
}

function patchFarPointer({ builder, address, size }: Operation, selector: number, offset: bigint): void {
  builder.patchNumber(address, offset, size);
  builder.patchNumber(address + size, selector, 2);
}

/** RCX, RSI and RDI for a string instruction; the areas hold equal values often enough that repetitions go on. */
function prepareString(builder: CaseBuilder, _form: Form): void {
  const { random } = builder;
  const backwards = (builder.flags & Flag.direction) !== 0;
  const count = random.chance(60) ? random.below(6) : random.chance(97) ? random.below(40) : random.below(600);
  const upper = random.chance(10) ? BigInt(random.word()) << 32n : 0n;
  builder.pin(RCX, upper && builder.mode === 64 ? upper | BigInt(count) : count);
  const value = random.below(256);
  const same = random.chance(60);
  for (const register of [RSI, RDI]) {
    const bytes = Math.min(Math.max(count, 1) * 8, 512);
    const start = builder.target(bytes);
    builder.pin(register, backwards ? start + bytes - 8 : start);
    if (same) {
      const area = new Uint8Array(bytes).fill(value);
      if (random.chance(50)) area[random.below(bytes)] = random.below(256);
      builder.patch(start, area);
    }
  }
  if (same && random.chance(70)) builder.suggest(RAX, BigInt(value) * 0x0101010101010101n);
}

function string(name: string, opcode: number): Template {
  const hex = (value: number): string => value.toString(16);
  return { name, forms: [`${hex(opcode)} b rep asize`, `${hex(opcode + 1)} v rep asize`], before: prepareString };
}

const CONDITIONS = ['o', 'no', 'b', 'nb', 'z', 'nz', 'be', 'nbe', 's', 'ns', 'p', 'np', 'l', 'nl', 'le', 'nle'];

function chooseLoopCount(builder: CaseBuilder): void {
  const { random } = builder;
  if (random.chance(70))
    builder.pin(RCX, random.pick([0n, 1n, 2n, 0x1_0000_0000n, 0x1_0000_0001n, 0x10000n, 0x10001n]));
}

/** Near branches exist only without an operand-size prefix in 64-bit code, where makers disagree about it. */
const near = (text: string): string[] => [`${text} only64`, `${text} v only32`];

export const CONTROL_TEMPLATES: readonly Template[] = [
  { name: 'push', forms: ['50+r s', '68 iz s', '6a ib s', 'ff /6 s'], before: pushing(8) },
  { name: 'pop', forms: ['58+r s', '8f /0 s'], before: popping(8) },
  { name: 'pusha', severalStores: true, forms: ['60 s only32'], before: pushing(32), alone: true },
  { name: 'popa', forms: ['61 s only32'], before: popping(32), alone: true },
  { name: 'pushf', forms: ['9c s'], before: pushing(8) },
  {
    name: 'popf',
    forms: ['9d s'],
    before: popping(8),
    after(operation) {
      const { builder } = operation;
      /* Without TF: the trap would come after the next instruction, which there is none of. */
      const value = builder.random.chance(85) ? builder.random.word() & ~0x100 : builder.random.word() & 0x40ed5;
      builder.patchNumber(Number(builder.gprs[RSP] as bigint), value & ~0x100, stackBytes(operation));
    },
    alone: true,
  },
  {
    name: 'enter',
    severalStores: true,
    forms: ['c8 iw ib s'],
    before(builder) {
      builder.faults = 20;
      builder.pin(RSP, builder.target(512) + 512);
      builder.pin(RBP, builder.target(256) + 256);
    },
    immediate: ({ random }, kind) =>
      kind === 'iw' ? random.below(random.chance(80) ? 0x100 : 0x10000) : random.chance(60) ? 0 : random.below(256),
    alone: true,
  },
  {
    name: 'leave',
    forms: ['c9 s'],
    before: (builder) => builder.pin(RBP, builder.target(8)),
  },
  ...CONDITIONS.map(
    (condition, i): Template => ({
      name: `j${condition}`,
      forms: [...near(`${(0x70 + i).toString(16)} cb`), ...near(`0f ${(0x80 + i).toString(16)} cz`)],
      alone: true,
    }),
  ),
  ...['loopne', 'loope', 'loop', 'jcxz'].map(
    (name, i): Template => ({
      name,
      forms: near(`e${i} cb`).map((form) => `${form} asize`),
      before: chooseLoopCount,
      alone: true,
    }),
  ),
  {
    name: 'jmp',
    forms: [...near('eb cb'), ...near('e9 cz'), 'ff /4 n'],
    after(operation) {
      if (operation.form.modrm !== null) patchTarget(operation);
    },
    alone: true,
  },
  {
    name: 'call',
    forms: [...near('e8 cz'), 'ff /2 n'],
    before: pushing(8),
    after(operation) {
      if (operation.form.modrm !== null) patchTarget(operation);
    },
    alone: true,
  },
  { name: 'ret', forms: ['c3 n', 'c2 iw n'], before: popping(8), after: patchReturn, alone: true },
  {
    name: 'jmpf',
    forms: ['ea id iw only32', 'ff /5 d mem m6'],
    immediate: (builder, kind) => (kind === 'id' ? Number(landing(builder)) : codeSelector(builder)),
    after(operation) {
      if (operation.address >= 0)
        patchFarPointer(operation, codeSelector(operation.builder), landing(operation.builder));
    },
    alone: true,
  },
  {
    name: 'callf',
    severalStores: true,
    forms: ['9a id iw only32', 'ff /3 d mem m6'],
    before: pushing(8),
    immediate: (builder, kind) => (kind === 'id' ? Number(landing(builder)) : codeSelector(builder)),
    after(operation) {
      if (operation.address >= 0)
        patchFarPointer(operation, codeSelector(operation.builder), landing(operation.builder));
    },
    alone: true,
  },
  {
    name: 'retf',
    forms: ['cb v', 'ca iw v'],
    before: popping(16),
    after(operation) {
      const { builder, size } = operation;
      const stack = Number(builder.gprs[RSP] as bigint);
      builder.patchNumber(stack, landing(builder), size);
      builder.patchNumber(stack + size, codeSelector(builder), size);
    },
    alone: true,
  },
  {
    name: 'iret',
    forms: ['cf v'],
    before(builder) {
      builder.flags &= ~Flag.nestedTask;
      popping(40)(builder);
    },
    after(operation) {
      const { builder, size } = operation;
      const { random } = builder;
      const stack = Number(builder.gprs[RSP] as bigint);
      builder.patchNumber(stack, landing(builder), size);
      builder.patchNumber(stack + size, codeSelector(builder), size);
      builder.patchNumber(stack + 2 * size, random.word() & ~0x2_0100, size);
      builder.patchNumber(stack + 3 * size, builder.target(8), size);
      builder.patchNumber(stack + 4 * size, random.chance(90) ? DATA_SELECTOR : random.pick(DATA_SELECTORS), size);
    },
    alone: true,
  },
  { name: 'int3', forms: ['cc'], alone: true },
  {
    name: 'int',
    forms: ['cd ib'],
    /* Vector 128 is the host's system call. */
    immediate: ({ random }) => random.pick([3, 4, 0, 1, 13, 14, 32, 33, 127, 129, 200, 255]),
    alone: true,
  },
  { name: 'into', forms: ['ce only32'], alone: true },
  {
    name: 'bound',
    forms: ['62 /r v mem m8 only32'],
    after({ builder, address, size, reg }) {
      const { random } = builder;
      const value = BigInt.asIntN(size * 8, builder.gprs[reg] as bigint);
      if (random.chance(70)) builder.patchNumber(address, value - BigInt(random.between(-2, 20)), size);
      if (random.chance(70)) builder.patchNumber(address + size, value + BigInt(random.between(-2, 20)), size);
    },
    alone: true,
  },
  string('movs', 0xa4),
  string('cmps', 0xa6),
  string('stos', 0xaa),
  string('lods', 0xac),
  string('scas', 0xae),
  ...['es', 'cs', 'ss', 'ds'].map(
    (segment, i): Template => ({
      name: `push-${segment}`,
      forms: [`${(6 + 8 * i).toString(16).padStart(2, '0')} s only32`],
      before: pushing(8),
    }),
  ),
  { name: 'push-fs', forms: ['0f a0 s'], before: pushing(8) },
  { name: 'push-gs', forms: ['0f a8 s'], before: pushing(8) },
  ...['07 s only32', '1f s only32', '0f a1 s', '0f a9 s', '17 s only32'].map(
    (form, i): Template => ({
      name: `pop-${['es', 'ds', 'fs', 'gs', 'ss'][i]}`,
      forms: [form],
      before: popping(8),
      after: ({ builder }) => builder.patchNumber(Number(builder.gprs[RSP]), builder.random.pick(DATA_SELECTORS), 2),
      alone: true,
    }),
  ),
  { name: 'mov-from-segment', forms: [0, 1, 2, 3, 4, 5].map((segment) => `8c /${segment} v m2`) },
  {
    name: 'mov-to-segment',
    forms: [0, 1, 2, 3, 4, 5].map((segment) => `8e /${segment} m2`),
    after: patchSelector,
    alone: true,
  },
  {
    name: 'verify-segment',
    forms: ['0f 00 /4 m2', '0f 00 /5 m2', '0f 02 /r v m2', '0f 03 /r v m2'],
    after: patchSelector,
    /* Some processors ignore the LOCK prefix here, against the manual (#UD). */
    reject: ({ builder }) => builder.code.slice(0, builder.code.indexOf(0x0f)).includes(0xf0),
    alone: true,
  },
  {
    name: 'load-far-pointer',
    forms: [
      'c4 /r d mem m6 only32',
      'c5 /r d mem m6 only32',
      '0f b2 /r d mem m6',
      '0f b4 /r d mem m6',
      '0f b5 /r d mem m6',
    ],
    after(operation) {
      const { builder } = operation;
      patchFarPointer(operation, builder.random.pick(DATA_SELECTORS), BigInt(builder.random.word()));
    },
    alone: true,
  },
  {
    name: 'invalid',
    forms: [
      '0f 0b',
      '0f b9 /r v',
      '8d /r v reg',
      'fe /7 b',
      'ff /7 v',
      '0f c7 /1 reg',
      ...[
        '06',
        '07',
        '0e',
        '16',
        '17',
        '1e',
        '1f',
        '27',
        '2f',
        '37',
        '3f',
        '60',
        '61',
        '9a id iw',
        'ce',
        'd4 ib',
        'd5 ib',
      ].map((form) => `${form} only64`),
    ],
    alone: true,
  },
  {
    name: 'privileged',
    forms: ['f4', 'fa', 'fb', 'e4 ib', 'e5 ib', 'e6 ib', 'ec', 'ed', 'ee', 'ef', '6c', '6e', '0f 06', '0f 08', '0f 30'],
    alone: true,
  },
];
