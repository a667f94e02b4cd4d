/** MMX and SSE to SSE4.2. Nothing is undefined here but the last bits of RCPxS and RSQRTxS. */
import type { CaseBuilder } from '../case-builder.ts';
import { mxcsr } from '../states.ts';
import type { Domain, Immediate, Operation, Template } from '../template.ts';

const SINGLE: Domain = 'xmm-f32';
const DOUBLE: Domain = 'xmm-f64';

function template(name: string, domain: Domain, forms: readonly string[], extra: Partial<Template> = {}): Template {
  return { name, domain, forms, ...extra };
}

/** The four floating-point shapes of one opcode: packed and scalar, single and double. */
function shapes(name: string, opcode: string, extra: Partial<Template> = {}): Template[] {
  return [
    template(`${name}ps`, SINGLE, [`0f ${opcode} m16 align`], extra),
    template(`${name}pd`, DOUBLE, [`66 0f ${opcode} m16 align`], extra),
    template(`${name}ss`, SINGLE, [`f3 0f ${opcode} m4`], extra),
    template(`${name}sd`, DOUBLE, [`f2 0f ${opcode} m8`], extra),
  ];
}

const packed = (name: string, opcode: string, extra: Partial<Template> = {}): Template[] =>
  shapes(name, opcode, extra).slice(0, 2);

/** An integer operation of MMX and SSE2 or later under one opcode. */
function both(name: string, opcode: string, extra: Partial<Template> = {}): Template[] {
  return [
    template(`${name}-mmx`, 'mmx', [`0f ${opcode} m8`], { alone: true, ...extra }),
    template(name, 'xmm', [`66 0f ${opcode} m16 align`], extra),
  ];
}

const vector = (name: string, opcode: string, extra: Partial<Template> = {}): Template =>
  template(name, 'xmm', [`66 0f ${opcode} m16 align`], extra);

/** Lines of "name opcode". */
const table = (text: string): [string, string][] =>
  text
    .trim()
    .split('\n')
    .map((line) => {
      const [name, ...opcode] = line.trim().split(' ');
      return [name as string, opcode.join(' ')];
    });

/** RDI of MASKMOVQ and MASKMOVDQU points into the window. */
const pointDestination =
  (bytes: number) =>
  (builder: CaseBuilder): void =>
    builder.pin(7, builder.target(bytes));

/** Lengths of the explicit-length string comparisons: mostly within a vector, either sign. */
function chooseLengths(builder: CaseBuilder): void {
  const { random } = builder;
  for (const register of [0, 2]) {
    if (random.chance(80)) builder.pin(register, BigInt(random.between(-20, 20)));
  }
}

function patchMxcsr({ builder, address }: Operation): void {
  const { random } = builder;
  /* Bit 16 is reserved everywhere; bit 17 is another maker's own. */
  builder.patchNumber(address, random.chance(92) ? mxcsr(random) : mxcsr(random) | 0x10000, 4);
}

const low = (limit: number) => ({
  immediate: ({ random }: CaseBuilder, _kind: Immediate): number => random.below(limit),
});

const MMX_AND_SSE2 = `
punpcklwd 61 /r
punpckldq 62 /r
packsswb 63 /r
pcmpgtb 64 /r
pcmpgtw 65 /r
pcmpgtd 66 /r
packuswb 67 /r
punpckhbw 68 /r
punpckhwd 69 /r
punpckhdq 6a /r
packssdw 6b /r
pcmpeqb 74 /r
pcmpeqw 75 /r
pcmpeqd 76 /r
psrlw d1 /r
psrld d2 /r
psrlq d3 /r
paddq d4 /r
pmullw d5 /r
psubusb d8 /r
psubusw d9 /r
pminub da /r
pand db /r
paddusb dc /r
paddusw dd /r
pmaxub de /r
pandn df /r
pavgb e0 /r
psraw e1 /r
psrad e2 /r
pavgw e3 /r
pmulhuw e4 /r
pmulhw e5 /r
psubsb e8 /r
psubsw e9 /r
pminsw ea /r
por eb /r
paddsb ec /r
paddsw ed /r
pmaxsw ee /r
pxor ef /r
psllw f1 /r
pslld f2 /r
psllq f3 /r
pmuludq f4 /r
pmaddwd f5 /r
psadbw f6 /r
psubb f8 /r
psubw f9 /r
psubd fa /r
psubq fb /r
paddb fc /r
paddw fd /r
paddd fe /r
pshufb 38 00 /r
phaddw 38 01 /r
phaddd 38 02 /r
phaddsw 38 03 /r
pmaddubsw 38 04 /r
phsubw 38 05 /r
phsubd 38 06 /r
phsubsw 38 07 /r
psignb 38 08 /r
psignw 38 09 /r
psignd 38 0a /r
pmulhrsw 38 0b /r
pabsb 38 1c /r
pabsw 38 1d /r
pabsd 38 1e /r
palignr 3a 0f /r ib`;

