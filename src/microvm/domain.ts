import type { Archive, Archived } from '../archive/archive.ts';
import type { KernelImage } from '../boot/kernel.ts';
import type { ProcessorGroup } from '../cpu/processor.ts';
import type { SystemServices } from '../cpu/system.ts';
import type { TableFormat, Translation } from '../cpu/translation.ts';
import { Bus } from '../devices/bus.ts';
import { ResidentMemory } from '../devices/dma/resident-memory.ts';
import { DmaTable } from '../devices/dma/table.ts';
import type { MmioDevice } from '../devices/mmio.ts';
import { ApicBus } from '../devices/pc/apic-bus.ts';
import { IoApic } from '../devices/pc/io-apic.ts';
import { PowerRegister, PowerRegisters } from '../devices/pc/power.ts';
import { RealTimeClock } from '../devices/pc/real-time-clock.ts';
import { SerialPort } from '../devices/pc/serial-port.ts';
import type { ConsoleDevice } from '../devices/virtio/console.ts';
import type { VirtioDevice } from '../devices/virtio/device.ts';
import { type Clock, VirtualClock } from '../domain/clock.ts';
import { DomainCrash } from '../domain/crash.ts';
import type { Domain, DomainState } from '../domain/domain.ts';
import { type DeviceMemoryEvents, HostWaits } from '../domain/host-waits.ts';
import { MOST_EXITS, type TurnBudget, type TurnRest } from '../domain/turn.ts';
import type { TableAudit } from '../inspect/audit.ts';
import { crashReport } from '../inspect/crash-report.ts';
import type { LiveTableObserver } from '../inspect/live-table-observer.ts';
import { observeOwnTables } from '../inspect/own-tables.ts';
import { chooseExecution, type Profiler } from '../inspect/profiler.ts';
import { countInstructions, Statistics, sumTlbCounters } from '../inspect/statistics.ts';
import type { Symbolizer } from '../inspect/text.ts';
import type { MemoryError } from '../mm/errors.ts';
import { createOperations } from '../ops/dispatch.ts';
import { DirtyPages } from '../paging/dirty-pages.ts';
import type { GuestRam } from '../paging/guest-pages.ts';
import type { NestedPaging } from '../paging/nested/nested-paging.ts';
import type { Pager } from '../paging/pager.ts';
import { type Mfn, PAGE_SIZE } from '../x86/brand.ts';
import { Execution } from './execution.ts';
import { GENERATION_BYTES, Generation } from './generation.ts';
import { type ExitWatcher, writeTrace } from './inspection.ts';
import type { MicrovmInterface } from './interface.ts';
import { Physical, Pin, PORT_COUNT, Port, WINDOW_BYTES } from './layout.ts';
import { LegacyDevices } from './legacy-devices.ts';
import { loadGuest } from './loader.ts';
import { implementOperations, type MicrovmOperations } from './operations.ts';
import type { PagedMemory } from './paged-memory.ts';
import { stackNames } from './panic.ts';
import { MicrovmVcpu } from './vcpu.ts';
import { VirtioSlots } from './virtio-slots.ts';

export interface MicrovmOptions {
  readonly id: number;
  readonly vcpus: number;
  readonly group: ProcessorGroup;
  readonly paging: NestedPaging;
  /** Memory whose pages come and go, with that paging; otherwise all pages have frames from the start. */
  readonly paged?: PagedMemory;
  readonly createInterface: (domain: MicrovmDomain) => MicrovmInterface;
  /** What the walks of a processor go through, where the interface has a part in them. */
  readonly translationsOf?: (
    vcpu: number,
    own: Readonly<Record<TableFormat, Translation>>,
  ) => Readonly<Record<TableFormat, Translation>>;
  readonly clock: Clock;
  /** Unix time at system time 0. */
  readonly wallclock: { readonly seconds: number; readonly nanoseconds: number };
  readonly random: (out: Uint32Array<ArrayBuffer>) => void;
  readonly consoleSink: (bytes: Uint8Array) => void;
  /** Whether the guest must stand still, because nobody reads what it prints. */
  readonly outputIsFull?: () => boolean;
  /** In the order in which the guest finds them. */
  readonly devices: readonly VirtioDevice[];
  /** Which of them the user types at; the serial port where there is none. */
  readonly console: ConsoleDevice | undefined;
  /** Takes the trace of operations and exits: whole lines, several at a time. */
  readonly trace?: (text: string) => void;
  /** Turns end after an exact count of instructions, so that virtual time does not depend on how code is executed. */
  readonly exactTurns: boolean;
  readonly profiler?: Profiler | undefined;
  /** Is told what touches live page tables. */
  readonly audit?: TableAudit | undefined;
  /** Checks the contracts of the mmu group; what is broken crashes the guest, or is told to the audit. */
  readonly check?: boolean;
  /** Names for addresses in crash reports. */
  readonly symbolize: Symbolizer;
}

