import type { Archive, Archived } from '../../archive/archive.ts';
import { bits, type CpuidResult, word } from '../../cpu/cpuid.ts';
import { SystemResult } from '../../cpu/operands.ts';
import { VirtualClock } from '../../domain/clock.ts';
import { publishVcpuTime, VcpuTime, VcpuTimeFlag } from '../../domain/pvclock.ts';
import { machineCpuid } from '../../microvm/cpuid.ts';
import type { MicrovmDomain } from '../../microvm/domain.ts';
import type { MicrovmInterface } from '../../microvm/interface.ts';
import type { MicrovmVcpu } from '../../microvm/vcpu.ts';
import { Register } from '../../x86/registers.ts';
import {
  CPUID_BASE,
  CPUID_FEATURES,
  Feature,
  HYPERCALL_NAMES,
  Hypercall,
  HypercallError,
  Msr,
  Wallclock,
} from './abi.ts';
import { EndOfInterruptArea } from './end-of-interrupt.ts';
import { GuestArea } from './guest-area.ts';
import { carryOutRecords } from './mmu-operations.ts';
import { StealTimeArea } from './steal-time.ts';

/**
 * The KVM interface: hardware as of the native one, with a clock, steal time, cheap ends of interrupts and flushes of
 * other processors' TLBs added. Asynchronous page faults are not offered.
 */
const FEATURES = bits(
  Feature.clock,
  Feature.noIoDelay,
  Feature.clockNumbers2,
  Feature.stealTime,
  Feature.endOfInterrupt,
  Feature.flushTlb,
  Feature.clockStable,
);

/** The leaf of features, of a host that keeps shadows of page tables or does not. */
export function offeredFeatures(keepsShadows: boolean): number {
  return keepsShadows ? FEATURES | bits(Feature.mmuOperations) : FEATURES;
}

const MAXIMUM_LEAF = 7;
const ENABLED = 1;
/** Bits of an address that the guest names. */
const ADDRESS_LIMIT = 2 ** 40;

const CLOCK_ALIGNMENT = 4;

/** What one virtual processor has named. */
class Areas implements Archived {
  readonly time: GuestArea;
  readonly stealTime: StealTimeArea;
  readonly endOfInterrupt: EndOfInterruptArea;
  /** The registers as they were last written, by number: low and high half. */
  readonly written = new Map<number, readonly [low: number, high: number]>();

  constructor(domain: MicrovmDomain) {
    this.time = new GuestArea(domain, VcpuTime.size, CLOCK_ALIGNMENT);
    this.stealTime = new StealTimeArea(domain);
    this.endOfInterrupt = new EndOfInterruptArea(domain);
  }

  archive(archive: Archive): void {
    archive.part('time', this.time);
    archive.part('stealTime', this.stealTime);
    archive.part('endOfInterrupt', this.endOfInterrupt);
    archive.map('written', this.written);
  }
}

export function createKvmInterface(domain: MicrovmDomain): MicrovmInterface {
  return new KvmInterface(domain);
}

class KvmInterface implements MicrovmInterface {
  readonly hypercallNames = HYPERCALL_NAMES;
  readonly #domain: MicrovmDomain;
  readonly #wallclock: GuestArea;
  readonly #areas: Areas[] = [];

  constructor(domain: MicrovmDomain) {
    this.#domain = domain;
    this.#wallclock = new GuestArea(domain, Wallclock.size, CLOCK_ALIGNMENT);
    this.#areas = domain.vcpus.map(() => new Areas(domain));
  }

