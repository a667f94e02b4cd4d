import {
  add,
  and,
  eq,
  eqz,
  extendS,
  extendU,
  gtU,
  type I32,
  type I64,
  i32,
  i64,
  leS,
  leU,
  load8U32,
  load16U32,
  load32,
  load64,
  load128,
  loadInteger,
  ltS,
  ltU,
  ne,
  or,
  shl,
  shrU,
  store32,
  store64,
  store128,
  storeInteger,
  sub,
  type V128,
  wrap,
  xor,
  zeroExtend,
} from '../../wasm/expression.ts';
import { callOf, type FunctionBuilder } from '../../wasm/module.ts';
import { OperandKind, SegmentRegister } from '../decode/instruction.ts';
import { Exit } from '../exits.ts';
import { CARRY_IN_A, carryOf, conditionOf, FLAG_KINDS, type FlagValues, flagBits, OPPOSITE } from '../flags.ts';
import type { Condition, Context, HostFunction, Shape } from '../semantics/context.ts';
import { GeneratingContext } from '../semantics/generating-context.ts';
import { FlagKind, State } from '../state.ts';
import { TlbEntry } from '../tlb-layout.ts';
import { PseudoHandler, RecordField } from './record.ts';

/** Where generated code of one instruction goes when it is done. */
export interface Ways {
  /** On to the next record. */
  next(): void;
  /** Leave; RIP is at this instruction. `kind` is an Exit. */
  leave(kind: I32): void;
  /** Leave; RIP is behind this instruction. */
  leaveAfter(kind: I32): void;
  /** Taken direct branch of this record. */
  branch(): void;
  /** Control goes to a linear address. */
  jump(target: I64): void;
}

/** Functions of the module at hand: imports, or the interpreter's own. */
export interface Functions {
  readonly host: Readonly<Record<HostFunction, number>>;
  /** (state) → six arithmetic flags as RFLAGS bits. */
  readonly flags: number;
  /** (state) → CF. */
  readonly carry: number;
}

/** Tier 0: operands come from a decoded record at run time, all state is in memory. */
export class RecordContext extends GeneratingContext implements Context {
  readonly fn: FunctionBuilder;
  readonly shape: Shape;
  readonly state: I32;
  readonly record: I32;
  readonly #ways: Ways;
  readonly #functions: Functions;
  protected readonly tlbEntries: number;
  /** The flags that this record set last, as the values at hand. */
  #known: { kind: FlagKind; result: I64; a: I64 | undefined; b: I64 | undefined } | undefined;

  constructor(
    fn: FunctionBuilder,
    shape: Shape,
    state: I32,
    record: I32,
    ways: Ways,
    functions: Functions,
    tlbEntries: number,
  ) {
    super();
    this.fn = fn;
    this.shape = shape;
    this.state = state;
    this.record = record;
    this.#ways = ways;
    this.#functions = functions;
    this.tlbEntries = tlbEntries;
  }

  register(register: number, bytes: number, signed = false): I64 {
    return loadInteger(bytes, signed, this.state, State.registers + register * 8);
  }

  setRegister(register: number, bytes: number, value: I64): void {
    const offset = State.registers + register * 8;
    this.fn.store(
      bytes === 4 ? store64(this.state, zeroExtend(value, 4), offset) : storeInteger(bytes, this.state, value, offset),
    );
  }

  operandPointer(operand: number): I32 {
    const field = operand === 0 ? RecordField.first : RecordField.second;
    return add(this.state, load16U32(this.record, field));
  }

  protected integer(operand: number, signed: boolean): I64 {
    const { kind, size } = this.operandShape(operand);
    switch (kind) {
      case OperandKind.gpr:
      case OperandKind.highByte:
        if (operand >= 2) return this.register(1, size, signed);
        return loadInteger(size, signed, this.operandPointer(operand));
      case OperandKind.segment:
        return loadInteger(size === 1 ? 1 : 2, false, this.operandPointer(operand));
      case OperandKind.mmx:
      case OperandKind.xmm:
        return loadInteger(Math.min(size, 8), signed, this.operandPointer(operand));
      case OperandKind.immediate: {
        const value = this.immediate();
        return signed ? value : zeroExtend(value, this.shape.operandSize);
      }
      case OperandKind.secondImmediate:
        return extendU(this.secondImmediate());
      case OperandKind.memory:
        return this.load(size, this.address(size, false), signed);
      default:
        throw new Error(`${this.shape.operation}: operand ${operand} is no integer`);
    }
  }

