/**
 * The x87 unit and MMX state. Condition codes that the manual calls undefined after an instruction (SDM vol. 2, "FPU
 * Flags Affected") are masked; so are the transcendental functions' last unit and rounding direction.
 */
import type { CaseBuilder } from '../case-builder.ts';
import { WINDOW_BASE } from '../oracle.ts';
import { environment, mxcsr } from '../states.ts';
import type { IgnoredBytes, Operation, Template } from '../template.ts';
import { data } from '../values.ts';

const C0 = 0x100;
const C1 = 0x200;
const C2 = 0x400;
const C3 = 0x4000;
const ALL_BUT_C1 = C0 | C2 | C3;
const ALL = ALL_BUT_C1 | C1;

function x87(name: string, forms: readonly string[], extra: Partial<Template> = {}): Template {
  return { name, forms, domain: 'x87', undefinedStatus: ALL_BUT_C1, alone: true, ...extra };
}

/** One template per memory format, as the formats want their own data. */
function arithmetic(name: string, field: number, reversed: number): Template[] {
  const hex = (value: number): string => value.toString(16);
  const compares = field === 2 || field === 3;
  const extra: Partial<Template> = compares ? { undefinedStatus: 0 } : {};
  const stack = [`d8 ${hex(0xc0 + 8 * field)}+i`];
  if (!compares) stack.push(`dc ${hex(0xc0 + 8 * reversed)}+i`, `de ${hex(0xc0 + 8 * reversed)}+i`);
  return [
    x87(name, stack, extra),
    x87(`${name}-f32`, [`d8 /${field} mem m4`], { ...extra, data: 'f32' }),
    x87(`${name}-f64`, [`dc /${field} mem m8`], { ...extra, data: 'f64' }),
    x87(`${name}-int`, [`da /${field} mem m4`, `de /${field} mem m2`], extra),
  ];
}

function transcendental(name: string, form: string, undefinedStatus: number, extra: Partial<Template> = {}): Template {
  return x87(name, [form], { undefinedStatus, approximate: 'transcendental', ...extra });
}

/** Gives ST(0) a value whose absolute value is below 2^`limit`, where the function is defined. */
const below =
  (limit: number) =>
  (builder: CaseBuilder): void => {
    const { random } = builder;
    const sign = random.below(2) << 15;
    const exponent = 0x3fff + limit - 1 - (random.chance(80) ? random.below(12) : random.below(70));
    const mantissa = (BigInt(random.word()) << 32n) | BigInt(random.word()) | (1n << 63n);
    const isZero = random.chance(8);
    builder.state = builder.state.slice();
    const view = new DataView(builder.state.buffer);
    view.setBigUint64(32, isZero ? 0n : mantissa, true);
    view.setUint16(40, isZero ? sign : sign | exponent, true);
  };

function patchEnvironment({ builder, address, size, memoryBytes }: Operation): void {
  const { random } = builder;
  const bytes = size === 2 ? 14 : 28;
  builder.patch(address, environment(random, bytes));
  if (memoryBytes > bytes) builder.patch(address + bytes, data(random, 'f80', 80));
}

/** Instruction and data pointers, their selectors, and the opcode: processors differ in when they keep them. */
function pointersOfEnvironment({ address, size }: Operation): IgnoredBytes[] {
  const offset = address - WINDOW_BASE;
  return [size === 2 ? { offset: offset + 6, length: 8 } : { offset: offset + 12, length: 16 }];
}

/** Opcode, instruction and data pointers, MXCSR_MASK, and the bytes behind the state. */
function openBytesOfImage({ address }: Operation): IgnoredBytes[] {
  const offset = address - WINDOW_BASE;
  return [
    { offset: offset + 6, length: 18 },
    { offset: offset + 28, length: 4 },
    { offset: offset + 416, length: 96 },
  ];
}

function patchImage({ builder, address }: Operation): void {
  const { random } = builder;
  const image = data(random, 'f64', 512);
  const words = environment(random, 28);
  image.set(words.subarray(0, 2), 0);
  image.set(words.subarray(4, 6), 2);
  image[4] = random.below(256);
  for (let i = 0; i < 8; i++) image.set(data(random, 'f80', 10), 32 + 16 * i);
  const control = random.chance(96) ? mxcsr(random) : 0x10000;
  new DataView(image.buffer, image.byteOffset).setUint32(24, control, true);
  builder.patch(address, image);
}