/** What a guest begins with. */
export interface BootImages {
  readonly kernel: KernelImage;
  readonly initrd: Uint8Array;
  readonly commandLine: string;
}

/** One turn. Between turns timers fire and other virtual processors run. */
const TURN: TurnBudget = { instructions: 250_000, exits: MOST_EXITS };

const NEVER = Number.POSITIVE_INFINITY;

/**
 * A guest of the kvm or native interface: its memory, virtual processors and devices, and the loop that runs it. It is
 * built without anything to execute: `boot` loads a kernel, or its state is read back from an archive.
 */
export class MicrovmDomain implements Domain, Archived {
  readonly id: number;
  readonly paging: NestedPaging;
  readonly clock: Clock;
  readonly wallclock: { readonly seconds: number; readonly nanoseconds: number };
  readonly group: ProcessorGroup;
  readonly interface: MicrovmInterface;
  readonly vcpus: MicrovmVcpu[] = [];
  readonly ports = new Bus();
  readonly statistics: Statistics;
  readonly dirtyPages: DirtyPages;
  /** All that the guest can ask for by the catalogue's operations is done through these. */
  readonly operations: MicrovmOperations;
  /** The virtual processor that executes, or did last. */
  running: MicrovmVcpu;
  readonly outputIsFull: () => boolean;
  state: DomainState = { kind: 'running' };
  onWork: () => void = () => {};
  readonly #ioApic: IoApic;
  readonly #legacy: LegacyDevices;
  readonly #generation: Generation;
  readonly #realTimeClock: RealTimeClock;
  readonly #serial: SerialPort;
  readonly #virtio: VirtioSlots;
  readonly #console: ConsoleDevice | undefined;
  readonly #waits: HostWaits<MicrovmVcpu>;
  /** A turn that ended in its midst: with virtual time nothing may happen before a page is there, or room for output. */
  #suspended: { readonly position: number; readonly budget: TurnBudget } | undefined;
  readonly #execution: Execution;
  readonly #services: SystemServices[] = [];
  readonly #random: (out: Uint32Array<ArrayBuffer>) => void;
  readonly #symbolize: Symbolizer;
  readonly #flushTrace: () => void;
  readonly #observer: LiveTableObserver | undefined;
  #crashed: MicrovmVcpu | undefined;
  #wallSeconds = 0;
  #nextVcpu = 0;

