import {
  add,
  and,
  eqz,
  extendU,
  geU,
  gtU,
  type I32,
  type I64,
  i32,
  i64,
  load8U32,
  load32,
  load64,
  load128,
  loadInteger,
  ltS,
  ne,
  select,
  shl,
  shrU,
  signExtend,
  store8of32,
  store32,
  store64,
  store128,
  storeInteger,
  sub,
  type V128,
  wrap,
  zeroExtend,
} from '../../wasm/expression.ts';
import { callOf, type FunctionBuilder, type Label, Local, type Signature } from '../../wasm/module.ts';
import { PAGE_SIZE } from '../../x86/brand.ts';
import { AddressRegister, OperandKind, SegmentRegister } from '../decode/instruction.ts';
import { Exit } from '../exits.ts';
import { carryOf, conditionOf, type FlagValues, flagBits } from '../flags.ts';
import { RegionAnswer } from '../interpreter/record.ts';
import { CALLS_LIMIT, REGION_LOOP } from '../interpreter/region-loop.ts';
import type { Condition, Context, HostFunction, Shape } from '../semantics/context.ts';
import { GeneratingContext } from '../semantics/generating-context.ts';
import { FlagKind, State } from '../state.ts';
import { TlbEntry } from '../tlb-layout.ts';
import type { Effects } from './effects.ts';
import type { RegionInstruction } from './region.ts';
import { RegisterFile } from './register-file.ts';
import { VectorFile } from './vector-file.ts';
import { type Window, Windows } from './windows.ts';

function numbers(count: number): Signature {
  return { parameters: new Array<'i32'>(count).fill('i32'), result: 'i32' };
}

/** What generated code of a region can call; all of them are WebAssembly, so importing them is cheap. */
export const REGION_IMPORTS = {
  flags: numbers(1),
  carry: numbers(1),
  x87: numbers(4),
  sse: numbers(6),
  helper: numbers(2),
  compareStrings: numbers(1),
  loadSegment: numbers(3),
  timeStamp: numbers(1),
  faultAddress: numbers(1),
  regions: REGION_LOOP,
} as const;
export type RegionImport = keyof typeof REGION_IMPORTS;
/** Host functions that a region calls itself. */
const isImported = (name: HostFunction): name is HostFunction & RegionImport => Object.hasOwn(REGION_IMPORTS, name);

export type RegionImports = Readonly<Record<RegionImport, number>>;

/**
 * `at` packs a place to leave from: the offset of an instruction in the page, and the instructions of its block that
 * were completed before it.
 */
export const AT_COUNT_SHIFT = 16;

/**
 * In place of a kind of flags: they are those of the state block, which the region has neither loaded nor changed. Most
 * regions set flags before they read them.
 */
const FLAGS_AS_BEFORE = -1;

/** Numbers that depend on what else is in a region's module: its own, and those of each way out of it. */
export const enum Blank {
  /** Host address of the region's RegionLife. */
  ownLife = 0,
  /** Of the region that the way leads to: host address of its RegionLife, … */
  life = 1,
  /** … the budget that it needs, … */
  slack = 2,
  /** … host address of the page that its code is in, … */
  page = 3,
  /** … and the index of its function. */
  function = 4,
}
/** Blanks of one way. */
export const BLANKS_OF_WAY = 4;

/** A way out of a region that another one may begin at the end of. */
export interface WayOut {
  /** Position among the region's ways out. */
  readonly index: number;
  /** Linear address of the page that control has to find the region in, when that is not the page that it comes from. */
  readonly page: I64 | undefined;
}

/** A byte for each region. */
export const enum RegionLife {
  /** It is no longer valid. */
  gone = 0,
  /** It can be entered, and was not since somebody last looked. */
  idle = 1,
  entered = 2,
}

/** Where an instruction can lead. */
export interface Ways {
  /** Emits what its direct branch does. */
  branch(): void;
  /** Where in the region control goes on when a call returns, and the budget that is needed there. */
  readonly returnTo?: { readonly linear: I64; readonly budget: number };
}

