import type { Archive, Archived } from '../archive/archive.ts';
import type { FramePool } from '../memory/frame-pool.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import { type Frame, type GuestVirtual, type HostAddress, joinSigned, PAGE_SIZE } from '../x86/brand.ts';
import { ARITHMETIC_FLAGS, Cr0, Cr4, Efer, Flag, type Register, Vector } from '../x86/registers.ts';
import { addressedStack } from './address-fault.ts';
import { type Block, CodeCache } from './code-cache.ts';
import { loadSegmentInPlace } from './data-segment.ts';
import { createInstruction, DecodeResult, decode } from './decode/decoder.ts';
import { AddressRegister, type CodeSize, type Instruction, SegmentRegister } from './decode/instruction.ts';
import { baseOf, limitOf, needsNoCheck } from './descriptor.ts';
import { MOST_ENTRIES } from './entry-index.ts';
import { Access, Exit } from './exits.ts';
import { createSseUnit } from './float/sse.ts';
import { createX87Unit, type X87Unit } from './float/x87.ts';
import { FrameMark, FrameMarks } from './frame-marks.ts';
import { type FrameWatcher, FrameWatchers, type FrameWatching } from './frame-watchers.ts';
import { createHelpers } from './helpers.ts';
import { HANDLER_LIMIT, type HostFunctions, Interpreter } from './interpreter/interpreter.ts';
import { BLOCK_LIMIT, Link, PseudoHandler, RecordField, RegionWord } from './interpreter/record.ts';
import {
  endsBlock,
  fuseRecord,
  mayFuse,
  writePseudo,
  writeRecord,
  writeSegment,
} from './interpreter/record-builder.ts';
import { fusedShape, isConditionalJump, shapeOf } from './interpreter/shape-of.ts';
import { Answer, DEFAULT_JIT, Jit, type JitOptions } from './jit/jit.ts';
import { type HostParts, MemoryUnit, noteFrameWritten } from './memory-unit.ts';
import type { Descriptor, DescriptorSource, ProcessorApi, TimeSource } from './processor-api.ts';
import type { Semantics, Shape } from './semantics/context.ts';
import { SYSTEM_OPERATIONS } from './semantics/control.ts';
import { HOT_SHAPES } from './semantics/hot-shapes.ts';
import { SEMANTICS } from './semantics/index.ts';
import { FlagKind, SAVED_STATE, State } from './state.ts';
import { createStringComparison } from './string-compare.ts';
import { Tlb } from './tlb.ts';
import type { FrameInvalidator, Translation } from './translation.ts';

/** MXCSR after reset: all exceptions masked (SDM vol. 1, 10.2.3). */
const MXCSR_RESET = 0x1f80;

const SYSTEM: ReadonlySet<string> = new Set(SYSTEM_OPERATIONS);

/** DR6.BS. */
const DR6_SINGLE_STEP = 0x4000;

/** Executions of a block that are as good as unlimited. */
const NEVER = 0x7fff_ffff;

const pair = new Uint32Array(2);

/** What is not defined has no other meaning than #UD. */
const meaningOf = (operation: string): Semantics => SEMANTICS.get(operation) ?? (SEMANTICS.get('ud2') as Semantics);

export interface ProcessorGroupOptions {
  /** Entries of each TLB, a power of two up to `MOST_ENTRIES`. */
  readonly tlbEntries?: number;
  /** Roots whose translations each processor keeps, at least 1; with 1 every change of the root empties its TLB. */
  readonly tlbRoots?: number;
  /** Bytes for records of decoded code. */
  readonly codeBytes?: number;
  /** Shapes whose handlers are inlined (semantics/hot-shapes.ts); none of them changes what a guest sees. */
  readonly hotShapes?: readonly string[];
  /** Regions of generated code (jit/jit.ts); none of this changes what a guest sees. */
  readonly jit?: Partial<JitOptions>;
  /** Counts executions by shape, with no shape inlined; see `profile`. */
  readonly profile?: boolean;
}

/** The processors of one host: they share decoded code, its generated handlers, and the marks of frames. */
export class ProcessorGroup implements FrameInvalidator, FrameWatching {
  readonly parts: HostParts;
  readonly interpreter: Interpreter;
  readonly jit: Jit | undefined;
  readonly x87: X87Unit;
  readonly processors: Processor[] = [];
  readonly #byState = new Map<number, Processor>();
  readonly #released: Processor[] = [];
  readonly #profile: HostAddress | undefined;

