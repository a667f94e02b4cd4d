import {
  and,
  extendU,
  gtU,
  type I32,
  i32,
  i64,
  load128,
  ltS,
  select,
  shrU,
  store32,
  store128,
  sub,
  wrap,
} from '../../wasm/expression.ts';
import { State } from '../state.ts';
import { IMPLICIT_LENGTH, StringBlock } from '../string-compare.ts';
import type { Context, Semantics } from './context.ts';
import { immediateByte, requireSse } from './vector-support.ts';

/** The string instructions of SSE4.2. The comparison itself is a function of its own (../string-compare.ts). */

const RAX = 0;
const RCX = 1;
const RDX = 2;

/** Absolute value of a register as a length, at most 16. */
function explicitLength(c: Context, register: number): I32 {
  const value = c.let(c.register(register, c.shape.operandSize === 8 ? 8 : 4, true));
  const length = c.let(select(ltS(value, i64(0)), sub(i64(0), value), value));
  return wrap(select(gtU(length, i64(16)), i64(16), length));
}

const compare =
  (lengths: 'explicit' | 'implicit', result: 'index' | 'mask'): Semantics =>
  (c) => {
    const { fn, state } = c;
    requireSse(c);
    const source = c.read128(1, true);
    const at = (field: StringBlock) => State.scratch + field;
    fn.store(store128(state, source, at(StringBlock.second)));
    fn.store(store128(state, c.read128(0), at(StringBlock.first)));
    fn.store(store32(state, immediateByte(c), at(StringBlock.immediate)));
    const length = (register: number) => (lengths === 'explicit' ? explicitLength(c, register) : i32(IMPLICIT_LENGTH));
    fn.store(store32(state, length(RAX), at(StringBlock.firstLength)));
    fn.store(store32(state, length(RDX), at(StringBlock.secondLength)));
    const answer = c.let(c.host('compareStrings'));
    if (result === 'index') c.setRegister(RCX, 4, extendU(shrU(answer, i32(16))));
    else fn.store(store128(c.vectorPointer(0), load128(state, at(StringBlock.mask))));
    c.setFlagsExplicit(extendU(and(answer, i32(0xffff))));
  };

export const STRING_COMPARE: ReadonlyMap<string, Semantics> = new Map([
  ['pcmpestri', compare('explicit', 'index')],
  ['pcmpestrm', compare('explicit', 'mask')],
  ['pcmpistri', compare('implicit', 'index')],
  ['pcmpistrm', compare('implicit', 'mask')],
]);
