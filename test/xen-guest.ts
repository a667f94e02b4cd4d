import { loadKernel } from '../src/boot/kernel.ts';
import { ProcessorGroup } from '../src/cpu/processor.ts';
import { VirtualClock } from '../src/domain/clock.ts';
import { XenDomain, type XenDomainOptions } from '../src/interfaces/xen/domain.ts';
import { overheadFrames } from '../src/interfaces/xen/domain-frames.ts';
import { type DomainPlan, planDomain } from '../src/interfaces/xen/domain-plan.ts';
import { createPagedMemory } from '../src/interfaces/xen/paged-memory.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MemoryManager } from '../src/mm/memory-manager.ts';
import { bytesFile } from '../src/mm/page-cache.ts';
import type { GuestVirtual, Mfn } from '../src/x86/brand.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import { entryHigh, entryLow, frameOfEntry } from '../src/x86/page-table.ts';
import { Register } from '../src/x86/registers.ts';
import { buildElf, concatenate } from './boot-images.ts';
import { MemoryStore } from './mm-world.ts';

/** 8 MiB: the builder maps the first four. */
const PAGES = 2048;

/** Where VIRT_BASE, the kernel's code and its data are. */
export const BASE = -0x8000_0000;
export const CODE = BASE + 0x10_0000;
export const DATA = CODE + PAGE_SIZE;
const DATA_PAGES = 24;

const INIT_P2M = -0x7f80_0000_0000;

const NOTES = [
  { type: 6, value: 'linux' },
  { type: 1, value: BigInt(CODE) },
  { type: 3, value: BigInt(BASE) },
  { type: 15, value: BigInt(INIT_P2M) },
  { type: 16, value: 1n },
] as const;

/** Where an entry is. */
export interface TableEntry {
  readonly table: number;
  readonly index: number;
}

/** Assembles the few instructions that the tests' kernels are made of. */
export const assemble = {
  syscall: [0x0f, 0x05],
  /** JMP to itself. */
  spin: [0xeb, 0xfe],
  /** MOV of a sign-extended 32-bit number. */
  move: (register: Register, value: number) => {
    const extended = register >= 8;
    const opcode = [extended ? 0x49 : 0x48, 0xc7, 0xc0 | (register & 7)];
    return [...opcode, value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, (value >> 24) & 0xff];
  },
  hypercall: (number: number, ...values: readonly number[]): number[] => [
    ...values.flatMap((value, index) => assemble.move(ARGUMENTS[index] as Register, value)),
    ...assemble.move(Register.rax, number),
    ...assemble.syscall,
  ],
};

const ARGUMENTS = [Register.rdi, Register.rsi, Register.rdx, Register.r10, Register.r8] as const;

let group: ProcessorGroup | undefined;

/** One host for all guests of a test file: generating the interpreter takes longer than a test. */
export function sharedGroup(): ProcessorGroup {
  if (!group) {
    const frames = 2 * (PAGES + overheadFrames(PAGES));
    const memory = new HostMemory(frames * PAGE_SIZE + (48 << 20));
    group = new ProcessorGroup(memory, new FramePool(memory, frames), { jit: { isAside: false } });
  }
  return group;
}

const guests: SmallGuest[] = [];

/** Ends all guests: the host has room for two at a time. */
export function destroyGuests(): void {
  for (const { domain } of guests.splice(0)) domain.destroy();
}

export interface SmallPlanOptions {
  /** What the kernel says that it can do with, by names with bars between them. */
  readonly features?: string;
  readonly isTranslated?: boolean;
}

/** How a domain is built whose kernel executes a program. */
export function smallPlan(
  program: readonly number[] = WAITING,
  { features = '', isTranslated = false }: SmallPlanOptions = {},
): DomainPlan {
  const code = new Uint8Array(PAGE_SIZE);
  code.set(program);
  const data = concatenate(code, new Uint8Array(DATA_PAGES * PAGE_SIZE));
  const notes = [...NOTES, { type: 10, value: features }];
  const kernel = loadKernel(buildElf({ notes, segments: [{ paddr: 0x10_0000, vaddr: BigInt(CODE), data }] }));
  return planDomain({ kernel, initrd: new Uint8Array(0), commandLine: '', pages: PAGES, isTranslated });
}

/** Waits for `hypercall`. */
const WAITING = [...assemble.syscall, ...assemble.spin];

/** A domain whose kernel is hand-made; without a program it only waits for `hypercall`. */
export class SmallGuest {
  readonly domain: XenDomain;
  console = '';

  constructor(
    options: Partial<Pick<XenDomainOptions, 'trace' | 'check' | 'vcpus' | 'permutation' | 'paged'>> = {},
    plan: DomainPlan = smallPlan(),
  ) {
    const { vcpus = 1, ...rest } = options;
    this.domain = new XenDomain({
      id: 1,
      uuid: new Uint8Array(16),
      bits: plan.abi.bits,
      pages: plan.pages,
      isTranslated: plan.isTranslated,
      vcpus,
      group: sharedGroup(),
      clock: new VirtualClock(() => this.domain?.instructions ?? 0),
      wallclock: { seconds: 1_700_000_000, nanoseconds: 0 },
      random: (out) => void out.fill(7),
      consoleSink: (bytes) => {
        this.console += new TextDecoder('latin1').decode(bytes);
      },
      ...rest,
    });
    this.domain.boot({ name: 'small', plan });
    guests.push(this);
  }

