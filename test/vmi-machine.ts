import type { SystemResult } from '../src/cpu/operands.ts';
import { VirtualClock } from '../src/domain/clock.ts';
import type { HostCall } from '../src/interfaces/vmi/host-call.ts';
import { UpdateQueues, VmiInterface } from '../src/interfaces/vmi/vmi-interface.ts';
import { MicrovmDomain } from '../src/microvm/domain.ts';
import { createGuestDevices } from '../src/microvm/guest-devices.ts';
import type { MicrovmVcpu } from '../src/microvm/vcpu.ts';
import { type GuestVirtual, PAGE_SIZE, type Pfn } from '../src/x86/brand.ts';
import { Cr0, Cr4, Pte, Register } from '../src/x86/registers.ts';
import { PAGES, ShadowWorld } from './shadow-world.ts';
import { group } from './small-host.ts';

/** Most shadow pages of the machine. */
export const SHADOW_PAGES = 16;

/** Null, unused, flat code, flat data. */
export const FLAT = [0, 0, 0, 0, 0xffff, 0x00cf_9b00, 0xffff, 0x00cf_9300];
export const CODE = 0x10;
export const DATA = 0x18;

export const STACK = 0x9000;
/** The page of the kernel's root. */
export const ROOT = 12;
const ROOT_ENTRIES = 1024;
/** Where nothing is mapped. */
export const UNMAPPED = 0x4000_0000;

/** What a call is made with; the stack's words are those behind the registers. */
export interface Arguments {
  readonly eax?: number;
  readonly edx?: number;
  readonly ecx?: number;
  readonly stack?: readonly number[];
  readonly esp?: number;
}

/** What domains of tests have in common: two processors, and nobody who listens. */
export function bareMachine() {
  const none = (): void => {};
  return {
    id: 1,
    vcpus: 2,
    random: none,
    consoleSink: none,
    ...createGuestDevices({ commandLine: '' }, 1, none, none),
    exactTurns: true,
    profiler: undefined,
    symbolize: () => undefined,
  };
}

/**
 * A machine with the VMI interface, two processors and little memory, all of it there. Its kernel has no code: tests make
 * its calls, as the ROM would.
 */
export class VmiMachine {
  readonly world: ShadowWorld;
  readonly queues: UpdateQueues;
  readonly domain: MicrovmDomain;
  readonly vmi: VmiInterface;
  /** System time. */
  now = 0;

  private constructor(world: ShadowWorld) {
    this.world = world;
    const { paging } = world;
    const queues = new UpdateQueues(paging);
    this.queues = queues;
    const clock = new VirtualClock(() => 0);
    clock.now = () => this.now;
    this.domain = new MicrovmDomain({
      ...bareMachine(),
      group,
      paging,
      createInterface: (domain) => new VmiInterface(domain, queues),
      translationsOf: (vcpu, own) => queues.translations(vcpu, own),
      clock,
      wallclock: { seconds: 1_000_000_000, nanoseconds: 5 },
    });
    this.vmi = this.domain.interface as VmiInterface;
  }

  /** The first processor is as a boot loader leaves it. */
  static async create(): Promise<VmiMachine> {
    const world = await ShadowWorld.create('two-level', SHADOW_PAGES);
    for (let page = 0; page < PAGES; page++) await world.present(page, true);
    const machine = new VmiMachine(world);
    machine.vcpu.enter({ rip: 0x1000 as GuestVirtual, root: undefined, descriptors: FLAT });
    return machine;
  }

  /** It cannot be used any more. */
  async end(): Promise<void> {
    for (const { processor } of this.domain.vcpus) group.release(processor);
    this.vmi.release();
    await this.world.end();
  }

  get vcpu(): MicrovmVcpu {
    return this.domain.running;
  }

  get other(): MicrovmVcpu {
    return this.domain.vcpus[1] as MicrovmVcpu; // there are two
  }

  poke(address: number, value: number, vcpu = this.vcpu): void {
    vcpu.processor.memory.writeWord(address as GuestVirtual, value);
  }

  peek(address: number, vcpu = this.vcpu): number {
    return vcpu.processor.memory.readWord(address as GuestVirtual);
  }

  /** Tables of two levels in which everything is where it is, but for a hole. */
  switchPagingOn(vcpu = this.vcpu): void {
    for (let index = 0; index < ROOT_ENTRIES; index++) {
      const entry = index << 22 === UNMAPPED ? 0 : (index << 22) | Pte.present | Pte.writable | Pte.large;
      this.poke(ROOT * PAGE_SIZE + index * 4, entry >>> 0);
    }
    const { cpu, mmu } = this.domain.operations;
    cpu.writeCr4(vcpu.index, Cr4.pageSizeExtensions);
    mmu.writeCr3(vcpu.index, ROOT as Pfn, false, false);
    cpu.writeCr0(vcpu.index, (Cr0.protection | Cr0.extensionType | Cr0.writeProtect | Cr0.paging) >>> 0);
  }

  /** The stack has EBX and the return address in front of what the kernel left there. */
  call(number: HostCall | number, args: Arguments = {}): SystemResult {
    const { eax = 0, edx = 0, ecx = 0, stack = [], esp = STACK } = args;
    const { processor } = this.vcpu;
    for (const [index, word] of stack.entries()) this.poke(esp + 8 + index * 4, word);
    processor.set(Register.rax, eax, 0);
    processor.set(Register.rdx, edx, 0);
    processor.set(Register.rcx, ecx, 0);
    processor.set(Register.rbx, number, 0);
    processor.set(Register.rsp, esp, 0);
    return this.vmi.hypercall(this.vcpu);
  }

  get eax(): number {
    return this.vcpu.processor.low(Register.rax);
  }

  get edx(): number {
    return this.vcpu.processor.low(Register.rdx);
  }
}
