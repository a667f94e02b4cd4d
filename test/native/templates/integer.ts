/** Integer arithmetic, logic, moves, bits and shifts. Undefined flags after the Intel manual, volume 2. */
import { Flag } from '../../../src/x86/registers.ts';
import type { CaseBuilder } from '../case-builder.ts';
import type { Operation, Template } from '../template.ts';

const ALL = Flag.carry | Flag.parity | Flag.adjust | Flag.zero | Flag.sign | Flag.overflow;

function arithmetic(name: string, row: number, lockable: boolean): Template {
  const code = (low: number): string => (row * 8 + low).toString(16).padStart(2, '0');
  const lock = lockable ? ' lock' : '';
  return {
    name,
    forms: [
      `${code(0)} /r b${lock}`,
      `${code(1)} /r v${lock}`,
      `${code(2)} /r b`,
      `${code(3)} /r v`,
      `${code(4)} ib b`,
      `${code(5)} iz v`,
      `80 /${row} ib b${lock}`,
      `81 /${row} iz v${lock}`,
      `83 /${row} ib v${lock}`,
      `82 /${row} ib b${lock} only32`,
    ],
    ...(['or', 'and', 'xor'].includes(name) ? { undefinedFlags: Flag.adjust, alone: true } : {}),
  };
}

/** The count as the processor masks it. */
function shiftCount(operation: Operation): number {
  const { form, builder, size, immediate } = operation;
  const mask = size === 8 ? 63 : 31;
  const opcode = form.opcode.at(-1) as number;
  if (form.immediates.length > 0) return immediate & mask;
  if (opcode === 0xd0 || opcode === 0xd1) return 1;
  return Number((builder.gprs[1] as bigint) & 0xffn) & mask;
}

function undefinedAfterShift(operation: Operation): number {
  const count = shiftCount(operation);
  if (count === 0) return 0;
  let flags = Flag.adjust;
  if (count > 1) flags |= Flag.overflow;
  const { modrm } = operation.form;
  if (modrm !== 7 && count >= operation.size * 8) flags |= Flag.carry;
  return flags;
}

function undefinedAfterRotate(operation: Operation): number {
  return shiftCount(operation) > 1 ? Flag.overflow : 0;
}

function undefinedAfterDoubleShift(operation: Operation): number {
  const count = shiftCount(operation);
  if (count === 0) return 0;
  return count > 1 ? Flag.adjust | Flag.overflow : Flag.adjust;
}

/** Half of all counts are small; the others any byte. */
function chooseCount(builder: CaseBuilder): void {
  const { random } = builder;
  const count = random.chance(50) ? random.below(34) : random.below(256);
  builder.pin(1, ((builder.gprs[1] as bigint) & ~0xffn) | BigInt(count));
}

function shift(name: string, field: number, undefinedFlags: (operation: Operation) => number): Template {
  const group = `/${field}`;
  return {
    name,
    forms: [`c0 ${group} ib b`, `c1 ${group} ib v`, `d0 ${group} b`, `d1 ${group} v`, `d2 ${group} b`, `d3 ${group} v`],
    before(builder, form) {
      if ((form.opcode[0] as number) >= 0xd2) chooseCount(builder);
    },
    immediate: ({ random }) => (random.chance(50) ? random.below(34) : random.below(256)),
    undefinedFlags,
    alone: true,
  };
}

function doubleShift(name: string, immediateOpcode: string, countOpcode: string): Template {
  /* Counts above the operand size leave everything undefined; only 16-bit operands can meet one. */
  return {
    name,
    forms: [`0f ${immediateOpcode} /r ib v`, `0f ${countOpcode} /r v`],
    before(builder) {
      builder.pin(1, ((builder.gprs[1] as bigint) & ~0xffn) | BigInt(builder.random.below(256)));
    },
    reject: (operation) => operation.size === 2 && shiftCount(operation) > 16,
    undefinedFlags: undefinedAfterDoubleShift,
    alone: true,
  };
}

function bitTest(name: string, opcode: string, field: number, lockable: boolean): Template {
  const lock = lockable ? ' lock' : '';
  return {
    name,
    forms: [`0f ${opcode} /r v bits${lock}`, `0f ba /${field} ib v${lock}`],
    undefinedFlags: Flag.overflow | Flag.sign | Flag.adjust | Flag.parity,
    alone: true,
  };
}

