/**
 * The project's processor as an `Emulator`: one group and one processor for all cases, in the memory map and the
 * segments of oracle.ts, behind four-level page tables as Linux has them for 64-bit and 32-bit programs.
 */

import { SegmentRegister } from '../../src/cpu/decode/instruction.ts';
import { Exit } from '../../src/cpu/exits.ts';
import { createX87Unit } from '../../src/cpu/float/x87.ts';
import type { JitOptions } from '../../src/cpu/jit/jit.ts';
import { SystemResult } from '../../src/cpu/operands.ts';
import { type Processor, ProcessorGroup } from '../../src/cpu/processor.ts';
import type { Descriptor, DescriptorSource } from '../../src/cpu/processor-api.ts';
import { State } from '../../src/cpu/state.ts';
import { executeSystem, type SystemServices } from '../../src/cpu/system.ts';
import { FramePool } from '../../src/memory/frame-pool.ts';
import { HostMemory } from '../../src/memory/host-memory.ts';
import type { Frame, GuestVirtual, HostAddress } from '../../src/x86/brand.ts';
import { Cr0, Cr4, Efer, Flag, PTE_NO_EXECUTE_HIGH, Pte, Vector } from '../../src/x86/registers.ts';
import type { Emulator } from './compare.ts';
import {
  BASE_WINDOW,
  CODE_BASE,
  CODE_BYTES,
  CODE_SELECTOR_32,
  CODE_SELECTOR_64,
  DATA_SELECTOR,
  Ending,
  FS_BASE,
  FS_SELECTOR_32,
  GS_BASE,
  GS_SELECTOR_32,
  type NativeCase,
  type NativeResult,
  PAGE,
  READ_ONLY_PAGE,
  STATE_BYTES,
  UNMAPPED_PAGE,
  WINDOW_BASE,
  WINDOW_BYTES,
  WINDOW_PAGES,
} from './oracle.ts';

const FRAMES = 64;
const MEMORY_BYTES = 64 << 20;
/** Far above what any case executes: the longest repeated string instruction has some hundred steps. */
const BUDGET = 200_000;
const BREAKPOINT = 0xcc;
/** Offsets in an FXSAVE image. */
const MXCSR = 24;
const XMM = 160;
const XMM_BYTES = 256;
/** The flags of a case that the oracle takes, and those that are always one. */
const CASE_FLAGS = 0x24_4cd5;
const ALWAYS_FLAGS = Flag.interrupt | Flag.reserved;

/** The descriptor tables of a Linux process, as far as cases name them (linux/arch/x86/include/asm/segment.h). */
const GLOBAL_DESCRIPTORS: Readonly<Record<number, Descriptor>> = {
  1: { low: 0x0000_ffff, high: 0x00cf_9b00 },
  2: { low: 0x0000_ffff, high: 0x00af_9b00 },
  3: { low: 0x0000_ffff, high: 0x00cf_9300 },
  4: { low: 0x0000_ffff, high: 0x00cf_fb00 },
  5: { low: 0x0000_ffff, high: 0x00cf_f300 },
  6: { low: 0x0000_ffff, high: 0x00af_fb00 },
};
const LOCAL_DESCRIPTORS: Readonly<Record<number, Descriptor>> = {
  0: localData(FS_BASE),
  1: localData(GS_BASE),
};

/** Read-write data of 4096 bytes, accessed, byte granular, 32-bit. */
function localData(base: number): Descriptor {
  return {
    low: ((base & 0xffff) << 16) | 0x0fff,
    high: (base & 0xff00_0000) | 0x0040_f300 | ((base >>> 16) & 0xff),
  };
}

const descriptors: DescriptorSource = {
  read(selector, out) {
    const found = ((selector & 4) === 0 ? GLOBAL_DESCRIPTORS : LOCAL_DESCRIPTORS)[selector >> 3];
    if (!found) return false;
    out.low = found.low >>> 0;
    out.high = found.high >>> 0;
    return true;
  },
};

function descriptorOf(selector: number): Descriptor {
  const descriptor = { low: 0, high: 0 };
  descriptors.read(selector, descriptor);
  return descriptor;
}

const services: SystemServices = {
  timeStamp(out) {
    out[0] = 0;
    out[1] = 0;
  },
  timeStampAuxiliary: () => 0,
  random(out) {
    out[0] = 0;
    out[1] = 0;
  },
};

/** Frames and page tables of the memory map. */
class PageTables {
  readonly #memory: HostMemory;
  readonly #pool: FramePool;
  readonly frames: Int32Array;
  readonly root: Frame;

  constructor(memory: HostMemory, pool: FramePool) {
    this.#memory = memory;
    this.#pool = pool;
    // Numbers in the tables are those of the pool.
    this.frames = Int32Array.from({ length: FRAMES }, (_, frame) => frame);
    this.root = pool.allocate();
  }

