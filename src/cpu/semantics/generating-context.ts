import { SegmentRegister } from '../decode/instruction.ts';
import { FlagKind, State } from '../state.ts';
import {
  type Expression,
  type I32,
  type I64,
  i32,
  i64,
  load32,
  load64,
  ne,
  select,
  store32,
} from '../wasm/expression.ts';
import type { FunctionBuilder } from '../wasm/module.ts';
import type { Shape } from './context.ts';

/** What both tiers do alike when a meaning generates code: the state block is where it is, and flags are of the same kinds. */
export abstract class GeneratingContext {
  abstract readonly fn: FunctionBuilder;
  abstract readonly state: I32;
  abstract get shape(): Shape;
  abstract carry(): I64;

  /** The value of an operand, extended to 64 bits. */
  protected abstract integer(operand: number, signed: boolean): I64;
  /** Describes the arithmetic flags; FlagKind says what the numbers are. */
  protected abstract setFlags(kind: FlagKind, result: I64, a?: I64, b?: I64): void;

  let<E extends Expression>(value: E): E {
    return this.fn.let(value) as E;
  }

  read(operand: number): I64 {
    return this.integer(operand, false);
  }

  readSigned(operand: number): I64 {
    return this.integer(operand, true);
  }

  setFlagsAdd(a: I64, b: I64, result: I64): void {
    this.setFlags(FlagKind.add, result, a, b);
  }

  setFlagsSub(a: I64, b: I64, result: I64): void {
    this.setFlags(FlagKind.sub, result, a, b);
  }

  setFlagsSbb(a: I64, b: I64, result: I64): void {
    this.setFlags(FlagKind.sbb, result, a, b);
  }

  setFlagsLogic(result: I64): void {
    this.setFlags(FlagKind.logic, result);
  }

  setFlagsResult(result: I64, carryOverflowAdjust: I64): void {
    this.setFlags(FlagKind.result, result, carryOverflowAdjust);
  }

  /** An increment or decrement: the carry stays what it was. */
  setFlagsStep(up: boolean, old: I64, result: I64): void {
    this.setFlags(up ? FlagKind.increment : FlagKind.decrement, result, this.carryThatStays(), old);
  }

  protected carryThatStays(): I64 {
    return this.let(this.carry());
  }

  otherFlags(): I32 {
    return load32(this.state, State.flagsRest);
  }

  setOtherFlags(bits: I32): void {
    this.fn.store(store32(this.state, bits, State.flagsRest));
  }

  /** The bits of the stack pointer that legacy code uses. */
  stackMask(): I64 {
    return select(ne(load32(this.state, State.stackSize), i32(2)), i64(0xffff_ffffn), i64(0xffff));
  }

  /** Linear address that offsets of legacy code count from. */
  protected codeBase(): I64 {
    return load64(this.state, State.segmentBase + SegmentRegister.cs * 8);
  }
}
