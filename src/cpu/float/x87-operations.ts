/** The x87 instructions, one operation for each form that computes differently. */

/**
 * Form of an arithmetic operation: where the source is and where the result goes. The six arithmetic operations occupy
 * the first values of `X87Operation`, all forms of one after those of another: operation · 7 + form.
 */
export const enum ArithmeticForm {
  single,
  double,
  integer16,
  integer32,
  /** ST(0) ← ST(0) op ST(i) */
  top,
  /** ST(i) ← ST(i) op ST(0) */
  register,
  /** ST(i) ← ST(i) op ST(0), then pop */
  pop,
  count,
}

export const enum X87Operation {
  faddM32,
  faddM64,
  fiaddM16,
  fiaddM32,
  fadd,
  faddSti,
  faddp,
  fmulM32,
  fmulM64,
  fimulM16,
  fimulM32,
  fmul,
  fmulSti,
  fmulp,
  fsubM32,
  fsubM64,
  fisubM16,
  fisubM32,
  fsub,
  fsubSti,
  fsubp,
  fsubrM32,
  fsubrM64,
  fisubrM16,
  fisubrM32,
  fsubr,
  fsubrSti,
  fsubrp,
  fdivM32,
  fdivM64,
  fidivM16,
  fidivM32,
  fdiv,
  fdivSti,
  fdivp,
  fdivrM32,
  fdivrM64,
  fidivrM16,
  fidivrM32,
  fdivr,
  fdivrSti,
  fdivrp,

  fcomM32,
  fcomM64,
  fcom,
  fcompM32,
  fcompM64,
  fcomp,
  fcompp,
  ficomM16,
  ficomM32,
  ficompM16,
  ficompM32,
  fucom,
  fucomp,
  fucompp,
  fcomi,
  fcomip,
  fucomi,
  fucomip,
  ftst,
  fxam,

  fldM32,
  fldM64,
  fldM80,
  fld,
  fildM16,
  fildM32,
  fildM64,
  fbld,
  fld1,
  fldl2t,
  fldl2e,
  fldpi,
  fldlg2,
  fldln2,
  fldz,
  fstM32,
  fstM64,
  fst,
  fstpM32,
  fstpM64,
  fstpM80,
  fstp,
  fistM16,
  fistM32,
  fistpM16,
  fistpM32,
  fistpM64,
  fisttpM16,
  fisttpM32,
  fisttpM64,
  fbstp,
  fxch,
  /** Any FCMOVcc: `operand` is 1 when the condition holds, 0 when not. */
  fcmov,

  fchs,
  fabs,
  fsqrt,
  frndint,
  fscale,
  fprem,
  fprem1,
  fxtract,
  f2xm1,
  fyl2x,
  fyl2xp1,
  fptan,
  fpatan,
  fsin,
  fcos,
  fsincos,

  fincstp,
  fdecstp,
  ffree,
  ffreep,
  fnop,
  fwait,
  fninit,
  fnclex,
  fldcw,
  fnstcw,
  fnstsw,
  fldenv,
  fnstenv,
  frstor,
  fnsave,
  /** FNENI, FNDISI, FNSETPM: did something on the 8087 and 287. */
  fnobsolete,

  count,
}

export interface X87Description {
  readonly operation: X87Operation;
  /** Executed even while an unmasked exception is pending. */
  readonly withoutWaiting: boolean;
  /** Leaves the last opcode, instruction and data pointers as they are (SDM vol. 1, 8.1.8). */
  readonly control: boolean;
}

function describe(operation: X87Operation): X87Description {
  return {
    operation,
    withoutWaiting:
      operation === X87Operation.fninit ||
      operation === X87Operation.fnclex ||
      operation === X87Operation.fnstcw ||
      operation === X87Operation.fnstsw ||
      operation === X87Operation.fnstenv ||
      operation === X87Operation.fnsave ||
      operation === X87Operation.fnobsolete,
    control: operation >= X87Operation.fwait,
  };
}

const arithmetic: Record<string, X87Description> = {};
for (const [index, name] of ['add', 'mul', 'sub', 'subr', 'div', 'divr'].entries()) {
  const keys = [
    `f${name} m32`,
    `f${name} m64`,
    `fi${name} m16`,
    `fi${name} m32`,
    `f${name}`,
    `f${name} sti`,
    `f${name}p`,
  ];
  for (const [form, key] of keys.entries()) arithmetic[key] = describe(index * ArithmeticForm.count + form);
}

/**
 * Mnemonic to operation. A memory operand adds its bits to the key, as in `fld m80`; arithmetic whose result goes to
 * ST(i) without a pop is `fadd sti`. Environment and control instructions have the mnemonic alone.
 */
