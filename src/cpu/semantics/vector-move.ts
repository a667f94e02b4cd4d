import {
  add,
  and,
  extendU,
  i32,
  load8U32,
  load32,
  load64,
  ltU,
  shrU,
  store32,
  store64,
  store128,
  wrap,
  zeroExtend,
} from '../../wasm/expression.ts';
import * as simd from '../../wasm/simd.ts';
import { Vector } from '../../x86/registers.ts';
import { State } from '../state.ts';
import type { Semantics } from './context.ts';
import { enterMmx, isMemory, isMmx, isXmm, requireMmx, requireSse, writeMmx } from './vector-support.ts';

/** Moves between memory, general, MMX and XMM registers, and MXCSR. */

const RDI = 7;

const moveAligned: Semantics = (c) => {
  requireSse(c);
  c.write128(0, c.read128(1));
};

const moveUnaligned: Semantics = (c) => {
  requireSse(c);
  c.write128(0, c.read128(1, true), true);
};

/** MOVSS and MOVSD: from memory the rest of the register becomes zero, between registers it stays. */
const moveScalar =
  (bytes: 4 | 8): Semantics =>
  (c) => {
    requireSse(c);
    if (isMemory(c, 0)) {
      c.write(0, c.read(1));
    } else if (isMemory(c, 1)) {
      c.write128(0, c.read128(1));
    } else {
      const value = c.read(1);
      const store = bytes === 4 ? store32(c.operandPointer(0), wrap(value)) : store64(c.operandPointer(0), value);
      c.fn.store(store);
    }
  };

/** MOVLPS, MOVHPS and their like: half a register, from or to memory, or a half of another register. */
const moveHalf =
  (half: 'low' | 'high', otherHalf: 'low' | 'high' = 'low'): Semantics =>
  (c) => {
    requireSse(c);
    const offset = half === 'low' ? 0 : 8;
    if (isMemory(c, 0)) {
      c.write(0, load64(c.operandPointer(1), offset));
    } else if (isMemory(c, 1)) {
      const value = c.let(c.read(1));
      c.fn.store(store64(c.operandPointer(0), value, offset));
    } else {
      const value = load64(c.operandPointer(1), otherHalf === 'low' ? 0 : 8);
      c.fn.store(store64(c.operandPointer(0), value, offset));
    }
  };

/** MOVD, MOVQ, MOVQ2DQ, MOVDQ2Q, MOVNTQ: low 4 or 8 bytes; an XMM register is filled up with zeros. */
const moveLow: Semantics = (c) => {
  const usesMmx = isMmx(c, 0) || isMmx(c, 1);
  if (isXmm(c, 0) || isXmm(c, 1)) requireSse(c);
  if (usesMmx) requireMmx(c);
  const value = c.let(c.read(1));
  if (isMmx(c, 0)) {
    writeMmx(c, 0, value);
    return;
  }
  if (isXmm(c, 0)) c.fn.store(store128(c.operandPointer(0), simd.lowQuadword(value)));
  else c.write(0, value);
  if (usesMmx) enterMmx(c);
};

const moveInteger: Semantics = (c) => c.write(0, c.read(1));

/**
 * MASKMOVQ and MASKMOVDQU: bytes of the first operand whose mask byte is negative, to DS:rDI. All of the destination
 * must be writable, and the MMX state is entered before that is known, as AMD processors do; the manuals leave it open.
 */
const maskedMove: Semantics = (c) => {
  const { fn } = c;
  const onMmx = isMmx(c, 0);
  if (onMmx) requireMmx(c);
  else requireSse(c);
  const bytes = onMmx ? 8 : 16;
  const source = c.let(c.operandPointer(0));
  const mask = c.let(c.operandPointer(1));
  const offset = c.let(c.register(RDI, c.shape.addressSize));
  const index = fn.local('i32');
  if (onMmx) enterMmx(c);
  const linear = c.let(c.linear(offset, bytes, true));
  // Where alignment is checked, it is that of quadwords.
  c.probeWrite(linear, 8);
  if (bytes > 8) c.probeWrite(linear, bytes);
  fn.set(index, i32(0));
  fn.loop((again) => {
    fn.if(shrU(load8U32(add(mask, index)), i32(7)), () => {
      const address = add(linear, extendU(index));
      c.store(1, c.shape.long ? address : zeroExtend(address, 4), extendU(load8U32(add(source, index))));
    });
    fn.set(index, add(index, i32(1)));
    fn.branchIf(ltU(index, i32(bytes)), again);
  });
};

/** Bits of MXCSR that exist: all of the low half (DAZ included). */
const MXCSR_RESERVED = 0xffff_0000;

const loadControl: Semantics = (c) => {
  requireSse(c);
  const value = c.let(wrap(c.read(0)));
  c.fn.if(and(value, i32(MXCSR_RESERVED)), () => c.raise(Vector.generalProtection));
  c.fn.store(store32(c.state, value, State.mxcsr));
};

const storeControl: Semantics = (c) => {
  requireSse(c);
  c.write(0, extendU(load32(c.state, State.mxcsr)));
};

/** Fences and prefetches change nothing that one virtual processor could see. */
const nothing: Semantics = () => {};

/** CLFLUSH is checked like a load of one byte. */
const flushLine: Semantics = (c) => {
  c.load(1, c.address(1, false));
};

export const VECTOR_MOVE: ReadonlyMap<string, Semantics> = new Map<string, Semantics>([
  ...['movaps', 'movapd', 'movdqa', 'movntps', 'movntpd', 'movntdq', 'movntdqa'].map((name): [string, Semantics] => [
    name,
    moveAligned,
  ]),
  ...['movups', 'movupd', 'movdqu', 'lddqu'].map((name): [string, Semantics] => [name, moveUnaligned]),
  ['movss', moveScalar(4)],
  ['movsd', moveScalar(8)],
  ['movlps', moveHalf('low')],
  ['movlpd', moveHalf('low')],
  ['movhps', moveHalf('high')],
  ['movhpd', moveHalf('high')],
  ['movhlps', moveHalf('low', 'high')],
  ['movlhps', moveHalf('high', 'low')],
  ...['movd', 'movq', 'movq2dq', 'movdq2q', 'movntq'].map((name): [string, Semantics] => [name, moveLow]),
  ['movnti', moveInteger],
  ['maskmovq', maskedMove],
  ['maskmovdqu', maskedMove],
  ['ldmxcsr', loadControl],
  ['stmxcsr', storeControl],
  ...['sfence', 'lfence', 'mfence', 'prefetchnta', 'prefetcht0', 'prefetcht1', 'prefetcht2'].map(
    (name): [string, Semantics] => [name, nothing],
  ),
  ['clflush', flushLine],
]);
