import type { Archive } from '../../archive/archive.ts';
import { bits, type CpuidResult } from '../../cpu/cpuid.ts';
import { Access } from '../../cpu/exits.ts';
import { SystemResult } from '../../cpu/operands.ts';
import type { Processor } from '../../cpu/processor.ts';
import { layoutOfTask } from '../../cpu/protection/task-layout.ts';
import type { TableFormat, Translation } from '../../cpu/translation.ts';
import type { Caller } from '../../inspect/live-table-observer.ts';
import { plainCpuid } from '../../microvm/cpuid.ts';
import type { MicrovmDomain } from '../../microvm/domain.ts';
import type { MicrovmInterface } from '../../microvm/interface.ts';
import { Physical } from '../../microvm/layout.ts';
import type { MicrovmVcpu } from '../../microvm/vcpu.ts';
import type { NestedPaging } from '../../paging/nested/nested-paging.ts';
import { type GuestPhysical, type GuestVirtual, PAGE_SIZE, type Pfn } from '../../x86/brand.ts';
import { Cr4, Register } from '../../x86/registers.ts';
import { VcpuClock } from './clock.ts';
import type { DirectTables } from './direct-tables.ts';
import { HOST_CALL_NAMES, type HostCall } from './host-call.ts';
import { DIRECT_HOST_CALLS, HOST_CALLS, type VmiHost } from './host-calls.ts';
import { LinearMappings } from './linear-mappings.ts';
import { type DrainReason, QueueStatistics } from './queue-statistics.ts';
import { createRom, type Rom } from './rom.ts';
import { StartState } from './start-state.ts';
import { explainUntold } from './untold-stores.ts';
import { UpdateQueue } from './update-queue.ts';

const WORD = 4;

/** CPUID leaf 1, EDX: PSE and PGE, of which direct paging knows nothing. */
const LARGE_AND_GLOBAL_PAGES = bits(3, 13);

/**
 * The queues of a guest's processors. They stand between these and the shadows, so that they are made before both the
 * processors and the interface. Without shadows there are none, and kernels keep their native operations.
 */
export class UpdateQueues {
  readonly statistics = new QueueStatistics();
  readonly #paging: NestedPaging;
  readonly #queues: UpdateQueue[] = [];

  constructor(paging: NestedPaging) {
    this.#paging = paging;
  }

  /** Puts a queue into what the walks of a processor go through. @throws OutOfFrames */
  translations(
    vcpu: number,
    own: Readonly<Record<TableFormat, Translation>>,
  ): Readonly<Record<TableFormat, Translation>> {
    const { shadow, space } = this.#paging;
    if (!shadow) return own;
    const queue = new UpdateQueue(shadow, space.pool, this.statistics);
    this.#queues[vcpu] = queue;
    // There is no VMI in 64-bit mode.
    return { ...own, 'two-level': { ...own['two-level'], shadow: queue }, pae: { ...own.pae, shadow: queue } };
  }

  get all(): readonly UpdateQueue[] {
    return this.#queues;
  }

  of(vcpu: MicrovmVcpu): UpdateQueue | undefined {
    return this.#queues[vcpu.index];
  }
}

/**
 * VMI. A kernel that does not look for the ROM finds plain hardware. One that does calls the ROM's code (rom-code.ts), and
 * this does what that code asks the host for.
 */
export class VmiInterface implements MicrovmInterface, VmiHost {
  readonly hypercallNames = HOST_CALL_NAMES;
  readonly rom: Uint8Array;
  readonly #entryCode: Rom['entryCode'];
  readonly domain: MicrovmDomain;
  readonly mappings = new LinearMappings();
  readonly tables: DirectTables | undefined;
  readonly #queues: UpdateQueues;
  readonly #clocks: readonly VcpuClock[];
  readonly #startStates: readonly StartState[];

  /** @param tables with direct paging; then there are no queues */
  constructor(domain: MicrovmDomain, queues: UpdateQueues, tables?: DirectTables) {
    this.domain = domain;
    this.#queues = queues;
    this.tables = tables;
    const {
      image,
      entryCode,
      numbers = 0,
    } = createRom(tables ? 'direct' : queues.all.length > 0 ? 'shadow' : 'native');
    tables?.begin(domain, this.mappings, (Physical.optionRom + numbers) as GuestPhysical);
    this.rom = image;
    this.#entryCode = entryCode;
    this.#clocks = domain.vcpus.map(() => new VcpuClock(() => domain.clock.now()));
    this.#startStates = domain.vcpus.map(() => new StartState());
    for (const vcpu of domain.vcpus) {
      const queue = queues.of(vcpu);
      if (queue) queue.onChange = (entry) => this.#changed(vcpu, entry);
    }
  }

