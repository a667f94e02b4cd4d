import type { Archive } from '../archive/archive.ts';
import type { FramePool } from '../memory/frame-pool.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import { type Frame, type GuestVirtual, type HostAddress, highWord, lowWord } from '../x86/brand.ts';
import { Cr4, Flag, Vector } from '../x86/registers.ts';
import { addressedStack } from './address-fault.ts';
import { CodeCache } from './code-cache.ts';
import { CodeFinder } from './code-finder.ts';
import { loadSegmentInPlace } from './data-segment.ts';
import { AddressRegister, type Instruction, SegmentRegister } from './decode/instruction.ts';
import { MOST_ENTRIES } from './entry-index.ts';
import { Exit } from './exits.ts';
import { createSseUnit } from './float/sse.ts';
import { createX87Unit, type X87Unit } from './float/x87.ts';
import { FrameMark, FrameMarks } from './frame-marks.ts';
import { type FrameWatcher, FrameWatchers, type FrameWatching } from './frame-watchers.ts';
import { createHelpers } from './helpers.ts';
import { HANDLER_LIMIT, Interpreter } from './interpreter/interpreter.ts';
import type { HostFunctions } from './interpreter/options.ts';
import { BLOCK_LIMIT } from './interpreter/record.ts';
import { DEFAULT_JIT, Jit, type JitOptions } from './jit/jit.ts';
import { type HostParts, noteFrameWritten } from './memory-unit.ts';
import type { DescriptorSource, ProcessorApi, TimeSource } from './processor-api.ts';
import { ProcessorState } from './processor-state.ts';
import { createQuickX87 } from './quick-x87/quick.ts';
import { meaningOf, SEMANTICS } from './semantics/index.ts';
import { HOT_SHAPES, type ShapeLists } from './semantics/shapes/index.ts';
import { State } from './state.ts';
import { createStringComparison } from './string-compare.ts';
import { Tlb } from './tlb.ts';
import type { FrameInvalidator } from './translation.ts';

/** DR6.BS. */
const DR6_SINGLE_STEP = 0x4000;

const pair = new Uint32Array(2);

