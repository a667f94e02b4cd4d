import type { Archive, Archived } from '../archive/archive.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import { type GuestVirtual, type HostAddress, joinSigned } from '../x86/brand.ts';
import { ARITHMETIC_FLAGS, Cr0, Cr4, Efer, Flag, type Register, type Vector } from '../x86/registers.ts';
import { CodeMode } from './code-mode.ts';
import { type CodeSize, SegmentRegister } from './decode/instruction.ts';
import { attributesOf, baseOf, limitOf, needsNoCheck } from './descriptor.ts';
import { Exit } from './exits.ts';
import { type FastCalls, userSelectors } from './fast-call-rules.ts';
import type { X87Unit } from './float/x87.ts';
import type { Interpreter } from './interpreter/interpreter.ts';
import { type HostParts, MemoryUnit } from './memory-unit.ts';
import type { Descriptor } from './processor-api.ts';
import { FlagKind, SAVED_STATE, State } from './state.ts';
import type { ProcessContext } from './tlb-sets.ts';
import type { Translation } from './translation.ts';

/** MXCSR after reset: all exceptions masked (SDM vol. 1, 10.2.3). */
const MXCSR_RESET = 0x1f80;

/** What the state of a processor needs of its host. */
export interface StateSupport {
  readonly parts: HostParts;
  readonly interpreter: Pick<Interpreter, 'flags'>;
  readonly x87: Pick<X87Unit, 'initialise'>;
}

/** The registers of one virtual processor as TypeScript sees them, and what follows from them. state.ts draws the block. */
export class ProcessorState implements Archived {
  readonly state: HostAddress;
  readonly memory: MemoryUnit;
  protected readonly host: HostMemory;
  /** Index of the block as words. */
  protected readonly word: number;
  readonly #support: StateSupport;

  constructor(support: StateSupport) {
    this.#support = support;
    this.host = support.parts.memory;
    this.state = this.host.reserve(State.size, 64);
    this.word = this.state >> 2;
    this.memory = new MemoryUnit(support.parts, this.state);
  }

  /** All registers as they are before an interface sets them; no page tables. */
  reset(): void {
    this.host.u8.fill(0, this.state, this.state + State.size);
    this.memory.forget();
    this.put(State.codeSize, 64);
    this.put(State.codeMode, CodeMode.bits64);
    this.put(State.stackSize, 8);
    this.put(State.flagsRest, Flag.reserved);
    this.put(State.mxcsr, MXCSR_RESET);
    this.#support.x87.initialise(this.state + State.x87);
    this.userMode = false;
  }

  archive(archive: Archive): void {
    for (const [name, start, end] of SAVED_STATE) {
      archive.words(name, this.host.u8.subarray(this.state + start, this.state + end));
    }
  }

  restored(): void {
    const { cr0, cr4, efer } = this;
    Object.assign(this.memory.controls, { cr0, cr4, efer });
    this.#updateCodeMode();
    this.updateTlb();
  }

  protected get(field: State): number {
    return this.host.u32[this.word + field / 4] as number;
  }

  protected put(field: State, value: number): void {
    this.host.u32[this.word + field / 4] = value;
  }

  low(register: Register): number {
    return this.host.u32[this.word + register * 2] as number;
  }

  high(register: Register): number {
    return this.host.u32[this.word + register * 2 + 1] as number;
  }

  value(register: Register): number {
    return joinSigned(this.low(register), this.high(register));
  }

  set(register: Register, low: number, high: number): void {
    this.host.u32[this.word + register * 2] = low;
    this.host.u32[this.word + register * 2 + 1] = high;
  }

  setValue(register: Register, value: number): void {
    this.set(register, value >>> 0, Math.floor(value / 0x1_0000_0000) >>> 0);
  }

  protected putLong(field: number, value: number): void {
    this.host.u32[this.word + field / 4] = value >>> 0;
    this.host.u32[this.word + field / 4 + 1] = Math.floor(value / 0x1_0000_0000) >>> 0;
  }

  protected getLong(field: number): number {
    return joinSigned(
      this.host.u32[this.word + field / 4] as number,
      this.host.u32[this.word + field / 4 + 1] as number,
    );
  }

  /** Those of `instructions` that regions of generated code executed. */
  get regionInstructions(): number {
    return this.getLong(State.regionInstructions);
  }

  get rip(): GuestVirtual {
    const linear = this.getLong(State.rip);
    return (this.codeSize === 64 ? linear : (linear - this.segmentBase(SegmentRegister.cs)) >>> 0) as GuestVirtual;
  }

  set rip(value: GuestVirtual) {
    this.putLong(State.rip, this.codeSize === 64 ? value : (value + this.segmentBase(SegmentRegister.cs)) >>> 0);
  }

  /** The current privilege level. */
  get privilege(): number {
    return this.get(State.cpl);
  }

  /** Bytes of the kernel's words: a 64-bit kernel is in long mode, though its programs may be in 32-bit code. */
  get wordSize(): 4 | 8 {
    return (this.efer & Efer.longModeActive) !== 0 ? 8 : 4;
  }