/** Tier 1: one instruction's numbers are constants, general registers and flags are locals, and misses leave the region. */
export class RegionContext extends GeneratingContext implements Context {
  readonly fn: FunctionBuilder;
  readonly state: I32;
  /** Calls of the guest around this region that are calls of regions. */
  readonly calls: I32;
  /** Linear address of the region's page. */
  readonly pageBase: Local<'i64'>;
  readonly tlb: Local<'i32'>;
  readonly budgetLeft: Local<'i32'>;
  readonly at: Local<'i32'>;
  readonly exitKind: Local<'i32'>;
  readonly rip: Local<'i64'>;
  /** To the interpreter, at `at`. */
  readonly leaveLabel: Label;
  /** Out of the region with `rip` and the budget set. */
  readonly jumpLabel: Label;
  readonly registers: RegisterFile;
  readonly vectors: VectorFile;
  /** The kind of the flags at this point of the code, when there is only one that it can be. */
  knownFlags: FlagKind | undefined;
  /** What is known about addresses at this point of the code. */
  windows = new Windows();
  readonly #imports: RegionImports;
  protected readonly tlbEntries: number;
  readonly #long: boolean;
  readonly #flagKind: Local<'i32'>;
  readonly #flags: { readonly a: Local<'i64'>; readonly b: Local<'i64'>; readonly result: Local<'i64'> };
  readonly #open: Window[] = [];
  /** Locals of windows that are over. */
  readonly #spare: Local<'i32'>[] = [];
  #flagsUsed = false;
  #flagsWritten = false;
  /** Flags are read where they may be those that the region was entered with. */
  #readsFlagsBefore = false;
  #current!: RegionInstruction; // set by `begin` before anything else
  #index = 0;
  #baseDepth = 0;
  #setConditionally = false;
  #ways: Ways = { branch: () => {} };
  #readsFlags = false;
  #setsFlags = false;
  #mayLeave = false;
  #branches = false;
  #needsInterpreter = false;

