import type { LguestEra } from '../../api.ts';
import type { Archive, Archived } from '../../archive/archive.ts';
import type { KernelImage } from '../../boot/kernel.ts';
import type { ProcessorGroup } from '../../cpu/processor.ts';
import type { SystemServices } from '../../cpu/system.ts';
import { Bus } from '../../devices/bus.ts';
import type { ConsoleDevice } from '../../devices/virtio/console.ts';
import type { VirtioDevice } from '../../devices/virtio/device.ts';
import { type Clock, VirtualClock } from '../../domain/clock.ts';
import { DomainCrash } from '../../domain/crash.ts';
import type { Domain, DomainState } from '../../domain/domain.ts';
import { HostWaits } from '../../domain/host-waits.ts';
import { MOST_EXITS, type TurnBudget, type TurnRest } from '../../domain/turn.ts';
import type { TableAudit } from '../../inspect/audit.ts';
import { crashReport } from '../../inspect/crash-report.ts';
import type { LiveTableObserver } from '../../inspect/live-table-observer.ts';
import { observeOwnTables } from '../../inspect/own-tables.ts';
import { chooseExecution, type Profiler } from '../../inspect/profiler.ts';
import { countInstructions, Statistics, sumTlbCounters } from '../../inspect/statistics.ts';
import { hexadecimal, type Symbolizer } from '../../inspect/text.ts';
import { type ExitWatcher, writeTrace } from '../../microvm/inspection.ts';
import type { PagedMemory } from '../../microvm/paged-memory.ts';
import { createOperations } from '../../ops/dispatch.ts';
import { DirtyPages } from '../../paging/dirty-pages.ts';
import type { GuestRam } from '../../paging/guest-pages.ts';
import type { NestedPaging } from '../../paging/nested/nested-paging.ts';
import type { Pager } from '../../paging/pager.ts';
import { highWord, lowWord, type Mfn, PAGE_SIZE } from '../../x86/brand.ts';
import { type DataLayout, ERAS, type Era } from './abi.ts';
import { busPages, LguestBus } from './bus.ts';
import { Execution } from './execution.ts';
import { GuestData } from './guest-data.ts';
import { GuestMemory } from './guest-memory.ts';
import { Hypercalls } from './hypercalls.ts';
import { Interrupts } from './interrupts.ts';
import { type GuestLayout, loadGuest } from './loader.ts';
import { implementOperations, type LguestOperations } from './operations.ts';
import type { LguestKernel } from './recognise.ts';
import { LguestVcpu } from './vcpu.ts';