/** Lets about two thirds of the divisions succeed: a high half below the divisor, or the sign extension of the low one. */
function prepareDivision(operation: Operation, signed: boolean): void {
  const { builder, size } = operation;
  const { random } = builder;
  if (!random.chance(70)) return;
  if (size === 1) {
    builder.suggest(
      0,
      ((builder.gprs[0] as bigint) & ~0xffffn) | BigInt(random.below(random.chance(50) ? 0x100 : 0x800)),
    );
    return;
  }
  const high = signed && random.chance(60) ? ((builder.gprs[0] as bigint) >> BigInt(size * 8 - 1)) & 1n : 0n;
  builder.suggest(2, high ? -1n : random.chance(70) ? 0n : BigInt(random.below(8)));
}

/** Makes the comparison of CMPXCHG succeed half of the time. */
function prepareExchange({ builder, size, rm, address }: Operation): void {
  if (!builder.random.chance(50)) return;
  if (address >= 0) builder.patchNumber(address, builder.gprs[0] as bigint, size);
  else if (size > 1 || rm < 4) builder.suggest(rm, builder.gprs[0] as bigint);
}

function prepareWideExchange({ builder, address, form }: Operation): void {
  if (!builder.random.chance(50)) return;
  const size = form.wide ? 8 : 4;
  builder.patchNumber(address, builder.gprs[0] as bigint, size);
  builder.patchNumber(address + size, builder.gprs[2] as bigint, size);
}

const CONDITIONS = ['o', 'no', 'b', 'nb', 'z', 'nz', 'be', 'nbe', 's', 'ns', 'p', 'np', 'l', 'nl', 'le', 'nle'];
const hex = (value: number): string => value.toString(16).padStart(2, '0');