  constructor(memory: HostMemory, pool: FramePool, options: ProcessorGroupOptions = {}) {
    const tlbEntries = options.tlbEntries ?? 16384;
    if (tlbEntries > MOST_ENTRIES) throw new RangeError(`a TLB has at most ${MOST_ENTRIES} entries`);
    const marks = new FrameMarks(pool.total);
    const code = new CodeCache(memory, pool, marks, options.codeBytes ?? 32 << 20);
    const watchers = new FrameWatchers(marks);
    const emptyTlb = new Tlb(memory, tlbEntries);
    this.parts = { memory, pool, marks, watchers, code, tlbEntries, tlbRoots: options.tlbRoots ?? 8, emptyTlb };
    code.onFirstCode = (frame) => this.invalidateWritable(frame);
    const at = (state: number): Processor => {
      const processor = this.#byState.get(state);
      if (!processor) throw new Error('generated code names an unknown processor');
      return processor;
    };
    const sse = createSseUnit(memory.view);
    this.x87 = createX87Unit(memory.view);
    const { x87 } = this;
    const helpers = createHelpers(memory.view, x87);
    const host: HostFunctions = {
      loadMiss: (state, bytes) => at(state).memory.loadMiss(bytes),
      storeMiss: (state, bytes) => at(state).memory.storeMiss(bytes),
      updateMiss: (state, bytes) => at(state).memory.updateMiss(bytes),
      updateCommit: (state) => at(state).memory.updateCommit(),
      probeWrite: (state, bytes) => at(state).memory.probeWrite(bytes),
      lookup: (state, from) => at(state).lookup(from),
      hot: (state, record) => at(state).hot(record),
      segmentCheck: (state, segment, access) => at(state).segmentCheck(segment, access),
      loadSegment: (state, register, selector) => {
        const segment = (register - state - State.segmentSelector) >> 2;
        return loadSegmentInPlace(at(state), segment, selector & 0xffff) ? 1 : 0;
      },
      timeStamp: (state) => at(state).readTimeStamp(),
      divide: (state, signed) => at(state).divide(signed !== 0),
      sse: (state, operation, destination, a, b, immediate) => {
        const mxcsr = memory.u32[(state + State.mxcsr) >> 2] as number;
        return sse.execute(operation, mxcsr, destination, a, b, immediate);
      },
      x87: (state, operation, register, operand) => x87.execute(operation, state + State.x87, register, operand),
      compareStrings: createStringComparison(memory.memory),
      helper: (state, operation) => helpers(state, operation),
    };
    this.#profile = options.profile ? memory.reserve(HANDLER_LIMIT * 8) : undefined;
    const jit = { ...DEFAULT_JIT, ...options.jit };
    this.interpreter = new Interpreter({
      memory,
      host,
      semantics: SEMANTICS,
      hotShapes: options.profile ? [] : (options.hotShapes ?? HOT_SHAPES),
      tlbEntries,
      codeSlots: code.slots,
      regionSlots: jit.regionSlots,
      ...(this.#profile === undefined ? {} : { profile: this.#profile }),
    });
    const { regions: table, regionImports: imports } = this.interpreter;
    const parts = { memory, code, table, imports, tlbEntries, meaningOf };
    this.jit = jit.threshold > 0 && !options.profile ? new Jit(parts, jit) : undefined;
  }

  /** Executions by shape key, most first; needs the option `profile`. */
  profile(): [shape: string, count: number][] {
    const base = this.#profile;
    if (base === undefined) return [];
    const { view } = this.parts.memory;
    return [...this.interpreter.shapes()]
      .map(([key, handler]): [string, number] => [
        key,
        Number(view.getBigUint64(base + (handler - PseudoHandler.count) * 8, true)),
      ])
      .sort((a, b) => b[1] - a[1]);
  }

  /** A processor in its reset state: one that was released, or another one. */
  create(): Processor {
    const released = this.#released.pop();
    if (released) {
      released.reset();
      return released;
    }
    const processor = new Processor(this, this.processors.length);
    this.processors.push(processor);
    this.#byState.set(processor.state, processor);
    return processor;
  }

  /** Takes a processor back; its owner uses it no more. */
  release(processor: Processor): void {
    processor.memory.forget();
    processor.memory.onMiss = undefined;
    processor.timeSource = undefined;
    this.#released.push(processor);
  }

  invalidateFrame(frame: Frame): void {
    this.#invalidate(frame, FrameMark.cached, false);
  }

  invalidateWritable(frame: Frame): void {
    this.#invalidate(frame, FrameMark.cachedWritable, true);
  }

  #invalidate(frame: Frame, mark: FrameMark, writableOnly: boolean): void {
    const { marks, pool } = this.parts;
    if (!marks.has(frame, mark)) return;
    const address = pool.addressOf(frame);
    for (const { memory } of this.processors) {
      memory.kernelTlb.invalidateFrame(address, writableOnly);
      memory.userTlb.invalidateFrame(address, writableOnly);
    }
    marks.invalidated(frame, writableOnly);
  }

  frameWritten(frame: Frame, offset: number, length: number): void {
    noteFrameWritten(this.parts, frame, offset, length);
  }

  watch(frame: Frame, watcher: FrameWatcher, page: number): void {
    this.invalidateWritable(frame);
    this.parts.watchers.add(frame, watcher, page);
  }

  unwatch(frame: Frame, watcher: FrameWatcher, page: number): void {
    this.parts.watchers.remove(frame, watcher, page);
  }
}

/** One virtual processor. Everything that it executes, it executes in `run`. */
export class Processor implements ProcessorApi, Archived {
  readonly index: number;
  readonly state: HostAddress;
  readonly memory: MemoryUnit;
  descriptors: DescriptorSource = { read: () => false };
  /**
   * Lets generated code read the time-stamp counter. Without, each RDTSC leaves: because its value follows from the
   * instructions executed so far, whose number is exact only then, or because someone wants to see it.
   */
  timeSource: TimeSource | undefined;
  /** Instructions that `run` completed. */
  instructions = 0;
  readonly #group: ProcessorGroup;
  readonly #host: HostMemory;
  readonly #word: number;
  readonly #instruction = createInstruction();
  readonly #jump = createInstruction();
  /** The bytes of an instruction that crosses into another page. */
  readonly #crossing = new Uint8Array(16);
  /** Records of a block that holds a single instruction, for exact stops. */
  readonly #single: HostAddress;
  #stepping = false;
  /** `instructions` when the host was given an instruction that a single-step trap follows; −1 when there is none. */
  #trapFrom = -1;

