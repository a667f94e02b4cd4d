import {
  add,
  and,
  type Expression,
  gtU,
  type I32,
  type I64,
  i32,
  i64,
  load32,
  load64,
  load128,
  ne,
  select,
  shrU,
  store32,
  store128,
  sub,
  type V128,
  vector,
  wrap,
} from '../../wasm/expression.ts';
import type { FunctionBuilder } from '../../wasm/module.ts';
import { OperandKind, SegmentRegister } from '../decode/instruction.ts';
import { FlagKind, State } from '../state.ts';
import { TlbEntry } from '../tlb-layout.ts';
import type { OperandShape, Shape } from './context.ts';

/** What both tiers do alike when a meaning generates code: the state block is where it is, and flags are of the same kinds. */
export abstract class GeneratingContext {
  abstract readonly fn: FunctionBuilder;
  abstract readonly state: I32;
  abstract get shape(): Shape;
  abstract carry(): I64;

  /** The value of an operand, extended to 64 bits. */
  protected abstract integer(operand: number, signed: boolean): I64;
  /** Address of the TLB that the current privilege uses, and how many entries it has. */
  protected abstract tlbAddress(): I32;
  protected abstract readonly tlbEntries: number;
  /** #GP unless 16 bytes there are aligned. */
  protected abstract requireAligned(address: I64): void;
  abstract operandPointer(operand: number): I32;
  abstract address(bytes: number, write: boolean): I64;
  abstract load(bytes: number, linear: I64, signed?: boolean): I64;
  abstract load128(linear: I64): V128;
  abstract store128(linear: I64, value: V128): void;
  /** Describes the arithmetic flags; FlagKind says what the numbers are. */
  protected abstract setFlags(kind: FlagKind, result: I64, a?: I64, b?: I64): void;

  let<E extends Expression>(value: E): E {
    return this.fn.let(value) as E;
  }

  vectorPointer(register: number): I32 {
    return add(this.state, i32(State.xmm + register * 16));
  }

  read(operand: number): I64 {
    return this.integer(operand, false);
  }

  readSigned(operand: number): I64 {
    return this.integer(operand, true);
  }

  /** Address of the TLB entry that an address, evaluated already, belongs to. */
  protected tlbEntry(address: I64): I32 {
    return this.let(tlbEntry(this.tlbAddress(), address, this.tlbEntries));
  }

  pointer(linear: I64, write: boolean): I32 {
    const address = this.let(linear);
    const entry = this.tlbEntry(address);
    const offset = this.let(sub(address, load64(entry, write ? TlbEntry.writeTag : TlbEntry.readTag)));
    return select(gtU(offset, i64(4095)), i32(0), add(load32(entry, TlbEntry.frame), wrap(offset)));
  }

  read128(operand: number, unaligned = false): V128 {
    const { kind, size } = this.operandShape(operand);
    if (kind === OperandKind.xmm) return load128(this.operandPointer(operand));
    if (kind !== OperandKind.memory) throw new Error(`${this.shape.operation}: operand ${operand} is no vector`);
    if (size < 16) {
      const low = this.let(this.load(size, this.address(size, false)));
      // i64x2.replace_lane 0 of zero
      return vector('v128', 30, [vector('v128', 12, [], new Array(16).fill(0)), low], [0]);
    }
    const address = this.let(this.address(16, false));
    if (!unaligned) this.requireAligned(address);
    return this.load128(address);
  }

  write128(operand: number, value: V128, unaligned = false): void {
    if (this.operandShape(operand).kind === OperandKind.xmm) {
      this.fn.store(store128(this.operandPointer(operand), value));
      return;
    }
    const address = this.let(this.address(16, true));
    if (!unaligned) this.requireAligned(address);
    this.store128(address, value);
  }

  protected operandShape(operand: number): OperandShape {
    const found = this.shape.operands[operand];
    if (!found) throw new Error(`${this.shape.operation} has no operand ${operand}`);
    return found;
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
    if (this.shape.flat) return i64(0xffff_ffffn);
    return select(ne(load32(this.state, State.stackSize), i32(2)), i64(0xffff_ffffn), i64(0xffff));
  }

  /** Linear address that offsets of legacy code count from. */
  protected codeBase(): I64 {
    return this.shape.flat ? i64(0) : load64(this.state, State.segmentBase + SegmentRegister.cs * 8);
  }
}

/** Address of the TLB entry that a linear address belongs to; one shift serves the page number and the entry's size. */
export function tlbEntry(tlb: I32, address: I64, tlbEntries: number): I32 {
  const place = wrap(shrU(address, i64(12 - TlbEntry.sizeShift)));
  return add(tlb, and(place, i32((tlbEntries - 1) << TlbEntry.sizeShift)));
}