export interface LguestOptions {
  readonly id: number;
  readonly group: ProcessorGroup;
  /** Memory of the guest and, behind it, of its bus. */
  readonly paged: PagedMemory;
  readonly clock: Clock;
  /** Unix time at system time 0. */
  readonly wallclock: { readonly seconds: number; readonly nanoseconds: number };
  readonly random: (out: Uint32Array<ArrayBuffer>) => void;
  readonly consoleSink: (bytes: Uint8Array) => void;
  /** Whether the guest must stand still, because nobody reads what it prints. */
  readonly outputIsFull?: () => boolean;
  /** In the order in which the guest finds them; one of them is the console. */
  readonly devices: readonly VirtioDevice[];
  readonly console: ConsoleDevice;
  /** Takes the trace of operations and exits: whole lines, several at a time. */
  readonly trace?: (text: string) => void;
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
export interface LguestImages {
  readonly kernel: KernelImage;
  readonly recognised: LguestKernel;
  readonly layout: GuestLayout;
  readonly commandLine: string;
}

/** One turn. Between turns the timer fires and other guests run. */
const TURN: TurnBudget = { instructions: 250_000, exits: MOST_EXITS };

const NEVER = Number.POSITIVE_INFINITY;
const NANOSECONDS = 1_000_000_000;

/** Characters that one call of the console for early messages prints; kernels send 16. */
const LONGEST_MESSAGE = 4096;

/**
 * A guest of lguest: a 32-bit kernel in ring 1 whose page tables are shadowed, one virtual processor, and what it shares
 * with the host. It is built without anything to execute: `boot` loads a kernel, or its state is read back.
 */
export class LguestDomain implements Domain, Archived {
  readonly id: number;
  readonly group: ProcessorGroup;
  readonly clock: Clock;
  readonly vcpu: LguestVcpu;
  readonly memory: GuestMemory;
  readonly data: GuestData;
  readonly interrupts: Interrupts;
  readonly hypercalls: Hypercalls;
  readonly bus: LguestBus;
  readonly statistics: Statistics;
  readonly dirtyPages: DirtyPages;
  readonly operations: LguestOperations;
  readonly services: SystemServices;
  /** Pages of RAM. */
  readonly ramPages: number;
  readonly outputIsFull: () => boolean;
  state: DomainState = { kind: 'running' };
  onWork: () => void = () => {};
  readonly #paged: PagedMemory;
  readonly #wallclock: LguestOptions['wallclock'];
  readonly #consoleSink: (bytes: Uint8Array) => void;
  readonly #console: ConsoleDevice;
  readonly #waits: HostWaits<LguestVcpu>;
  readonly #execution: Execution;
  readonly #symbolize: Symbolizer;
  readonly #flushTrace: () => void;
  readonly #observer: LiveTableObserver | undefined;
  #kernel: Omit<LguestKernel, 'era'> & { readonly era: LguestEra } = {
    era: 'L2',
    format: 'two-level',
    kernelAddress: 0,
    deviceFormat: 'counts',
  };
  /** A turn that ended in its midst: with virtual time nothing may happen before a page is there, or room for output. */
  #suspended: TurnBudget | undefined;
  #wallSeconds = 0;

