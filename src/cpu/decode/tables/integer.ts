/**
 * Opcodes of the integer instructions which user code may run. Source: Intel SDM volume 2, appendix A and the
 * instruction pages. The columns are explained in rows.ts.
 */
import type { TableSection } from '../rows.ts';

/** The eight operations of opcodes 00–3F and of group 1, in the order of their number. */
const arithmetic = ['add', 'or', 'adc', 'sbb', 'and', 'sub', 'xor', 'cmp'];

/** The operations of shift group 2; number 6 is an undocumented second SHL. */
const shifts = ['rol', 'ror', 'rcl', 'rcr', 'shl', 'shr', 'shl', 'sar'];

/** Condition codes 0–15, in the one spelling used for jcc, setcc and cmovcc. */
const conditions = ['o', 'no', 'b', 'ae', 'e', 'ne', 'be', 'a', 's', 'ns', 'p', 'np', 'l', 'ge', 'le', 'g'];

function hexadecimal(value: number): string {
  return value.toString(16).toUpperCase().padStart(2, '0');
}

const arithmeticRows = arithmetic
  .map((name, number) => {
    const lock = name === 'cmp' ? '' : 'lock';
    const opcode = (low: number) => hexadecimal((number << 3) | low);
    return `
      ${opcode(0)}   | ${name} | r/m8, r8       | ${lock}
      ${opcode(1)}   | ${name} | r/mv, rv       | ${lock}
      ${opcode(2)}   | ${name} | r8, r/m8       |
      ${opcode(3)}   | ${name} | rv, r/mv       |
      ${opcode(4)}   | ${name} | al, imm8       |
      ${opcode(5)}   | ${name} | rAX, immz:v    |
      80 /${number}  | ${name} | r/m8, imm8     | ${lock}
      81 /${number}  | ${name} | r/mv, immz:v   | ${lock}
      82 /${number}  | ${name} | r/m8, imm8     | ${lock} legacy
      83 /${number}  | ${name} | r/mv, imm8:v   | ${lock}`;
  })
  .join('');

const shiftRows = shifts
  .map(
    (name, number) => `
      C0 /${number}  | ${name} | r/m8, uimm8    |
      C1 /${number}  | ${name} | r/mv, uimm8    |
      D0 /${number}  | ${name} | r/m8, 1        |
      D1 /${number}  | ${name} | r/mv, 1        |
      D2 /${number}  | ${name} | r/m8, cl       |
      D3 /${number}  | ${name} | r/mv, cl       |`,
  )
  .join('');

const conditionRows = conditions
  .map(
    (condition, number) => `
      ${hexadecimal(0x70 | number)}      | j${condition}    | rel8     | f64
      0F ${hexadecimal(0x80 | number)}   | j${condition}    | relz     | f64
      0F ${hexadecimal(0x90 | number)}   | set${condition}  | r/m8     |`,
  )
  .join('');

const conditionalMoveRows = conditions
  .map((condition, number) => `0F ${hexadecimal(0x40 | number)} | cmov${condition} | rv, r/mv |`)
  .join('\n');