  constructor(group: ProcessorGroup, index: number) {
    this.index = index;
    this.#group = group;
    this.#host = group.parts.memory;
    this.state = this.#host.reserve(State.size, 64);
    this.#single = this.#host.reserve(4 * RecordField.size, 64);
    this.#word = this.state >> 2;
    this.memory = new MemoryUnit(group.parts, this.state);
    this.reset();
  }

  /** All registers as they are before an interface sets them; no page tables. */
  reset(): void {
    this.#host.u8.fill(0, this.state, this.state + State.size);
    this.memory.forget();
    this.instructions = 0;
    this.#trapFrom = -1;
    this.#set(State.codeSize, 64);
    this.#set(State.stackSize, 8);
    this.#set(State.flagsRest, Flag.reserved);
    this.#set(State.mxcsr, MXCSR_RESET);
    this.#group.x87.initialise(this.state + State.x87);
    this.userMode = false;
  }

  archive(archive: Archive): void {
    for (const [name, start, end] of SAVED_STATE) {
      archive.words(name, this.#host.u8.subarray(this.state + start, this.state + end));
    }
    this.instructions = archive.value('instructions', this.instructions);
    this.#trapFrom = archive.value('trapFrom', this.#trapFrom);
  }

  restored(): void {
    const { cr0, cr4, efer } = this;
    Object.assign(this.memory.controls, { cr0, cr4, efer });
    this.#updateFlatSegments();
    this.#updateTlb();
  }

  #get(field: State): number {
    return this.#host.u32[this.#word + field / 4] as number;
  }

