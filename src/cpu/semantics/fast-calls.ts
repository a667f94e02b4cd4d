import { ARITHMETIC_FLAGS, Flag } from '../../x86/registers.ts';
import { SegmentRegister } from '../decode/instruction.ts';
import { attributesOf, baseOf, limitOf, needsNoCheck } from '../descriptor.ts';
import { Exit } from '../exits.ts';
import { CALL_SEGMENTS, SYSRET_FLAGS } from '../fast-call-rules.ts';
import type { Descriptor } from '../processor-api.ts';
import { State } from '../state.ts';
import {
  and,
  eqz,
  extendU,
  type I32,
  i32,
  i64,
  load32,
  load64,
  ne,
  or,
  select,
  shl,
  shrS,
  shrU,
  store32,
  store64,
  sub,
  wrap,
} from '../wasm/expression.ts';
import type { Context, Semantics } from './context.ts';

/** SYSCALL and SYSRET between 64-bit code of both rings, where the host has said what they are to do (State.fastCalls). */

const RCX = 1;
const R11 = 11;

/** With these there is more to do than to go on: single steps, and another check of each access. */
const RARE = Flag.trap | Flag.alignmentCheck;

export const systemCall: Semantics = (c) => {
  if (!c.shape.long) return c.exit(Exit.syscall);
  const other = c.let(c.otherFlags());
  c.fn.if(or(eqz(load32(c.state, State.fastCalls)), and(other, i32(RARE))), () => c.exit(Exit.syscall));
  const flags = c.let(or(c.flags(), extendU(and(other, i32(~Flag.resume)))));
  c.setRegister(RCX, 8, c.nextAddress());
  c.setRegister(R11, 8, flags);
  const kept = c.let(sub(i32(-1), load32(c.state, State.callMask)));
  enterRing(c, 0, load32(c.state, State.kernelSelectors));
  setFlags(c, and(wrap(flags), kept));
  c.jump(load64(c.state, State.callEntry));
};

export const systemReturn: Semantics = (c) => {
  if (!c.shape.long || c.shape.operandSize !== 8) return c.exit(Exit.system);
  const target = c.let(c.register(RCX, 8));
  const flags = c.let(and(wrap(c.register(R11, 8)), i32(SYSRET_FLAGS)));
  const notCanonical = ne(shrS(shl(target, i64(16)), i64(16)), target);
  const interrupted = select(load32(c.state, State.interruptWaiting), and(flags, i32(Flag.interrupt)), i32(0));
  const rare = and(or(c.otherFlags(), flags), i32(RARE));
  const notHere = or(eqz(load32(c.state, State.fastCalls)), load32(c.state, State.cpl));
  c.fn.if(or(or(notHere, rare), or(interrupted, notCanonical)), () => c.exit(Exit.system));
  enterRing(c, 3, load32(c.state, State.userSelectors));
  setFlags(c, flags);
  c.jump(target);
};

function setFlags(c: Context, flags: I32): void {
  const kept = c.let(flags);
  c.setOtherFlags(or(and(kept, i32(~ARITHMETIC_FLAGS)), i32(Flag.reserved)));
  c.setFlagsExplicit(extendU(and(kept, i32(ARITHMETIC_FLAGS))));
}

/** @param selectors that of CS in the lower half, and that of SS */
function enterRing(c: Context, ring: 0 | 3, selectors: I32): void {
  const { code64, data } = ring === 0 ? CALL_SEGMENTS.kernel : CALL_SEGMENTS.user;
  const both = c.let(selectors);
  loadSegment(c, SegmentRegister.cs, and(both, i32(0xffff)), code64);
  loadSegment(c, SegmentRegister.ss, shrU(both, i32(16)), data);
  c.fn.store(store32(c.state, i32(ring), State.cpl));
  c.fn.store(store32(c.state, i32(ring === 0 ? 0 : 1), State.userAccess));
  c.fn.store(store32(c.state, load32(c.state, ring === 0 ? State.kernelTlb : State.userTlb), State.tlb));
}

/** As ProcessorState.loadSegment; the size of code and stack stays. */
function loadSegment(c: Context, segment: SegmentRegister, selector: I32, descriptor: Descriptor): void {
  const { fn, state } = c;
  const attributes = attributesOf(descriptor);
  const limit = limitOf(descriptor);
  const word = (field: State): number => field + segment * 4;
  fn.store(store32(state, selector, word(State.segmentSelector)));
  fn.store(store32(state, i32(attributes), word(State.segmentAttributes)));
  fn.store(store32(state, i32(limit), word(State.segmentLimit)));
  fn.store(store32(state, i32(needsNoCheck(limit, attributes) ? 0 : 1), word(State.segmentChecked)));
  fn.store(store64(state, i64(baseOf(descriptor)), State.segmentBase + segment * 8));
}