  /** Width of the stack pointer in bytes. */
  get stackSize(): number {
    return this.get(State.stackSize);
  }

  /** The value that `memory.loadAt` left. */
  loadedValue(out: Uint32Array): void {
    out[0] = this.get(State.missValue);
    out[1] = this.host.u32[this.word + State.missValue / 4 + 1] as number;
  }

  /** The value that `memory.storeAt` stores. */
  setStoredValue(low: number, high: number): void {
    this.put(State.missValue, low);
    this.host.u32[this.word + State.missValue / 4 + 1] = high;
  }

  get codeSize(): CodeSize {
    return this.get(State.codeSize) as CodeSize;
  }

  get flags(): number {
    return (this.#support.interpreter.flags(this.state) | this.get(State.flagsRest)) >>> 0;
  }

  set flags(value: number) {
    const arithmetic = value & ARITHMETIC_FLAGS;
    this.put(State.flagKind, FlagKind.explicit);
    this.putLong(State.flagA, arithmetic);
    this.putLong(State.flagResult, (value & Flag.zero) !== 0 ? 0 : 1);
    const before = this.get(State.flagsRest);
    this.put(State.flagsRest, (value & ~ARITHMETIC_FLAGS) | Flag.reserved);
    if (((value ^ before) & Flag.alignmentCheck) !== 0) this.updateTlb();
  }

  selector(segment: SegmentRegister): number {
    return this.host.u32[this.word + State.segmentSelector / 4 + segment] as number;
  }

  /** Bits 8–23 of the descriptor's upper word; 0 for a null selector. */
  segmentAttributes(segment: SegmentRegister): number {
    return this.host.u32[this.word + State.segmentAttributes / 4 + segment] as number;
  }

  segmentBase(segment: SegmentRegister): GuestVirtual {
    return this.getLong(State.segmentBase + segment * 8) as GuestVirtual;
  }

  /** The last offset of the segment, or the first below an expand-down one. */
  segmentLimit(segment: SegmentRegister): number {
    return this.host.u32[this.word + State.segmentLimit / 4 + segment] as number;
  }

  setSegmentBase(segment: SegmentRegister, base: GuestVirtual): void {
    this.putLong(State.segmentBase + segment * 8, base);
  }

  /** Real mode or virtual-8086 mode: a selector is the segment's base divided by 16, there are no descriptors. */
  get realSegments(): boolean {
    const virtual8086 = (this.get(State.flagsRest) & Flag.virtual8086) !== 0;
    return virtual8086 || (this.cr0 & Cr0.protection) === 0;
  }

  loadSegment(segment: SegmentRegister, selector: number, descriptor: Descriptor | null): void {
    const { u32 } = this.host;
    const attributes = descriptor === null ? 0 : attributesOf(descriptor);
    const base = descriptor === null ? 0 : baseOf(descriptor);
    const limit = descriptor === null ? 0 : limitOf(descriptor);
    u32[this.word + State.segmentSelector / 4 + segment] = selector & 0xffff;
    u32[this.word + State.segmentAttributes / 4 + segment] = attributes;
    u32[this.word + State.segmentLimit / 4 + segment] = limit;
    this.putLong(State.segmentBase + segment * 8, base);
    u32[this.word + State.segmentChecked / 4 + segment] = needsNoCheck(limit, attributes) ? 0 : 1;
    if (segment === SegmentRegister.cs && descriptor !== null) {
      const long = (attributes & 0x2000) !== 0 && (this.efer & Efer.longModeActive) !== 0;
      this.put(State.codeSize, long ? 64 : (attributes & 0x4000) !== 0 ? 32 : 16);
      const virtual8086 = (this.get(State.flagsRest) & Flag.virtual8086) !== 0;
      this.put(State.cpl, this.realSegments ? (virtual8086 ? 3 : 0) : selector & 3);
      this.updateTlb();
      this.#updateStackSize();
    }
    if (segment === SegmentRegister.ss) this.#updateStackSize();
    this.#updateCodeMode();
  }

  get codeMode(): CodeMode {
    return this.get(State.codeMode) as CodeMode;
  }

  #updateCodeMode(): void {
    const { u32 } = this.host;
    const begins = (segment: SegmentRegister) => u32[this.word + State.segmentBase / 4 + segment * 2] === 0;
    const isPlain = (segment: SegmentRegister) =>
      begins(segment) && u32[this.word + State.segmentChecked / 4 + segment] === 0;
    const flat =
      this.codeSize === 32 &&
      this.stackSize === 4 &&
      begins(SegmentRegister.cs) &&
      isPlain(SegmentRegister.ss) &&
      isPlain(SegmentRegister.ds) &&
      isPlain(SegmentRegister.es);
    this.put(State.codeMode, flat ? CodeMode.flat32 : this.codeSize);
  }

