import { loadStackSlot } from '../../cpu/operands.ts';
import type { MicrovmDomain } from '../../microvm/domain.ts';
import type { MicrovmVcpu } from '../../microvm/vcpu.ts';
import { type GuestVirtual, highWord, lowWord, PAGE_SIZE, type Pfn } from '../../x86/brand.ts';
import { Register } from '../../x86/registers.ts';
import { Call, CLONE, type Cycles, FLUSH_GLOBAL, LEVEL_1 } from './abi.ts';
import type { VcpuClock } from './clock.ts';
import type { DirectTables } from './direct-tables.ts';
import { type HostCall, PrivateCall, STACK_ARGUMENTS } from './host-call.ts';
import type { LinearMappings } from './linear-mappings.ts';
import type { DrainReason } from './queue-statistics.ts';
import type { StartState } from './start-state.ts';

/** What calls work on. */
export interface VmiHost {
  readonly domain: MicrovmDomain;
  readonly mappings: LinearMappings;
  /** With direct paging. */
  readonly tables: DirectTables | undefined;
  clockOf(vcpu: MicrovmVcpu): VcpuClock;
  startStateOf(vcpu: MicrovmVcpu): StartState;
  /** The kernel uses the ROM from here on. */
  open(): void;
  drain(vcpu: MicrovmVcpu, reason: DrainReason): void;
}

/** False with an exception left for the caller, when its stack or what it names cannot be read. @throws PageAbsent */
type Handler = (host: VmiHost, vcpu: MicrovmVcpu) => boolean;

/** Of an entry with PAE. */
const ENTRY_BYTES = 8;

const FOUR_GIB = 0x1_0000_0000;

/** Answer of UseMachineFrames to a kernel that comes with it too late. */
const ALREADY_EXAMINED = 1;

const eax = ({ processor }: MicrovmVcpu): number => processor.low(Register.rax);
const edx = ({ processor }: MicrovmVcpu): number => processor.low(Register.rdx);
const ecx = ({ processor }: MicrovmVcpu): number => processor.low(Register.rcx);

/** An argument behind those in registers; undefined with an exception left. */
const stacked = ({ processor }: MicrovmVcpu, number: number): number | undefined => {
  const word = loadStackSlot(processor, (STACK_ARGUMENTS + number) * 4, 4);
  return word === undefined ? undefined : word >>> 0;
};

const pair = new Uint32Array(2);

function answer({ processor }: MicrovmVcpu, value: number): void {
  processor.set(Register.rax, value >>> 0, 0);
}

/** @param value a whole number from 0 to 2^53 */
function answerLong(vcpu: MicrovmVcpu, value: number): void {
  answer(vcpu, lowWord(value));
  vcpu.processor.set(Register.rdx, highWord(value), 0);
}

/** One that can be carried out whatever its arguments are. */
const always =
  (carryOut: (host: VmiHost, vcpu: MicrovmVcpu) => void): Handler =>
  (host, vcpu) => {
    carryOut(host, vcpu);
    return true;
  };

const drain = (reason: DrainReason): Handler => always((host, vcpu) => host.drain(vcpu, reason));

export const HOST_CALLS: ReadonlyMap<HostCall, Handler> = new Map<HostCall, Handler>([
  [
    PrivateCall.initialise,
    always((host, vcpu) => {
      host.open();
      answer(vcpu, 0);
    }),
  ],
  [PrivateCall.drainFull, drain('full')],
  [PrivateCall.drainLazy, drain('lazy')],

  // Registers
  [
    Call.getDebug,
    always(({ domain }, vcpu) => {
      domain.operations.cpu.getDebugreg(vcpu.index, eax(vcpu) & 7, pair);
      answer(vcpu, pair[0] as number);
    }),
  ],
  [
    Call.setDebug,
    always(({ domain }, vcpu) => void domain.operations.cpu.setDebugreg(vcpu.index, eax(vcpu) & 7, edx(vcpu), 0)),
  ],
  [
    Call.apicRead,
    always(({ domain }, vcpu) => answer(vcpu, domain.operations.apic.apicRead(vcpu.index, eax(vcpu) & 0xfff))),
  ],
  [
    Call.apicWrite,
    // Drafts passed a pointer to the register, and not its offset.
    always(({ domain }, vcpu) => domain.operations.apic.apicWrite(vcpu.index, eax(vcpu) & 0xfff, edx(vcpu))),
  ],

  // Page tables
  [Call.allocatePage, always(allocatePage)],
  [Call.releasePage, always(releasePage)],
  [
    Call.flushTlb,
    always(({ domain }, vcpu) => {
      const { mmu } = domain.operations;
      if ((eax(vcpu) & FLUSH_GLOBAL) === 0) mmu.flushTlbUser(vcpu.index);
      else mmu.flushTlbKernel(vcpu.index);
    }),
  ],
  [Call.setLinearMapping, setLinearMapping],

  // Processors
  [Call.setInitialApState, setInitialApState],
  [Call.reboot, always(({ domain }) => domain.restart())],
  [Call.shutDown, always(({ domain }) => domain.powerOff())],

  // Time
  [Call.getCycleCounter, always((host, vcpu) => answerLong(vcpu, host.clockOf(vcpu).read(eax(vcpu) as Cycles)))],
  [Call.setAlarm, setAlarm],
  [Call.cancelAlarm, always((host, vcpu) => host.clockOf(vcpu).cancelAlarm(eax(vcpu)))],
  [Call.getWallclock, always(getWallclock)],
]);

