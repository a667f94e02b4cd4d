import {
  add,
  and,
  eqz,
  extendU,
  gtU,
  type I32,
  i32,
  i64,
  load16U32,
  load32,
  load64,
  ne,
  or,
  select,
  shl,
  shrU,
  store32,
  store64,
  sub,
  wrap,
} from '../../wasm/expression.ts';
import { PAGE_SIZE } from '../../x86/brand.ts';
import { ARITHMETIC_FLAGS, Flag } from '../../x86/registers.ts';
import { SegmentRegister } from '../decode/instruction.ts';
import { attributesOf, baseOf, limitOf, needsNoCheck } from '../descriptor.ts';
import { Exit } from '../exits.ts';
import { CALL_SEGMENTS, IRET_FLAGS, SYSRET_FLAGS } from '../fast-call-rules.ts';
import type { Descriptor } from '../processor-api.ts';
import { State } from '../state.ts';
import { isNotCanonical } from './canonical.ts';
import type { Context, Semantics } from './context.ts';

/**
 * SYSCALL, SYSRET and IRET between 64-bit code of both rings, where the host has said what they are to do (State.fastCalls,
 * State.fastReturns).
 */

const RCX = 1;
const RSP = 4;
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
  c.enter(load64(c.state, State.callEntry));
};

export const systemReturn: Semantics = (c) => {
  if (!c.shape.long || c.shape.operandSize !== 8) return c.exit(Exit.system);
  const target = c.let(c.register(RCX, 8));
  const flags = c.let(and(wrap(c.register(R11, 8)), i32(SYSRET_FLAGS)));
  const interrupted = select(load32(c.state, State.interruptWaiting), and(flags, i32(Flag.interrupt)), i32(0));
  const rare = and(or(c.otherFlags(), flags), i32(RARE));
  const notHere = or(eqz(load32(c.state, State.fastCalls)), load32(c.state, State.cpl));
  c.fn.if(or(or(notHere, rare), or(interrupted, isNotCanonical(target))), () => c.exit(Exit.system));
  enterRing(c, 3, load32(c.state, State.userSelectors));
  setFlags(c, flags);
  c.enter(target);
};

/** Bytes of a frame in 64-bit code: RIP, CS, RFLAGS, RSP, SS. */
const FRAME = 40;

/**
 * To a program or within the kernel's ring, by descriptors that say what SYSRET and SYSCALL take for granted, and with nothing
 * that can fault.
 */
export const interruptReturn: Semantics = (c) => {
  if (!c.shape.long || c.shape.operandSize !== 8) return c.exit(Exit.system);
  const { fn, state } = c;
  const leaveIf = (condition: I32): void => fn.if(condition, () => c.exit(Exit.system));
  const other = c.let(c.otherFlags());
  const frame = c.let(c.register(RSP, 8));
  leaveIf(or(eqz(load32(state, State.fastReturns)), load32(state, State.cpl)));
  leaveIf(gtU(and(frame, i64(PAGE_SIZE - 1)), i64(PAGE_SIZE - FRAME)));
  const slots = c.let(c.pointer(frame, false));
  leaveIf(eqz(slots));
  const target = c.let(load64(slots));
  const image = c.let(load32(slots, 16));
  const interrupted = select(load32(state, State.interruptWaiting), and(image, i32(Flag.interrupt)), i32(0));
  const rare = and(or(other, image), i32(RARE | Flag.nestedTask | Flag.virtual8086));
  leaveIf(or(or(interrupted, rare), isNotCanonical(target)));
  const pointer = c.let(load64(slots, 24));
  const code = c.let(load16U32(slots, 8));
  const stack = c.let(load16U32(slots, 32));
  const { kernel, user } = CALL_SEGMENTS;
  const toProgram = () => {
    const selectors = c.let(load32(state, State.userSelectors));
    leaveIf(ne(or(code, shl(stack, i32(16))), selectors));
    leaveIf(or(isNot(c, code, user.code64), isNot(c, stack, user.data)));
    leaveIf(loadedSegments(c));
    enterRing(c, 3, selectors);
  };
  const withinKernel = () => {
    const selectors = c.let(load32(state, State.kernelSelectors));
    leaveIf(or(ne(code, and(selectors, i32(0xffff))), isNot(c, code, kernel.code64)));
    const isOther = or(ne(stack, shrU(selectors, i32(16))), isNot(c, stack, kernel.data));
    // Entries from programs leave no stack segment, and it stays so.
    leaveIf(select(stack, isOther, attributes(c, SegmentRegister.ss)));
    fn.if(stack, () => loadSegment(c, SegmentRegister.ss, stack, kernel.data));
    loadSegment(c, SegmentRegister.cs, code, kernel.code64);
  };
  fn.if(and(code, i32(3)), toProgram, withinKernel);
  const taken = IRET_FLAGS | Flag.iopl | Flag.interrupt;
  c.setRegister(RSP, 8, pointer);
  setFlags(c, or(and(other, i32(~taken)), and(image, i32(taken))));
  c.enter(target);
};

/** Whether a descriptor of the GDT is another one, or cannot be seen from here. */
function isNot(c: Context, selector: I32, { low, high }: Descriptor): I32 {
  const address = c.let(add(load64(c.state, State.callTable), extendU(and(selector, i32(0xfff8)))));
  // Where there is no translation, what stands at address 0 of the host's memory is no descriptor.
  const entry = c.let(c.pointer(address, false));
  return ne(load64(entry), i64((BigInt(high) << 32n) | BigInt(low)));
}

/** Attributes of the data segments: those of the kernel's own would have to be dropped. */
function loadedSegments(c: Context): I32 {
  const both = or(attributes(c, SegmentRegister.es), attributes(c, SegmentRegister.ds));
  return or(both, or(attributes(c, SegmentRegister.fs), attributes(c, SegmentRegister.gs)));
}

function attributes(c: Context, segment: SegmentRegister): I32 {
  return load32(c.state, State.segmentAttributes + segment * 4);
}

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
  const rights = attributesOf(descriptor);
  const limit = limitOf(descriptor);
  const word = (field: State): number => field + segment * 4;
  fn.store(store32(state, selector, word(State.segmentSelector)));
  fn.store(store32(state, i32(rights), word(State.segmentAttributes)));
  fn.store(store32(state, i32(limit), word(State.segmentLimit)));
  fn.store(store32(state, i32(needsNoCheck(limit, rights) ? 0 : 1), word(State.segmentChecked)));
  fn.store(store64(state, i64(baseOf(descriptor)), State.segmentBase + segment * 8));
}
