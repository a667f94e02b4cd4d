import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import { Exit } from '../src/cpu/exits.ts';
import { SystemResult } from '../src/cpu/operands.ts';
import { type Processor, ProcessorGroup, type ProcessorGroupOptions } from '../src/cpu/processor.ts';
import type { Descriptor } from '../src/cpu/processor-api.ts';
import { executeSystem, type SystemServices } from '../src/cpu/system.ts';
import type { TableFormat } from '../src/cpu/translation.ts';
import { PAE_TOPS } from '../src/cpu/walk.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { type Frame, type GuestVirtual, PAGE_SIZE } from '../src/x86/brand.ts';
import { entryHigh, entryLow, TABLE_GEOMETRY, tableIndex } from '../src/x86/page-table.ts';
import { Cr0, Cr4, Efer, Flag, Pte, Register } from '../src/x86/registers.ts';

export type PagedFormat = Exclude<TableFormat, 'none'>;

/** Frames of the pool: room for a 4 MiB page whose number is aligned, and as many again for tables and small pages. */
const FRAMES = 2048;
/** Numbers of the frames of large pages. */
export const LARGE_NUMBER = 1024;
/** Which of the small tables that fit into a page is PAE's top one. */
const PAE_TOP = 5;
const PAE_TOP_ENTRIES = 4;
export const CODE = 0x0040_0000;
export const STACK_TOP = 0x0060_0000;
/** Neither page shares a place in the TLB with one of the code. */
export const DATA = 0x0080_5000;
export const ALL_RIGHTS = Pte.present | Pte.writable | Pte.user;

/** Flat descriptors for both privileges. */
export const FLAT_CODE_32: Descriptor = { low: 0xffff, high: 0x00cf_9b00 };
export const FLAT_CODE_64: Descriptor = { low: 0xffff, high: 0x00af_9b00 };
export const FLAT_DATA: Descriptor = { low: 0xffff, high: 0x00cf_9300 };

/** A descriptor out of its parts; `attributes` are the type byte and, from bit 12, the flags G, D/B, L and AVL. */
export function descriptor(base: number, limit: number, attributes: number): Descriptor {
  return {
    low: (((base & 0xffff) << 16) | (limit & 0xffff)) >>> 0,
    high:
      ((base & 0xff00_0000) |
        ((attributes & 0xf000) << 8) |
        (limit & 0xf_0000) |
        ((attributes & 0xff) << 8) |
        ((base >>> 16) & 0xff)) >>>
      0,
  };
}

const NO_SERVICES: SystemServices = {
  timeStamp: (out) => out.fill(0),
  timeStampAuxiliary: () => 0,
  random: (out) => out.fill(0),
};

/** How a program ended. */
export interface Outcome {
  /** Null at HLT. */
  vector: number | null;
  error: number;
  cr2: number;
  rip: number;
}

/** One processor with page tables of a format, whose numbers are not those of the pool's frames. */
export class TestMachine {
  readonly format: PagedFormat;
  readonly memory = new HostMemory(56 << 20);
  readonly pool = new FramePool(this.memory, FRAMES);
  readonly group: ProcessorGroup;
  readonly processor: Processor;
  /** Global descriptors by index. */
  readonly descriptors = new Map<number, Descriptor>();
  readonly root: number;
  readonly #frames = new Int32Array(FRAMES).fill(-1);
  #nextNumber = LARGE_NUMBER - 1;

