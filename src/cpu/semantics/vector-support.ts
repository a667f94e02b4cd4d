import {
  and,
  type I32,
  type I64,
  i32,
  load16U32,
  load32,
  store8of32,
  store16of32,
  type V128,
  wrap,
} from '../../wasm/expression.ts';
import { i64x2Splat, lowHalf } from '../../wasm/simd.ts';
import { Vector } from '../../x86/registers.ts';
import { OperandKind } from '../decode/instruction.ts';
import { X87State, X87Status } from '../float/x87-machine.ts';
import { HelperOperation } from '../helpers.ts';
import { State } from '../state.ts';
import type { Context, Semantics } from './context.ts';

/** What the meanings of MMX and SSE instructions have in common: availability, the two register files, immediates. */

/** #UD or #NM when the operating system has not enabled SSE, or wants to load its state first (SDM vol. 3, 2.5, 14.1). */
export function requireSse(c: Context): void {
  requireFloat(c, HelperOperation.checkSse);
}

/** As `requireSse`, and an unmasked x87 exception that is pending is raised. */
export function requireMmx(c: Context): void {
  requireFloat(c, HelperOperation.checkMmx);
  raisePending(c);
}

export function requireFloat(c: Context, check: HelperOperation): void {
  c.fn.ifSeldom(load32(c.state, State.fpuTrap), () => c.checked(c.host('helper', i32(check))));
}

/** #MF when an x87 instruction before this one left an unmasked exception behind. */
export function raisePending(c: Context): void {
  const status = load16U32(c.state, State.x87 + X87State.status);
  c.fn.if(and(status, i32(X87Status.errorSummary)), () => c.raise(Vector.x87));
}

/** Executing an MMX instruction makes TOP 0 and all x87 registers valid (SDM vol. 1, 9.5.1). After the last access. */
export function enterMmx(c: Context): void {
  const { fn, state } = c;
  const status = load16U32(state, State.x87 + X87State.status);
  fn.store(store16of32(state, and(status, i32(~X87Status.top)), State.x87 + X87State.status));
  fn.store(store8of32(state, i32(0xff), State.x87 + X87State.occupied));
}

/** Writes an MMX register: its exponent, as an x87 register, becomes all ones. */
export function writeMmx(c: Context, operand: number, value: I64): void {
  c.write(operand, value);
  markMmx(c, operand);
}

export function markMmx(c: Context, operand: number): void {
  c.fn.store(store16of32(c.operandPointer(operand), i32(0xffff), 8));
  enterMmx(c);
}

export function kindOf(c: Context, operand: number): OperandKind {
  return c.shape.operands[operand]?.kind ?? OperandKind.none;
}

export const isMmx = (c: Context, operand: number): boolean => kindOf(c, operand) === OperandKind.mmx;
export const isXmm = (c: Context, operand: number): boolean => kindOf(c, operand) === OperandKind.xmm;
export const isMemory = (c: Context, operand: number): boolean => kindOf(c, operand) === OperandKind.memory;

/** The immediate byte, zero-extended. */
export const immediateByte = (c: Context): I32 => wrap(c.immediate());

/** An operation on two vectors; both arguments are locals. MMX operands stand in the low half, the high half is ignored. */
export type Lanes = (a: V128, b: V128, c: Context) => V128;

/** destination ← operation(destination, source), on whichever kind of register the instruction has. */
export const packed =
  (operation: Lanes, onMmx: Lanes = operation): Semantics =>
  (c) => {
    if (isMmx(c, 0)) {
      requireMmx(c);
      const b = c.let(i64x2Splat(c.read(1)));
      const a = c.let(i64x2Splat(c.read(0)));
      writeMmx(c, 0, lowHalf(onMmx(a, b, c)));
      return;
    }
    requireSse(c);
    const b = c.let(c.read128(1));
    const a = c.let(c.read128(0));
    c.write128(0, operation(a, b, c));
  };