  page(address: number, frame: Frame, flags: number, executable: boolean): void {
    let table = this.root;
    for (let level = 4; level > 1; level--) {
      const word = this.#entry(table, Math.floor(address / 2 ** (12 + 9 * (level - 1))) & 0x1ff);
      let entry = this.#memory.u32[word] as number;
      if (entry === 0) {
        entry = (this.#pool.allocate() << 12) | Pte.present | Pte.writable | Pte.user;
        this.#memory.u32[word] = entry;
      }
      table = (entry >>> 12) as Frame;
    }
    const word = this.#entry(table, (address >>> 12) & 0x1ff);
    this.#memory.u32[word] = (frame << 12) | flags | Pte.present | Pte.user;
    this.#memory.u32[word + 1] = executable ? 0 : PTE_NO_EXECUTE_HIGH;
  }

  #entry(table: Frame, index: number): number {
    return (this.#pool.addressOf(table) >>> 2) + index * 2;
  }
}

export interface EmulatorOptions {
  /** Size of the host's memory; the guest's frames are at its end. */
  memoryBytes?: number;
  /** Entries of the TLB. */
  tlbEntries?: number;
  /** Bytes for decoded code. */
  codeBytes?: number;
  /** When code becomes regions; never when absent. */
  jit?: Partial<JitOptions>;
  /** Executes some instructions, at most `left` if that is asked for; `Processor.run` when absent. */
  advance?: (processor: Processor, left: number) => Exit;
}

export class ProcessorEmulator implements Emulator {
  /** Instructions that the last case completed; each step of a repeated one counts. */
  instructions = 0;
  /** Instructions of all cases, and those of them that were executed in regions. */
  readonly executed = { instructions: 0, inRegions: 0 };
  readonly #advance: (processor: Processor, left: number) => Exit;
  readonly #memory: HostMemory;
  readonly #pool: FramePool;
  readonly group: ProcessorGroup;
  readonly #processor: Processor;
  readonly #x87: ReturnType<typeof createX87Unit>;
  readonly #image: HostAddress;
  /** The window and the code pages, each in frames that follow one another. */
  readonly #window: HostAddress;
  readonly #code: HostAddress;
  readonly #codeFrames: Frame;
  readonly #map: PageTables;
  #codeWritable = false;
  /** What the window held when the case began. */
  readonly #before = BASE_WINDOW.slice();

  constructor(options: EmulatorOptions = {}) {
    const {
      memoryBytes = MEMORY_BYTES,
      tlbEntries,
      codeBytes,
      jit = { threshold: 0 },
      advance = (processor, left) => processor.run(left),
    } = options;
    this.#advance = advance;
    const memory = new HostMemory(memoryBytes);
    const pool = new FramePool(memory, FRAMES);
    this.#memory = memory;
    this.#pool = pool;
    this.#x87 = createX87Unit(memory.view);
    const map = new PageTables(memory, pool);
    this.#map = map;
    const windowFrames = this.#allocate(WINDOW_PAGES);
    this.#codeFrames = this.#allocate(CODE_BYTES / PAGE);
    for (let page = 0; page < WINDOW_PAGES; page++) {
      if (page === UNMAPPED_PAGE) continue;
      const rights = page === READ_ONLY_PAGE ? 0 : Pte.writable;
      map.page(WINDOW_BASE + page * PAGE, (windowFrames + page) as Frame, rights, false);
    }
    this.#mapCode(false);
    this.#window = pool.addressOf(windowFrames);
    this.#code = pool.addressOf(this.#codeFrames);
    memory.u8.set(BASE_WINDOW, this.#window);
    memory.u8.fill(BREAKPOINT, this.#code, this.#code + CODE_BYTES);
    this.#image = memory.reserve(512, 64);

    this.group = new ProcessorGroup(memory, pool, {
      jit,
      ...(tlbEntries === undefined ? {} : { tlbEntries }),
      ...(codeBytes === undefined ? {} : { codeBytes }),
    });
    const processor = this.group.create();
    this.#processor = processor;
    processor.cr0 =
      Cr0.protection | Cr0.monitorCoprocessor | Cr0.numericError | Cr0.writeProtect | Cr0.alignmentMask | Cr0.paging;
    processor.cr4 = Cr4.physicalAddressExtension | Cr4.fxsave | Cr4.simdExceptions | Cr4.fsgsbase;
    processor.efer = Efer.syscall | Efer.longModeEnable | Efer.longModeActive | Efer.noExecute;
    processor.descriptors = descriptors;
    processor.translation = { format: 'four-level', frames: map.frames };
    processor.setRoots(map.root, map.root);
    processor.userMode = true;
  }

  #allocate(count: number): Frame {
    const first = this.#pool.allocate();
    for (let more = 1; more < count; more++) this.#pool.allocate();
    return first;
  }

  #mapCode(writable: boolean): void {
    for (let page = 0; page < CODE_BYTES / PAGE; page++) {
      this.#map.page(CODE_BASE + page * PAGE, (this.#codeFrames + page) as Frame, writable ? Pte.writable : 0, true);
    }
    this.#codeWritable = writable;
  }