  constructor(format: PagedFormat, privilege: 0 | 3 = 3, options: ProcessorGroupOptions = {}) {
    this.format = format;
    this.group = new ProcessorGroup(this.memory, this.pool, options);
    this.processor = this.group.create();
    for (let number = LARGE_NUMBER; number < FRAMES; number++) this.#frames[number] = this.pool.allocate();
    this.root = this.allocate();
    const { processor } = this;
    processor.cr0 = Cr0.protection | Cr0.paging | Cr0.writeProtect | Cr0.numericError;
    processor.cr4 = Cr4.fxsave | Cr4.pageSizeExtensions | (format === 'two-level' ? 0 : Cr4.physicalAddressExtension);
    processor.efer = Efer.noExecute | (this.long ? Efer.longModeEnable | Efer.longModeActive : 0);
    processor.translation = { format, frames: this.#frames };
    this.loadRoot();
    processor.descriptors = {
      read: (selector, out) => {
        const found = this.descriptors.get(selector >> 3);
        if (found) Object.assign(out, found);
        return found !== undefined;
      },
    };
    this.setPrivilege(privilege);
    this.map(CODE, this.allocate());
    this.map(CODE + PAGE_SIZE, this.allocate());
    this.map(STACK_TOP - PAGE_SIZE, this.allocate());
    processor.setValue(Register.rsp, STACK_TOP);
    processor.flags = Flag.reserved;
  }

  get long(): boolean {
    return this.format === 'four-level';
  }

  /** As a load of CR3. */
  loadRoot(processor = this.processor): void {
    const root = this.format === 'pae' ? this.root * PAE_TOPS + PAE_TOP : this.root;
    processor.setRoots(root, root);
  }

  setPrivilege(privilege: 0 | 3): void {
    const { processor } = this;
    const withPrivilege = ({ low, high }: Descriptor): Descriptor => ({ low, high: high | (privilege << 13) });
    const code = withPrivilege(this.long ? FLAT_CODE_64 : FLAT_CODE_32);
    const data = withPrivilege(FLAT_DATA);
    this.descriptors.set(1, code);
    this.descriptors.set(2, data);
    processor.loadSegment(SegmentRegister.cs, 0x08 | privilege, code);
    for (const segment of [SegmentRegister.es, SegmentRegister.ss, SegmentRegister.ds]) {
      processor.loadSegment(segment, 0x10 | privilege, data);
    }
    processor.userMode = privilege === 3;
  }

  /** The number of a fresh frame. */
  allocate(): number {
    const number = this.#nextNumber--;
    this.#frames[number] = this.pool.allocate();
    return number;
  }

  frameOf(number: number): Frame {
    return this.#frames[number] as Frame;
  }

  /** Word index in host memory of the entry that translates an address at a level; tables above it are made. */
  entryWord(address: number, level = 1): number {
    const geometry = TABLE_GEOMETRY[this.format];
    const entryWords = geometry.entryBytes / 4;
    let table = this.root;
    for (let above = geometry.levels; ; above--) {
      const index = tableIndex(geometry, above, address >>> 0, Math.floor(address / 2 ** 32) >>> 0);
      const topOfPae = this.format === 'pae' && above === 3;
      const first = topOfPae ? PAE_TOP * PAE_TOP_ENTRIES : 0;
      const word = (this.pool.addressOf(this.frameOf(table)) >> 2) + (first + index) * entryWords;
      if (above === level) return word;
      if (this.memory.u32[word] === 0) {
        this.#write(word, this.allocate(), topOfPae ? Pte.present : ALL_RIGHTS, 0);
      }
      table = (this.memory.u32[word] as number) >>> 12;
    }
  }

  #write(word: number, number: number, flags: number, high: number): void {
    this.memory.u32[word] = entryLow(number, flags);
    if (this.format !== 'two-level') this.memory.u32[word + 1] = (entryHigh(number) | high) >>> 0;
  }

  /** Maps a page; a level of 2 makes a large one. The processor's translations are not touched. */
  map(address: number, number: number, flags = ALL_RIGHTS, high = 0, level = 1): void {
    this.#write(this.entryWord(address, level), number, flags, high);
  }

  /** Flags of the entry that translates an address at a level. */
  flagsAt(address: number, level = 1): number {
    return (this.memory.u32[this.entryWord(address, level)] as number) & 0xfff;
  }

  /** Bytes of a frame, as they are. */
  bytesOf(number: number): Uint8Array {
    const start = this.pool.addressOf(this.frameOf(number));
    return this.memory.u8.subarray(start, start + PAGE_SIZE);
  }

  /** Puts code, as hexadecimal bytes, at an address that is mapped. Returns the address behind it. */
  load(address: number, code: string): number {
    const bytes = Uint8Array.from(Buffer.from(code.replaceAll(/\s/g, ''), 'hex'));
    for (const [offset, byte] of bytes.entries()) {
      const number = (this.memory.u32[this.entryWord(address + offset)] as number) >>> 12;
      this.bytesOf(number)[(address + offset) & (PAGE_SIZE - 1)] = byte;
      this.group.frameWritten(this.frameOf(number), (address + offset) & (PAGE_SIZE - 1), 1);
    }
    return address + bytes.length;
  }

  /** Runs from an address to HLT or an exception; segment loads and far transfers are carried out. */
  run(address = CODE): Outcome {
    const { processor } = this;
    processor.rip = address as GuestVirtual;
    for (let exits = 0; exits < 1000; exits++) {
      let exit = processor.run(100_000);
      if (exit === Exit.device) exit = processor.stepWithDevices();
      if (exit === Exit.budget) continue;
      if (exit === Exit.exception) return this.#outcome(processor.exitDetail);
      if (exit !== Exit.system) throw new Error(`unexpected exit ${exit}`);
      if (processor.currentInstruction().operation === 'hlt') return this.#outcome(null);
      const result = executeSystem(processor, NO_SERVICES);
      if (result === SystemResult.fault) return this.#outcome(processor.exitDetail);
      if (result === SystemResult.interface)
        throw new Error(`${processor.currentInstruction().operation} was not executed`);
    }
    throw new Error('the program does not end');
  }

  #outcome(vector: number | null): Outcome {
    const { processor } = this;
    return { vector, error: processor.exitError, cr2: processor.cr2, rip: processor.rip };
  }
}