  write(operand: number, value: I64): void {
    const { kind, size } = this.operandShape(operand);
    if (kind === OperandKind.memory) {
      this.store(size, this.address(size, true), value);
    } else if (kind === OperandKind.gpr && size === 4) {
      this.fn.store(store64(this.operandPointer(operand), zeroExtend(value, 4)));
    } else if (kind === OperandKind.gpr || kind === OperandKind.highByte || kind === OperandKind.mmx) {
      this.fn.store(storeInteger(size, this.operandPointer(operand), value));
    } else {
      throw new Error(`${this.shape.operation}: operand ${operand} cannot be written`);
    }
  }

  update(operand: number, compute: (old: I64) => I64, after: (old: I64) => void): void {
    const { kind, size } = this.operandShape(operand);
    if (kind === OperandKind.memory) {
      this.updateAt(size, this.address(size, true), compute, after);
      return;
    }
    const pointer = operand < 2 ? this.let(this.operandPointer(operand)) : undefined;
    const old = this.let(pointer ? loadInteger(size, true, pointer) : this.readSigned(operand));
    const value = this.let(compute(old));
    after(old);
    if (!pointer) this.write(operand, value);
    else if (size === 4) this.fn.store(store64(pointer, zeroExtend(value, 4)));
    else this.fn.store(storeInteger(size, pointer, value));
  }

  updateAt(bytes: number, linear: I64, compute: (old: I64) => I64, after: (old: I64) => void): void {
    const { fn } = this;
    const address = this.let(linear);
    const entry = this.tlbEntry(address);
    const offset = this.let(sub(address, load64(entry, TlbEntry.writeTag)));
    const pointer = fn.local('i32');
    const missed = fn.let(gtU(offset, i64(4096 - bytes)));
    fn.ifSeldom(
      missed,
      () => {
        fn.store(store64(this.state, address, State.missAddress));
        this.checked(this.host('updateMiss', i32(bytes)));
        fn.set(pointer, load32(this.state, State.missValue));
      },
      () => fn.set(pointer, add(load32(entry, TlbEntry.frame), wrap(offset))),
    );
    const old = this.let(loadInteger(bytes, true, pointer));
    const value = this.let(compute(old));
    fn.store(storeInteger(bytes, pointer, value));
    fn.ifSeldom(missed, () => this.checked(this.host('updateCommit')));
    after(old);
  }

  operandNumber(operand: number): I32 {
    return load16U32(this.record, operand === 0 ? RecordField.first : RecordField.second);
  }

  immediate(): I64 {
    return this.shape.fused
      ? loadInteger(4, true, this.record, RecordField.immediate)
      : load64(this.record, RecordField.immediate);
  }

  secondImmediate(): I32 {
    return load32(this.record, RecordField.link);
  }