  constructor(fn: FunctionBuilder, imports: RegionImports, tlbEntries: number, long: boolean) {
    super();
    this.fn = fn;
    this.#long = long;
    this.state = fn.parameter(0, 'i32');
    this.calls = fn.parameter(1, 'i32');
    this.#imports = imports;
    this.tlbEntries = tlbEntries;
    this.registers = new RegisterFile(fn, this.state);
    this.vectors = new VectorFile(fn, this.state);
    this.pageBase = new Local('i64', fn.local('i64').index, { base: {}, distance: 0 });
    this.tlb = fn.local('i32');
    this.budgetLeft = fn.local('i32');
    this.at = fn.local('i32');
    this.exitKind = fn.local('i32');
    this.rip = fn.local('i64');
    this.#flagKind = fn.local('i32');
    this.#flags = { a: fn.local('i64'), b: fn.local('i64'), result: fn.local('i64') };
    fn.set(this.pageBase, load64(this.state, State.pageBase));
    fn.later(() => this.#loadAll());
    this.jumpLabel = fn.open(0x02);
    this.leaveLabel = fn.open(0x02);
  }

  get shape(): Shape {
    return this.#current.shape;
  }

  /** @param index instructions since the budget was last counted */
  begin(current: RegionInstruction, index: number, ways: Ways): void {
    this.#current = current;
    this.#index = index;
    this.#ways = ways;
    this.#baseDepth = this.fn.depth;
    this.#setConditionally = false;
    this.registers.begin(current.effects.mayLeave || current.effects.branches);
    this.vectors.begin();
    if (current.effects.mayLeave) this.fn.set(this.at, i32(this.#place(current.offset, index)));
  }

  /** The interpreter executes what crosses a page unless these bytes of it stand on the page that is behind now. */
  expectBehind(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    const linear = add(this.pageBase, i64(PAGE_SIZE));
    const page = this.let(this.#long ? linear : zeroExtend(linear, 4));
    const entry = this.tlbEntry(page);
    this.#leaveIf(ne(load64(entry, TlbEntry.executeTag), page));
    const frame = this.let(load32(entry, TlbEntry.frame));
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    for (let at = 0; at < bytes.length; ) {
      const size = 2 ** Math.floor(Math.log2(Math.min(bytes.length - at, 8)));
      this.#leaveIf(ne(loadInteger(size, true, frame, at), i64(integerAt(view, at, size))));
      at += size;
    }
  }

  /** At the region's entry. */
  markEntered(): void {
    this.fn.store(store8of32(this.fn.blank(Blank.ownLife), i32(RegionLife.entered)));
  }

  end(): void {
    if (this.#setConditionally) this.knownFlags = undefined;
  }

  #place(offset: number, count: number): number {
    return offset | (count << AT_COUNT_SHIFT);
  }

  get #next(): number {
    return this.#current.offset + this.#current.instruction.length;
  }

  /** What the meaning of the instruction did since `begin`, when it is only tried out. */
  observed(): Effects {
    return {
      readsFlags: this.#readsFlags,
      setsFlags: this.#setsFlags,
      mayLeave: this.#mayLeave,
      branches: this.#branches,
      needsInterpreter: this.#needsInterpreter,
    };
  }

  /** Closes the function: the ways out, and the loads and stores around the body. */
  finish(): void {
    const { fn } = this;
    fn.unreachable();
    fn.close(); // leaveLabel
    const linear = add(this.pageBase, extendU(and(this.at, i32((1 << AT_COUNT_SHIFT) - 1))));
    fn.set(this.rip, this.#long ? linear : zeroExtend(linear, 4));
    fn.set(this.budgetLeft, sub(this.budgetLeft, shrU(this.at, i32(AT_COUNT_SHIFT))));
    fn.set(this.exitKind, select(this.exitKind, this.exitKind, i32(RegionAnswer.interpret)));
    fn.close(); // jumpLabel
    this.#storeAll();
    fn.return(this.exitKind);
  }

  /** The state block becomes exact. @param kind of the flags, where they are the region's and there is only one */
  #storeAll(kind?: FlagKind): void {
    this.#storeState(kind);
    this.fn.store(store64(this.state, this.rip, State.rip));
  }

  /** All but RIP, which is no business of the region that comes next; only when everything that the region does is known. */
  #storeState(kind?: FlagKind): void {
    if (this.#flagsWritten) this.#storeFlags(kind !== undefined, kind);
    this.fn.store(store32(this.state, this.budgetLeft, State.budget));
  }

  #loadAll(): void {
    const { fn, state } = this;
    fn.set(this.tlb, load32(state, State.tlb));
    fn.set(this.budgetLeft, load32(state, State.budget));
    if (!this.#flagsUsed) return;
    if (!this.#readsFlagsBefore) {
      fn.set(this.#flagKind, i32(FLAGS_AS_BEFORE));
      return;
    }
    fn.set(this.#flagKind, load32(state, State.flagKind));
    fn.set(this.#flags.a, load64(state, State.flagA));
    fn.set(this.#flags.b, load64(state, State.flagB));
    fn.set(this.#flags.result, load64(state, State.flagResult));
  }

  #storeFlags(set: boolean, kind?: FlagKind): void {
    const { fn, state } = this;
    const { a, b } = usesOf(kind);
    const store = (): void => {
      fn.store(store32(state, kind === undefined ? this.#flagKind : i32(kind), State.flagKind));
      if (a) fn.store(store64(state, this.#flags.a, State.flagA));
      if (b) fn.store(store64(state, this.#flags.b, State.flagB));
      fn.store(store64(state, this.#flags.result, State.flagResult));
    };
    if (set || this.#readsFlagsBefore) store();
    else fn.if(ne(this.#flagKind, i32(FLAGS_AS_BEFORE)), store);
  }

  register(register: number, bytes: number, signed = false): I64 {
    const value = this.#readRegister(register);
    return signed ? signExtend(value, bytes) : zeroExtend(value, bytes);
  }

  setRegister(register: number, bytes: number, value: I64): void {
    this.#writeRegister(register, bytes, value);
  }

  /** What is done only sometimes, or again and again, says nothing about what follows. */
  get #isStraight(): boolean {
    return this.fn.depth === this.#baseDepth;
  }

  #readRegister(register: number): I64 {
    const local = this.registers.read(register);
    return this.#isStraight ? new Local('i64', local.index, this.windows.register(register)) : local;
  }

  #writeRegister(register: number, bytes: number, value: I64): void {
    this.registers.write(register, bytes, value);
    this.windows.setRegister(register, this.#isStraight && bytes === 8 ? value.relative : undefined);
  }

  #operand(operand: number): { kind: OperandKind; size: number; register: number } {
    const found = this.#current.instruction.operands[operand];
    if (!found || operand >= this.#current.instruction.operandCount) {
      throw new Error(`${this.shape.operation} has no operand ${operand}`);
    }
    return found;
  }

  operandPointer(operand: number): I32 {
    const { kind, register } = this.#operand(operand);
    switch (kind) {
      case OperandKind.xmm:
        return this.vectorPointer(register);
      case OperandKind.mmx:
        return add(this.state, i32(State.x87 + register * 16));
      case OperandKind.segment:
        return add(this.state, i32(State.segmentSelector + register * 4));
      default:
        throw new Error(`${this.shape.operation}: operand ${operand} is not in memory`);
    }
  }

  override vectorPointer(register: number): I32 {
    this.vectors.expose(register);
    return super.vectorPointer(register);
  }

  override read128(operand: number, unaligned = false): V128 {
    const { kind, register } = this.#operand(operand);
    if (kind !== OperandKind.xmm) return super.read128(operand, unaligned);
    return this.vectors.read(register, this.#isStraight);
  }

  override write128(operand: number, value: V128, unaligned = false): void {
    const { kind, register } = this.#operand(operand);
    if (kind !== OperandKind.xmm) super.write128(operand, value, unaligned);
    else this.vectors.write(register, value, this.#isStraight);
  }

  protected integer(operand: number, signed: boolean): I64 {
    const { kind, size, register } = this.#operand(operand);
    switch (kind) {
      case OperandKind.gpr:
        return this.register(register, size, signed);
      case OperandKind.highByte: {
        const value = shrU(this.registers.read(register), i64(8));
        return signed ? signExtend(value, 1) : zeroExtend(value, 1);
      }
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
    const { kind, size, register } = this.#operand(operand);
    switch (kind) {
      case OperandKind.memory:
        this.store(size, this.address(size, true), value);
        break;
      case OperandKind.gpr:
        this.#writeRegister(register, size, value);
        break;
      case OperandKind.highByte:
        this.registers.writeHighByte(register, value);
        this.windows.setRegister(register, undefined);
        break;
      case OperandKind.mmx:
        this.fn.store(storeInteger(size, this.operandPointer(operand), value));
        break;
      default:
        throw new Error(`${this.shape.operation}: operand ${operand} cannot be written`);
    }
  }

  update(operand: number, compute: (old: I64) => I64, after: (old: I64) => void): void {
    const { kind, size } = this.#operand(operand);
    if (kind === OperandKind.memory) {
      this.updateAt(size, this.address(size, true), compute, after);
      return;
    }
    const old = this.let(this.readSigned(operand));
    const value = this.let(compute(old));
    after(old);
    this.write(operand, value);
  }

  updateAt(bytes: number, linear: I64, compute: (old: I64) => I64, after: (old: I64) => void): void {
    const pointer = this.let(this.#translated(linear, bytes, TlbEntry.writeTag));
    const old = this.let(loadInteger(bytes, true, pointer));
    const value = this.let(compute(old));
    this.fn.store(storeInteger(bytes, pointer, value));
    after(old);
  }

  operandNumber(operand: number): I32 {
    return i32(this.#operand(operand).register);
  }

  immediate(): I64 {
    const { immediateLow, immediateHigh } = this.#current.instruction;
    if (immediateHigh === immediateLow >> 31) return i64(immediateLow);
    return i64((BigInt(immediateHigh) << 32n) | BigInt(immediateLow >>> 0));
  }

  secondImmediate(): I32 {
    return i32(this.#current.instruction.secondImmediate);
  }

  effectiveOffset(): I64 {
    const { base, index, scale, displacement, displacementHigh } = this.#current.instruction;
    const { memory, addressSize } = this.shape;
    if (memory === 'none') throw new Error(`${this.shape.operation} has no memory operand`);
    if (memory === 'absolute') {
      const high = this.shape.long ? displacementHigh : 0;
      return i64((BigInt(high) << 32n) | BigInt(displacement >>> 0));
    }
    if (base === AddressRegister.rip) {
      const address = add(this.pageBase, i64(this.#next + displacement));
      return addressSize === 8 ? address : zeroExtend(address, addressSize);
    }
    let sum: I64 = base >= 0 ? this.#readRegister(base) : i64(0);
    if (index >= 0) sum = add(sum, shl(this.registers.read(index), i64(Math.log2(scale))));
    sum = add(sum, i64(displacement));
    return addressSize === 8 ? sum : zeroExtend(sum, addressSize);
  }

  address(bytes: number, write: boolean): I64 {
    const offset = this.effectiveOffset();
    // An offset has no more bits than addresses in its mode.
    return this.#isKnownFlat(this.#current.instruction.segment) ? offset : this.linear(offset, bytes, write);
  }

  /** Code segments and those of threads are looked at when code runs. */
  #isKnownFlat(segment: number): boolean {
    return this.shape.flat && segment < SegmentRegister.fs && segment !== SegmentRegister.cs;
  }

  linear(offset: I64, _bytes: number, _write: boolean, segment?: number): I64 {
    const number = segment ?? this.#current.instruction.segment;
    if (this.shape.long || this.#isKnownFlat(number)) return this.flatLinear(offset, segment);
    const value = this.let(offset);
    this.#leaveIf(load32(this.state, State.segmentChecked + number * 4));
    return this.#legacyLinear(number, value);
  }

  flatLinear(offset: I64, segment?: number): I64 {
    const number = segment ?? this.#current.instruction.segment;
    if (!this.shape.long) return this.#legacyLinear(number, offset);
    return number < SegmentRegister.fs ? offset : add(load64(this.state, State.segmentBase + number * 8), offset);
  }

  isFlat(segment?: number): I32 {
    const number = segment ?? this.#current.instruction.segment;
    if (this.shape.long || this.#isKnownFlat(number)) return i32(1);
    return eqz(load32(this.state, State.segmentChecked + number * 4));
  }

  #legacyLinear(segment: number, offset: I64): I64 {
    if (this.#isKnownFlat(segment)) return zeroExtend(offset, 4);
    return zeroExtend(add(load64(this.state, State.segmentBase + segment * 8), offset), 4);
  }

  /** Host address of an access that lies in one cached page; all others leave the region. */
  #translated(linear: I64, bytes: number | I32, tag: TlbEntry.readTag | TlbEntry.writeTag): I32 {
    const { relative } = linear;
    if (!relative || typeof bytes !== 'number' || !this.#isStraight) {
      const { page, offset } = this.#lookUp(linear, bytes, tag);
      return add(page, wrap(offset));
    }
    const { fn } = this;
    const writable = tag === TlbEntry.writeTag;
    const window = this.windows.find(relative, bytes, writable);
    if (!window) {
      const found = this.#lookUp(linear, bytes, tag);
      const opened = this.#openWindow(relative.distance, bytes, writable);
      fn.set(opened.page, found.page);
      fn.set(opened.offset, wrap(found.offset));
      this.windows.add(relative, opened);
      return add(opened.page, opened.offset);
    }
    const { page } = window;
    const distance = relative.distance - window.distance;
    if (distance === 0 && bytes <= window.bytes) return add(page, window.offset);
    const offset = fn.local('i32');
    const pointer = fn.local('i32');
    fn.set(offset, add(window.offset, i32(distance)));
    fn.set(pointer, add(page, offset));
    fn.ifSeldom(gtU(offset, i32(PAGE_SIZE - bytes)), () => {
      const other = this.#lookUp(linear, bytes, tag);
      fn.set(pointer, add(other.page, wrap(other.offset)));
    });
    return pointer;
  }

  #openWindow(distance: number, bytes: number, writable: boolean): Window {
    const local = () => this.#spare.pop() ?? this.fn.permanentLocal('i32');
    const window: Window = { distance, bytes, writable, page: local(), offset: local(), isOver: false };
    this.#open.push(window);
    return window;
  }

  /**
   * The windows that `body` opens end with it: their locals are used again. Code behind it may have heard of them all the
   * same, where dominators count an edge that no code was made for.
   */
  withWindows(body: () => void): void {
    const before = this.#open.length;
    body();
    for (const window of this.#open.splice(before)) {
      window.isOver = true;
      this.#spare.push(window.page, window.offset);
    }
  }

  #lookUp(linear: I64, bytes: number | I32, tag: TlbEntry.readTag | TlbEntry.writeTag): { page: I32; offset: I64 } {
    const address = this.let(linear);
    const entry = this.tlbEntry(address);
    const offset = this.let(sub(address, load64(entry, tag)));
    this.#leaveIf(
      typeof bytes === 'number'
        ? gtU(offset, i64(PAGE_SIZE - bytes))
        : gtU(offset, sub(i64(PAGE_SIZE), extendU(bytes))),
    );
    return { page: load32(entry, TlbEntry.frame), offset };
  }

  load(bytes: number, linear: I64, signed = false): I64 {
    return this.let(loadInteger(bytes, signed, this.#translated(linear, bytes, TlbEntry.readTag)));
  }

  store(bytes: number, linear: I64, value: I64): void {
    const kept = this.let(value);
    this.fn.store(storeInteger(bytes, this.#translated(linear, bytes, TlbEntry.writeTag), kept));
  }

  probeWrite(linear: I64, bytes: number | I32): void {
    this.#translated(linear, bytes, TlbEntry.writeTag);
  }

  load128(linear: I64): V128 {
    return this.let(load128(this.#translated(linear, 16, TlbEntry.readTag)));
  }

  store128(linear: I64, value: V128): void {
    const kept = this.let(value);
    this.fn.store(store128(this.#translated(linear, 16, TlbEntry.writeTag), kept));
  }

  protected tlbAddress(): I32 {
    return this.tlb;
  }

  /** The interpreter raises the fault. */
  protected requireAligned(address: I64): void {
    this.#leaveIf(ne(and(address, i64(15)), i64(0)));
  }

  protected setFlags(kind: FlagKind, result: I64, a?: I64, b?: I64): void {
    const { fn } = this;
    const conditional = fn.depth > this.#baseDepth;
    if (!conditional) this.#setsFlags = true;
    // What compares in a loop reads the flags that it sets.
    if (this.#current.deadFlags && this.shape.repeat === 'none') return;
    const [first, second, third] = [a && this.#stable(a), b && this.#stable(b), this.#stable(result)];
    fn.set(this.#flagKind, i32(kind));
    if (first) fn.set(this.#flags.a, first);
    if (second) fn.set(this.#flags.b, second);
    fn.set(this.#flags.result, third);
    this.knownFlags = kind;
    this.#flagsUsed = true;
    this.#flagsWritten = true;
    if (conditional) this.#setConditionally = true;
  }

  /** A value that does not change when the flags' own locals are set. */
  #stable(value: I64): I64 {
    if (value.literal !== undefined) return value;
    if (!('index' in value)) return this.let(value);
    const { a, b, result } = this.#flags;
    const own = [a, b, result].some(({ index }) => index === (value as Local).index);
    return own ? this.let(value) : value;
  }

  setFlagsExplicit(bits: I64): void {
    if (this.#current.deadFlags) {
      if (this.fn.depth === this.#baseDepth) this.#setsFlags = true;
      return;
    }
    const kept = this.let(bits);
    this.setFlags(FlagKind.explicit, extendU(and(add(wrap(shrU(kept, i64(6))), i32(1)), i32(1))), kept);
  }

  /** With nobody to see the flags there is no need to know it. */
  protected override carryThatStays(): I64 {
    return this.#current.deadFlags ? i64(0) : super.carryThatStays();
  }

  get #flagValues(): FlagValues {
    this.#readsFlags = true;
    this.#flagsUsed = true;
    if (this.knownFlags === undefined) this.#readsFlagsBefore = true;
    return this.#flags;
  }

  flags(): I64 {
    const values = this.#flagValues;
    const bits = this.knownFlags === undefined ? this.#askFlags() : flagBits(this.knownFlags, values);
    return this.let(extendU(bits));
  }

  /** Flags whose kind is known only when the code runs. */
  #askFlags(): I32 {
    this.#storeFlags(true);
    return callOf('i32', this.#imports.flags, this.state);
  }

  carry(): I64 {
    const values = this.#flagValues;
    if (this.knownFlags !== undefined) return extendU(carryOf(this.knownFlags, values));
    this.#storeFlags(true);
    return this.let(extendU(callOf('i32', this.#imports.carry, this.state)));
  }

  condition(condition: Condition): I32 {
    const values = this.#flagValues;
    if (this.knownFlags !== undefined) return conditionOf(this.knownFlags, values, condition);
    if (condition === 'e' || condition === 'ne') return conditionOf(FlagKind.logic, values, condition);
    const a = this.let(extendU(this.#askFlags()));
    return conditionOf(FlagKind.explicit, { ...values, a }, condition);
  }

  branch(): void {
    if (this.shape.long || this.shape.operandSize !== 2) {
      this.#branches = true;
      this.#ways.branch();
      return;
    }
    // IP wraps at 64 KiB.
    this.jump(add(this.nextAddress(), i64(this.#current.instruction.immediateLow)));
  }

  jump(target: I64): void {
    const linear = this.shape.long
      ? target
      : zeroExtend(add(this.codeBase(), zeroExtend(target, this.shape.operandSize)), 4);
    this.leaveTo(linear, this.#index + 1);
  }

  /** Calls of regions end: where they would go on, the other ring may have no code. */
  enter(target: I64): void {
    const { fn } = this;
    this.#mayLeave = true;
    fn.set(this.rip, target);
    fn.set(this.budgetLeft, sub(this.budgetLeft, i32(this.#index + 1)));
    fn.set(this.exitKind, i32(RegionAnswer.leaveRegions));
    fn.branch(this.jumpLabel);
  }

  /**
   * Out of the region to a linear address.
   * @param count instructions of the block that were completed
   * @param way where that probably is
   */
  leaveTo(linear: I64, count: number, way?: WayOut): void {
    const { fn } = this;
    const { returnTo } = this.#ways;
    this.#mayLeave = true;
    fn.set(this.rip, linear);
    fn.set(this.budgetLeft, sub(this.budgetLeft, i32(count)));
    if (returnTo) {
      this.#call(returnTo, way);
      return;
    }
    if (way) {
      const kind = this.knownFlags;
      fn.block((closed) => {
        this.#ifOpen(way, closed);
        fn.later(() => this.#storeState(kind));
        fn.returnCall(blankOf(way, Blank.function), this.state, this.calls);
      });
    }
    fn.branch(this.jumpLabel);
  }

  /** What follows is for when a region is there, seen from here, and may execute; otherwise control goes to `closed`. */
  #ifOpen(way: WayOut, closed: Label): void {
    const { fn } = this;
    const { page } = way;
    fn.branchIfSeldom(eqz(load8U32(fn.blank(blankOf(way, Blank.life)))), closed);
    fn.branchIfSeldom(ltS(this.budgetLeft, fn.blank(blankOf(way, Blank.slack))), closed);
    if (page) {
      const entry = this.tlbEntry(page);
      fn.branchIfSeldom(ne(load64(entry, TlbEntry.executeTag), page), closed);
      fn.branchIfSeldom(ne(load32(entry, TlbEntry.frame), fn.blank(blankOf(way, Blank.page))), closed);
    }
    // A region that was called may have left another page behind.
    fn.store(store64(this.state, page ?? this.pageBase, State.pageBase));
  }

  /**
   * A call of the guest is a call of regions: control comes back here when it returns with nothing else between. Neither
   * translations nor the ring change meanwhile, since what changes them ends these calls.
   */
  #call({ linear, budget }: NonNullable<Ways['returnTo']>, way: WayOut | undefined): void {
    const { fn, state } = this;
    const kind = this.knownFlags;
    fn.later(() => this.#storeAll(kind));
    const calls = this.let(add(this.calls, i32(1)));
    const call = (callee: I32) => {
      const answer = this.let(callee);
      fn.ifSeldom(answer, () => fn.return(answer));
    };
    fn.block((returned) => {
      if (way) {
        fn.block((closed) => {
          fn.branchIfSeldom(geU(calls, i32(CALLS_LIMIT)), closed);
          this.#ifOpen(way, closed);
          call(fn.callBlank('i32', blankOf(way, Blank.function), state, calls));
          // It may have gone on to where nothing leads directly.
          fn.branchIfSeldom(ne(load64(state, State.rip), linear), closed);
          fn.branch(returned);
        });
      }
      call(callOf('i32', this.#imports.regions, state, i32(0), linear, calls));
    });
    fn.later(() => this.#loadAll());
    this.registers.reload();
    this.vectors.forgetAll();
    this.windows = new Windows();
    fn.ifSeldom(ltS(this.budgetLeft, i32(budget)), () => fn.return(i32(RegionAnswer.goOn)));
    this.knownFlags = undefined;
  }

  instructionAddress(): I64 {
    const linear = add(this.pageBase, i64(this.#current.offset));
    return this.shape.long ? linear : zeroExtend(sub(linear, this.codeBase()), 4);
  }

  nextAddress(): I64 {
    const next = add(this.pageBase, i64(this.#next));
    if (this.shape.long) return next;
    return zeroExtend(sub(next, this.codeBase()), this.shape.operandSize === 2 ? 2 : 4);
  }

  #leaveIf(condition: I32): void {
    this.#mayLeave = true;
    this.fn.branchIfSeldom(condition, this.leaveLabel);
  }

  #leave(kind: I32): void {
    const { fn } = this;
    this.#mayLeave = true;
    fn.set(this.exitKind, kind);
    fn.store(store32(this.state, i32(this.#current.instruction.length), State.exitLength));
    fn.branch(this.leaveLabel);
  }

  raise(vector: number, error: I32 = i32(0)): void {
    this.fn.store(store32(this.state, i32(vector), State.exitDetail));
    this.fn.store(store32(this.state, error, State.exitError));
    this.#leave(i32(Exit.exception));
  }

  exit(kind: Exit, detail: I32 = i32(0)): void {
    this.fn.store(store32(this.state, detail, State.exitDetail));
    this.#leave(i32(kind));
  }

  exitAfter(kind: Exit, detail: I32 = i32(0)): void {
    const { fn } = this;
    this.#mayLeave = true;
    fn.store(store32(this.state, detail, State.exitDetail));
    fn.store(store32(this.state, i32(0), State.exitError));
    fn.set(this.exitKind, i32(kind));
    fn.set(this.at, i32(this.#place(this.#next, this.#index + 1)));
    fn.branch(this.leaveLabel);
  }

  /** Without the instructions that are not counted yet: a repeated one may use up all that is left. */
  budget(): I32 {
    return sub(this.budgetLeft, i32(this.#index));
  }

  countSteps(steps: I32): void {
    this.fn.set(this.budgetLeft, sub(this.budgetLeft, steps));
  }

  repeatLater(): void {
    this.#leave(i32(Exit.budget));
  }

  /** Stores into pages with code leave the region. */
  isOverwritten(): I32 {
    return i32(0);
  }

  /**
   * What always asks the host does so from here; the general registers are no business of these functions. What asks
   * only in rare cases leaves them to the interpreter, so that no call stands in a loop.
   */
  host(name: HostFunction, ...operands: I32[]): I32 {
    const { fn } = this;
    const always = fn.depth === this.#baseDepth;
    if (always && isImported(name)) {
      this.vectors.forgetAll();
      this.windows.closeAll();
      return callOf('i32', this.#imports[name], this.state, ...operands);
    }
    if (always) this.#needsInterpreter = true;
    this.#mayLeave = true;
    fn.branch(this.leaveLabel);
    return i32(0);
  }

  checked(result: I32): void {
    const value = this.let(result);
    this.fn.if(value, () => this.#leave(value));
  }
}

/** A little-endian integer of 1, 2, 4 or 8 bytes. */
function integerAt(view: DataView, offset: number, bytes: number): number | bigint {
  if (bytes === 8) return view.getBigInt64(offset, true);
  if (bytes === 4) return view.getInt32(offset, true);
  return bytes === 2 ? view.getInt16(offset, true) : view.getInt8(offset);
}

/** Which words besides the result flags of a kind follow from; all of them when it is known only when the code runs. */
function usesOf(kind: FlagKind | undefined): { a: boolean; b: boolean } {
  const onlyA = kind === FlagKind.explicit || kind === FlagKind.result;
  return { a: kind !== FlagKind.logic, b: kind !== FlagKind.logic && !onlyA };
}

const blankOf = ({ index }: WayOut, blank: Blank): number => index * BLANKS_OF_WAY + blank;
