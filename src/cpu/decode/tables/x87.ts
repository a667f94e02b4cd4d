/**
 * Opcodes of the x87 unit, D8–DF. Source: Intel SDM volume 2, appendix A.5; the second encodings of FCOM, FCOMP, FXCH
 * and FSTP and FFREEP are in AMD APM volume 3, appendix A.
 *
 * FNENI, FNDISI (8087) and FNSETPM (80287) do nothing on any later processor and are called FNOP here.
 */
import type { TableSection } from '../rows.ts';

/** The eight operations common to D8, DA, DC and DE, in the order of ModRM.reg. */
const arithmetic = ['add', 'mul', 'com', 'comp', 'sub', 'subr', 'div', 'divr'];

const arithmeticRows = arithmetic
  .map(
    (name, number) => `
      D8 /${number}  | f${name}   | m32         |
      DA /${number}  | fi${name}  | m32         |
      DC /${number}  | f${name}   | m64         |
      DE /${number}  | fi${name}  | m16         |
      D8 /${number}  | f${name}   | st0, st(i)  |`,
  )
  .join('');

export const x87Sections: readonly TableSection[] = [
  {
    feature: 'fpu',
    rows: `
      ${arithmeticRows}
      D9 /0     | fld       | m32           |
      D9 /2     | fst       | m32           |
      D9 /3     | fstp      | m32           |
      D9 /4     | fldenv    | m14/28byte    | narrow
      D9 /5     | fldcw     | m16           |
      D9 /6     | fnstenv   | m14/28byte    | narrow
      D9 /7     | fnstcw    | m16           |
      D9 /0     | fld       | st(i)         |
      D9 /1     | fxch      | st0, st(i)    |
      D9 D0     | fnop      |               |
      D9 /3     | fstp      | st(i)         |
      D9 E0     | fchs      |               |
      D9 E1     | fabs      |               |
      D9 E4     | ftst      |               |
      D9 E5     | fxam      |               |
      D9 E8     | fld1      |               |
      D9 E9     | fldl2t    |               |
      D9 EA     | fldl2e    |               |
      D9 EB     | fldpi     |               |
      D9 EC     | fldlg2    |               |
      D9 ED     | fldln2    |               |
      D9 EE     | fldz      |               |
      D9 F0     | f2xm1     |               |
      D9 F1     | fyl2x     |               |
      D9 F2     | fptan     |               |
      D9 F3     | fpatan    |               |
      D9 F4     | fxtract   |               |
      D9 F5     | fprem1    |               |
      D9 F6     | fdecstp   |               |
      D9 F7     | fincstp   |               |
      D9 F8     | fprem     |               |
      D9 F9     | fyl2xp1   |               |
      D9 FA     | fsqrt     |               |
      D9 FB     | fsincos   |               |
      D9 FC     | frndint   |               |
      D9 FD     | fscale    |               |
      D9 FE     | fsin      |               |
      D9 FF     | fcos      |               |
      DA E9     | fucompp   |               |
      DB /0     | fild      | m32           |
      DB /2     | fist      | m32           |
      DB /3     | fistp     | m32           |
      DB /5     | fld       | m80           |
      DB /7     | fstp      | m80           |
      DB E0     | fnop      |               |
      DB E1     | fnop      |               |
      DB E2     | fnclex    |               |
      DB E3     | fninit    |               |
      DB E4     | fnop      |               |
      DB /5     | fucomi    | st0, st(i)    |
      DB /6     | fcomi     | st0, st(i)    |
      DC /0     | fadd      | st(i), st0    |
      DC /1     | fmul      | st(i), st0    |
      DC /2     | fcom      | st0, st(i)    |
      DC /3     | fcomp     | st0, st(i)    |
      DC /4     | fsubr     | st(i), st0    |
      DC /5     | fsub      | st(i), st0    |
      DC /6     | fdivr     | st(i), st0    |
      DC /7     | fdiv      | st(i), st0    |
      DD /0     | fld       | m64           |
      DD /2     | fst       | m64           |
      DD /3     | fstp      | m64           |
      DD /4     | frstor    | m94/108byte   | narrow
      DD /6     | fnsave    | m94/108byte   | narrow
      DD /7     | fnstsw    | m16           |
      DD /0     | ffree     | st(i)         |
      DD /1     | fxch      | st0, st(i)    |
      DD /2     | fst       | st(i)         |
      DD /3     | fstp      | st(i)         |
      DD /4     | fucom     | st0, st(i)    |
      DD /5     | fucomp    | st0, st(i)    |
      DE /0     | faddp     | st(i), st0    |
      DE /1     | fmulp     | st(i), st0    |
      DE /2     | fcomp     | st0, st(i)    |
      DE D9     | fcompp    |               |
      DE /4     | fsubrp    | st(i), st0    |
      DE /5     | fsubp     | st(i), st0    |
      DE /6     | fdivrp    | st(i), st0    |
      DE /7     | fdivp     | st(i), st0    |
      DF /0     | fild      | m16           |
      DF /2     | fist      | m16           |
      DF /3     | fistp     | m16           |
      DF /4     | fbld      | m80           |
      DF /5     | fild      | m64           |
      DF /6     | fbstp     | m80           |
      DF /7     | fistp     | m64           |
      DF /0     | ffreep    | st(i)         |
      DF /1     | fxch      | st0, st(i)    |
      DF /2-3   | fstp      | st(i)         |
      DF E0     | fnstsw    | ax            |
      DF /5     | fucomip   | st0, st(i)    |
      DF /6     | fcomip    | st0, st(i)    |
    `,
  },
  {
    feature: 'cmov',
    rows: `
      DA /0     | fcmovb    | st0, st(i)    |
      DA /1     | fcmove    | st0, st(i)    |
      DA /2     | fcmovbe   | st0, st(i)    |
      DA /3     | fcmovu    | st0, st(i)    |
      DB /0     | fcmovnb   | st0, st(i)    |
      DB /1     | fcmovne   | st0, st(i)    |
      DB /2     | fcmovnbe  | st0, st(i)    |
      DB /3     | fcmovnu   | st0, st(i)    |
    `,
  },
  {
    feature: 'sse3',
    rows: `
      DB /1     | fisttp    | m32           |
      DD /1     | fisttp    | m64           |
      DF /1     | fisttp    | m16           |
    `,
  },
];
