import {
  add,
  and,
  divU,
  eqz,
  gtU,
  type I64,
  i64,
  mul,
  ne,
  or,
  remU,
  select,
  shl,
  shrU,
  signExtend,
  sub,
  zeroExtend,
} from '../../wasm/expression.ts';
import { Vector } from '../../x86/registers.ts';
import type { Semantics } from './context.ts';

const RAX = 0;
const CF = 1;
const AF = 0x10;

/** DAA and DAS (SDM vol. 2A): adjusts AL after packed decimal arithmetic. */
const adjustPacked =
  (addition: boolean): Semantics =>
  (c) => {
    const apply = (a: I64, b: number) => (addition ? add(a, i64(b)) : sub(a, i64(b)));
    const al = c.let(c.register(RAX, 1));
    const flags = c.let(c.flags());
    const low = c.let(ne64(or(bool(gtU(and(al, i64(15)), i64(9))), and(flags, i64(AF)))));
    const first = c.let(select(low, apply(al, 6), al));
    const high = c.let(ne64(or(bool(gtU(al, i64(0x99))), and(flags, i64(CF)))));
    const second = c.let(select(high, apply(first, 0x60), first));
    // DAS: a borrow out of the first step sets CF too.
    const borrowed = addition ? i64(0) : select(low, bool(gtU(i64(6), al)), i64(0));
    c.setRegister(RAX, 1, second);
    const carry = or(select(high, i64(CF), i64(0)), borrowed);
    c.setFlagsResult(c.let(signExtend(second, 1)), c.let(or(carry, select(low, i64(AF), i64(0)))));
  };

/** AAA and AAS: adjusts AX after unpacked decimal arithmetic. */
const adjustUnpacked =
  (addition: boolean): Semantics =>
  (c) => {
    const ax = c.let(c.register(RAX, 2));
    const adjust = c.let(ne64(or(bool(gtU(and(ax, i64(15)), i64(9))), and(c.flags(), i64(AF)))));
    const changed = addition ? add(ax, i64(0x106)) : sub(ax, i64(0x106));
    const result = c.let(and(select(adjust, changed, ax), i64(0xff0f)));
    c.setRegister(RAX, 2, result);
    c.setFlagsResult(c.let(signExtend(result, 1)), c.let(select(adjust, i64(CF | AF), i64(0))));
  };

const aam: Semantics = (c) => {
  const base = c.let(and(c.immediate(), i64(0xff)));
  c.fn.if(eqz(base), () => c.raise(Vector.divideError));
  const al = c.let(c.register(RAX, 1));
  const low = c.let(remU(al, base));
  c.setRegister(RAX, 2, or(shl(divU(al, base), i64(8)), low));
  c.setFlagsLogic(c.let(signExtend(low, 1)));
};

const aad: Semantics = (c) => {
  const base = c.let(and(c.immediate(), i64(0xff)));
  const ax = c.let(c.register(RAX, 2));
  const result = c.let(zeroExtend(add(and(ax, i64(0xff)), mul(shrU(ax, i64(8)), base)), 1));
  c.setRegister(RAX, 2, result);
  c.setFlagsLogic(c.let(signExtend(result, 1)));
};

function bool(condition: ReturnType<typeof eqz>): I64 {
  return select(condition, i64(1), i64(0));
}

function ne64(value: I64): ReturnType<typeof eqz> {
  return ne(value, i64(0));
}

export const DECIMAL: readonly (readonly [string, Semantics])[] = [
  ['daa', adjustPacked(true)],
  ['das', adjustPacked(false)],
  ['aaa', adjustUnpacked(true)],
  ['aas', adjustUnpacked(false)],
  ['aam', aam],
  ['aad', aad],
];
