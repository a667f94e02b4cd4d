import type { SystemResult } from '../src/cpu/operands.ts';
import { ProcessorGroup } from '../src/cpu/processor.ts';
import { VirtualClock } from '../src/domain/clock.ts';
import { Call } from '../src/interfaces/vmi/abi.ts';
import { DirectTables } from '../src/interfaces/vmi/direct-tables.ts';
import { PrivateCall } from '../src/interfaces/vmi/host-call.ts';
import { UpdateQueues, VmiInterface } from '../src/interfaces/vmi/vmi-interface.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MicrovmDomain } from '../src/microvm/domain.ts';
import type { FrameType } from '../src/paging/direct/frame-types.ts';
import { createLinearPaging } from '../src/paging/native/linear-paging.ts';
import type { NestedPaging } from '../src/paging/nested/nested-paging.ts';
import { type GuestVirtual, type Mfn, PAGE_SIZE, type Pfn } from '../src/x86/brand.ts';
import { Cr0, Cr4, Register } from '../src/x86/registers.ts';
import { bareMachine, FLAT, STACK } from './vmi-machine.ts';

/**
 * A kernel without code whose tables direct paging carries out. It has its memory in a row at KERNEL, and at 0 as well:
 *
 *   page 12   top table; entries 0 and 3 lead to 13
 *   page 13   level 2; entry 0 leads to 14
 *   page 14   level 1; maps all pages
 *   page 20…  free
 */
export const PAGES = 256;
export const KERNEL = 0xc000_0000;
export const [ROOT, DIRECTORY, TABLE, FREE] = [12, 13, 14, 20];
export const PRESENT = 0x63;
/** Of CR0. */
export const PAGING = (Cr0.protection | Cr0.extensionType | Cr0.writeProtect | Cr0.paging) >>> 0;

const memory = new HostMemory((4 * PAGES + 64) * PAGE_SIZE + (40 << 20));
export const group = new ProcessorGroup(memory, new FramePool(memory, 4 * PAGES), {
  tlbEntries: 64,
  codeBytes: 1 << 20,
});

export class DirectMachine {
  readonly paging: NestedPaging;
  readonly tables: DirectTables;
  readonly domain: MicrovmDomain;
  readonly vmi: VmiInterface;

  /** @param usesMachineFrames whether its kernel reads entries by GetPxELong; @param check whether contracts are checked */
  constructor(
    readonly usesMachineFrames = false,
    check = false,
  ) {
    const paging = createLinearPaging(group.parts.pool, group, PAGES);
    const tables = new DirectTables({ memory: paging, group, vcpus: 2 });
    this.paging = paging;
    this.tables = tables;
    this.domain = new MicrovmDomain({
      ...bareMachine(),
      check,
      group,
      paging,
      createInterface: (domain) => new VmiInterface(domain, new UpdateQueues(paging), tables),
      translationsOf: (vcpu, own) => tables.translations(vcpu, own),
      clock: new VirtualClock(() => 0),
      wallclock: { seconds: 0, nanoseconds: 0 },
    });
    this.vmi = this.domain.interface as VmiInterface;
    this.vcpu.enter({ rip: 0x1000 as GuestVirtual, root: undefined, descriptors: FLAT });
    this.put(ROOT, 0, DIRECTORY * PAGE_SIZE + 1);
    this.put(ROOT, 3, DIRECTORY * PAGE_SIZE + 1);
    this.put(DIRECTORY, 0, TABLE * PAGE_SIZE + PRESENT);
    for (let page = 0; page < PAGES; page++) this.put(TABLE, page, page * PAGE_SIZE + PRESENT);
  }

  async end(): Promise<void> {
    for (const { processor } of this.domain.vcpus) group.release(processor);
    this.vmi.release();
    await this.paging.destroy();
  }

  get vcpu() {
    return this.domain.running;
  }

  /** Stores an entry where it lies, for a kernel that has no paging yet. */
  put(page: number, index: number, low: number): void {
    const word = (this.paging.space.addressOf(page as Mfn) >>> 2) + index * 2;
    memory.u32[word] = low;
    memory.u32[word + 1] = 0;
  }

  poke(physical: number, value: number): void {
    memory.u32[(this.paging.space.addressOf(0 as Mfn) + physical) >>> 2] = value;
  }

  peek(physical: number): number {
    return memory.u32[(this.paging.space.addressOf(0 as Mfn) + physical) >>> 2] as number;
  }

  low(page: number, index: number): number {
    return memory.u32[(this.paging.space.addressOf(page as Mfn) >>> 2) + index * 2] as number;
  }

  high(page: number, index: number): number {
    return memory.u32[(this.paging.space.addressOf(page as Mfn) >>> 2) + index * 2 + 1] as number;
  }

  /** The ROM is adopted, and the linear mapping told. */
  tell(): void {
    this.call(PrivateCall.initialise);
    if (this.usesMachineFrames) this.call(PrivateCall.useMachineFrames);
    this.put(STACK / PAGE_SIZE, 1, 0);
    this.call(Call.setLinearMapping, { edx: KERNEL, ecx: PAGES });
  }

  /** And paging begins. */
  begin(root = ROOT * PAGE_SIZE, cr4: number = Cr4.physicalAddressExtension): void {
    this.tell();
    const { cpu } = this.domain.operations;
    cpu.writeCr4(0, cr4);
    this.vcpu.state.cr3 = root;
    cpu.writeCr0(0, PAGING);
  }

  call(number: number, { eax = 0, edx = 0, ecx = 0 } = {}): SystemResult {
    const { processor } = this.vcpu;
    for (const [register, value] of [
      [Register.rax, eax],
      [Register.rdx, edx],
      [Register.rcx, ecx],
      [Register.rbx, number],
      [Register.rsp, STACK],
    ] as const) {
      processor.set(register, value, 0);
    }
    return this.vmi.hypercall(this.vcpu);
  }

  /** SetPxELong, by the place of the entry. */
  set(table: number, index: number, low: number, high = 0): SystemResult {
    return this.call(Call.setEntryLong, { eax: low, edx: high, ecx: KERNEL + table * PAGE_SIZE + index * 8 });
  }

  announce(page: number, level: number): SystemResult {
    return this.call(Call.allocatePage, { eax: page, edx: level });
  }

  retract(page: number, level: number): SystemResult {
    return this.call(Call.releasePage, { eax: page, edx: level });
  }

  /** A store of the kernel's. @returns 0, or why it left its code */
  store(address: number, low: number, high = 0): boolean {
    const { processor } = this.vcpu;
    processor.setStoredValue(low >>> 0, high);
    return processor.memory.storeAt(address as GuestVirtual, 8);
  }

  load(root: number): void {
    this.domain.operations.mmu.writeCr3(0, root as Pfn, false, false);
  }

  typeOf(page: number): FrameType {
    return this.tables.paging.typeOf(page as Mfn);
  }

  get reason(): string | undefined {
    return this.domain.state.kind === 'crash' ? this.domain.state.reason : undefined;
  }
}