  archive(archive: Archive): void {
    archive.part('wallclock', this.#wallclock);
    archive.parts('areas', this.#areas);
  }

  #of(vcpu: MicrovmVcpu): Areas {
    return this.#areas[vcpu.index] as Areas; // one for each
  }

  cpuid(leaf: number, subleaf: number, vcpu: number): CpuidResult {
    switch (leaf) {
      case CPUID_BASE:
        return [CPUID_FEATURES, word('KVMK'), word('VMKV'), word('M\0\0\0')];
      case CPUID_FEATURES:
        return [offeredFeatures(this.#offersMmuOperations), 0, 0, 0];
      default:
        return machineCpuid(leaf, subleaf, vcpu, MAXIMUM_LEAF);
    }
  }

  // Registers

  readMsr(vcpu: MicrovmVcpu, register: number, out: Uint32Array): boolean {
    if (!WRITERS.has(register)) return false;
    out.set(this.#of(vcpu).written.get(register) ?? [0, 0]);
    return true;
  }

  writeMsr(vcpu: MicrovmVcpu, register: number, low: number, high: number): boolean | undefined {
    const writer = WRITERS.get(register);
    if (!writer) return undefined;
    const value = high * 0x1_0000_0000 + low;
    if (value >= ADDRESS_LIMIT || !writer(this, vcpu, value)) return false;
    this.#of(vcpu).written.set(register, [low, high]);
    return true;
  }

  /** Unix time at system time 0, written once for each time that the guest asks. */
  writeWallclock(physical: number): boolean {
    const area = this.#wallclock;
    if (!area.name(physical)) return false;
    const { address } = area;
    if (address < 0) return true;
    const { view } = area.memory;
    const { seconds, nanoseconds } = this.#domain.wallclock;
    const odd = (view.getUint32(address + Wallclock.version, true) | 1) >>> 0;
    view.setUint32(address + Wallclock.version, odd, true);
    view.setUint32(address + Wallclock.seconds, seconds, true);
    view.setUint32(address + Wallclock.nanoseconds, nanoseconds, true);
    view.setUint32(address + Wallclock.version, (odd + 1) >>> 0, true);
    area.written();
    return true;
  }

  /** The clock's page part; the counter is the clock, so that what is written once stays true. */
  nameSystemTime(vcpu: MicrovmVcpu, value: number): boolean {
    const { time } = this.#of(vcpu);
    if (!nameOrForget(time, value)) return false;
    this.#publish(time, VcpuTimeFlag.tscStable);
    return true;
  }

  #publish(time: GuestArea, flags: number): void {
    const { address } = time;
    if (address < 0) return;
    publishVcpuTime(time.memory, address, this.#domain.clock, flags);
    time.written();
  }

  noteAbsence(): void {
    const { clock } = this.#domain;
    if (clock instanceof VirtualClock) return;
    clock.advanceTo(Number.POSITIVE_INFINITY);
    for (const { time } of this.#areas) this.#publish(time, VcpuTimeFlag.tscStable | VcpuTimeFlag.guestStopped);
  }

  nameStealTime(vcpu: MicrovmVcpu, value: number): boolean {
    return nameOrForget(this.#of(vcpu).stealTime.area, value);
  }

  nameEndOfInterrupt(vcpu: MicrovmVcpu, value: number): boolean {
    const { endOfInterrupt } = this.#of(vcpu);
    endOfInterrupt.refresh(vcpu.apic);
    endOfInterrupt.forget();
    return nameOrForget(endOfInterrupt.area, value);
  }

  /** Changes of page tables are the only hypercall of a feature that is offered, where the host keeps shadows. */
  hypercall(vcpu: MicrovmVcpu): SystemResult {
    const { processor } = vcpu;
    const number = processor.low(Register.rax);
    this.#domain.statistics.hypercall(number);
    const result =
      processor.privilege !== 0
        ? HypercallError.notPermitted
        : number === Hypercall.mmuOperations && this.#offersMmuOperations
          ? this.#mmuOperations(vcpu)
          : HypercallError.unknown;
    processor.setValue(Register.rax, result);
    return SystemResult.done;
  }

  get #offersMmuOperations(): boolean {
    return this.#domain.paging.shadow !== undefined;
  }

  /** In 64-bit code the address is in one register, else its halves are in two. */
  #mmuOperations(vcpu: MicrovmVcpu): number {
    const { processor } = vcpu;
    const low = processor.low(Register.rcx);
    const high = processor.codeSize === 64 ? processor.high(Register.rcx) : processor.low(Register.rdx);
    return carryOutRecords(this.#domain, vcpu, high * 0x1_0000_0000 + low, processor.low(Register.rbx));
  }

  // Turns and interrupts

  resume(vcpu: MicrovmVcpu): void {
    const flush = this.#of(vcpu).stealTime.resume(this.#domain.clock.now());
    if (flush) vcpu.processor.flushTlb();
  }

  suspend(vcpu: MicrovmVcpu): void {
    this.#of(vcpu).stealTime.suspend(this.#domain.clock.now(), !vcpu.isIdle);
  }

  refresh(vcpu: MicrovmVcpu): void {
    this.#of(vcpu).endOfInterrupt.refresh(vcpu.apic);
  }

  acknowledged(vcpu: MicrovmVcpu, vector: number): void {
    this.#of(vcpu).endOfInterrupt.acknowledged(vcpu.apic, vector);
  }

  reset(vcpu: MicrovmVcpu): void {
    const { time, stealTime, endOfInterrupt, written } = this.#of(vcpu);
    time.forget();
    stealTime.area.forget();
    endOfInterrupt.forget();
    written.clear();
  }
}

/** A register that names an area holds its address, and in bit 0 whether it is in use. */
function nameOrForget(area: GuestArea, value: number): boolean {
  if (value % 2 === ENABLED) return area.name(value - ENABLED);
  area.forget();
  return true;
}

type Writer = (own: KvmInterface, vcpu: MicrovmVcpu, value: number) => boolean;

const writeWallclock: Writer = (own, _vcpu, value) => own.writeWallclock(value);
const nameSystemTime: Writer = (own, vcpu, value) => own.nameSystemTime(vcpu, value);

const WRITERS: ReadonlyMap<number, Writer> = new Map<number, Writer>([
  [Msr.wallclock, writeWallclock],
  [Msr.oldWallclock, writeWallclock],
  [Msr.systemTime, nameSystemTime],
  [Msr.oldSystemTime, nameSystemTime],
  [Msr.stealTime, (own, vcpu, value) => own.nameStealTime(vcpu, value)],
  [Msr.endOfInterrupt, (own, vcpu, value) => own.nameEndOfInterrupt(vcpu, value)],
]);