  #set(field: State, value: number): void {
    this.#host.u32[this.#word + field / 4] = value;
  }

  low(register: Register): number {
    return this.#host.u32[this.#word + register * 2] as number;
  }

  high(register: Register): number {
    return this.#host.u32[this.#word + register * 2 + 1] as number;
  }

  value(register: Register): number {
    return joinSigned(this.low(register), this.high(register));
  }

  set(register: Register, low: number, high: number): void {
    this.#host.u32[this.#word + register * 2] = low;
    this.#host.u32[this.#word + register * 2 + 1] = high;
  }

  setValue(register: Register, value: number): void {
    this.set(register, value >>> 0, Math.floor(value / 0x1_0000_0000) >>> 0);
  }

  #setLong(field: number, value: number): void {
    this.#host.u32[this.#word + field / 4] = value >>> 0;
    this.#host.u32[this.#word + field / 4 + 1] = Math.floor(value / 0x1_0000_0000) >>> 0;
  }

  #getLong(field: number): number {
    return joinSigned(
      this.#host.u32[this.#word + field / 4] as number,
      this.#host.u32[this.#word + field / 4 + 1] as number,
    );
  }

  /** Those of `instructions` that regions of generated code executed. */
  get regionInstructions(): number {
    return this.#getLong(State.regionInstructions);
  }

  get rip(): GuestVirtual {
    const linear = this.#getLong(State.rip);
    return (this.codeSize === 64 ? linear : (linear - this.segmentBase(SegmentRegister.cs)) >>> 0) as GuestVirtual;
  }

  set rip(value: GuestVirtual) {
    this.#setLong(State.rip, this.codeSize === 64 ? value : (value + this.segmentBase(SegmentRegister.cs)) >>> 0);
  }

  /** The current privilege level. */
  get privilege(): number {
    return this.#get(State.cpl);
  }

  /** Bytes of the kernel's words: a 64-bit kernel is in long mode, though its programs may be in 32-bit code. */
  get wordSize(): 4 | 8 {
    return (this.efer & Efer.longModeActive) !== 0 ? 8 : 4;
  }

  /** Width of the stack pointer in bytes. */
  get stackSize(): number {
    return this.#get(State.stackSize);
  }

  /** The value that `memory.loadAt` left. */
  loadedValue(out: Uint32Array): void {
    out[0] = this.#get(State.missValue);
    out[1] = this.#host.u32[this.#word + State.missValue / 4 + 1] as number;
  }

  /** The value that `memory.storeAt` stores. */
  setStoredValue(low: number, high: number): void {
    this.#set(State.missValue, low);
    this.#host.u32[this.#word + State.missValue / 4 + 1] = high;
  }

  get codeSize(): CodeSize {
    return this.#get(State.codeSize) as CodeSize;
  }

  get flags(): number {
    return (this.#group.interpreter.flags(this.state) | this.#get(State.flagsRest)) >>> 0;
  }

  set flags(value: number) {
    const arithmetic = value & ARITHMETIC_FLAGS;
    this.#set(State.flagKind, FlagKind.explicit);
    this.#setLong(State.flagA, arithmetic);
    this.#setLong(State.flagResult, (value & Flag.zero) !== 0 ? 0 : 1);
    this.#set(State.flagsRest, (value & ~ARITHMETIC_FLAGS) | Flag.reserved);
    this.#updateTlb();
  }

  selector(segment: SegmentRegister): number {
    return this.#host.u32[this.#word + State.segmentSelector / 4 + segment] as number;
  }

  /** Bits 8–23 of the descriptor's upper word; 0 for a null selector. */
  segmentAttributes(segment: SegmentRegister): number {
    return this.#host.u32[this.#word + State.segmentAttributes / 4 + segment] as number;
  }

  segmentBase(segment: SegmentRegister): GuestVirtual {
    return this.#getLong(State.segmentBase + segment * 8) as GuestVirtual;
  }

  /** The last offset of the segment, or the first below an expand-down one. */
  segmentLimit(segment: SegmentRegister): number {
    return this.#host.u32[this.#word + State.segmentLimit / 4 + segment] as number;
  }

  setSegmentBase(segment: SegmentRegister, base: GuestVirtual): void {
    this.#setLong(State.segmentBase + segment * 8, base);
  }

  /** Real mode or virtual-8086 mode: a selector is the segment's base divided by 16, there are no descriptors. */
  get realSegments(): boolean {
    const virtual8086 = (this.#get(State.flagsRest) & Flag.virtual8086) !== 0;
    return virtual8086 || (this.cr0 & Cr0.protection) === 0;
  }

  loadSegment(segment: SegmentRegister, selector: number, descriptor: Descriptor | null): void {
    const { u32 } = this.#host;
    const attributes = descriptor === null ? 0 : (descriptor.high >>> 8) & 0xf0ff;
    const base = descriptor === null ? 0 : baseOf(descriptor);
    const limit = descriptor === null ? 0 : limitOf(descriptor);
    u32[this.#word + State.segmentSelector / 4 + segment] = selector & 0xffff;
    u32[this.#word + State.segmentAttributes / 4 + segment] = attributes;
    u32[this.#word + State.segmentLimit / 4 + segment] = limit;
    this.#setLong(State.segmentBase + segment * 8, base);
    u32[this.#word + State.segmentChecked / 4 + segment] = needsNoCheck(limit, attributes) ? 0 : 1;
    if (segment === SegmentRegister.cs && descriptor !== null) {
      this.#set(State.codeSize, (attributes & 0x2000) !== 0 ? 64 : (attributes & 0x4000) !== 0 ? 32 : 16);
      const virtual8086 = (this.#get(State.flagsRest) & Flag.virtual8086) !== 0;
      this.#set(State.cpl, this.realSegments ? (virtual8086 ? 3 : 0) : selector & 3);
      this.#updateTlb();
      this.#updateStackSize();
    }
    if (segment === SegmentRegister.ss) this.#updateStackSize();
    this.#updateFlatSegments();
  }

  /** Generated code may rely on it; see `State.flatSegments`. */
  get hasFlatSegments(): boolean {
    return this.#get(State.flatSegments) !== 0;
  }

  #updateFlatSegments(): void {
    const { u32 } = this.#host;
    const begins = (segment: SegmentRegister) => u32[this.#word + State.segmentBase / 4 + segment * 2] === 0;
    const isPlain = (segment: SegmentRegister) =>
      begins(segment) && u32[this.#word + State.segmentChecked / 4 + segment] === 0;
    const flat =
      this.codeSize === 32 &&
      this.stackSize === 4 &&
      begins(SegmentRegister.cs) &&
      isPlain(SegmentRegister.ss) &&
      isPlain(SegmentRegister.ds) &&
      isPlain(SegmentRegister.es);
    this.#set(State.flatSegments, flat ? 1 : 0);
  }

  #updateStackSize(): void {
    const attributes = this.#host.u32[this.#word + State.segmentAttributes / 4 + SegmentRegister.ss] as number;
    this.#set(State.stackSize, this.codeSize === 64 ? 8 : (attributes & 0x4000) !== 0 ? 4 : 2);
  }

  get translation(): Translation {
    return this.memory.translation;
  }

  set translation(translation: Translation) {
    this.memory.translation = translation;
    this.#updateTlb();
  }

  setRoots(kernelRoot: number, userRoot: number): void {
    this.memory.setRoots(kernelRoot, userRoot);
    this.#updateTlb();
  }

  /** The base that SWAPGS exchanges with that of GS. */
  get inactiveGsBase(): GuestVirtual {
    return this.#getLong(State.inactiveGsBase) as GuestVirtual;
  }

  set inactiveGsBase(base: GuestVirtual) {
    this.#setLong(State.inactiveGsBase, base);
  }

  /** Whether instructions of ring 0 that switch interrupts on leave to the host. */
  set interruptWaiting(waiting: boolean) {
    this.#set(State.interruptWaiting, waiting ? 1 : 0);
  }

  /** Whether the instruction at RIP stands right behind STI or a load of SS. */
  get inInterruptShadow(): boolean {
    return this.#get(State.interruptShadow) === this.rip >>> 0;
  }

  set inInterruptShadow(shadowed: boolean) {
    this.#set(State.interruptShadow, shadowed ? this.rip : ~this.rip);
  }

  get userMode(): boolean {
    return this.#get(State.userAccess) !== 0;
  }

  set userMode(user: boolean) {
    this.#set(State.userAccess, user ? 1 : 0);
    this.#updateTlb();
  }

  /** Alignment is checked where accesses miss the TLB, so all of them are made to (SDM vol. 3A, 6.15, "Interrupt 17"). */
  #updateTlb(): void {
    const { memory } = this;
    const checked =
      (this.#get(State.flagsRest) & Flag.alignmentCheck) !== 0 &&
      (this.cr0 & Cr0.alignmentMask) !== 0 &&
      this.privilege === 3;
    memory.alignmentChecked = checked;
    const tlb = checked ? memory.emptyTlb : this.userMode ? memory.userTlb : memory.kernelTlb;
    this.#set(State.tlb, tlb.address);
  }

  flushTlb(): void {
    this.memory.flush();
  }

  invalidatePage(address: GuestVirtual): void {
    this.memory.flushPage(address);
  }

  get cr0(): number {
    return this.#get(State.cr0);
  }

  set cr0(value: number) {
    this.#set(State.cr0, value);
    this.memory.controls.cr0 = value;
    this.#updateFpuTrap();
    this.#updateTlb();
  }

  get cr4(): number {
    return this.#get(State.cr4);
  }

  set cr4(value: number) {
    this.#set(State.cr4, value);
    this.memory.controls.cr4 = value;
    this.#updateFpuTrap();
  }

  #updateFpuTrap(): void {
    const trapping = (this.cr0 & (Cr0.taskSwitched | Cr0.emulation)) !== 0 || (this.cr4 & Cr4.fxsave) === 0;
    this.#set(State.fpuTrap, trapping ? 1 : 0);
  }

  get efer(): number {
    return this.#get(State.efer);
  }

  set efer(value: number) {
    this.#set(State.efer, value);
    this.memory.controls.efer = value;
  }

  get cr2(): GuestVirtual {
    return this.#getLong(State.cr2) as GuestVirtual;
  }

  set cr2(value: GuestVirtual) {
    this.#setLong(State.cr2, value);
  }

  get exitDetail(): number {
    return this.#get(State.exitDetail);
  }

  get exitError(): number {
    return this.#get(State.exitError);
  }

  get exitLength(): number {
    return this.#get(State.exitLength);
  }

  run(budget: number): Exit {
    const trapped = this.#dueTrap() || (this.#get(State.flagsRest) & Flag.trap) !== 0;
    return trapped ? this.#runTrapped() : this.#execute(budget);
  }

  /** Whether the host has carried out the instruction that a single-step trap follows. */
  #dueTrap(): boolean {
    return this.#trapFrom >= 0 && this.instructions > this.#trapFrom;
  }

  /** One instruction that began with TF set, and the trap behind it (SDM vol. 3B, 18.3.1.4). */
  #runTrapped(): Exit {
    if (!this.#dueTrap()) {
      const exit = this.#executeOne();
      this.#trapFrom = exit === Exit.system ? this.instructions : -1;
      if (exit !== Exit.budget) return exit;
    }
    this.#trapFrom = -1;
    return this.raise(Vector.debug, DR6_SINGLE_STEP);
  }

  #execute(budget: number): Exit {
    this.#set(State.budget, budget);
    const exit = this.#group.interpreter.run(this.state);
    this.instructions += budget - (this.#get(State.budget) | 0);
    if (exit === Exit.exception && this.memory.takeNotCanonical() && addressedStack(this, this.currentInstruction())) {
      this.raise(Vector.stackFault);
    }
    return exit;
  }

  /** As `run`, but never one instruction more than the budget, however code is grouped into blocks. */
  runExactly(budget: number): Exit {
    const end = this.instructions + budget;
    if (budget > BLOCK_LIMIT) {
      const exit = this.run(budget - BLOCK_LIMIT);
      if (exit !== Exit.budget) return exit;
    }
    while (this.instructions < end) {
      const exit = this.step();
      if (exit !== Exit.budget) return exit;
    }
    return Exit.budget;
  }

  /** Executes exactly one instruction (one step of a repeated one). */
  step(): Exit {
    const trapped = this.#dueTrap() || (this.#get(State.flagsRest) & Flag.trap) !== 0;
    return trapped ? this.#runTrapped() : this.#executeOne();
  }

  /** Executes the instruction that left with `Exit.device`, with the device. */
  stepWithDevices(): Exit {
    this.memory.devicesOpen = true;
    const exit = this.step();
    this.memory.devicesOpen = false;
    return exit;
  }

  #executeOne(): Exit {
    // Without translations of code every entry into code asks `lookup`, which gives it the single instruction.
    this.#set(State.tlb, this.memory.emptyTlb.address);
    this.#stepping = true;
    const exit = this.#execute(1);
    this.#stepping = false;
    this.#updateTlb();
    return exit;
  }

  /** Goes past the instruction of the last exit, which the host carried out. */
  completeInstruction(): void {
    this.rip = (this.rip + this.exitLength) as GuestVirtual;
    this.instructions++;
  }

  kick(): void {
    this.#set(State.budget, 0);
  }

  currentInstruction(): Instruction {
    const instruction = this.#instruction;
    const low = this.#get(State.rip);
    const high = this.#host.u32[this.#word + State.rip / 4 + 1] as number;
    const place = this.#fetchedAgain(low, high);
    if (place < 0) {
      decode(this.#crossing, 0, 0, this.codeSize, instruction);
      return instruction;
    }
    const { result, second } = this.#decodeAt(place, low, high);
    if (result === DecodeResult.truncated && second < 0) this.#fetchedAgain(((low | 0xfff) + 1) >>> 0, high);
    return instruction;
  }

  /**
   * Where code stands that was executed a moment ago. Its translation may still be cached while the tables that it came
   * through have left the host's memory. @throws PageAbsent
   */
  #fetchedAgain(low: number, high: number): HostAddress {
    return this.memory.translate(joinSigned(low, high) as GuestVirtual, Access.fetch, this.userMode);
  }

  operandAddress(): GuestVirtual {
    const offset = this.operandOffset();
    const { segment } = this.#instruction;
    const long = this.codeSize === 64;
    if (long && segment < SegmentRegister.fs) return offset as GuestVirtual;
    const linear = offset + this.segmentBase(segment);
    return (long ? linear : linear >>> 0) as GuestVirtual;
  }

  /** Offset of the memory operand of `currentInstruction()` in its segment, plus `displacement` bytes. */
  operandOffset(displacement = 0): number {
    const instruction = this.#instruction;
    // Registers hold any 64-bit value, so the sum is only exact in whole numbers.
    let offset = (BigInt(instruction.displacementHigh) << 32n) + BigInt(instruction.displacement >>> 0);
    offset += BigInt(displacement);
    if (instruction.base === AddressRegister.rip) offset += BigInt(this.#getLong(State.rip) + instruction.length);
    else if (instruction.base >= 0) offset += this.#word64(instruction.base);
    if (instruction.index >= 0) offset += this.#word64(instruction.index) * BigInt(instruction.scale);
    return Number(
      instruction.addressSize === 8 ? BigInt.asIntN(64, offset) : BigInt.asUintN(instruction.addressSize * 8, offset),
    );
  }

  #word64(register: number): bigint {
    return this.#host.view.getBigUint64(this.state + State.registers + register * 8, true);
  }

  /** A load at an offset in a segment, as the guest's own: `loadedValue` gives it, or the exception is in the mailbox. */
  load(segment: SegmentRegister, offset: number, bytes: number): boolean {
    const linear = this.#linear(segment, offset, bytes, false);
    return linear !== undefined && this.memory.loadAt(linear, bytes, addressFault(segment));
  }

  /** A store of what `setStoredValue` was given. */
  store(segment: SegmentRegister, offset: number, bytes: number): boolean {
    const linear = this.#linear(segment, offset, bytes, true);
    return linear !== undefined && this.memory.storeAt(linear, bytes, addressFault(segment));
  }

  #linear(segment: SegmentRegister, offset: number, bytes: number, write: boolean): GuestVirtual | undefined {
    if (this.codeSize === 64) {
      return (segment < SegmentRegister.fs ? offset : offset + this.segmentBase(segment)) as GuestVirtual;
    }
    if ((this.#host.u32[this.#word + State.segmentChecked / 4 + segment] as number) !== 0) {
      this.#set(State.missAddress, offset);
      if (this.segmentCheck(segment, bytes | (write ? 0x100 : 0)) !== 0) return undefined;
    }
    return ((offset + this.segmentBase(segment)) >>> 0) as GuestVirtual;
  }

  /** Divides RDX:RAX by missValue (64-bit operand size). */
  divide(signed: boolean): number {
    const view = this.#host.view;
    const word = (field: number) => view.getBigUint64(this.state + field, true);
    const divisorBits = word(State.missValue);
    const dividendBits = (word(State.registers + 16) << 64n) | word(State.registers);
    const divisor = signed ? BigInt.asIntN(64, divisorBits) : divisorBits;
    const dividend = signed ? BigInt.asIntN(128, dividendBits) : dividendBits;
    const quotient = dividend / divisor;
    const fits = signed ? BigInt.asIntN(64, quotient) === quotient : quotient < 1n << 64n;
    if (!fits) return this.raise(Vector.divideError);
    view.setBigUint64(this.state + State.registers, BigInt.asUintN(64, quotient), true);
    view.setBigUint64(this.state + State.registers + 16, BigInt.asUintN(64, dividend % divisor), true);
    return 0;
  }

  /** Leaves an exception in the state block; the result is what a host function returns to make it happen. */
  raise(vector: Vector, error = 0): Exit {
    this.#set(State.exitDetail, vector);
    this.#set(State.exitError, error);
    return Exit.exception;
  }

  /** For RDTSC and RDTSCP in generated code, which leave when the answer is 0. */
  readTimeStamp(): number {
    const source = this.timeSource;
    if (!source || (this.privilege !== 0 && (this.cr4 & Cr4.timeStampDisable) !== 0)) return 0;
    source.timeStamp(pair);
    this.#set(State.missValue, pair[0] as number);
    this.#set(State.missValue + 4, pair[1] as number);
    this.#set(State.missValue + 8, source.timeStampAuxiliary());
    return 1;
  }

  /** Checks an offset (missAddress) of an access through a segment that is not flat (SDM vol. 3A, 5.3 and 5.5). */
  segmentCheck(segment: number, access: number): number {
    const { u32 } = this.#host;
    const bytes = access & 0xff;
    const write = (access & 0x100) !== 0;
    const offset = this.#get(State.missAddress);
    const attributes = u32[this.#word + State.segmentAttributes / 4 + segment] as number;
    const limit = u32[this.#word + State.segmentLimit / 4 + segment] as number;
    const fault = segment === SegmentRegister.ss ? Vector.stackFault : Vector.generalProtection;
    if ((attributes & 0x80) === 0) return this.raise(Vector.generalProtection);
    const code = (attributes & 0x08) !== 0;
    if (write ? code || (attributes & 0x02) === 0 : code && (attributes & 0x02) === 0) {
      return this.raise(Vector.generalProtection);
    }
    const last = offset + bytes - 1;
    if (!code && (attributes & 0x04) !== 0) {
      const top = (attributes & 0x4000) !== 0 ? 0xffff_ffff : 0xffff;
      return offset <= limit || last > top ? this.raise(fault) : 0;
    }
    return last > limit ? this.raise(fault) : 0;
  }

  /**
   * Finds or makes the decoded code at State.rip. `from` is the record of a direct branch that leads there, or 0.
   * Returns the record, or 0 with the exit in the state block.
   */
  lookup(from: number): number {
    const { code, pool } = this.#group.parts;
    if (this.codeSize !== 64) this.#host.u32[this.#word + State.rip / 4 + 1] = 0;
    const low = this.#get(State.rip);
    const high = this.#host.u32[this.#word + State.rip / 4 + 1] as number;
    const place = this.memory.fetch(low, high);
    if (place < 0) return this.#failLookup();
    if (this.#stepping) return this.#decodeSingle(place, low, high);
    const { generation } = code;
    let block = code.find(place, this.codeSize);
    if (block && block.crossing >= 0) {
      const second = this.#nextPage(low, high);
      if (second < 0) return this.#failLookup();
      if (pool.frameAt(second) !== block.crossing) {
        code.drop(block);
        block = undefined;
      }
    }
    block ??= this.#decodeBlock(place, low, high);
    if (!block) return this.#failLookup();
    code.publish(block);
    const page = (low & ~0xfff) >>> 0;
    const { u32 } = this.#host;
    const base = this.#word + State.pageBase / 4;
    const same = u32[base] === page && u32[base + 1] === high;
    u32[base] = page;
    u32[base + 1] = high;
    // The page that the guard record would ask for was walked just above.
    if (block.crossing >= 0) return this.#linkTo(from, same, generation, block.record, block.record + RecordField.size);
    // A way forward does not make code hot: loops, calls and jumps to addresses do.
    const cold = this.#isWarming(block) && from !== 0 && same && this.#leadsForward(from, place & 0xfff);
    const record = cold ? block.record + RecordField.size : block.record;
    return this.#linkTo(from, same, generation, record, record);
  }

  /** Remembers in the record of a direct branch where it leads; the record to go on with. */
  #linkTo(from: number, same: boolean, generation: number, target: number, record: number): number {
    if (from !== 0 && this.#group.parts.code.generation === generation) {
      this.#host.u32[(from + RecordField.link) >> 2] = same ? target : Link.otherPage;
    }
    return record;
  }

  #isWarming(block: Block): boolean {
    return this.#host.u16[block.record >> 1] === PseudoHandler.warming;
  }

  #leadsForward(from: number, offset: number): boolean {
    const isCall = this.#host.u32[(from + RecordField.link) >> 2] === Link.unknownCall;
    return !isCall && offset >= (this.#host.u16[(from + RecordField.next) >> 1] as number);
  }

  /** The block whose first record this is was executed often. 1 when its code is to be looked up again. */
  hot(record: number): number {
    const jit = this.#group.jit as Jit; // there are no warming records without it
    const { u32 } = this.#host;
    const place = u32[(record + RecordField.immediate) >> 2] as HostAddress;
    const answer = jit.request(place, this.codeSize, this.hasFlatSegments);
    if (answer === Answer.compiled) return 1;
    u32[(record + RecordField.displacement) >> 2] = answer === Answer.later ? jit.options.threshold : NEVER;
    return 0;
  }

  #failLookup(): number {
    this.#set(State.exitKind, this.memory.fetchMetHostFault ? Exit.hostFault : Exit.exception);
    return 0;
  }

  #nextPage(low: number, high: number): HostAddress {
    const nextLow = ((low | 0xfff) + 1) >>> 0;
    return this.memory.fetch(nextLow, nextLow === 0 ? (high + 1) >>> 0 : high);
  }

  /**
   * Decodes the instruction at a place. Bytes beyond the page are fetched only when they are needed, and not for
   * `ahead`: a walk sets accessed bits, which instructions that are not executed must not do.
   */
  #decodeAt(place: number, low: number, high: number, ahead = false): { result: DecodeResult; second: HostAddress } {
    const available = PAGE_SIZE - (place & 0xfff);
    const instruction = this.#instruction;
    let result = decode(this.#host.u8, place, available, this.codeSize, instruction);
    let second = -1 as HostAddress;
    if (result === DecodeResult.truncated && !ahead) {
      second = this.#nextPage(low, high);
      if (second < 0) return { result, second };
      const bytes = this.#crossing;
      bytes.set(this.#host.u8.subarray(place, place + available));
      bytes.set(this.#host.u8.subarray(second, second + 16 - available), available);
      result = decode(bytes, 0, 16, this.codeSize, instruction);
    }
    return { result, second };
  }

  #decodeBlock(place: HostAddress, low: number, high: number): Block | undefined {
    const { code, pool } = this.#group.parts;
    const memory = this.#host;
    const long = this.codeSize === 64;
    const record = code.reserve(BLOCK_LIMIT + 3);
    const startOffset = place & 0xfff;
    let cursor = this.#writeHead(record, place);
    let offset = startOffset;
    let count = 0;
    let crossing = -1 as Frame;
    let crossingBytes = 0;
    for (;;) {
      if (count === BLOCK_LIMIT || offset >= PAGE_SIZE) {
        writePseudo(memory, cursor, PseudoHandler.fallThrough, offset, count);
        cursor += RecordField.size;
        break;
      }
      const at = place - startOffset + offset;
      const { result, second } = this.#decodeAt(at, low + offset - startOffset, high, count > 0);
      if (result !== DecodeResult.ok) {
        if (count > 0) {
          // An instruction that crosses a page stands in a block of its own, behind a guard; and a fault belongs to
          // the instruction, it is found when control gets there.
          writePseudo(memory, cursor, PseudoHandler.fallThrough, offset, count);
          cursor += RecordField.size;
          break;
        }
        if (result !== DecodeResult.truncated) {
          this.raise(result === DecodeResult.tooLong ? Vector.generalProtection : Vector.invalidOpcode);
        }
        return undefined;
      }
      const instruction = this.#instruction;
      const plain = shapeOf(instruction, long);
      // What follows a crossing instruction is on the second page, which lies anywhere in the host's memory.
      const mayShare = second < 0 && count + 1 < BLOCK_LIMIT;
      const jump = mayShare ? this.#fusedJump(plain, at + instruction.length) : undefined;
      const shape = jump ? fusedShape(plain, jump) : plain;
      const handler = this.#group.interpreter.handlerFor(shape);
      if (second >= 0) {
        // Instructions that cross a page are no part of regions.
        cursor = record;
        crossing = pool.frameAt(second);
        crossingBytes = offset + instruction.length - PAGE_SIZE;
        writePseudo(memory, cursor, PseudoHandler.guard, offset, 0);
        memory.u32[(cursor + RecordField.displacement) >> 2] = pool.addressOf(crossing);
        cursor += RecordField.size;
      }
      writeRecord(memory, cursor, handler, instruction, shape.memory, offset, count);
      writeSegment(memory, cursor, instruction, long);
      offset += instruction.length;
      count++;
      if (jump) {
        fuseRecord(memory, cursor, jump);
        offset += jump.length;
        count++;
      }
      cursor += RecordField.size;
      if (endsBlock(shape.operation, SYSTEM)) break;
    }
    const block: Block = {
      place,
      mode: this.codeSize,
      record,
      records: (cursor - record) / RecordField.size,
      bytes: Math.min(offset, PAGE_SIZE) - startOffset,
      crossing,
      crossingBytes,
    };
    code.add(block);
    return block;
  }

  /** The record in front of a block that leads to its region, or counts until it is worth one; where to go on writing. */
  #writeHead(record: HostAddress, place: HostAddress): number {
    const { jit, parts } = this.#group;
    if (!jit) return record;
    const region = parts.code.regionWordAt(place, this.codeSize);
    const { u32 } = this.#host;
    writePseudo(this.#host, record, region ? PseudoHandler.region : PseudoHandler.warming, place & 0xfff, 0);
    u32[(record + RecordField.displacement) >> 2] = region || jit.options.threshold;
    u32[(record + RecordField.link) >> 2] = region >>> RegionWord.budgetShift;
    u32[(record + RecordField.immediate) >> 2] = place;
    return record + RecordField.size;
  }

  /** The conditional jump at `place` that can share the record of the instruction in front of it. */
  #fusedJump(shape: Shape, place: number): Instruction | undefined {
    const available = PAGE_SIZE - (place & 0xfff);
    // On the next page when the instruction in front ends the page.
    if (!mayFuse(shape) || (place & 0xfff) === 0) return undefined;
    const jump = this.#jump;
    const result = decode(this.#host.u8, place, available, this.codeSize, jump);
    return result === DecodeResult.ok && isConditionalJump(jump) ? jump : undefined;
  }

  /** One instruction and a stop, outside the shared cache. */
  #decodeSingle(place: HostAddress, low: number, high: number): number {
    const { result } = this.#decodeAt(place, low, high);
    if (result !== DecodeResult.ok) {
      if (result !== DecodeResult.truncated) {
        this.raise(result === DecodeResult.tooLong ? Vector.generalProtection : Vector.invalidOpcode);
      }
      return this.#failLookup();
    }
    const long = this.codeSize === 64;
    const shape = shapeOf(this.#instruction, long);
    const handler = this.#group.interpreter.handlerFor(shape);
    const offset = place & 0xfff;
    writeRecord(this.#host, this.#single, handler, this.#instruction, shape.memory, offset, 0);
    writeSegment(this.#host, this.#single, this.#instruction, long);
    const stop = this.#single + RecordField.size;
    writePseudo(this.#host, stop, PseudoHandler.stop, offset + this.#instruction.length, 1);
    const { u32 } = this.#host;
    u32[this.#word + State.pageBase / 4] = (low & ~0xfff) >>> 0;
    u32[this.#word + State.pageBase / 4 + 1] = high;
    return this.#single;
  }
}

/** What an address that is not canonical raises, by its segment (SDM vol. 1, 3.3.7.1). */
function addressFault(segment: SegmentRegister): Vector {
  return segment === SegmentRegister.ss ? Vector.stackFault : Vector.generalProtection;
}