/** What goes to the host with direct paging alone. */
export const DIRECT_HOST_CALLS: ReadonlyMap<HostCall, Handler> = new Map<HostCall, Handler>([
  [
    PrivateCall.useMachineFrames,
    always(({ tables }, vcpu) => answer(vcpu, tables?.useMachineFrames() ? 0 : ALREADY_EXAMINED)),
  ],
  [Call.setEntryLong, setEntryLong],
  [Call.swapEntryLong, swapEntryLong],
]);

function allocatePage({ domain, tables }: VmiHost, vcpu: MicrovmVcpu): void {
  const { mmu } = domain.operations;
  const table = eax(vcpu) as Pfn;
  if (tables && (edx(vcpu) & CLONE) !== 0) {
    tables.announce(vcpu.index, table, 3);
    return;
  }
  if ((edx(vcpu) & LEVEL_1) !== 0) mmu.allocPt(vcpu.index, -1 as Pfn, table);
  else mmu.allocPd(vcpu.index, table);
}

function releasePage({ domain }: VmiHost, vcpu: MicrovmVcpu): void {
  const { mmu } = domain.operations;
  const table = eax(vcpu) as Pfn;
  if ((edx(vcpu) & LEVEL_1) !== 0) mmu.releasePt(vcpu.index, table);
  else mmu.releasePd(vcpu.index, table);
}

/** The page that the entry at ECX stands in; −1 until tables are examined, and where there is none: it is memory then. */
function pageOfEntry({ domain, tables }: VmiHost, vcpu: MicrovmVcpu): number {
  const pointer = ecx(vcpu) as GuestVirtual;
  const page = tables?.isLive && pointer % ENTRY_BYTES === 0 ? tables.pageOf(vcpu.index, pointer) : -1;
  return page < domain.paging.pages ? page : -1;
}

/** EDX:EAX goes to ECX. */
function setEntryLong(host: VmiHost, vcpu: MicrovmVcpu): boolean {
  const { processor, index } = vcpu;
  const pointer = ecx(vcpu) as GuestVirtual;
  const page = pageOfEntry(host, vcpu);
  if (page < 0) {
    processor.setStoredValue(eax(vcpu), edx(vcpu));
    return processor.memory.storeAt(pointer, ENTRY_BYTES);
  }
  const entry = (pointer % PAGE_SIZE) / ENTRY_BYTES;
  host.domain.operations.mmu.setPte(index, page as Pfn, entry, eax(vcpu), edx(vcpu));
  return true;
}

/** The same, and what was there comes back in EDX:EAX: it is read and replaced in one step of the host. */
function swapEntryLong(host: VmiHost, vcpu: MicrovmVcpu): boolean {
  if (!vcpu.state.load(ecx(vcpu) as GuestVirtual, pair)) return false;
  if (pageOfEntry(host, vcpu) >= 0) host.tables?.showAsStored(pair);
  const [low, high] = pair as unknown as [number, number];
  if (!setEntryLong(host, vcpu)) return false;
  answer(vcpu, low);
  vcpu.processor.set(Register.rdx, high, 0);
  return true;
}

/** What waits was recorded by the mapping that was there before. */
function setLinearMapping(host: VmiHost, vcpu: MicrovmVcpu): boolean {
  const pfn = stacked(vcpu, 0);
  if (pfn === undefined) return false;
  host.drain(vcpu, 'flush');
  host.mappings.set(eax(vcpu), edx(vcpu), ecx(vcpu), pfn);
  return true;
}

function setInitialApState(host: VmiHost, vcpu: MicrovmVcpu): boolean {
  const target = host.domain.vcpus.find(({ apic }) => apic.identifier === edx(vcpu));
  if (!target) return true;
  return host.startStateOf(target).read(eax(vcpu), (address) => vcpu.state.loadWord(address, 4));
}

function setAlarm(host: VmiHost, vcpu: MicrovmVcpu): boolean {
  const low = stacked(vcpu, 0);
  const high = low === undefined ? undefined : stacked(vcpu, 1);
  if (low === undefined || high === undefined) return false;
  host.clockOf(vcpu).setAlarm(eax(vcpu), edx(vcpu) + ecx(vcpu) * FOUR_GIB, low + high * FOUR_GIB);
  return true;
}

function getWallclock({ domain }: VmiHost, vcpu: MicrovmVcpu): void {
  const { seconds, nanoseconds } = domain.wallclock;
  // Nanoseconds since 1970 are beyond what a number holds exactly.
  const time = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds + domain.clock.now());
  answer(vcpu, Number(time & 0xffff_ffffn));
  vcpu.processor.set(Register.rdx, Number((time >> 32n) & 0xffff_ffffn), 0);
}