  constructor(options: MicrovmOptions) {
    const { group, paging, clock, translationsOf = (_vcpu, own) => own } = options;
    this.id = options.id;
    this.group = group;
    this.paging = paging;
    this.clock = clock;
    this.wallclock = options.wallclock;
    this.outputIsFull = options.outputIsFull ?? (() => false);
    this.#random = options.random;
    this.#symbolize = options.symbolize;
    this.#console = options.console;

    const apicBus = new ApicBus();
    const ioApic = new IoApic(apicBus, options.vcpus);
    this.#ioApic = ioApic;
    this.#legacy = new LegacyDevices({
      ports: this.ports,
      ioApic,
      now: () => clock.now(),
      reset: () => this.restart(),
    });
    this.#generation = new Generation(paging, this.#legacy.line(Pin.generation));
    this.#serial = new SerialPort(this.#legacy.line(Pin.serial), options.consoleSink);
    this.#realTimeClock = this.#addPorts();
    this.#virtio = new VirtioSlots({
      devices: options.devices,
      memory:
        options.paged?.devices.table ??
        new DmaTable(group.parts.pool, new ResidentMemory(paging.space.frames, group), paging.space.log),
      ioApic,
      onWork: () => this.onWork(),
    });
    this.#waits = new HostWaits(this, paging.pager);
    if (options.paged) this.#followDeviceMemory(options.paged.events);
    for (let index = 0; index < options.vcpus; index++) {
      const bus = new Bus();
      bus.add(Physical.ioApic, WINDOW_BYTES, ioApic);
      bus.add(Physical.localApic, WINDOW_BYTES, this.#apicWindow(index));
      this.#virtio.addTo(bus);
      const vcpu = new MicrovmVcpu({
        index,
        processor: group.create(),
        translations: translationsOf(index, paging.translations(bus)),
        apicBus,
        legacyInterrupts: this.#legacy.interrupts,
        now: () => clock.tsc(),
        onReset: (which) => this.interface.reset(which),
        onStartUp: (which) => this.interface.startUp?.(which) ?? false,
      });
      this.vcpus.push(vcpu);
    }
    this.running = this.vcpus[0] as MicrovmVcpu; // there is at least one
    this.interface = options.createInterface(this);
    this.dirtyPages = new DirtyPages(paging.space, group);
    this.statistics = new Statistics(
      {
        wallSeconds: () => this.#wallSeconds,
        guestSeconds: () => clock.now() / 1e9,
        instructions: () => countInstructions(this.vcpus),
        tlb: () => sumTlbCounters(this.vcpus),
        framesByType: () => ({ ram: residentPages(paging) }),
        memoryInUse: () => residentPages(paging) * PAGE_SIZE,
        ...(paging.shadow ? { shadow: paging.shadow } : {}),
      },
      this.interface.hypercallNames,
    );
    const watchers: ExitWatcher[] = [];
    const trace = options.trace && writeTrace(this, options.trace);
    if (trace) watchers.push(trace.watcher);
    this.#flushTrace = trace ? () => trace.writer.flush() : () => {};
    this.#observer = this.#observeTables(options);
    const { checker } = this.#observer ?? {};
    this.operations = createOperations(implementOperations(this), {
      counts: this.statistics.operations,
      observers: [
        ...(checker ? [checker] : []),
        ...(trace ? [trace.writer] : []),
        ...(options.audit ? [options.audit] : []),
      ],
    });
    for (const vcpu of trace ? [] : this.vcpus) {
      // Whether IRET leaves depends on what the TLB holds, and exact turns count exits.
      vcpu.state.callsInCode = !options.exactTurns;
      // Observers of operations ask where control is, which is exact only outside of code.
      const isWatched = checker !== undefined || options.audit !== undefined;
      if (!options.exactTurns && !isWatched)
        vcpu.processor.faultAddress = () => this.operations.mmu.readCr2(vcpu.index);
      if (!(clock instanceof VirtualClock)) vcpu.processor.timeSource = this.services(vcpu);
    }
    this.#execution = new Execution(this, watchers, chooseExecution(options.exactTurns, options.profiler));
  }

  /** Loads a kernel and lets the first processor begin with it. @throws InputError when it cannot be used */
  boot({ kernel, initrd, commandLine }: BootImages): void {
    const entry = loadGuest(this.paging, this.group.parts.memory, {
      kernel,
      initrd,
      commandLine,
      processors: this.vcpus.length,
      devices: this.#virtio.descriptions,
      generation: this.#newGeneration(),
      ...(this.interface.rom ? { rom: this.interface.rom } : {}),
    });
    this.running.enter(entry);
  }

  #newGeneration(): Uint8Array {
    const words = new Uint32Array(GENERATION_BYTES / 4);
    for (let word = 0; word < words.length; word += 2) this.#random(words.subarray(word, word + 2));
    return new Uint8Array(words.buffer);
  }

  /** The guest, which does not run yet, may not be the only one with its state from here on. */
  renew(): Promise<MemoryError | undefined> {
    return this.#generation.change(this.#newGeneration());
  }

  archive(archive: Archive): void {
    archive.parts('vcpus', this.vcpus);
    archive.part('clock', this.clock);
    archive.part('ioApic', this.#ioApic);
    archive.part('legacy', this.#legacy);
    archive.part('serial', this.#serial);
    archive.part('realTimeClock', this.#realTimeClock);
    archive.part('virtio', this.#virtio);
    archive.part('interface', this.interface);
    if (this.paging.pager) archive.part('pager', this.paging.pager);
    this.running = this.vcpus[archive.value('running', this.running.index)] ?? this.running;
    this.#nextVcpu = archive.value('nextVcpu', this.#nextVcpu);
    this.#suspended = archive.value('suspended', this.#suspended);
  }

  get ram(): GuestRam {
    return this.paging;
  }

  /** What brings the memory's pages in, unless all stay. */
  get pager(): Pager | undefined {
    return this.paging.pager;
  }

  /** No page and no back end is waited for. */
  get isSettled(): boolean {
    return this.#waits.areOver && !this.#virtio.isBusy;
  }

  #followDeviceMemory(events: DeviceMemoryEvents): void {
    events.onArrival = () => this.#virtio.wake();
    events.onFailure = (error) => this.crashForMemory(this.running, error.message);
  }

  #addPorts(): RealTimeClock {
    const { ports, wallclock } = this;
    ports.add(Port.serial, PORT_COUNT.serial, this.#serial);
    const seconds = () => wallclock.seconds + (wallclock.nanoseconds + this.clock.now()) / 1e9;
    const realTimeClock = new RealTimeClock(seconds);
    ports.add(Port.realTimeClock, PORT_COUNT.realTimeClock, realTimeClock);
    const power = new PowerRegisters(
      () => this.powerOff(),
      () => this.restart(),
    );
    ports.add(Port.power, PowerRegister.size, power);
    return realTimeClock;
  }

  #observeTables({ audit, check }: Pick<MicrovmOptions, 'audit' | 'check'>): LiveTableObserver | undefined {
    const { paging, vcpus } = this;
    const { callerOf, tables: examined } = this.interface;
    return observeOwnTables({
      audit,
      check,
      space: paging.space,
      frames: this.group,
      processors: vcpus.map(({ processor }) => processor),
      running: () => this.running.index,
      isWatched: (page) => paging.shadow?.isWatched(page) ?? false,
      examinesStores: examined !== undefined,
      ...(callerOf ? { callerOf: (processor) => callerOf.call(this.interface, processor) } : {}),
      symbolize: this.#symbolize,
      isAnnounced: (page) => paging.shadow?.isAnnounced(page) ?? false,
      asStored: examined && ((entry) => examined.showAsStored(entry)),
      holdsMachineFrames: () => examined?.holdsMachineFrames ?? false,
      threadAt: (index) => this.interface.threadAt?.(vcpus[index] as MicrovmVcpu), // it has changed an entry, or runs
      crash: (vcpu, reason) => this.crash(vcpus[vcpu] ?? this.running, reason),
    });
  }

  /** What a processor finds at its APIC's address: aligned words are the catalogue's operations. */
  #apicWindow(index: number): MmioDevice {
    return {
      read: (offset, bytes) => {
        const value = this.operations.apic.apicRead(index, offset & ~3) >>> ((offset & 3) * 8);
        return bytes === 4 ? value : value & (2 ** (bytes * 8) - 1);
      },
      write: (offset, bytes, value) => {
        if (bytes === 4) this.operations.apic.apicWrite(index, offset, value);
      },
    };
  }

  // Ends

  #end(state: DomainState): void {
    if (this.state.kind !== 'running') return;
    this.state = state;
  }

  powerOff(): void {
    this.#end({ kind: 'poweroff' });
  }

  /** A kernel that is told to restart at a panic (panic=-1) does so out of panic(): that is a crash, and not a restart. */
  restart(): void {
    const panicked = stackNames(this.running.processor, this.#symbolize).includes('panic');
    if (panicked) this.crash(this.running, this.#explain('the guest reported a crash (kernel panic)'));
    else this.#end({ kind: 'reboot' });
  }

  /** The line of a PC's timer rises, and falls again. */
  raiseTick(): void {
    this.#legacy.tick();
  }

  /** The domain cannot go on. */
  crash(vcpu: MicrovmVcpu, reason: string): void {
    if (this.state.kind !== 'running') return;
    this.#end({ kind: 'crash', reason });
    this.#crashed = vcpu;
  }

  #explain(reason: string): string {
    return this.interface.explain?.(reason) ?? reason;
  }

  /** The host cannot give the domain the memory that it was promised. It ends between its turns. */
  crashForMemory(vcpu: MicrovmVcpu, reason: string): void {
    this.crash(vcpu, reason);
    this.#lastTurn();
    this.onWork();
  }

  /**
   * A virtual processor needs a page that the host must bring in. Whether it is there already; otherwise the processor
   * executes no more until it is.
   */
  bringIn(vcpu: MicrovmVcpu, page: number, write: boolean): boolean {
    return this.#waits.bringIn(vcpu, page as Mfn, write);
  }

  // Console

  type(bytes: Uint8Array): void {
    (this.#console ?? this.#serial).type(bytes);
    this.onWork();
  }

  resize(columns: number, rows: number): void {
    this.#console?.resize(columns, rows);
  }

  // Time and turns

  /** When a timer fires; Infinity for never. System time in nanoseconds. */
  nextDeadline(): number {
    let next = Math.min(this.#legacy.deadline, this.interface.deadline ?? NEVER);
    for (const { apic } of this.vcpus) next = Math.min(next, apic.deadline);
    return next;
  }

  get idle(): boolean {
    if (this.#suspended) return this.#waits.any;
    return this.#standsStill || this.vcpus.every((vcpu) => vcpu.isIdle || vcpu.awaitsHost);
  }

  /** Virtual time does not pass while a disk is at work, so that how long it takes makes no difference. */
  get #standsStill(): boolean {
    return this.clock instanceof VirtualClock && this.#virtio.isBusy;
  }

  millisecondsToDeadline(): number {
    if (this.#standsStill) return NEVER;
    const deadline = this.nextDeadline();
    if (this.clock instanceof VirtualClock) return deadline === NEVER ? NEVER : 0;
    return Math.max(0, (deadline - this.clock.now()) / 1e6);
  }

  catchUp(): boolean {
    // With virtual time guests do not notice that they wait for the host.
    if (this.#suspended) return false;
    if (!this.#standsStill) this.#virtio.poll();
    if (this.#standsStill) return false;
    const moved = this.idle && this.isSettled && this.clock.advanceTo(this.nextDeadline());
    const now = this.clock.now();
    for (const { apic } of this.vcpus) if (apic.deadline <= now) apic.expire(now);
    this.#legacy.expire(now);
    this.interface.expire?.();
    return moved;
  }

  turn(): void {
    this.catchUp();
    if (this.#standsStill) return;
    const suspended = this.#suspended;
    const { position: first, budget } = suspended ?? { position: 0, budget: TURN };
    this.#suspended = undefined;
    const count = this.vcpus.length;
    for (let position = first; position < count && this.state.kind === 'running'; position++) {
      const vcpu = this.vcpus[(this.#nextVcpu + position) % count] as MicrovmVcpu;
      if (vcpu.isIdle || vcpu.awaitsHost) continue;
      let rest: TurnRest | undefined;
      // A turn that goes on after its wait is the same one for the guest.
      if (!suspended || position !== first) this.interface.resume(vcpu);
      try {
        rest = this.#execution.run(vcpu, position === first ? budget : TURN);
      } catch (error) {
        if (!(error instanceof DomainCrash)) throw error;
        this.crash(vcpu, this.#explain(error.message));
      }
      if (rest && (rest.isHeld || vcpu.awaitsHost) && this.clock instanceof VirtualClock) {
        this.#suspended = { position, budget: { instructions: rest.instructions, exits: rest.exits } };
        return;
      }
      this.interface.suspend(vcpu);
      this.#observer?.turnEnded(vcpu.index);
    }
    this.#nextVcpu = (this.#nextVcpu + 1) % count;
    if (this.vcpus.every((vcpu) => vcpu.isStopped)) this.#end({ kind: 'poweroff' });
    this.#serial.flush();
    if (this.state.kind !== 'running') this.#lastTurn();
  }

  #lastTurn(): void {
    this.#serial.flush();
    this.#flushTrace();
  }

  services(vcpu: MicrovmVcpu): SystemServices {
    const { index, state } = vcpu;
    this.#services[index] ??= {
      timeStamp: (out) => this.operations.cpu.readTsc(index, out),
      timeStampAuxiliary: () => state.timeStampAuxiliary,
      random: this.#random,
      // Whoever waits in a loop waits for another processor; one that sleeps is only woken by time that passes.
      paused: () => {
        if (this.vcpus.some((other) => other !== vcpu && !other.isIdle)) this.#execution.yield();
      },
    };
    return this.#services[index];
  }

  /** Instructions completed by all virtual processors. */
  get instructions(): number {
    return this.vcpus.reduce((sum, { processor }) => sum + processor.instructions, 0);
  }

  // For its user

  figures(wallSeconds: number): object {
    this.#wallSeconds = wallSeconds;
    return { ...this.statistics.report(), dma: this.#virtio.counters, ...this.interface.figures };
  }

  crashReport(): string {
    const vcpu = this.#crashed;
    if (!vcpu || this.state.kind !== 'crash') return '';
    const { index, processor, state } = vcpu;
    const crash = { reason: this.state.reason, domain: `guest ${this.id}`, vcpu: index, cr3: state.cr3 };
    return crashReport(processor, crash, this.#symbolize);
  }

  destroy(): Promise<void> {
    this.#flushTrace();
    this.#observer?.end();
    this.#virtio.destroy();
    for (const { processor } of this.vcpus) this.group.release(processor);
    this.interface.release?.();
    return this.paging.destroy();
  }
}

/** Pages that are in memory at present. */
function residentPages({ space }: NestedPaging): number {
  return space.frames.reduce((count, frame) => count + (frame < 0 ? 0 : 1), 0);
}