export interface ProcessorGroupOptions {
  /** Entries of each TLB, a power of two up to `MOST_ENTRIES`. */
  readonly tlbEntries?: number;
  /** Roots whose translations each processor keeps, at least 1; with 1 every change of the root empties its TLB. */
  readonly tlbRoots?: number;
  /** Bytes for records of decoded code. */
  readonly codeBytes?: number;
  /** Shapes whose handlers are inlined (semantics/shapes/); none of them changes what a guest sees. */
  readonly hotShapes?: ShapeLists;
  /** Shapes whose handlers are made together; neither do these. */
  readonly commonShapes?: ShapeLists;
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
    this.parts = { memory, pool, marks, watchers, code, tlbEntries, tlbRoots: options.tlbRoots ?? 6, emptyTlb };
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
      faultAddress: (state) => at(state).readFaultAddress(),
      divide: (state, signed) => at(state).divide(signed !== 0),
      sse: (state, operation, destination, a, b, immediate) => {
        const mxcsr = memory.u32[(state + State.mxcsr) >> 2] as number;
        return sse.execute(operation, mxcsr, destination, a, b, immediate);
      },
      x87: createQuickX87(memory.memory, (state, operation, register, operand) =>
        x87.execute(operation, state + State.x87, register, operand),
      ),
      compareStrings: createStringComparison(memory.memory),
      helper: (state, operation) => helpers(state, operation),
    };
    this.#profile = options.profile ? memory.reserve(HANDLER_LIMIT * 8) : undefined;
    const jit = { ...DEFAULT_JIT, ...options.jit };
    this.interpreter = new Interpreter({
      memory,
      host,
      semantics: SEMANTICS,
      hotShapes: options.profile ? {} : (options.hotShapes ?? HOT_SHAPES),
      commonShapes: options.commonShapes ?? {},
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
    return [...this.interpreter.coldShapes()]
      .map(([key, slot]): [string, number] => [key, Number(view.getBigUint64(base + slot * 8, true))])
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
    processor.memory.onRoots = undefined;
    processor.memory.observed = undefined;
    processor.timeSource = undefined;
    processor.faultAddress = undefined;
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
export class Processor extends ProcessorState implements ProcessorApi {
  readonly index: number;
  descriptors: DescriptorSource = { read: () => false };
  /**
   * Lets generated code read the time-stamp counter. Without, each RDTSC leaves: because its value follows from the
   * instructions executed so far, whose number is exact only then, or because someone wants to see it.
   */
  timeSource: TimeSource | undefined;
  /** Lets generated code of ring 0 read CR2. Without, each MOV from it leaves, for someone to see it. */
  faultAddress: (() => GuestVirtual) | undefined;
  /** Instructions that `run` completed. */
  instructions = 0;
  readonly #group: ProcessorGroup;
  readonly #code: CodeFinder;
  /** `instructions` when the host was given an instruction that a single-step trap follows; −1 when there is none. */
  #trapFrom = -1;

  constructor(group: ProcessorGroup, index: number) {
    super(group);
    this.index = index;
    this.#group = group;
    this.#code = new CodeFinder(group, this);
    this.reset();
  }

  override reset(): void {
    super.reset();
    this.instructions = 0;
    this.#trapFrom = -1;
  }

  override archive(archive: Archive): void {
    super.archive(archive);
    this.instructions = archive.value('instructions', this.instructions);
    this.#trapFrom = archive.value('trapFrom', this.#trapFrom);
  }

  run(budget: number): Exit {
    const trapped = this.#dueTrap() || (this.get(State.flagsRest) & Flag.trap) !== 0;
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
    this.#group.jit?.work();
    this.put(State.budget, budget);
    const exit = this.#group.interpreter.run(this.state);
    this.instructions += budget - (this.get(State.budget) | 0);
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
    const trapped = this.#dueTrap() || (this.get(State.flagsRest) & Flag.trap) !== 0;
    return trapped ? this.#runTrapped() : this.#executeOne();
  }

  /** Executes the instruction that left with `Exit.device`, with the device. @throws what the device does, PageAbsent too */
  stepWithDevices(): Exit {
    this.memory.devicesOpen = true;
    try {
      return this.stepObserved();
    } finally {
      this.memory.devicesOpen = false;
    }
  }

  /** Executes the instruction that left with `Exit.observed`. */
  stepObserved(): Exit {
    this.memory.observedOpen = true;
    try {
      return this.step();
    } finally {
      this.memory.observedOpen = false;
    }
  }

  #executeOne(): Exit {
    // Without translations of code every entry into code asks `lookup`, which gives it the single instruction.
    this.put(State.tlb, this.memory.emptyTlb.address);
    this.#code.isStepping = true;
    try {
      return this.#execute(1);
    } finally {
      this.#code.isStepping = false;
      this.updateTlb();
    }
  }

  /** Goes past the instruction of the last exit, which the host carried out. */
  completeInstruction(): void {
    this.rip = (this.rip + this.exitLength) as GuestVirtual;
    this.instructions++;
  }

  kick(): void {
    this.put(State.budget, 0);
  }

  currentInstruction(): Instruction {
    return this.#code.decodeCurrent();
  }

  /** For generated code: CodeFinder.lookup. */
  lookup(from: number): number {
    return this.#code.lookup(from);
  }

  /** For generated code: CodeFinder.hot. */
  hot(record: number): number {
    return this.#code.hot(record);
  }

  operandAddress(): GuestVirtual {
    const offset = this.operandOffset();
    const { segment } = this.#code.instruction;
    const long = this.codeSize === 64;
    if (long && segment < SegmentRegister.fs) return offset as GuestVirtual;
    const linear = offset + this.segmentBase(segment);
    return (long ? linear : linear >>> 0) as GuestVirtual;
  }

  /** Offset of the memory operand of `currentInstruction()` in its segment, plus `displacement` bytes. */
  operandOffset(displacement = 0): number {
    const instruction = this.#code.instruction;
    // Registers hold any 64-bit value, so the sum is only exact in whole numbers.
    let offset = (BigInt(instruction.displacementHigh) << 32n) + BigInt(instruction.displacement >>> 0);
    offset += BigInt(displacement);
    if (instruction.base === AddressRegister.rip) offset += BigInt(this.getLong(State.rip) + instruction.length);
    else if (instruction.base >= 0) offset += this.#word64(instruction.base);
    if (instruction.index >= 0) offset += this.#word64(instruction.index) * BigInt(instruction.scale);
    return Number(
      instruction.addressSize === 8 ? BigInt.asIntN(64, offset) : BigInt.asUintN(instruction.addressSize * 8, offset),
    );
  }

  #word64(register: number): bigint {
    return this.host.view.getBigUint64(this.state + State.registers + register * 8, true);
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
    if ((this.host.u32[this.word + State.segmentChecked / 4 + segment] as number) !== 0) {
      this.put(State.missAddress, offset);
      if (this.segmentCheck(segment, bytes | (write ? 0x100 : 0)) !== 0) return undefined;
    }
    return ((offset + this.segmentBase(segment)) >>> 0) as GuestVirtual;
  }

  /** Divides RDX:RAX by missValue (64-bit operand size). */
  divide(signed: boolean): number {
    const view = this.host.view;
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

  /** For RDTSC and RDTSCP in generated code, which leave when the answer is 0. */
  readTimeStamp(): number {
    const source = this.timeSource;
    if (!source || (this.privilege !== 0 && (this.cr4 & Cr4.timeStampDisable) !== 0)) return 0;
    source.timeStamp(pair);
    this.put(State.missValue, pair[0] as number);
    this.put(State.missValue + 4, pair[1] as number);
    this.put(State.missValue + 8, source.timeStampAuxiliary());
    return 1;
  }

  /** For MOV from CR2 in generated code, which leaves when the answer is 0. */
  readFaultAddress(): number {
    if (!this.faultAddress || this.privilege !== 0) return 0;
    const address = this.faultAddress();
    this.put(State.missValue, lowWord(address));
    this.put(State.missValue + 4, highWord(address));
    return 1;
  }

  /** Checks an offset (missAddress) of an access through a segment that is not flat (SDM vol. 3A, 5.3 and 5.5). */
  segmentCheck(segment: number, access: number): number {
    const { u32 } = this.host;
    const bytes = access & 0xff;
    const write = (access & 0x100) !== 0;
    const offset = this.get(State.missAddress);
    const attributes = u32[this.word + State.segmentAttributes / 4 + segment] as number;
    const limit = u32[this.word + State.segmentLimit / 4 + segment] as number;
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
}

/** What an address that is not canonical raises, by its segment (SDM vol. 1, 3.3.7.1). */
function addressFault(segment: SegmentRegister): Vector {
  return segment === SegmentRegister.ss ? Vector.stackFault : Vector.generalProtection;
}