  run(nativeCase: NativeCase): NativeResult {
    this.#begin(nativeCase);
    const { instructions } = this.#processor;
    const before = this.#countInRegions();
    const result = this.#execute(nativeCase);
    this.instructions = this.#processor.instructions - instructions;
    this.executed.instructions += this.instructions;
    this.executed.inRegions += this.#countInRegions() - before;
    this.#end(nativeCase);
    return result;
  }

  #countInRegions(): number {
    return this.#processor.regionInstructions;
  }

  #begin(nativeCase: NativeCase): void {
    const { mode, code, codeOffset, codeWritable = false, gprs, state, patches } = nativeCase;
    const memory = this.#memory;
    const processor = this.#processor;
    if (codeWritable !== this.#codeWritable) {
      this.#mapCode(codeWritable);
      processor.flushTlb();
    }
    for (const { offset, bytes } of patches) {
      memory.u8.set(bytes, this.#window + offset);
      this.#before.set(bytes, offset);
    }
    this.#writeCode(codeOffset, code);
    this.#setSegments(mode);
    const registers = new BigUint64Array(memory.memory.buffer, processor.state + State.registers, 16);
    registers.set(gprs);
    processor.flags = (nativeCase.flags & CASE_FLAGS) | ALWAYS_FLAGS;
    processor.rip = (CODE_BASE + codeOffset) as GuestVirtual;
    memory.u8.set(state.subarray(0, STATE_BYTES), this.#image);
    this.#x87.loadFxsaveArea(processor.state + State.x87, this.#image, true);
    memory.u8.copyWithin(processor.state + State.mxcsr, this.#image + MXCSR, this.#image + MXCSR + 4);
    memory.u8.copyWithin(processor.state + State.xmm, this.#image + XMM, this.#image + XMM + XMM_BYTES);
  }

  #setSegments(mode: number): void {
    const processor = this.#processor;
    const code = mode === 64 ? CODE_SELECTOR_64 : CODE_SELECTOR_32;
    processor.loadSegment(SegmentRegister.cs, code, descriptorOf(code));
    const data = descriptorOf(DATA_SELECTOR);
    for (const segment of [SegmentRegister.es, SegmentRegister.ss, SegmentRegister.ds]) {
      processor.loadSegment(segment, DATA_SELECTOR, data);
    }
    if (mode === 64) {
      processor.loadSegment(SegmentRegister.fs, 0, null);
      processor.loadSegment(SegmentRegister.gs, 0, null);
      processor.setSegmentBase(SegmentRegister.fs, FS_BASE as GuestVirtual);
      processor.setSegmentBase(SegmentRegister.gs, GS_BASE as GuestVirtual);
    } else {
      processor.loadSegment(SegmentRegister.fs, FS_SELECTOR_32, descriptorOf(FS_SELECTOR_32));
      processor.loadSegment(SegmentRegister.gs, GS_SELECTOR_32, descriptorOf(GS_SELECTOR_32));
    }
  }

  #writeCode(offset: number, bytes: Uint8Array): void {
    this.#memory.u8.set(bytes, this.#code + offset);
    this.#codeWritten(offset, bytes.length);
  }

  #codeWritten(offset: number, length: number): void {
    const first = offset & (PAGE - 1);
    const inFirst = Math.min(length, PAGE - first);
    const frame = (this.#codeFrames + (offset >> 12)) as Frame;
    this.group.frameWritten(frame, first, inFirst);
    if (inFirst < length) this.group.frameWritten((frame + 1) as Frame, 0, length - inFirst);
  }

  /** Undoes what `#begin` and the case did to memory. */
  #end({ code, codeOffset, codeWritable, patches }: NativeCase): void {
    for (const { offset, bytes } of patches) {
      const base = BASE_WINDOW.subarray(offset, offset + bytes.length);
      this.#memory.u8.set(base, this.#window + offset);
      this.#before.set(base, offset);
    }
    const [start, length] = codeWritable ? [0, CODE_BYTES] : [codeOffset, code.length];
    this.#memory.u8.fill(BREAKPOINT, this.#code + start, this.#code + start + length);
    this.#codeWritten(start, length);
  }