const SSE4 = `
pblendvb 38 10 /r
ptest 38 17 /r
pmuldq 38 28 /r
pcmpeqq 38 29 /r
packusdw 38 2b /r
pcmpgtq 38 37 /r
pminsb 38 38 /r
pminsd 38 39 /r
pminuw 38 3a /r
pminud 38 3b /r
pmaxsb 38 3c /r
pmaxsd 38 3d /r
pmaxuw 38 3e /r
pmaxud 38 3f /r
pmulld 38 40 /r
phminposuw 38 41 /r
punpcklqdq 6c /r
punpckhqdq 6d /r
pblendw 3a 0e /r ib
mpsadbw 3a 42 /r ib`;

const EXTENSIONS: readonly [string, string, number][] = [
  ['bw', '0', 8],
  ['bd', '1', 4],
  ['bq', '2', 2],
  ['wd', '3', 8],
  ['wq', '4', 4],
  ['dq', '5', 8],
];

/** Shifts by an immediate: groups 12, 13 and 14. */
const shiftForms = (prefix: string, fields: readonly (readonly [string, number])[]): string[] =>
  fields.map(([opcode, field]) => `${prefix}0f ${opcode} /${field} ib reg`);
const SHIFTS: readonly (readonly [string, number])[] = [
  ['71', 2],
  ['71', 4],
  ['71', 6],
  ['72', 2],
  ['72', 4],
  ['72', 6],
  ['73', 2],
  ['73', 6],
];

