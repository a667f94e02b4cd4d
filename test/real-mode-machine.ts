import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import { type Processor, ProcessorGroup, type ProcessorGroupOptions } from '../src/cpu/processor.ts';
import { State } from '../src/cpu/state.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { type Frame, type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { Cr0, Flag, Register } from '../src/x86/registers.ts';

const PAGES = 32;
/** Room for the frames and for what the host keeps. */
const MEMORY_BYTES = 64 << 20;
const STACK_TOP = 0x1000;

/** A processor in 16-bit code, paging off, that begins at 0. */
export class RealModeMachine {
  readonly processor: Processor;
  readonly #memory = new HostMemory(MEMORY_BYTES);
  readonly #pool = new FramePool(this.#memory, PAGES);
  readonly #group: ProcessorGroup;
  readonly #frames = Int32Array.from({ length: PAGES }, () => this.#pool.allocate());

  constructor(mode: 'real' | 'virtual-8086', options: ProcessorGroupOptions = {}) {
    this.#group = new ProcessorGroup(this.#memory, this.#pool, options);
    this.processor = this.#group.create();
    const { processor } = this;
    processor.translation = { format: 'none', frames: this.#frames };
    processor.cr0 = mode === 'real' ? 0 : Cr0.protection;
    processor.flags = Flag.reserved | (mode === 'real' ? 0 : Flag.virtual8086);
  }

  /** Puts a program at 0, zeroes all other memory and the registers, and begins. */
  start(bytes: readonly number[]): void {
    const { processor } = this;
    const { u8 } = this.#memory;
    for (let page = 0; page < PAGES; page++) {
      u8.fill(0, this.#at(page * PAGE_SIZE), this.#at(page * PAGE_SIZE) + PAGE_SIZE);
      this.#group.frameWritten(this.#frames[page] as Frame, 0, PAGE_SIZE);
    }
    u8.set(bytes, this.#at(0));
    for (const segment of [SegmentRegister.cs, SegmentRegister.ss, SegmentRegister.ds, SegmentRegister.es]) {
      const attributes = segment === SegmentRegister.cs ? 0xfb00 : 0xf300;
      processor.loadSegment(segment, 0, { low: 0xffff, high: attributes });
    }
    for (let register = 0; register < 8; register++) processor.setValue(register as Register, 0);
    processor.setValue(Register.rsp, STACK_TOP);
    processor.flags = Flag.reserved | (processor.flags & Flag.virtual8086);
    processor.rip = 0 as GuestVirtual;
  }

  #at(address: number): number {
    return this.#pool.addressOf(this.#frames[address >> 12] as Frame) + (address & 0xfff);
  }

  byte(address: number): number | undefined {
    return this.#memory.u8[this.#at(address)];
  }

  /** All memory of the machine. */
  contents(): Buffer {
    return Buffer.concat(
      Array.from({ length: PAGES }, (_, page) => {
        const at = this.#at(page * PAGE_SIZE);
        return this.#memory.u8.slice(at, at + PAGE_SIZE);
      }),
    );
  }

  get instructionsInRegions(): number {
    return Number(this.#memory.view.getBigUint64(this.processor.state + State.regionInstructions, true));
  }
}