  /** Runs to the case's end; the ending is what Linux would tell the program of it. */
  #execute(nativeCase: NativeCase): NativeResult {
    const processor = this.#processor;
    let left = BUDGET;
    for (;;) {
      const before = processor.instructions;
      const exit = left > 0 ? this.#advance(processor, left) : Exit.budget;
      left -= processor.instructions - before;
      switch (exit) {
        case Exit.exception:
          return this.#result(nativeCase, processor.exitDetail, processor.exitError);
        case Exit.softwareInterrupt: {
          // Linux opens the gates of INT3, INTO and its 32-bit system call to programs.
          const vector = processor.exitDetail;
          if (vector === 0x80) return this.#result(nativeCase, Ending.forbidden, 0);
          if (vector !== Vector.breakpoint && vector !== Vector.overflow) {
            return this.#result(nativeCase, Vector.generalProtection, vector * 8 + 2);
          }
          processor.completeInstruction();
          return this.#result(nativeCase, vector, 0);
        }
        case Exit.system:
          switch (executeSystem(processor, services)) {
            case SystemResult.done:
              left--;
              break;
            case SystemResult.fault:
              return this.#result(nativeCase, processor.exitDetail, processor.exitError);
            case SystemResult.interface:
              return this.#result(nativeCase, Vector.generalProtection, 0);
          }
          break;
        case Exit.budget:
          if (left <= 0) return this.#result(nativeCase, Ending.timedOut, 0);
          break;
        default:
          return this.#result(nativeCase, Ending.forbidden, 0);
      }
    }
  }

  #result(nativeCase: NativeCase, vector: number, error: number): NativeResult {
    const processor = this.#processor;
    const memory = this.#memory;
    const { view } = memory;
    const { codeOffset, code } = nativeCase;
    let ending = vector;
    let rip = BigInt.asUintN(64, BigInt(processor.rip));
    if (vector === Vector.breakpoint) {
      const offset = Number(rip) - 1 - CODE_BASE - codeOffset;
      if (offset < 0 || offset >= code.length) {
        ending = Ending.landed;
        rip--;
      }
    }
    const gprs = new BigUint64Array(memory.memory.buffer, processor.state + State.registers, 16).slice();
    memory.u8.fill(0, this.#image, this.#image + STATE_BYTES);
    this.#x87.saveFxsaveArea(processor.state + State.x87, this.#image, true);
    memory.u8.copyWithin(this.#image + MXCSR, processor.state + State.mxcsr, processor.state + State.mxcsr + 4);
    memory.u8.copyWithin(this.#image + XMM, processor.state + State.xmm, processor.state + State.xmm + XMM_BYTES);
    return {
      ending,
      errorCode: HAS_ERROR_CODE.has(ending) ? error : 0,
      cr2: ending === Vector.pageFault ? view.getBigUint64(processor.state + State.cr2, true) : 0n,
      rip,
      flags: processor.flags & ~Flag.resume,
      gprs,
      state: memory.u8.slice(this.#image, this.#image + STATE_BYTES),
      changed: this.#takeChanges(),
      selectors: {
        cs: processor.selector(SegmentRegister.cs),
        ss: processor.selector(SegmentRegister.ss),
        ds: visibleSelector(processor.selector(SegmentRegister.ds)),
        es: visibleSelector(processor.selector(SegmentRegister.es)),
        fs: visibleSelector(processor.selector(SegmentRegister.fs)),
        gs: visibleSelector(processor.selector(SegmentRegister.gs)),
      },
    };
  }

  /** Words of the window that the case changed; the window gets its base contents back. */
  #takeChanges(): BigUint64Array {
    const { u8, view } = this.#memory;
    const before = this.#before;
    const changes: bigint[] = [];
    for (let page = 0; page < WINDOW_BYTES; page += PAGE) {
      const is = u8.subarray(this.#window + page, this.#window + page + PAGE);
      if (Buffer.compare(is, before.subarray(page, page + PAGE)) === 0) continue;
      const was = new DataView(before.buffer);
      for (let at = page; at < page + PAGE; at += 8) {
        const value = view.getBigUint64(this.#window + at, true);
        if (value !== was.getBigUint64(at, true)) changes.push(BigInt(at / 8), value);
      }
      is.set(BASE_WINDOW.subarray(page, page + PAGE));
    }
    return BigUint64Array.from(changes);
  }
}

const HAS_ERROR_CODE: ReadonlySet<number> = new Set([
  Vector.invalidTss,
  Vector.segmentNotPresent,
  Vector.stackFault,
  Vector.generalProtection,
  Vector.pageFault,
]);

/** The kernel's way back to ring 3 clears the RPL of null selectors in data segments (SDM vol. 2A, IRET). */
function visibleSelector(selector: number): number {
  return (selector & ~3) === 0 ? 0 : selector;
}

export function createEmulator(): ProcessorEmulator {
  return new ProcessorEmulator();
}