export const SIMD_TEMPLATES: readonly Template[] = [
  ...shapes('sqrt', '51 /r'),
  ...shapes('add', '58 /r'),
  ...shapes('mul', '59 /r'),
  ...shapes('sub', '5c /r'),
  ...shapes('min', '5d /r'),
  ...shapes('div', '5e /r'),
  ...shapes('max', '5f /r'),
  ...shapes('cmp', 'c2 /r ib', low(8)),
  template('rsqrtps', SINGLE, ['0f 52 /r m16 align'], { approximate: 'reciprocal', alone: true }),
  template('rsqrtss', SINGLE, ['f3 0f 52 /r m4'], { approximate: 'reciprocal', alone: true }),
  template('rcpps', SINGLE, ['0f 53 /r m16 align'], { approximate: 'reciprocal', alone: true }),
  template('rcpss', SINGLE, ['f3 0f 53 /r m4'], { approximate: 'reciprocal', alone: true }),
  ...packed('and', '54 /r'),
  ...packed('andn', '55 /r'),
  ...packed('or', '56 /r'),
  ...packed('xor', '57 /r'),
  ...packed('unpckl', '14 /r'),
  ...packed('unpckh', '15 /r'),
  ...packed('shuf', 'c6 /r ib'),
  template('hadd', SINGLE, ['f2 0f 7c /r m16 align', 'f2 0f 7d /r m16 align']),
  template('haddpd', DOUBLE, ['66 0f 7c /r m16 align', '66 0f 7d /r m16 align']),
  template('addsubps', SINGLE, ['f2 0f d0 /r m16 align']),
  template('addsubpd', DOUBLE, ['66 0f d0 /r m16 align']),
  template('ucomiss', SINGLE, ['0f 2e /r m4', '0f 2f /r m4']),
  template('ucomisd', DOUBLE, ['66 0f 2e /r m8', '66 0f 2f /r m8']),

  template('mov-packed', SINGLE, [
    ...['0f 10', '0f 11', '66 0f 10', '66 0f 11', 'f3 0f 6f', 'f3 0f 7f'].map((form) => `${form} /r m16`),
    ...['0f 28', '0f 29', '66 0f 28', '66 0f 29', '66 0f 6f', '66 0f 7f'].map((form) => `${form} /r m16 align`),
    ...['0f 2b', '66 0f 2b', '66 0f e7', '66 0f 38 2a'].map((form) => `${form} /r m16 mem align`),
    'f2 0f f0 /r m16 mem',
  ]),
  template('mov-scalar', DOUBLE, ['f3 0f 10 /r m4', 'f3 0f 11 /r m4', 'f2 0f 10 /r m8', 'f2 0f 11 /r m8']),
  template('mov-half', DOUBLE, [
    '0f 12 /r m8',
    '0f 13 /r m8 mem',
    '66 0f 12 /r m8 mem',
    '66 0f 13 /r m8 mem',
    '0f 16 /r m8',
    '0f 17 /r m8 mem',
    '66 0f 16 /r m8 mem',
    '66 0f 17 /r m8 mem',
  ]),
  template('mov-duplicate', DOUBLE, ['f2 0f 12 /r m8', 'f3 0f 12 /r m16 align', 'f3 0f 16 /r m16 align']),
  template('movq', 'xmm', ['f3 0f 7e /r m8', '66 0f d6 /r m8']),
  template('movd', 'xmm', ['66 0f 6e /r m4', '66 0f 7e /r m4', '66 0f 6e /r W m8', '66 0f 7e /r W m8']),
  template('movd-mmx', 'mmx', ['0f 6e /r m4', '0f 7e /r m4', '0f 6e /r W m8', '0f 7e /r W m8'], { alone: true }),
  template('movq-mmx', 'mmx', ['0f 6f /r m8', '0f 7f /r m8', '0f e7 /r m8 mem'], { alone: true }),
  template('movdq2q', 'mmx', ['f2 0f d6 /r reg', 'f3 0f d6 /r reg'], { alone: true }),
  template('movmsk', SINGLE, ['0f 50 /r reg', '66 0f 50 /r reg', '66 0f d7 /r reg']),
  template('pmovmskb-mmx', 'mmx', ['0f d7 /r reg'], { alone: true }),
  template('maskmovdqu', 'xmm', ['66 0f f7 /r reg'], { before: pointDestination(16), alone: true }),
  template('maskmovq', 'mmx', ['0f f7 /r reg'], { before: pointDestination(8), alone: true }),

  template('cvtpi2ps', 'mmx', ['0f 2a /r m8', '66 0f 2a /r m8'], { alone: true }),
  template('cvtsi2ss', 'xmm', ['f3 0f 2a /r y']),
  template('cvtsi2sd', 'xmm', ['f2 0f 2a /r y']),
  template('cvtps2pi', SINGLE, ['0f 2c /r m8', '0f 2d /r m8'], { alone: true }),
  template('cvtpd2pi', DOUBLE, ['66 0f 2c /r m16 align', '66 0f 2d /r m16 align'], { alone: true }),
  template('cvtss2si', SINGLE, ['f3 0f 2c /r y m4', 'f3 0f 2d /r y m4']),
  template('cvtsd2si', DOUBLE, ['f2 0f 2c /r y m8', 'f2 0f 2d /r y m8']),
  template('cvtps2pd', SINGLE, ['0f 5a /r m8']),
  template('cvtpd2ps', DOUBLE, ['66 0f 5a /r m16 align']),
  template('cvtss2sd', SINGLE, ['f3 0f 5a /r m4']),
  template('cvtsd2ss', DOUBLE, ['f2 0f 5a /r m8']),
  template('cvtdq2ps', 'xmm', ['0f 5b /r m16 align']),
  template('cvtps2dq', SINGLE, ['66 0f 5b /r m16 align', 'f3 0f 5b /r m16 align']),
  template('cvtdq2pd', 'xmm', ['f3 0f e6 /r m8']),
  template('cvtpd2dq', DOUBLE, ['66 0f e6 /r m16 align', 'f2 0f e6 /r m16 align']),

  ...table(MMX_AND_SSE2).flatMap(([name, opcode]) =>
    opcode.startsWith('61') || opcode.startsWith('62')
      ? [template(`${name}-mmx`, 'mmx', [`0f ${opcode} m4`], { alone: true }), vector(name, opcode)]
      : both(name, opcode),
  ),
  template('punpcklbw-mmx', 'mmx', ['0f 60 /r m4'], { alone: true }),
  vector('punpcklbw', '60 /r'),
  ...table(SSE4).map(([name, opcode]) => vector(name, opcode)),
  template(
    'shift-immediate',
    'xmm',
    [
      ...shiftForms('66 ', SHIFTS),
      ...shiftForms('66 ', [
        ['73', 3],
        ['73', 7],
      ]),
    ],
    {
      immediate: ({ random }) => (random.chance(80) ? random.below(66) : random.below(256)),
    },
  ),
  template('shift-immediate-mmx', 'mmx', shiftForms('', SHIFTS), {
    immediate: ({ random }) => (random.chance(80) ? random.below(66) : random.below(256)),
    alone: true,
  }),
  template('pshuf', 'xmm', ['66 0f 70 /r ib m16 align', 'f3 0f 70 /r ib m16 align', 'f2 0f 70 /r ib m16 align']),
  template('pshufw', 'mmx', ['0f 70 /r ib m8'], { alone: true }),
  template('pinsrw', 'xmm', ['66 0f c4 /r ib m2']),
  template('pinsrw-mmx', 'mmx', ['0f c4 /r ib m2'], { alone: true }),
  template('pextrw', 'xmm', ['66 0f c5 /r ib reg']),
  template('pextrw-mmx', 'mmx', ['0f c5 /r ib reg'], { alone: true }),
  template('pextr', 'xmm', [
    '66 0f 3a 14 /r ib m1',
    '66 0f 3a 15 /r ib m2',
    '66 0f 3a 16 /r ib y',
    '66 0f 3a 17 /r ib m4',
  ]),
  template('pinsr', 'xmm', ['66 0f 3a 20 /r ib m1', '66 0f 3a 22 /r ib y']),
  template('insertps', SINGLE, ['66 0f 3a 21 /r ib m4']),
  ...EXTENSIONS.map(([name, digit, bytes]) => template(`pmovsx${name}`, 'xmm', [`66 0f 38 2${digit} /r m${bytes}`])),
  ...EXTENSIONS.map(([name, digit, bytes]) => template(`pmovzx${name}`, 'xmm', [`66 0f 38 3${digit} /r m${bytes}`])),
  template('blendvps', SINGLE, ['66 0f 38 14 /r m16 align', '66 0f 38 15 /r m16 align']),
  template('blendps', SINGLE, ['66 0f 3a 0c /r ib m16 align', '66 0f 3a 0d /r ib m16 align']),
  template('roundps', SINGLE, ['66 0f 3a 08 /r ib m16 align'], low(16)),
  template('roundpd', DOUBLE, ['66 0f 3a 09 /r ib m16 align'], low(16)),
  template('roundss', SINGLE, ['66 0f 3a 0a /r ib m4'], low(16)),
  template('roundsd', DOUBLE, ['66 0f 3a 0b /r ib m8'], low(16)),
  template('dpps', SINGLE, ['66 0f 3a 40 /r ib m16 align']),
  template('dppd', DOUBLE, ['66 0f 3a 41 /r ib m16 align']),
  ...['pcmpestrm', 'pcmpestri', 'pcmpistrm', 'pcmpistri'].map((name, i) =>
    template(name, 'xmm-text', [`66 0f 3a 6${i} /r ib m16`, `66 0f 3a 6${i} /r ib reg`], {
      ...low(128),
      ...(i < 2 ? { before: chooseLengths } : {}),
    }),
  ),
  template('ldmxcsr', 'xmm', ['0f ae /2 mem m4'], { after: patchMxcsr, alone: true }),
  template('stmxcsr', 'xmm', ['0f ae /3 mem m4']),
];
