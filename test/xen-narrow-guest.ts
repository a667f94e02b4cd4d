import { loadKernel } from '../src/boot/kernel.ts';
import { SegmentRegister } from '../src/cpu/decode/instruction.ts';
import { VirtualClock } from '../src/domain/clock.ts';
import { XenDomain } from '../src/interfaces/xen/domain.ts';
import { type DomainPlan, planDomain } from '../src/interfaces/xen/domain-plan.ts';
import type { DomainWatcher } from '../src/interfaces/xen/inspection.ts';
import { type GuestVirtual, type Mfn, PAGE_SIZE } from '../src/x86/brand.ts';
import { Register } from '../src/x86/registers.ts';
import { buildElf, concatenate, type NoteRecipe, numberBytes } from './boot-images.ts';
import { sharedGroup } from './xen-guest.ts';

/** 8 MiB: the builder maps the first four. */
const PAGES = 2048;

/** Where VIRT_BASE, the kernel's code and its pages are. */
export const BASE = 0xc000_0000;
export const CODE = BASE + 0x10_0000;
/** A page that programs may use, one of descriptors, one of the kernel's stack, and the hypercall page. */
export const PROGRAM = CODE + PAGE_SIZE;
export const DESCRIPTORS = CODE + 2 * PAGE_SIZE;
export const STACK = CODE + 4 * PAGE_SIZE;
export const STUBS = CODE + 5 * PAGE_SIZE;
export const DATA = CODE + 6 * PAGE_SIZE;
const DATA_PAGES = 8;

const note = (type: number, value: number): NoteRecipe => ({ type, value: numberBytes(value, 4) });

const NOTES: readonly NoteRecipe[] = [note(1, CODE), note(2, STUBS), note(3, BASE), { type: 9, value: 'yes' }];

/** Places in the kernel's code page. */
export const enum Place {
  /** INT 0x82, then a jump to itself. */
  call = 0,
  called = 2,
  /** IRET. */
  iret = 0x10,
  /** Jumps to themselves: where handlers begin. */
  trapHandler = 0x20,
  eventHandler = 0x30,
  failsafeHandler = 0x40,
}

/** The same of a program: it makes a kernel's call, or waits. */
export const enum ProgramPlace {
  call = 0,
  wait = 0x10,
}

const SPIN = [0xeb, 0xfe];
const INT82 = [0xcd, 0x82];

function page(...pieces: readonly (readonly [at: number, code: readonly number[]])[]): Uint8Array {
  const bytes = new Uint8Array(PAGE_SIZE);
  for (const [at, code] of pieces) bytes.set(code, at);
  return bytes;
}

/** Selectors of the guest's own descriptors, as entries and returns name them. */
export const enum Selector {
  kernelCode = 0x09,
  kernelData = 0x11,
  userCode = 0x1b,
  userData = 0x23,
  /** Not there. */
  none = 0x33,
}

const FLAT = {
  low: 0x0000_ffff,
  kernelCode: 0x00cf_9a00,
  kernelData: 0x00cf_9200,
  userCode: 0x00cf_fa00,
  userData: 0x00cf_f200,
};

/** How a 32-bit domain is built. @param notes in place of the usual ones */
export function narrowPlan(notes = NOTES, initrd = new Uint8Array(0), pages = PAGES): DomainPlan {
  const data = concatenate(
    page(
      [Place.call, [...INT82, ...SPIN]],
      [Place.iret, [0xcf]],
      [Place.trapHandler, SPIN],
      [Place.eventHandler, SPIN],
      [Place.failsafeHandler, SPIN],
    ),
    page([ProgramPlace.call, [...INT82, ...SPIN]], [ProgramPlace.wait, SPIN]),
    new Uint8Array((4 + DATA_PAGES) * PAGE_SIZE),
  );
  const vaddr = BigInt(CODE);
  const kernel = loadKernel(buildElf({ bits: 32, notes, segments: [{ paddr: CODE - BASE, vaddr, data }] }));
  return planDomain({ kernel, initrd, commandLine: 'some words', pages });
}

const ARGUMENTS = [Register.rbx, Register.rcx, Register.rdx, Register.rsi, Register.rdi] as const;

export const enum Call {
  setTrapTable = 0,
  mmuUpdate = 1,
  setGdt = 2,
  stackSwitch = 3,
  setCallbacks = 4,
  updateDescriptor = 10,
  memory = 12,
  multicall = 13,
  updateVaMapping = 14,
  setTimer = 15,
  xenVersion = 17,
  vmAssist = 21,
  iret = 23,
  vcpu = 24,
  setSegmentBase = 25,
  mmuExtended = 26,
  callback = 30,
}

/** A domain with a hand-made 32-bit kernel. */
export class NarrowGuest {
  readonly domain: XenDomain;
  readonly plan: DomainPlan;