export const X87_TEMPLATES: readonly Template[] = [
  ...arithmetic('fadd', 0, 0),
  ...arithmetic('fmul', 1, 1),
  ...arithmetic('fcom', 2, 2),
  ...arithmetic('fcomp', 3, 3),
  ...arithmetic('fsub', 4, 5),
  ...arithmetic('fsubr', 5, 4),
  ...arithmetic('fdiv', 6, 7),
  ...arithmetic('fdivr', 7, 6),
  x87('fcompp', ['de d9'], { undefinedStatus: 0 }),
  x87('fucom', ['dd e0+i', 'dd e8+i', 'da e9'], { undefinedStatus: 0 }),
  x87('fcomi', ['db f0+i', 'df f0+i', 'db e8+i', 'df e8+i'], { undefinedStatus: 0 }),
  x87(
    'fcmov',
    ['c0', 'c8', 'd0', 'd8'].flatMap((group) => [`da ${group}+i`, `db ${group}+i`]),
  ),
  x87('fld', ['d9 c0+i']),
  x87('fld-f32', ['d9 /0 mem m4'], { data: 'f32' }),
  x87('fld-f64', ['dd /0 mem m8'], { data: 'f64' }),
  x87('fld-f80', ['db /5 mem m10'], { data: 'f80' }),
  x87('fild', ['df /0 mem m2', 'db /0 mem m4', 'df /5 mem m8']),
  x87('fbld', ['df /4 mem m10'], { data: 'bcd' }),
  x87('fst', ['dd d0+i', 'dd d8+i']),
  x87('fst-f32', ['d9 /2 mem m4', 'd9 /3 mem m4']),
  x87('fst-f64', ['dd /2 mem m8', 'dd /3 mem m8']),
  x87('fstp-f80', ['db /7 mem m10']),
  x87('fist', ['df /2 mem m2', 'df /3 mem m2', 'db /2 mem m4', 'db /3 mem m4', 'df /7 mem m8']),
  x87('fisttp', ['df /1 mem m2', 'db /1 mem m4', 'dd /1 mem m8']),
  x87('fbstp', ['df /6 mem m10']),
  x87('fxch', ['d9 c8+i']),
  x87(
    'fconst',
    ['e8', 'e9', 'ea', 'eb', 'ec', 'ed', 'ee'].map((code) => `d9 ${code}`),
  ),
  x87('fchs', ['d9 e0']),
  x87('fabs', ['d9 e1']),
  x87('ftst', ['d9 e4'], { undefinedStatus: 0 }),
  x87('fxam', ['d9 e5'], { undefinedStatus: 0 }),
  x87('fsqrt', ['d9 fa']),
  x87('frndint', ['d9 fc']),
  x87('fscale', ['d9 fd']),
  x87('fxtract', ['d9 f4']),
  x87('fprem', ['d9 f8'], { undefinedStatus: 0 }),
  x87('fprem1', ['d9 f5'], { undefinedStatus: 0 }),
  x87('fdecstp', ['d9 f6']),
  x87('fincstp', ['d9 f7']),
  x87('ffree', ['dd c0+i'], { undefinedStatus: ALL }),
  x87('fnop', ['d9 d0'], { undefinedStatus: ALL }),
  x87('fwait', ['9b'], { undefinedStatus: ALL }),
  x87('fnclex', ['db e2'], { undefinedStatus: ALL }),
  x87('fninit', ['db e3'], { undefinedStatus: 0 }),
  x87('fldcw', ['d9 /5 mem m2'], {
    undefinedStatus: ALL,
    after: ({ builder, address }) => builder.patch(address, environment(builder.random, 28).subarray(0, 2)),
  }),
  x87('fnstcw', ['d9 /7 mem m2'], { undefinedStatus: ALL }),
  x87('fnstsw', ['dd /7 mem m2', 'df e0'], { undefinedStatus: ALL }),
  x87('fldenv', ['d9 /4 mem m28', '66 d9 /4 w mem m14'], { undefinedStatus: 0, after: patchEnvironment }),
  x87('frstor', ['dd /4 mem m108', '66 dd /4 w mem m94'], { undefinedStatus: 0, after: patchEnvironment }),
  x87('fnstenv', ['d9 /6 mem m28', '66 d9 /6 w mem m14'], {
    severalStores: true,
    undefinedStatus: ALL,
    ignoredBytes: pointersOfEnvironment,
  }),
  x87('fnsave', ['dd /6 mem m108', '66 dd /6 w mem m94'], {
    severalStores: true,
    undefinedStatus: 0,
    ignoredBytes: pointersOfEnvironment,
  }),
  x87('fxsave', ['0f ae /0 mem m512 align', '0f ae /0 W mem m512 align'], {
    severalStores: true,
    undefinedStatus: 0,
    ignoredBytes: openBytesOfImage,
  }),
  x87('fxrstor', ['0f ae /1 mem m512 align', '0f ae /1 W mem m512 align'], { undefinedStatus: 0, after: patchImage }),
  transcendental('f2xm1', 'd9 f0', ALL, { before: below(0) }),
  transcendental('fyl2x', 'd9 f1', ALL),
  transcendental('fyl2xp1', 'd9 f9', ALL, { before: below(-2) }),
  transcendental('fpatan', 'd9 f3', ALL),
  transcendental('fptan', 'd9 f2', ALL & ~C2),
  transcendental('fsin', 'd9 fe', ALL & ~C2),
  transcendental('fcos', 'd9 ff', ALL & ~C2),
  transcendental('fsincos', 'd9 fb', ALL & ~C2),
  { name: 'emms', forms: ['0f 77'], domain: 'mmx', alone: true },
];
