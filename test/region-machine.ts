/** Machines for small programs whose code becomes regions early; the programs are the same in 64-bit and 32-bit code. */
import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import { Exit } from '../src/cpu/exits.ts';
import type { Processor, ProcessorGroupOptions } from '../src/cpu/processor.ts';
import { State } from '../src/cpu/state.ts';
import type { GuestVirtual, HostAddress } from '../src/x86/brand.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import { Flag, Register } from '../src/x86/registers.ts';
import { CODE, DATA, STACK_TOP, TestMachine } from './system-machine.ts';

/** Table formats by the code that they run: 64-bit and 32-bit. */
export const FORMATS = ['four-level', 'pae'] as const;
export type RegionFormat = (typeof FORMATS)[number];

export const INTERPRETER: ProcessorGroupOptions = { jit: { threshold: 0 } };
/** All code becomes regions before it is executed first. */
export const AT_ONCE: ProcessorGroupOptions = { jit: { threshold: 1, regionsPerModule: 1 } };
/** Code becomes a region when it is executed again, so that loops are known. */
export const AGAIN: ProcessorGroupOptions = { jit: { threshold: 2, regionsPerModule: 1 } };

/** The names of a const enum are not there when a program runs. */
const REGISTERS = {
  rax: Register.rax,
  rcx: Register.rcx,
  rdx: Register.rdx,
  rbx: Register.rbx,
  rsp: Register.rsp,
  rsi: Register.rsi,
  rdi: Register.rdi,
} as const;
type Registers = Readonly<Partial<Record<keyof typeof REGISTERS, number>>>;

/** A machine with two pages of code, two of data and a stack. */
export class RegionMachine extends TestMachine {
  constructor(format: RegionFormat, options: ProcessorGroupOptions, code: string) {
    super(format, 3, options);
    for (const page of [DATA, DATA + PAGE_SIZE]) this.map(page, this.allocate());
    this.load(CODE, code);
  }

  get registers(): BigUint64Array {
    return new BigUint64Array(this.memory.memory.buffer, this.processor.state + State.registers, 16);
  }

  get instructionsInRegions(): number {
    return this.processor.regionInstructions;
  }

  /** Back to the program's first instruction, with these registers and all others zero. */
  restart(registers: Registers = {}, address = CODE): void {
    const { processor } = this;
    this.registers.fill(0n);
    processor.setValue(Register.rsp, STACK_TOP);
    for (const [name, value] of Object.entries(registers))
      processor.setValue(REGISTERS[name as keyof Registers], value);
    processor.flags = Flag.reserved;
    processor.rip = address as GuestVirtual;
  }

  /** Runs the program from its start to HLT or an exception. */
  execute(registers: Registers = {}, address = CODE): ReturnType<TestMachine['run']> {
    this.restart(registers, address);
    return this.run(address);
  }

  /** All that programs change but memory. */
  stateNow(): object {
    const { processor } = this;
    return { registers: [...this.registers], flags: processor.flags, rip: processor.rip };
  }

  /** Another processor with the same page tables, in ring 3. */
  addProcessor(): Processor {
    const { processor: first, group } = this;
    const other = group.create();
    other.cr0 = first.cr0;
    other.cr4 = first.cr4;
    other.efer = first.efer;
    other.translation = first.translation;
    this.loadRoot(other);
    const [code, data] = [this.descriptors.get(1), this.descriptors.get(2)];
    if (!code || !data) throw new Error('the machine has no segments');
    other.loadSegment(SegmentRegister.cs, first.selector(SegmentRegister.cs), code);
    for (const segment of [SegmentRegister.es, SegmentRegister.ss, SegmentRegister.ds]) {
      other.loadSegment(segment, first.selector(segment), data);
    }
    other.userMode = first.userMode;
    other.flags = Flag.reserved;
    return other;
  }

  /** Number of the frame that an address is mapped to. */
  numberAt(address: number): number {
    return (this.memory.u32[this.entryWord(address)] as number) >>> 12;
  }

  /** The region that begins at an address. */
  regionAt(address: number): object | undefined {
    const place = this.pool.addressOf(this.frameOf(this.numberAt(address))) + (address % PAGE_SIZE);
    return this.group.parts.code.regionAt(place as HostAddress, this.processor.codeMode);
  }
}

/** The states before each instruction of a program, one repetition of a string instruction at a time. */
export function statesOf(machine: RegionMachine): object[] {
  machine.restart();
  const states = [machine.stateNow()];
  while (machine.processor.step() === Exit.budget) states.push(machine.stateNow());
  return states;
}