  constructor({
    vcpus = 1,
    plan = narrowPlan(),
    watcher,
  }: { vcpus?: number; plan?: DomainPlan; watcher?: DomainWatcher } = {}) {
    this.plan = plan;
    this.domain = new XenDomain({
      id: 1,
      uuid: new Uint8Array(16),
      bits: plan.abi.bits,
      pages: plan.pages,
      vcpus,
      group: sharedGroup(),
      clock: new VirtualClock(() => this.domain?.instructions ?? 0),
      wallclock: { seconds: 1_700_000_000, nanoseconds: 0 },
      random: (out) => void out.fill(7),
      consoleSink: () => {},
      // Numbers that are pseudo-physical ones backwards.
      permutation: (pfn) => plan.pages - 1 - pfn,
      ...(watcher ? { watcher } : {}),
    });
    this.domain.boot({ name: 'narrow', plan });
  }

  get vcpu() {
    const [vcpu] = this.domain.vcpus;
    if (!vcpu) throw new Error('no vCPU');
    return vcpu;
  }

  get processor() {
    return this.vcpu.processor;
  }

  selector(segment: SegmentRegister): number {
    return this.processor.selector(segment);
  }

  /** Executes from a place until another is reached, or the domain ends. */
  run(from: number, until: number): void {
    this.processor.rip = from as GuestVirtual;
    for (let turn = 0; turn < 100 && this.processor.rip !== until && this.domain.state.kind === 'running'; turn++) {
      this.domain.turn();
    }
    if (this.domain.state.kind === 'running' && this.processor.rip !== until) {
      throw new Error(`the guest is at 0x${this.processor.rip.toString(16)}`);
    }
  }

  /** Makes a hypercall from the kernel, and gives what it finds in EAX. */
  hypercall(number: number, ...values: readonly number[]): number {
    this.processor.set(Register.rax, number, 0);
    for (const [index, value] of values.entries()) this.processor.set(ARGUMENTS[index] as Register, value >>> 0, 0);
    this.run(CODE + Place.call, CODE + Place.called);
    return this.processor.low(Register.rax) | 0;
  }

  store(address: number, ...words: readonly number[]): void {
    words.forEach((word, index) => {
      if (!this.processor.memory.writeWord((address + index * 4) as GuestVirtual, word >>> 0)) {
        throw new Error(`0x${address.toString(16)} is not writable`);
      }
    });
  }

  words(address: number, count: number): number[] {
    return Array.from({ length: count }, (_none, index) =>
      this.processor.memory.readWord((address + index * 4) as GuestVirtual),
    );
  }

  mfnAt(address: number): Mfn {
    return this.domain.paging.entries.frameNumberAt(this.domain.paging.root(0), address as GuestVirtual);
  }

  /** Gives the kernel descriptors and handlers of its own, and programs a page. */
  prepare(): void {
    const mapping = (address: number, flags: number) =>
      this.hypercall(Call.updateVaMapping, address, this.mfnAt(address) * PAGE_SIZE + flags, 0, 0);
    this.store(DESCRIPTORS + 8, FLAT.low, FLAT.kernelCode, FLAT.low, FLAT.kernelData);
    this.store(DESCRIPTORS + 24, FLAT.low, FLAT.userCode, FLAT.low, FLAT.userData);
    mapping(DESCRIPTORS, 0x21);
    this.store(DATA, this.mfnAt(DESCRIPTORS));
    const results = [
      this.hypercall(Call.setGdt, DATA, 6),
      mapping(PROGRAM, 0x67),
      this.hypercall(Call.stackSwitch, Selector.kernelData, STACK),
      this.hypercall(
        Call.setCallbacks,
        Selector.kernelCode,
        CODE + Place.eventHandler,
        Selector.kernelCode,
        CODE + Place.failsafeHandler,
      ),
    ];
    // Vector 13 masks events, 14 does not.
    this.store(DATA, 0x0008_040d, CODE + Place.trapHandler, 0x0008_000e, CODE + Place.trapHandler, 0, 0);
    results.push(this.hypercall(Call.setTrapTable, DATA));
    if (results.some((result) => result !== 0)) throw new Error(`the kernel was refused: ${results.join()}`);
  }

  /** Leaves for a program by the iret hypercall. */
  enterProgram(place: ProgramPlace, until: number, flags = 0x200): void {
    this.processor.set(Register.rsp, STACK - 24, 0);
    this.store(STACK - 24, 0x1234, PROGRAM + place, Selector.userCode, flags, PROGRAM + PAGE_SIZE, Selector.userData);
    this.processor.set(Register.rax, Call.iret, 0);
    this.run(CODE + Place.call, until);
  }

  get segments(): readonly [cs: number, ss: number] {
    return [this.selector(SegmentRegister.cs), this.selector(SegmentRegister.ss)];
  }
}