  archive(archive: Archive): void {
    archive.part('mappings', this.mappings);
    archive.parts('queues', this.#queues.all);
    if (this.tables) archive.part('tables', this.tables);
    archive.parts('clocks', this.#clocks);
    archive.parts('startStates', this.#startStates);
  }

  cpuid(leaf: number, subleaf: number, vcpu: number): CpuidResult {
    const result = plainCpuid(leaf, subleaf, vcpu);
    if (!this.tables || leaf !== 1) return result;
    const [eax, ebx, ecx, edx] = result;
    return [eax, ebx, ecx, (edx & ~LARGE_AND_GLOBAL_PAGES) >>> 0];
  }

  readMsr(): boolean {
    return false;
  }

  writeMsr(): boolean | undefined {
    return undefined;
  }

  // Calls

  hypercall(vcpu: MicrovmVcpu): SystemResult {
    const { processor } = vcpu;
    const isKernel = processor.privilege === 0 && processor.codeSize === 32;
    const number = processor.low(Register.rbx);
    const found = HOST_CALLS.get(number as HostCall) ?? (this.tables && DIRECT_HOST_CALLS.get(number as HostCall));
    const handler = isKernel ? found : undefined;
    if (!handler) return SystemResult.interface;
    const result = handler(this, vcpu) ? SystemResult.done : SystemResult.fault;
    // One that meets an absent page is made again.
    this.domain.statistics.hypercall(number);
    return result;
  }

  clockOf(vcpu: MicrovmVcpu): VcpuClock {
    return this.#clocks[vcpu.index] as VcpuClock; // one for each
  }

  startStateOf(vcpu: MicrovmVcpu): StartState {
    return this.#startStates[vcpu.index] as StartState; // one for each
  }

  open(): void {
    this.tables?.adopt();
    for (const queue of this.#queues.all) queue.open();
  }

  // Page tables

  drain(vcpu: MicrovmVcpu, reason: DrainReason): void {
    this.#queues.of(vcpu)?.drain(reason);
  }

  /** An entry has changed, by its linear address. */
  #changed({ index, processor }: MicrovmVcpu, entry: GuestVirtual): void {
    const { paging, operations } = this.domain;
    const page = this.mappings.pageOf(entry);
    // A place that the kernel has not told of: what it changed may be anywhere.
    if (page < 0 || page >= paging.pages) paging.shadow?.dropAll();
    else {
      const bytes = (processor.cr4 & Cr4.physicalAddressExtension) === 0 ? 4 : 8;
      operations.mmu.pteUpdate(index, -1 as Pfn, entry, page, Math.floor((entry % PAGE_SIZE) / bytes));
    }
  }

  explain(reason: string): string {
    for (const vcpu of this.domain.vcpus) this.drain(vcpu, 'turn');
    return explainUntold(reason, this.domain.paging.shadow?.findUntold());
  }

  callerOf(processor: Processor): Caller | undefined {
    const { memory, rip } = processor;
    const { group, paging } = this.domain;
    const code = memory.translate(rip, Access.fetch);
    if (code < 0 || this.#entryCode.length === 0) return undefined;
    const { pool } = group.parts;
    for (let start = 0; start < this.rom.length; start += PAGE_SIZE) {
      if (paging.space.frames[(Physical.optionRom + start) / PAGE_SIZE] !== pool.frameAt(code)) continue;
      const offset = start + (code % PAGE_SIZE);
      const found = this.#entryCode.find(({ from, to }) => offset >= from && offset < to);
      if (!found) return undefined;
      const returnAddress = memory.readWord((processor.low(Register.rsp) + found.pushed * WORD) as GuestVirtual);
      return { address: (returnAddress - 1) as GuestVirtual, isRead: found.isRead };
    }
    return undefined;
  }

  /** Kernels of that age have a stack for each thread, and the running one's in the task, for ring 0. */
  threadAt({ state }: MicrovmVcpu): GuestVirtual | undefined {
    const { type, base } = state.task;
    return type === 0 ? undefined : ((base + layoutOfTask(type).innerStacks) as GuestVirtual);
  }

  // Turns and interrupts

  resume(vcpu: MicrovmVcpu): void {
    this.tables?.resume();
    this.clockOf(vcpu).resume();
  }

  /** Other processors share the shadows: when they run, nothing waits. */
  suspend(vcpu: MicrovmVcpu): void {
    this.drain(vcpu, 'turn');
    this.clockOf(vcpu).suspend(!vcpu.isIdle);
  }

  refresh(): void {}

  acknowledged(): void {}

  reset(vcpu: MicrovmVcpu): void {
    this.clockOf(vcpu).cancelAll();
  }

  startUp(vcpu: MicrovmVcpu): boolean {
    return this.startStateOf(vcpu).enter(vcpu);
  }

  get deadline(): number {
    return Math.min(...this.#clocks.map((clock) => clock.deadline));
  }

  expire(): void {
    for (const [index, clock] of this.#clocks.entries()) {
      for (const alarm of clock.expire()) {
        if (alarm.atLocalTimer) this.domain.vcpus[index]?.apic.raiseTimer();
        else this.domain.raiseTick();
      }
    }
  }

  get figures(): object {
    if (this.tables) return { directPaging: this.tables.paging.statistics() };
    return this.#queues.all.length === 0 ? {} : { vmiQueue: this.#queues.statistics.report() };
  }

  release(): void {
    for (const queue of this.#queues.all) queue.release(this.domain.group);
    this.tables?.release();
  }
}