const oneByteRows = `
  06            | push    | es                  | legacy
  07            | pop     | es                  | legacy
  0E            | push    | cs                  | legacy
  16            | push    | ss                  | legacy
  17            | pop     | ss                  | legacy
  1E            | push    | ds                  | legacy
  1F            | pop     | ds                  | legacy
  27            | daa     |                     | legacy byte
  2F            | das     |                     | legacy byte
  37            | aaa     |                     | legacy byte
  3F            | aas     |                     | legacy byte
  40+r          | inc     | +rv                 | legacy
  48+r          | dec     | +rv                 | legacy
  50+r          | push    | +rv                 | d64
  58+r          | pop     | +rv                 | d64
  60            | pusha   |                     | legacy
  61            | popa    |                     | legacy
  62            | bound   | rv, mv&v            | legacy
  63            | arpl    | r/m16, r16          | legacy
  63            | movsxd  | rv, r/mz            | long
  68            | push    | immz:v              | d64
  69            | imul    | rv, r/mv, immz:v    |
  6A            | push    | imm8:v              | d64
  6B            | imul    | rv, r/mv, imm8:v    |
  6C            | ins     |                     | string byte
  6D            | ins     |                     | string narrow
  6E            | outs    |                     | string byte
  6F            | outs    |                     | string narrow
  84            | test    | r/m8, r8            |
  85            | test    | r/mv, rv            |
  86            | xchg    | r/m8, r8            | lock
  87            | xchg    | r/mv, rv            | lock
  88            | mov     | r/m8, r8            |
  89            | mov     | r/mv, rv            |
  8A            | mov     | r8, r/m8            |
  8B            | mov     | rv, r/mv            |
  8C /0-5       | mov     | rv/m16, sreg        |
  8D            | lea     | rv, m0              |
  8E /0,2-5     | mov     | sreg, r/m16         |
  8F /0         | pop     | r/mv                | d64
  90+r          | xchg    | +rv, rAX            |
  90            | nop     |                     |
  REX.B 90      | xchg    | +rv, rAX            |
  F3 90         | pause   |                     |
  98            | cbw     |                     |
  99            | cwd     |                     |
  9A            | callf   | ptr                 | legacy
  9B            | fwait   |                     |
  9C            | pushf   |                     | d64
  9D            | popf    |                     | d64
  A0            | mov     | al, moffs8          |
  A1            | mov     | rAX, moffsv         |
  A2            | mov     | moffs8, al          |
  A3            | mov     | moffsv, rAX         |
  A4            | movs    |                     | string byte
  A5            | movs    |                     | string
  A6            | cmps    |                     | string byte
  A7            | cmps    |                     | string
  A8            | test    | al, imm8            |
  A9            | test    | rAX, immz:v         |
  AA            | stos    |                     | string byte
  AB            | stos    |                     | string
  AC            | lods    |                     | string byte
  AD            | lods    |                     | string
  AE            | scas    |                     | string byte
  AF            | scas    |                     | string
  B0+r          | mov     | +r8, imm8           |
  B8+r          | mov     | +rv, immv           |
  C2            | ret     | uimm16              | f64
  C3            | ret     |                     | f64
  C4            | les     | rv, m16:z           | legacy
  C5            | lds     | rv, m16:z           | legacy
  C6 /0         | mov     | r/m8, imm8          |
  C7 /0         | mov     | r/mv, immz:v        |
  C8            | enter   | uimm16, second8     | d64
  C9            | leave   |                     | d64
  CA            | retf    | uimm16              |
  CB            | retf    |                     |
  CC            | int3    |                     |
  CD            | int     | uimm8               |
  CE            | into    |                     | legacy
  CF            | iret    |                     |
  D4            | aam     | uimm8               | legacy byte
  D5            | aad     | uimm8               | legacy byte
  D6            | salc    |                     | legacy byte
  D7            | xlat    |                     | byte
  E0            | loopne  | rel8                | f64
  E1            | loope   | rel8                | f64
  E2            | loop    | rel8                | f64
  E3            | jcxz    | rel8                | f64
  E4            | in      | al, uimm8           |
  E5            | in      | eAX, uimm8          | narrow
  E6            | out     | uimm8, al           |
  E7            | out     | uimm8, eAX          | narrow
  E8            | call    | relz                | f64
  E9            | jmp     | relz                | f64
  EA            | jmpf    | ptr                 | legacy
  EB            | jmp     | rel8                | f64
  EC            | in      | al, dx              |
  ED            | in      | eAX, dx             | narrow
  EE            | out     | dx, al              |
  EF            | out     | dx, eAX             | narrow
  F1            | int1    |                     |
  F5            | cmc     |                     |
  F6 /0-1       | test    | r/m8, imm8          |
  F6 /2         | not     | r/m8                | lock
  F6 /3         | neg     | r/m8                | lock
  F6 /4         | mul     | r/m8                |
  F6 /5         | imul    | r/m8                |
  F6 /6         | div     | r/m8                |
  F6 /7         | idiv    | r/m8                |
  F7 /0-1       | test    | r/mv, immz:v        |
  F7 /2         | not     | r/mv                | lock
  F7 /3         | neg     | r/mv                | lock
  F7 /4         | mul     | r/mv                |
  F7 /5         | imul    | r/mv                |
  F7 /6         | div     | r/mv                |
  F7 /7         | idiv    | r/mv                |
  F8            | clc     |                     |
  F9            | stc     |                     |
  FC            | cld     |                     |
  FD            | std     |                     |
  FE /0         | inc     | r/m8                | lock
  FE /1         | dec     | r/m8                | lock
  FF /0         | inc     | r/mv                | lock
  FF /1         | dec     | r/mv                | lock
  FF /2         | call    | r/mv                | f64
  FF /3         | callf   | m16:z               |
  FF /4         | jmp     | r/mv                | f64
  FF /5         | jmpf    | m16:z               |
  FF /6         | push    | r/mv                | d64
`;