  #updateStackSize(): void {
    const attributes = this.host.u32[this.word + State.segmentAttributes / 4 + SegmentRegister.ss] as number;
    this.put(State.stackSize, this.codeSize === 64 ? 8 : (attributes & 0x4000) !== 0 ? 4 : 2);
  }

  get translation(): Translation {
    return this.memory.translation;
  }

  set translation(translation: Translation) {
    this.memory.translation = translation;
    this.updateTlb();
  }

  setRoots(kernelRoot: number, userRoot: number, context?: ProcessContext): void {
    this.memory.setRoots(kernelRoot, userRoot, context);
    this.updateTlb();
  }

  /** The base that SWAPGS exchanges with that of GS. */
  get inactiveGsBase(): GuestVirtual {
    return this.getLong(State.inactiveGsBase) as GuestVirtual;
  }

  set inactiveGsBase(base: GuestVirtual) {
    this.putLong(State.inactiveGsBase, base);
  }

  /** Whether instructions of ring 0 that switch interrupts on leave to the host. */
  set interruptWaiting(waiting: boolean) {
    this.put(State.interruptWaiting, waiting ? 1 : 0);
  }

  /** Whether the instruction at RIP stands right behind STI or a load of SS. */
  get inInterruptShadow(): boolean {
    const place = this.codeSize === 64 ? this.get(State.rip) : this.rip >>> 0;
    return this.get(State.interruptShadow) === place;
  }

  set inInterruptShadow(shadowed: boolean) {
    this.put(State.interruptShadow, shadowed ? this.rip : ~this.rip);
  }

  get userMode(): boolean {
    return this.get(State.userAccess) !== 0;
  }

  set userMode(user: boolean) {
    this.put(State.userAccess, user ? 1 : 0);
    this.updateTlb();
  }

  /** Alignment is checked where accesses miss the TLB, so all of them are made to (SDM vol. 3A, 6.15, "Interrupt 17"). */
  protected updateTlb(): void {
    const { memory } = this;
    const checked =
      (this.get(State.flagsRest) & Flag.alignmentCheck) !== 0 &&
      (this.cr0 & Cr0.alignmentMask) !== 0 &&
      this.privilege === 3;
    memory.alignmentChecked = checked;
    const tlb = checked ? memory.emptyTlb : this.userMode ? memory.userTlb : memory.kernelTlb;
    this.put(State.tlb, tlb.address);
    this.put(State.kernelTlb, memory.kernelTlb.address);
    this.put(State.userTlb, memory.userTlb.address);
  }

  /** Lets generated code carry out SYSCALL, SYSRET and IRET, or not. */
  set fastCalls(calls: FastCalls | undefined) {
    this.put(State.fastCalls, calls ? 1 : 0);
    this.put(State.fastReturns, calls?.table === undefined ? 0 : 1);
    if (!calls) return;
    const { entry, mask, selectors, table } = calls;
    const pairOf = (code: number, stack: number): number => (code & 0xffff) | (stack << 16);
    const kernel = selectors & 0xffff;
    const { code, stack } = userSelectors(selectors);
    this.put(State.kernelSelectors, pairOf(kernel & ~3, (kernel + 8) & ~3));
    this.put(State.userSelectors, pairOf(code, stack));
    if (table !== undefined) this.putLong(State.callTable, table);
    this.put(State.callMask, mask);
    this.putLong(State.callEntry, entry);
  }

  flushTlb(): void {
    this.memory.flush();
  }

  invalidatePage(address: GuestVirtual): void {
    this.memory.flushPage(address);
  }

  get cr0(): number {
    return this.get(State.cr0);
  }

  set cr0(value: number) {
    this.put(State.cr0, value);
    this.memory.controls.cr0 = value;
    this.#updateFpuTrap();
    this.updateTlb();
  }

  get cr4(): number {
    return this.get(State.cr4);
  }

  set cr4(value: number) {
    this.put(State.cr4, value);
    this.memory.controls.cr4 = value;
    this.#updateFpuTrap();
  }

  #updateFpuTrap(): void {
    const trapping = (this.cr0 & (Cr0.taskSwitched | Cr0.emulation)) !== 0 || (this.cr4 & Cr4.fxsave) === 0;
    this.put(State.fpuTrap, trapping ? 1 : 0);
  }

  get efer(): number {
    return this.get(State.efer);
  }

  set efer(value: number) {
    this.put(State.efer, value);
    this.memory.controls.efer = value;
  }

  get cr2(): GuestVirtual {
    return this.getLong(State.cr2) as GuestVirtual;
  }

  set cr2(value: GuestVirtual) {
    this.putLong(State.cr2, value);
  }

  get exitDetail(): number {
    return this.get(State.exitDetail);
  }

  get exitError(): number {
    return this.get(State.exitError);
  }

  get exitLength(): number {
    return this.get(State.exitLength);
  }

  /** Leaves an exception in the state block; the result is what a host function returns to make it happen. */
  raise(vector: Vector, error = 0): Exit {
    this.put(State.exitDetail, vector);
    this.put(State.exitError, error);
    return Exit.exception;
  }
}