export const INTEGER_TEMPLATES: readonly Template[] = [
  ...['add', 'or', 'adc', 'sbb', 'and', 'sub', 'xor', 'cmp'].map((name, row) => arithmetic(name, row, name !== 'cmp')),
  {
    name: 'test',
    forms: ['84 /r b', '85 /r v', 'a8 ib b', 'a9 iz v', 'f6 /0 ib b', 'f7 /0 iz v', 'f6 /1 ib b', 'f7 /1 iz v'],
    undefinedFlags: Flag.adjust,
    alone: true,
  },
  { name: 'inc', forms: ['fe /0 b lock', 'ff /0 v lock', '40+r v only32'] },
  { name: 'dec', forms: ['fe /1 b lock', 'ff /1 v lock', '48+r v only32'] },
  { name: 'not', forms: ['f6 /2 b lock', 'f7 /2 v lock'] },
  { name: 'neg', forms: ['f6 /3 b lock', 'f7 /3 v lock'] },
  {
    name: 'mul',
    forms: ['f6 /4 b', 'f7 /4 v'],
    undefinedFlags: Flag.sign | Flag.zero | Flag.adjust | Flag.parity,
    alone: true,
  },
  {
    name: 'imul',
    forms: ['f6 /5 b', 'f7 /5 v', '0f af /r v', '69 /r iz v', '6b /r ib v'],
    undefinedFlags: Flag.sign | Flag.zero | Flag.adjust | Flag.parity,
    alone: true,
  },
  {
    name: 'div',
    forms: ['f6 /6 b', 'f7 /6 v'],
    undefinedFlags: ALL,
    after: (operation) => prepareDivision(operation, false),
    alone: true,
  },
  {
    name: 'idiv',
    forms: ['f6 /7 b', 'f7 /7 v'],
    undefinedFlags: ALL,
    after: (operation) => prepareDivision(operation, true),
    alone: true,
  },
  {
    name: 'mov',
    forms: [
      '88 /r b',
      '89 /r v',
      '8a /r b',
      '8b /r v',
      'a0 moffs b',
      'a1 moffs v',
      'a2 moffs b',
      'a3 moffs v',
      'b0+r ib b',
      'b8+r iv v',
      'c6 /0 ib b',
      'c7 /0 iz v',
    ],
  },
  { name: 'movzx', forms: ['0f b6 /r v m1', '0f b7 /r v m2'] },
  /* Makers disagree about the memory that 63 reads with a 16-bit operand. */
  { name: 'movsx', forms: ['0f be /r v m1', '0f bf /r v m2', '63 /r y m4 only64'] },
  { name: 'movnti', forms: ['0f c3 /r y mem'] },
  { name: 'lea', forms: ['8d /r v m0 mem'] },
  { name: 'xchg', forms: ['86 /r b lock', '87 /r v lock', '90+r v'] },
  { name: 'xadd', forms: ['0f c0 /r b lock', '0f c1 /r v lock'] },
  { name: 'cmpxchg', forms: ['0f b0 /r b lock', '0f b1 /r v lock'], after: prepareExchange },
  { name: 'cmpxchg8b', forms: ['0f c7 /1 mem m8 lock'], after: prepareWideExchange },
  { name: 'cmpxchg16b', forms: ['0f c7 /1 W mem m16 align lock'], after: prepareWideExchange },
  bitTest('bt', 'a3', 4, false),
  bitTest('bts', 'ab', 5, true),
  bitTest('btr', 'b3', 6, true),
  bitTest('btc', 'bb', 7, true),
  { name: 'bsf', forms: ['0f bc /r v'], undefinedFlags: ALL & ~Flag.zero, after: prepareScan, alone: true },
  { name: 'bsr', forms: ['0f bd /r v'], undefinedFlags: ALL & ~Flag.zero, after: prepareScan, alone: true },
  { name: 'popcnt', forms: ['f3 0f b8 /r v'] },
  { name: 'crc32', forms: ['f2 0f 38 f0 /r y m1', 'f2 0f 38 f1 /r v'] },
  { name: 'bswap', forms: ['0f c8+r y'] },
  shift('rol', 0, undefinedAfterRotate),
  shift('ror', 1, undefinedAfterRotate),
  shift('rcl', 2, undefinedAfterRotate),
  shift('rcr', 3, undefinedAfterRotate),
  shift('shl', 4, undefinedAfterShift),
  shift('shr', 5, undefinedAfterShift),
  shift('sal', 6, undefinedAfterShift),
  shift('sar', 7, undefinedAfterShift),
  doubleShift('shld', 'a4', 'a5'),
  doubleShift('shrd', 'ac', 'ad'),
  ...CONDITIONS.map((condition, i): Template => ({ name: `set${condition}`, forms: [`0f ${hex(0x90 + i)} /r b`] })),
  ...CONDITIONS.map((condition, i): Template => ({ name: `cmov${condition}`, forms: [`0f ${hex(0x40 + i)} /r v`] })),
  { name: 'cbw', forms: ['98 v'] },
  { name: 'cwd', forms: ['99 v'] },
  { name: 'lahf', forms: ['9f'] },
  { name: 'sahf', forms: ['9e'] },
  { name: 'clc', forms: ['f8'] },
  { name: 'stc', forms: ['f9'] },
  { name: 'cmc', forms: ['f5'] },
  { name: 'cld', forms: ['fc'] },
  { name: 'std', forms: ['fd'] },
  {
    name: 'xlat',
    forms: ['d7'],
    before(builder) {
      const base = BigInt(builder.target(1)) - ((builder.gprs[0] as bigint) & 0xffn);
      builder.pin(3, base);
    },
  },
  {
    name: 'aaa',
    forms: ['37 only32'],
    undefinedFlags: Flag.overflow | Flag.sign | Flag.zero | Flag.parity,
    alone: true,
  },
  {
    name: 'aas',
    forms: ['3f only32'],
    undefinedFlags: Flag.overflow | Flag.sign | Flag.zero | Flag.parity,
    alone: true,
  },
  { name: 'daa', forms: ['27 only32'], undefinedFlags: Flag.overflow, alone: true },
  { name: 'das', forms: ['2f only32'], undefinedFlags: Flag.overflow, alone: true },
  {
    name: 'aam',
    forms: ['d4 ib only32'],
    immediate: ({ random }) => (random.chance(50) ? 10 : random.below(256)),
    undefinedFlags: ({ immediate }) => (immediate === 0 ? ALL : Flag.overflow | Flag.adjust | Flag.carry),
    alone: true,
  },
  {
    name: 'aad',
    forms: ['d5 ib only32'],
    immediate: ({ random }) => (random.chance(50) ? 10 : random.below(256)),
    undefinedFlags: Flag.overflow | Flag.adjust | Flag.carry,
    alone: true,
  },
  {
    name: 'nop',
    forms: [
      '90',
      'f3 90',
      '0f 1f /0 v',
      ...['0f 18', '0f 19', '0f 1a', '0f 1b', '0f 1c', '0f 1d', '0f 1e'].map((opcode) => `${opcode} /r v m0`),
      '0f 0d /0 m0 mem',
      '0f 0d /1 m0 mem',
      'f3 0f 1e fa',
      'f3 0f 1e fb',
    ],
  },
  { name: 'fence', forms: ['0f ae e8', '0f ae f0', '0f ae f8'] },
  { name: 'clflush', forms: ['0f ae /7 m1 mem'] },
  { name: 'salc', forms: ['d6 only32'] },
  { name: 'arpl', forms: ['63 /r w only32'] },
];

/** Operands of one bit and of none occur, which random ones seldom are. */
function prepareScan({ builder, size, rm, address }: Operation): void {
  const { random } = builder;
  if (!random.chance(30)) return;
  const value = random.chance(40) ? 0n : 1n << BigInt(random.below(size * 8));
  if (address >= 0) builder.patchNumber(address, value, size);
  else builder.suggest(rm, value);
}