const twoByteRows = `
  0F 0B         | ud2     |                     |
  0F A0         | push    | fs                  | d64
  0F A1         | pop     | fs                  | d64
  0F A3         | bt      | r/mv, rv            |
  0F A4         | shld    | r/mv, rv, uimm8     |
  0F A5         | shld    | r/mv, rv, cl        |
  0F A8         | push    | gs                  | d64
  0F A9         | pop     | gs                  | d64
  0F AB         | bts     | r/mv, rv            | lock
  0F AC         | shrd    | r/mv, rv, uimm8     |
  0F AD         | shrd    | r/mv, rv, cl        |
  0F AF         | imul    | rv, r/mv            |
  0F B0         | cmpxchg | r/m8, r8            | lock
  0F B1         | cmpxchg | r/mv, rv            | lock
  0F B2         | lss     | rv, m16:z           |
  0F B3         | btr     | r/mv, rv            | lock
  0F B4         | lfs     | rv, m16:z           |
  0F B5         | lgs     | rv, m16:z           |
  0F B6         | movzx   | rv, r/m8            |
  0F B7         | movzx   | rv, r/m16           |
  0F B9         | ud1     | rv, r/mv            |
  0F BA /4      | bt      | r/mv, uimm8         |
  0F BA /5      | bts     | r/mv, uimm8         | lock
  0F BA /6      | btr     | r/mv, uimm8         | lock
  0F BA /7      | btc     | r/mv, uimm8         | lock
  0F BB         | btc     | r/mv, rv            | lock
  0F BC         | bsf     | rv, r/mv            |
  0F BD         | bsr     | rv, r/mv            |
  0F BE         | movsx   | rv, r/m8            |
  0F BF         | movsx   | rv, r/m16           |
  0F C0         | xadd    | r/m8, r8            | lock
  0F C1         | xadd    | r/mv, rv            | lock
  0F C8+r       | bswap   | +rv                 |
  0F FF         | ud0     | rv, r/mv            |
`;

/** Encodings reserved for hints (0F 18–0F 1F, 0F 0D): what has no meaning of its own does nothing, whatever its prefix. */
const hintRows = `
  0F 0D         | nop         | rv/m0  |
  0F 18         | nop         | rv/m0  |
  0F 19         | nop         | rv/m0  |
  0F 1A         | nop         | rv/m0  |
  0F 1B         | nop         | rv/m0  |
  0F 1C         | nop         | rv/m0  |
  0F 1D         | nop         | rv/m0  |
  0F 1E         | nop         | rv/m0  |
  0F 1F         | nop         | rv/m0  |
`;

export const integerSections: readonly TableSection[] = [
  { feature: 'base', rows: arithmeticRows + shiftRows + conditionRows + oneByteRows + twoByteRows + hintRows },
  { feature: 'cmov', rows: conditionalMoveRows },
  {
    feature: 'lahf',
    rows: `
      9E          | sahf        |        | byte
      9F          | lahf        |        | byte
    `,
  },
  { feature: 'prefetchw', rows: '0F 0D /1,3 | prefetchw | m0 |' },
  { feature: 'cmpxchg8b', rows: '0F C7 /1 | cmpxchg8b | m64 | lock' },
  { feature: 'cmpxchg16b', rows: 'REX.W 0F C7 /1 | cmpxchg16b | m128 | lock' },
  { feature: 'popcnt', rows: 'F3 0F B8 | popcnt | rv, r/mv |' },
  { feature: 'rdrand', rows: 'NP+66 0F C7 /6 | rdrand | rm.rv |' },
  { feature: 'rdseed', rows: 'NP+66 0F C7 /7 | rdseed | rm.rv |' },
];