  #slot(field: RecordField): I64 {
    return load64(add(this.state, load16U32(this.record, field)));
  }

  #scaledIndex(): I64 {
    return shl(this.#slot(RecordField.indexRegister), extendU(load8U32(this.record, RecordField.scale)));
  }

  #displacement(): I64 {
    return loadInteger(4, true, this.record, RecordField.displacement);
  }

  effectiveOffset(): I64 {
    switch (this.shape.memory) {
      case 'base':
        return this.#wrapped(add(this.#slot(RecordField.base), this.#displacement()));
      case 'full':
        return this.#wrapped(add(add(this.#slot(RecordField.base), this.#scaledIndex()), this.#displacement()));
      case 'narrow':
      case 'legacy':
        return zeroExtend(
          add(add(this.#slot(RecordField.base), this.#scaledIndex()), this.#displacement()),
          this.shape.addressSize,
        );
      case 'absolute':
        return this.immediate();
      default:
        throw new Error(`${this.shape.operation} has no memory operand`);
    }
  }

  #wrapped(address: I64): I64 {
    return this.shape.flat ? zeroExtend(address, 4) : address;
  }

  #recordSegment(): I32 {
    return load8U32(this.record, RecordField.segment);
  }

  address(bytes: number, write: boolean): I64 {
    const offset = this.effectiveOffset();
    return this.shape.memory === 'base' || this.#isKnownFlat() ? offset : this.linear(offset, bytes, write);
  }

  /** Whether the segment begins at 0 and needs no check in this code. */
  #isKnownFlat(segment?: number): boolean {
    const { flat, memory } = this.shape;
    if (segment === undefined) return flat && (memory === 'base' || memory === 'full');
    return flat && segment < SegmentRegister.fs && segment !== SegmentRegister.cs;
  }

  linear(offset: I64, bytes: number, write: boolean, segment?: number): I64 {
    const { fn } = this;
    if (this.shape.long || this.#isKnownFlat(segment)) return this.flatLinear(offset, segment);
    const number = segment === undefined ? this.let(this.#recordSegment()) : i32(segment);
    const value = this.let(offset);
    fn.if(this.#segmentChecks(number), () => {
      fn.store(store64(this.state, value, State.missAddress));
      this.checked(this.host('segmentCheck', number, i32(bytes | (write ? 0x100 : 0))));
    });
    return this.#legacyLinear(number, value);
  }

  flatLinear(offset: I64, segment?: number): I64 {
    if (this.#isKnownFlat(segment)) return zeroExtend(offset, 4);
    if (!this.shape.long)
      return this.#legacyLinear(segment === undefined ? this.#recordSegment() : i32(segment), offset);
    if (segment === undefined) {
      const base = add(this.state, shl(this.#recordSegment(), i32(3)));
      return add(load64(base), offset);
    }
    return segment < 4 ? offset : add(load64(this.state, State.segmentBase + segment * 8), offset);
  }

  isFlat(segment?: number): I32 {
    if (this.shape.long || this.#isKnownFlat(segment)) return i32(1);
    return eqz(this.#segmentChecks(segment === undefined ? this.#recordSegment() : i32(segment)));
  }

  #segmentChecks(segment: I32): I32 {
    return load32(add(this.state, shl(segment, i32(2))), State.segmentChecked);
  }

  #legacyLinear(segment: I32, offset: I64): I64 {
    const base = load64(add(this.state, shl(segment, i32(3))), State.segmentBase);
    return zeroExtend(add(base, offset), 4);
  }

  load(bytes: number, linear: I64, signed = false): I64 {
    const { fn } = this;
    const value = fn.local('i64');
    this.#throughTlb(
      linear,
      bytes,
      TlbEntry.readTag,
      (pointer) => fn.set(value, loadInteger(bytes, signed, pointer)),
      () => {
        this.checked(this.host('loadMiss', i32(bytes)));
        fn.set(value, loadInteger(bytes, signed, this.state, State.missValue));
      },
    );
    return value;
  }

  store(bytes: number, linear: I64, value: I64): void {
    const kept = this.let(value);
    this.#throughTlb(
      linear,
      bytes,
      TlbEntry.writeTag,
      (pointer) => this.fn.store(storeInteger(bytes, pointer, kept)),
      () => {
        this.fn.store(store64(this.state, kept, State.missValue));
        this.checked(this.host('storeMiss', i32(bytes)));
      },
    );
  }

  probeWrite(linear: I64, bytes: number | I32): void {
    this.fn.store(store64(this.state, linear, State.missAddress));
    this.checked(this.host('probeWrite', typeof bytes === 'number' ? i32(bytes) : bytes));
  }

  load128(linear: I64): V128 {
    const value = this.fn.local('v128');
    this.#throughTlb(
      linear,
      16,
      TlbEntry.readTag,
      (pointer) => this.fn.set(value, load128(pointer)),
      () => {
        this.checked(this.host('loadMiss', i32(16)));
        this.fn.set(value, load128(this.state, State.missValue));
      },
    );
    return value;
  }

  store128(linear: I64, value: V128): void {
    const kept = this.let(value);
    this.#throughTlb(
      linear,
      16,
      TlbEntry.writeTag,
      (pointer) => this.fn.store(store128(pointer, kept)),
      () => {
        this.fn.store(store128(this.state, kept, State.missValue));
        this.checked(this.host('storeMiss', i32(16)));
      },
    );
  }

  #throughTlb(
    linear: I64,
    bytes: number,
    tag: TlbEntry.readTag | TlbEntry.writeTag,
    hit: (pointer: I32) => void,
    miss: () => void,
  ): void {
    const { fn } = this;
    const address = this.let(linear);
    const entry = this.tlbEntry(address);
    const offset = this.let(sub(address, load64(entry, tag)));
    fn.ifSeldom(
      gtU(offset, i64(4096 - bytes)),
      () => {
        fn.store(store64(this.state, address, State.missAddress));
        miss();
      },
      () => hit(add(load32(entry, TlbEntry.frame), wrap(offset))),
    );
  }

  protected requireAligned(address: I64): void {
    this.fn.if(ne(and(address, i64(15)), i64(0)), () => this.raise(13, i32(0)));
  }

  protected setFlags(kind: FlagKind, result: I64, a?: I64, b?: I64): void {
    const { fn, state } = this;
    this.#known = { kind, result, a, b };
    fn.store(store32(state, i32(kind), State.flagKind));
    if (a) fn.store(store64(state, a, State.flagA));
    if (b) fn.store(store64(state, b, State.flagB));
    fn.store(store64(state, result, State.flagResult));
  }

  setFlagsExplicit(bits: I64): void {
    const kept = this.let(bits);
    this.setFlags(FlagKind.explicit, extendU(eqz(and(kept, i64(0x40)))), kept);
  }

  flags(): I64 {
    return extendU(this.#call(this.#functions.flags));
  }

  carry(): I64 {
    const { fn, state } = this;
    const carry = fn.local('i64');
    const kind = fn.let(load32(state, State.flagKind));
    fn.if(
      eq(kind, i32(FlagKind.sub)),
      () => fn.set(carry, extendU(ltU(load64(state, State.flagA), load64(state, State.flagB)))),
      () =>
        // These kinds, and only these, have CF as the lowest bit of flagA.
        fn.if(
          ne(and(shl(i32(1), kind), i32(CARRY_IN_A)), i32(0)),
          () => fn.set(carry, and(load64(state, State.flagA), i64(1))),
          () => fn.set(carry, extendU(this.#call(this.#functions.carry))),
        ),
    );
    return carry;
  }

  condition(condition: Condition): I32 {
    const { state, fn } = this;
    const direct = this.shape.fused ? this.#knownCondition(condition) : undefined;
    if (direct) return direct;
    const kind = load32(state, State.flagKind);
    const a = load64(state, State.flagA);
    const b = load64(state, State.flagB);
    const result = load64(state, State.flagResult);
    const flags = () => this.#call(this.#functions.flags);
    const bit = (mask: number) => ne(and(flags(), i32(mask)), i32(0));
    const compared = (whenSub: I32, otherwise: () => I32): I32 => {
      const value = fn.local('i32');
      fn.if(
        eq(kind, i32(FlagKind.sub)),
        () => fn.set(value, whenSub),
        () => fn.set(value, otherwise()),
      );
      return value;
    };
    /** SF ≠ OF, from bits 7 and 11. */
    const less = () => {
      const bits = flags();
      return and(xor(shrU(bits, i32(7)), shrU(bits, i32(11))), i32(1));
    };
    switch (condition) {
      case 'e':
        return eqz(result);
      case 'ne':
        return ne(result, i64(0));
      case 'b':
        return compared(ltU(a, b), () => and(flags(), i32(1)));
      case 'be':
        return compared(leU(a, b), () => or(eqz(result), and(flags(), i32(1))));
      case 's': {
        const value = fn.local('i32');
        fn.if(
          kind,
          () => fn.set(value, ltS(result, i64(0))),
          () => fn.set(value, bit(0x80)),
        );
        return value;
      }
      case 'l':
        return compared(ltS(a, b), less);
      case 'le':
        return compared(leS(a, b), () => or(eqz(result), less()));
      case 'o':
        return bit(0x800);
      case 'p':
        return bit(0x4);
      case 'ae':
      case 'a':
      case 'ns':
      case 'ge':
      case 'g':
      case 'no':
      case 'np':
        return eqz(this.condition(OPPOSITE[condition]));
    }
  }

  /** A condition of flags that this record has just set, without reading them back. */
  #knownCondition(condition: Condition): I32 | undefined {
    const known = this.#known;
    if (!known) return undefined;
    const { kind, result, a = i64(0), b = i64(0) } = known;
    return conditionOf(kind, { a, b, result }, condition);
  }

  branch(): void {
    // Of a shape with a conditional jump the size is that of the instruction in front; jumps of 16 bits share no record.
    if (this.shape.long || this.shape.fused || this.shape.operandSize !== 2) {
      this.#ways.branch();
      return;
    }
    // IP wraps at 64 KiB.
    this.jump(add(this.nextAddress(), loadInteger(4, true, this.record, RecordField.target)));
  }

  jump(target: I64): void {
    this.#ways.jump(
      this.shape.long ? target : zeroExtend(add(this.codeBase(), zeroExtend(target, this.shape.operandSize)), 4),
    );
  }

  enter(target: I64): void {
    this.#ways.jump(target);
  }

  instructionAddress(): I64 {
    const length = load8U32(this.record, RecordField.length);
    const start = sub(load16U32(this.record, RecordField.next), length);
    const linear = add(load64(this.state, State.pageBase), extendS(start));
    return this.shape.long ? linear : zeroExtend(sub(linear, this.codeBase()), 4);
  }

  nextAddress(): I64 {
    const next = add(load64(this.state, State.pageBase), extendU(load16U32(this.record, RecordField.next)));
    if (this.shape.long) return next;
    const offset = sub(next, this.codeBase());
    return zeroExtend(offset, this.shape.operandSize === 2 ? 2 : 4);
  }

  raise(vector: number, error: I32 = i32(0)): void {
    this.fn.store(store32(this.state, i32(vector), State.exitDetail));
    this.fn.store(store32(this.state, error, State.exitError));
    this.#ways.leave(i32(Exit.exception));
  }

  exit(kind: Exit, detail: I32 = i32(0)): void {
    this.fn.store(store32(this.state, detail, State.exitDetail));
    this.#ways.leave(i32(kind));
  }

  exitAfter(kind: Exit, detail: I32 = i32(0)): void {
    this.fn.store(store32(this.state, detail, State.exitDetail));
    this.fn.store(store32(this.state, i32(0), State.exitError));
    this.#ways.leaveAfter(i32(kind));
  }

  budget(): I32 {
    return load32(this.state, State.budget);
  }

  countSteps(steps: I32): void {
    this.fn.store(store32(this.state, sub(this.budget(), steps), State.budget));
  }

  repeatLater(): void {
    this.#ways.leave(i32(Exit.budget));
  }

  isOverwritten(): I32 {
    return eq(load16U32(this.record, RecordField.handler), i32(PseudoHandler.stale));
  }

  host(name: HostFunction, ...operands: I32[]): I32 {
    return this.#call(this.#functions.host[name], ...operands);
  }

  protected tlbAddress(): I32 {
    return load32(this.state, State.tlb);
  }

  #call(index: number, ...operands: I32[]): I32 {
    return this.fn.letAside(callOf('i32', index, this.state, ...operands), this.state);
  }

  checked(result: I32): void {
    const value = this.let(result);
    this.fn.ifSeldom(value, () => this.#ways.leave(value));
  }

  /** Ends the instruction normally. */
  done(): void {
    this.#ways.next();
  }
}

/** The descriptor in the state block, once evaluated. */
function storedFlags(fn: FunctionBuilder, state: I32): { kind: I32; values: FlagValues } {
  const kind = fn.let(load32(state, State.flagKind));
  const a = fn.let(load64(state, State.flagA));
  const b = fn.let(load64(state, State.flagB));
  return { kind, values: { a, b, result: fn.let(load64(state, State.flagResult)) } };
}

/** (state) → the six arithmetic flags. */
export function emitFlags(fn: FunctionBuilder): void {
  const { kind, values } = storedFlags(fn, fn.parameter(0, 'i32'));
  for (const each of FLAG_KINDS) fn.if(eq(kind, i32(each)), () => fn.return(flagBits(each, values)));
}

/** (state) → CF. */
export function emitCarry(fn: FunctionBuilder): void {
  const { kind, values } = storedFlags(fn, fn.parameter(0, 'i32'));
  for (const each of FLAG_KINDS) fn.if(eq(kind, i32(each)), () => fn.return(carryOf(each, values)));
}