  get #processor() {
    const [vcpu] = this.domain.vcpus;
    if (!vcpu) throw new Error('no vCPU');
    return vcpu.processor;
  }

  /** Makes a hypercall from the kernel's SYSCALL instruction, and gives what it finds in RAX. */
  hypercall(number: number, ...values: readonly number[]): number {
    this.#beginHypercall(number, values);
    do this.domain.turn();
    while (this.#inHypercall);
    return this.#processor.value(Register.rax);
  }

  /** The same, when pages may have to be brought in for it. */
  async pagedHypercall(number: number, ...values: readonly number[]): Promise<number> {
    this.#beginHypercall(number, values);
    do {
      if (this.domain.idle) await new Promise(setImmediate);
      else this.domain.turn();
    } while (this.#inHypercall);
    return this.#processor.value(Register.rax);
  }

  #beginHypercall(number: number, values: readonly number[]): void {
    const processor = this.#processor;
    processor.rip = CODE as GuestVirtual;
    processor.setValue(Register.rax, number);
    for (const [index, value] of values.entries()) processor.setValue(ARGUMENTS[index] as Register, value);
  }

  get #inHypercall(): boolean {
    return this.#processor.rip !== CODE + assemble.syscall.length && this.domain.state.kind === 'running';
  }

  /** Stores 64-bit numbers, by halves, at an address of the guest. */
  store(address: number, ...values: readonly (number | readonly [low: number, high: number])[]): void {
    values.forEach((value, index) => {
      const [low, high] = typeof value === 'number' ? [value >>> 0, Math.floor(value / 2 ** 32) >>> 0] : value;
      if (!this.#processor.memory.writeLong((address + index * 8) as GuestVirtual, low, high)) {
        throw new Error(`0x${address.toString(16)} is not writable`);
      }
    });
  }

  /** Low word of a 64-bit number, or −1 when it cannot be read. */
  load(address: number): number {
    return this.#processor.memory.readWord(address as GuestVirtual);
  }

  /** The tables that lead to an address, root first: number and index of each. */
  path(address: number): [TableEntry, TableEntry, TableEntry, TableEntry] {
    const path: TableEntry[] = [];
    const entry = new Uint32Array(2);
    let table = this.domain.paging.root(0) as number;
    for (let shift = 39; shift >= 12; shift -= 9) {
      const index = Number((BigInt.asUintN(64, BigInt(address)) >> BigInt(shift)) & 511n);
      path.push({ table, index });
      this.domain.paging.entries.read(table, index, entry);
      table = frameOfEntry(entry[0] as number, entry[1] as number);
    }
    return path as [TableEntry, TableEntry, TableEntry, TableEntry];
  }

  /** Number of the frame behind an address. */
  mfnAt(address: number): Mfn {
    return this.domain.paging.entries.frameNumberAt(this.domain.paging.root(0), address as GuestVirtual);
  }

  /** One request of mmu_update for the level-1 entry (or a higher one) of an address. */
  request(at: TableEntry, page: number, flags: number): readonly (readonly [number, number])[] {
    return [
      [((at.table << 12) | (at.index * 8)) >>> 0, Math.floor(at.table / 2 ** 20)],
      [entryLow(page, flags), entryHigh(page)],
    ];
  }

  /** Makes an mmu_update of requests; the count of those done is left at the end of the data. */
  update(...requests: readonly (readonly (readonly [number, number])[])[]): number {
    this.store(DATA, ...requests.flat());
    return this.hypercall(Hypercall.mmuUpdate, DATA, requests.length, DONE, SELF);
  }

  /** One command of mmuext_op. */
  extended(command: number, first: number, second = 0): number {
    this.store(DATA, command, first, second);
    return this.hypercall(Hypercall.mmuExtended, DATA, 1, DONE, SELF);
  }
}

/** A guest whose pages come and go, and what has them. */
export async function createPagedGuest(
  plan: DomainPlan = smallPlan(),
): Promise<{ readonly guest: SmallGuest; readonly manager: MemoryManager }> {
  const host = sharedGroup();
  const manager = new MemoryManager({ pool: host.parts.pool, store: new MemoryStore(4096), checked: true });
  const kernel = manager.openFile(plan.kernelPages);
  const initrd = manager.openFile(bytesFile('initrd', plan.initrd));
  const paged = await createPagedMemory({ manager, group: host, plan, kernel, initrd, order: guests.length + 1 });
  if ('kind' in paged) throw new Error(paged.message);
  return { guest: new SmallGuest({ paged }, plan), manager };
}

export const DONE = DATA + DATA_PAGES * PAGE_SIZE - 8;
export const SELF = 0x7ff0;

export const enum Hypercall {
  mmuUpdate = 1,
  stackSwitch = 3,
  multicall = 13,
  updateVaMapping = 14,
  xenVersion = 17,
  consoleIo = 18,
  setSegmentBase = 25,
  mmuExtended = 26,
  sched = 29,
}