export const x87Operations: Readonly<Record<string, X87Description>> = {
  ...arithmetic,
  'fcom m32': describe(X87Operation.fcomM32),
  'fcom m64': describe(X87Operation.fcomM64),
  fcom: describe(X87Operation.fcom),
  'fcomp m32': describe(X87Operation.fcompM32),
  'fcomp m64': describe(X87Operation.fcompM64),
  fcomp: describe(X87Operation.fcomp),
  fcompp: describe(X87Operation.fcompp),
  'ficom m16': describe(X87Operation.ficomM16),
  'ficom m32': describe(X87Operation.ficomM32),
  'ficomp m16': describe(X87Operation.ficompM16),
  'ficomp m32': describe(X87Operation.ficompM32),
  fucom: describe(X87Operation.fucom),
  fucomp: describe(X87Operation.fucomp),
  fucompp: describe(X87Operation.fucompp),
  fcomi: describe(X87Operation.fcomi),
  fcomip: describe(X87Operation.fcomip),
  fucomi: describe(X87Operation.fucomi),
  fucomip: describe(X87Operation.fucomip),
  ftst: describe(X87Operation.ftst),
  fxam: describe(X87Operation.fxam),
  'fld m32': describe(X87Operation.fldM32),
  'fld m64': describe(X87Operation.fldM64),
  'fld m80': describe(X87Operation.fldM80),
  fld: describe(X87Operation.fld),
  'fild m16': describe(X87Operation.fildM16),
  'fild m32': describe(X87Operation.fildM32),
  'fild m64': describe(X87Operation.fildM64),
  'fbld m80': describe(X87Operation.fbld),
  fld1: describe(X87Operation.fld1),
  fldl2t: describe(X87Operation.fldl2t),
  fldl2e: describe(X87Operation.fldl2e),
  fldpi: describe(X87Operation.fldpi),
  fldlg2: describe(X87Operation.fldlg2),
  fldln2: describe(X87Operation.fldln2),
  fldz: describe(X87Operation.fldz),
  'fst m32': describe(X87Operation.fstM32),
  'fst m64': describe(X87Operation.fstM64),
  fst: describe(X87Operation.fst),
  'fstp m32': describe(X87Operation.fstpM32),
  'fstp m64': describe(X87Operation.fstpM64),
  'fstp m80': describe(X87Operation.fstpM80),
  fstp: describe(X87Operation.fstp),
  'fist m16': describe(X87Operation.fistM16),
  'fist m32': describe(X87Operation.fistM32),
  'fistp m16': describe(X87Operation.fistpM16),
  'fistp m32': describe(X87Operation.fistpM32),
  'fistp m64': describe(X87Operation.fistpM64),
  'fisttp m16': describe(X87Operation.fisttpM16),
  'fisttp m32': describe(X87Operation.fisttpM32),
  'fisttp m64': describe(X87Operation.fisttpM64),
  'fbstp m80': describe(X87Operation.fbstp),
  fxch: describe(X87Operation.fxch),
  fcmovb: describe(X87Operation.fcmov),
  fcmove: describe(X87Operation.fcmov),
  fcmovbe: describe(X87Operation.fcmov),
  fcmovu: describe(X87Operation.fcmov),
  fcmovnb: describe(X87Operation.fcmov),
  fcmovne: describe(X87Operation.fcmov),
  fcmovnbe: describe(X87Operation.fcmov),
  fcmovnu: describe(X87Operation.fcmov),
  fchs: describe(X87Operation.fchs),
  fabs: describe(X87Operation.fabs),
  fsqrt: describe(X87Operation.fsqrt),
  frndint: describe(X87Operation.frndint),
  fscale: describe(X87Operation.fscale),
  fprem: describe(X87Operation.fprem),
  fprem1: describe(X87Operation.fprem1),
  fxtract: describe(X87Operation.fxtract),
  f2xm1: describe(X87Operation.f2xm1),
  fyl2x: describe(X87Operation.fyl2x),
  fyl2xp1: describe(X87Operation.fyl2xp1),
  fptan: describe(X87Operation.fptan),
  fpatan: describe(X87Operation.fpatan),
  fsin: describe(X87Operation.fsin),
  fcos: describe(X87Operation.fcos),
  fsincos: describe(X87Operation.fsincos),
  fincstp: describe(X87Operation.fincstp),
  fdecstp: describe(X87Operation.fdecstp),
  ffree: describe(X87Operation.ffree),
  ffreep: describe(X87Operation.ffreep),
  fnop: describe(X87Operation.fnop),
  fwait: describe(X87Operation.fwait),
  fninit: describe(X87Operation.fninit),
  fnclex: describe(X87Operation.fnclex),
  fldcw: describe(X87Operation.fldcw),
  fnstcw: describe(X87Operation.fnstcw),
  fnstsw: describe(X87Operation.fnstsw),
  fldenv: describe(X87Operation.fldenv),
  fnstenv: describe(X87Operation.fnstenv),
  frstor: describe(X87Operation.frstor),
  fnsave: describe(X87Operation.fnsave),
  fneni: describe(X87Operation.fnobsolete),
  fndisi: describe(X87Operation.fnobsolete),
  fnsetpm: describe(X87Operation.fnobsolete),
};

/**
 * Finds the operation of an instruction.
 *
 * @param mnemonic Intel's name in lower case
 * @param memoryBytes size of a memory operand that is a number; 0 when there is none
 * @param intoRegister the result of fadd, fmul, fsub, fsubr, fdiv or fdivr goes to ST(i) instead of ST(0)
 * @returns undefined for anything that is not an x87 instruction
 */
export function findX87Operation(mnemonic: string, memoryBytes = 0, intoRegister = false): X87Description | undefined {
  if (intoRegister && `${mnemonic} sti` in x87Operations) return x87Operations[`${mnemonic} sti`];
  return (memoryBytes !== 0 ? x87Operations[`${mnemonic} m${memoryBytes * 8}`] : undefined) ?? x87Operations[mnemonic];
}