  constructor(options: LguestOptions) {
    const { group, clock, paged } = options;
    const { paging } = paged;
    this.id = options.id;
    this.group = group;
    this.clock = clock;
    this.#paged = paged;
    this.#wallclock = options.wallclock;
    this.#consoleSink = options.consoleSink;
    this.outputIsFull = options.outputIsFull ?? (() => false);
    this.#console = options.console;
    this.#symbolize = options.symbolize;
    this.ramPages = paging.pages - busPages(options.devices);
    this.vcpu = new LguestVcpu(group.create(), paging.translations(new Bus()));
    this.memory = new GuestMemory(paging.space, group.parts.memory, this.ramPages);
    this.data = new GuestData(this);
    this.interrupts = new Interrupts(this.vcpu, this.data, () => this.writeTime());
    this.hypercalls = new Hypercalls(this);
    this.bus = new LguestBus({
      devices: options.devices,
      memory: paged.devices.table,
      paging,
      host: group.parts.memory,
      written: (address, bytes) => group.frameWritten(group.parts.pool.frameAt(address), address % PAGE_SIZE, bytes),
      firstPage: this.ramPages,
      format: () => this.#kernel.deviceFormat,
      raise: (line) => this.interrupts.raise(line),
      onWork: () => this.onWork(),
    });
    this.#waits = new HostWaits(this, paging.pager);
    paged.events.onArrival = () => this.bus.wake();
    paged.events.onFailure = (error) => this.crashForMemory(this.vcpu, error.message);
    this.services = {
      timeStamp: (out) => {
        const ticks = clock.tsc();
        out[0] = lowWord(ticks);
        out[1] = highWord(ticks);
      },
      timeStampAuxiliary: () => 0,
      random: options.random,
    };
    this.dirtyPages = new DirtyPages(paging.space, group);
    const residentPages = () => paging.space.frames.reduce((count, frame) => count + (frame < 0 ? 0 : 1), 0);
    const vcpus = [this.vcpu];
    this.statistics = new Statistics(
      {
        wallSeconds: () => this.#wallSeconds,
        guestSeconds: () => clock.now() / NANOSECONDS,
        instructions: () => countInstructions(vcpus),
        tlb: () => sumTlbCounters(vcpus),
        framesByType: () => ({ ram: residentPages() }),
        memoryInUse: () => residentPages() * PAGE_SIZE,
        ...(paging.shadow ? { shadow: paging.shadow } : {}),
      },
      // Those of all eras: numbers were never used for two things.
      ERAS.L2.calls.map((name, number) => name ?? ERAS.L1.calls[number]),
    );
    const watchers: ExitWatcher[] = [];
    const trace = options.trace && writeTrace({ clock, vcpus }, options.trace);
    if (trace) watchers.push(trace.watcher);
    if (!trace && !(clock instanceof VirtualClock)) this.vcpu.processor.timeSource = this.services;
    this.#flushTrace = trace ? () => trace.writer.flush() : () => {};
    this.#observer = observeOwnTables({
      audit: options.audit,
      check: options.check,
      space: paging.space,
      frames: group,
      processors: [this.vcpu.processor],
      running: () => this.vcpu.index,
      isWatched: (page) => paging.shadow?.isWatched(page) ?? false,
      symbolize: options.symbolize,
      dropsWhatIsTold: true,
      crash: (_vcpu, reason) => this.crash(this.vcpu, reason),
    });
    const { checker } = this.#observer ?? {};
    this.operations = createOperations(implementOperations(this), {
      counts: this.statistics.operations,
      observers: [
        ...(checker ? [checker] : []),
        ...(trace ? [trace.writer] : []),
        ...(options.audit ? [options.audit] : []),
      ],
    });
    this.#execution = new Execution(this, watchers, chooseExecution(options.exactTurns, options.profiler));
  }

  /** Loads a kernel and lets the processor begin with it. @throws InputError when it cannot be used */
  boot({ kernel, recognised, layout, commandLine }: LguestImages): void {
    const { format, kernelAddress } = recognised;
    this.#kernel = { ...recognised, era: recognised.era.name };
    const options = { kernel, format, kernelAddress, layout, commandLine };
    const root = loadGuest(this.paging, this.group.parts.memory, options);
    this.bus.start();
    this.vcpu.enter(Number(kernel.entry), format, root);
  }

  archive(archive: Archive): void {
    this.#kernel = archive.value('kernel', this.#kernel);
    archive.part('vcpu', this.vcpu);
    archive.part('clock', this.clock);
    archive.part('data', this.data);
    archive.part('interrupts', this.interrupts);
    archive.part('hypercalls', this.hypercalls);
    archive.part('bus', this.bus);
    archive.part('pager', this.#paged.pager);
    this.#suspended = archive.value('suspended', this.#suspended);
  }

  get era(): Era {
    return ERAS[this.#kernel.era];
  }

  get layout(): DataLayout {
    return this.era.layout;
  }

  get format(): LguestKernel['format'] {
    return this.#kernel.format;
  }

  get kernelAddress(): number {
    return this.#kernel.kernelAddress;
  }

  get paging(): NestedPaging {
    return this.#paged.paging;
  }

  get ram(): GuestRam {
    return this.paging;
  }

  get pager(): Pager {
    return this.#paged.pager;
  }

  /** The virtual processor that executes, or did last. */
  get running(): LguestVcpu {
    return this.vcpu;
  }

  /** No page and no back end is waited for. */
  get isSettled(): boolean {
    return this.#waits.areOver && !this.bus.isBusy;
  }

  // Ends

  end(state: DomainState): void {
    if (this.state.kind === 'running') this.state = state;
  }

  /** The domain cannot go on. */
  crash(_vcpu: LguestVcpu, reason: string): void {
    this.end({ kind: 'crash', reason });
  }

  /** The host cannot give the domain the memory that it was promised. It ends between its turns. */
  crashForMemory(vcpu: LguestVcpu, reason: string): void {
    this.crash(vcpu, reason);
    this.#flushTrace();
    this.onWork();
  }

  /** Whether a page that the processor needs is there at once; otherwise it waits. */
  bringIn(page: number, write: boolean): boolean {
    return this.#waits.bringIn(this.vcpu, page as Mfn, write);
  }

  // Devices

  /** The guest notifies: of a device, of a queue, or of a message that it prints before it has a console. */
  notified(address: number): void {
    if (this.bus.notified(address)) return;
    if (address >= this.ramPages * PAGE_SIZE) {
      throw new DomainCrash(`the guest notifies of ${hexadecimal(address)}, where nothing is`);
    }
    this.#consoleSink(this.memory.readString(address, LONGEST_MESSAGE));
  }

  type(bytes: Uint8Array): void {
    this.#console.type(bytes);
    this.onWork();
  }

  resize(columns: number, rows: number): void {
    this.#console.resize(columns, rows);
  }

  // Time and turns

  /** Puts the date where the guest reads it. */
  writeTime(): void {
    const { seconds, nanoseconds } = this.#wallclock;
    const total = nanoseconds + this.clock.now();
    this.data.setTime((seconds + Math.floor(total / NANOSECONDS)) >>> 0, total % NANOSECONDS);
  }

  /** @param delay nanoseconds; 0 stops the timer */
  setTimer(delay: number): void {
    this.interrupts.deadline = delay === 0 ? NEVER : this.clock.now() + delay;
  }

  /** Whether the processor has nothing to execute. */
  get isHalted(): boolean {
    return this.vcpu.halted && !this.interrupts.wakes;
  }

  get idle(): boolean {
    if (this.#suspended) return this.#waits.any;
    return this.#standsStill || this.isHalted || this.vcpu.awaitsHost;
  }

  /** Virtual time does not pass while a disk is at work, so that how long it takes makes no difference. */
  get #standsStill(): boolean {
    return this.clock instanceof VirtualClock && this.bus.isBusy;
  }

  millisecondsToDeadline(): number {
    const { deadline } = this.interrupts;
    if (this.#standsStill || deadline === NEVER) return NEVER;
    return this.clock instanceof VirtualClock ? 0 : Math.max(0, (deadline - this.clock.now()) / 1e6);
  }

  catchUp(): boolean {
    // With virtual time guests do not notice that they wait for the host.
    if (this.#suspended) return false;
    if (!this.#standsStill) this.bus.poll();
    if (this.#standsStill) return false;
    const moved = this.idle && this.isSettled && this.clock.advanceTo(this.interrupts.deadline);
    this.interrupts.expire(this.clock.now());
    return moved;
  }

  turn(): void {
    this.catchUp();
    if (this.#standsStill || this.isHalted || this.vcpu.awaitsHost) return;
    const budget = this.#suspended ?? TURN;
    this.#suspended = undefined;
    let rest: TurnRest | undefined;
    try {
      rest = this.#execution.run(budget);
    } catch (error) {
      if (!(error instanceof DomainCrash)) throw error;
      this.crash(this.vcpu, error.message);
    }
    if (rest && (rest.isHeld || this.vcpu.awaitsHost) && this.clock instanceof VirtualClock) {
      this.#suspended = { instructions: rest.instructions, exits: rest.exits };
    }
    if (this.state.kind !== 'running') this.#flushTrace();
  }

  /** Instructions completed by the virtual processor. */
  get instructions(): number {
    return this.vcpu.processor.instructions;
  }

  // For its user

  figures(wallSeconds: number): object {
    this.#wallSeconds = wallSeconds;
    return { ...this.statistics.report(), dma: this.bus.counters };
  }

  crashReport(): string {
    if (this.state.kind !== 'crash') return '';
    const { index, processor, state } = this.vcpu;
    const crash = { reason: this.state.reason, domain: `guest ${this.id}`, vcpu: index, cr3: state.cr3 };
    return crashReport(processor, crash, this.#symbolize);
  }

  destroy(): Promise<void> {
    this.#flushTrace();
    this.#observer?.end();
    this.bus.destroy();
    this.group.release(this.vcpu.processor);
    return this.paging.destroy();
  }
}
