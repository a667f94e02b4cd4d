import type { Archive, Archived } from '../../archive/archive.ts';
import type { ProcessorGroup } from '../../cpu/processor.ts';
import type { SystemServices } from '../../cpu/system.ts';
import type { BlockStore } from '../../devices/block/store.ts';
import { Xenstore } from '../../devices/xenstore.ts';
import { homeOf } from '../../devices/xenstore-node.ts';
import { type Clock, VirtualClock } from '../../domain/clock.ts';
import { DomainCrash } from '../../domain/crash.ts';
import type { Domain, DomainState } from '../../domain/domain.ts';
import { HostWaits } from '../../domain/host-waits.ts';
import { encodeVcpuTime, publishVcpuTime, VcpuTime, VcpuTimeFlag } from '../../domain/pvclock.ts';
import { MOST_EXITS, type TurnBudget, type TurnRest } from '../../domain/turn.ts';
import type { TableAudit } from '../../inspect/audit.ts';
import type { ContractChecker } from '../../inspect/contracts.ts';
import { crashReport } from '../../inspect/crash-report.ts';
import type { LiveTableObserver } from '../../inspect/live-table-observer.ts';
import { chooseExecution, type Profiler } from '../../inspect/profiler.ts';
import type { Statistics } from '../../inspect/statistics.ts';
import type { Symbolizer } from '../../inspect/text.ts';
import type { HostMemory } from '../../memory/host-memory.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import { createOperations } from '../../ops/dispatch.ts';
import { DirectPaging, type PagingEvents } from '../../paging/direct/direct-paging.ts';
import { PagingError } from '../../paging/direct/errors.ts';
import { TABLE_RULES } from '../../paging/direct/table-rules.ts';
import { DirtyPages } from '../../paging/dirty-pages.ts';
import type { DomainPaging, DomainPagingOptions } from '../../paging/domain-paging.ts';
import type { GuestRam } from '../../paging/guest-pages.ts';
import type { Pager } from '../../paging/pager.ts';
import type { ShadowTables } from '../../paging/shadow/shadow-tables.ts';
import { SharedPages } from '../../paging/shared-pages.ts';
import { TranslatedPaging } from '../../paging/translated/translated-paging.ts';
import { type GuestVirtual, type Mfn, PAGE_SIZE, type Pfn } from '../../x86/brand.ts';
import { ShutdownReason } from './abi.ts';
import { askingPlace } from './asking-place.ts';
import { DomainDisks } from './domain-disks.ts';
import { addDomainFrames, createMachineSpace, type DomainSize, numberLimit, pageNumbers } from './domain-frames.ts';
import { DomainRam } from './domain-ram.ts';
import { DomainRings } from './domain-rings.ts';
import { beginKernel, type DomainBoot, loadDomain } from './domain-start.ts';
import { createStatistics } from './domain-statistics.ts';
import { EventChannels } from './event-channels.ts';
import { Execution } from './execution.ts';
import { GrantTable } from './grant-table.ts';
import { GUEST_ABIS, type GuestAbi } from './guest-abi.ts';
import { fillHypercallPage } from './hypercall-page.ts';
import {
  checkContracts,
  type DomainWatcher,
  describeDiscrepancies,
  observeTranslated,
  pagingEvents,
  writeTrace,
} from './inspection.ts';
import { implementOperations, type XenOperations } from './operations.ts';
import type { PagedMemory } from './paged-memory.ts';
import { RefusedStores } from './refused-stores.ts';
import { RunState, Runstates } from './runstate.ts';
import { SharedInfo, VcpuInfo } from './shared-info.ts';
import { TableObserver } from './table-observer.ts';
import { Timers } from './timers.ts';
import { XenVcpu } from './vcpu.ts';
import { publishWallclock } from './wallclock.ts';

export interface XenDomainOptions {
  readonly id: number;
  readonly uuid: Uint8Array;
  /** Of the kernel. */
  readonly bits: 64 | 32;
  /** Pages that the domain begins with. */
  readonly pages: number;
  /** Whether its frames are translated for it, by the shadows of its memory. */
  readonly isTranslated?: boolean;
  /** Entries of tables that one call examines; as many as take less than a millisecond, unless it is given. */
  readonly workPerCall?: number;
  readonly vcpus: number;
  readonly group: ProcessorGroup;
  /** Machine space and pager of a domain whose pages come and go; without them all its pages are frames from the start. */
  readonly paged?: PagedMemory;
  readonly clock: Clock;
  /** Unix time, in nanoseconds since 1970 as seconds and rest, at system time 0. */
  readonly wallclock: { readonly seconds: number; readonly nanoseconds: number };
  readonly random: (out: Uint32Array<ArrayBuffer>) => void;
  readonly consoleSink: (bytes: Uint8Array) => void;
  /** Whether the guest must stand still, because nobody reads what it prints. */
  readonly outputIsFull?: () => boolean;
  /** Machine frame number, from 0, of each pseudo-physical frame; default: in order. */
  readonly permutation?: (pfn: number) => number;
  readonly watcher?: DomainWatcher;
  /** Takes the trace of operations, hypercalls and exits: whole lines, several at a time. */
  readonly trace?: (text: string) => void;
  /** Checks the contracts of the mmu group and recounts frame types; what is broken crashes the domain. */
  readonly check?: boolean;
  /** Turns end after an exact count of instructions, so that virtual time does not depend on how code is executed. */
  readonly exactTurns?: boolean;
  readonly profiler?: Profiler | undefined;
  /** Names for addresses in crash reports. */
  readonly symbolize?: Symbolizer;
  /** Finds out what touches live page tables. */
  readonly audit?: TableAudit | undefined;
  /** In the order in which the guest finds them; only for a domain whose pages come and go. */
  readonly disks?: readonly BlockStore[] | undefined;
}

/** One turn. Between turns timers fire and other virtual processors run. */
const TURN: TurnBudget = { instructions: 250_000, exits: MOST_EXITS };

/** Between two recounts of all frame types under `check`: about a second of the guest. */
const TURNS_PER_RECOUNT = 1000;

/**
 * A Xen PV domain: its memory, virtual processors, events and devices, and the loop that runs it. It is built
 * without anything to execute: `boot` loads a kernel, or its state is read back from an archive.
 */
export class XenDomain implements Domain, Archived {
  readonly id: number;
  readonly abi: GuestAbi;
  readonly pages: number;
  readonly isTranslated: boolean;
  readonly memory: HostMemory;
  readonly space: MachineSpace;
  readonly paging: DomainPaging;
  readonly shared: SharedInfo;
  readonly events: EventChannels;
  readonly rings: DomainRings;
  readonly timers: Timers;
  readonly runstates: Runstates;
  readonly grants: GrantTable;
  readonly clock: Clock;
  readonly store = new Xenstore();
  readonly vcpus: XenVcpu[] = [];
  readonly watchdogs = new Float64Array(2).fill(Number.POSITIVE_INFINITY);
  readonly uuidBytes: Uint8Array;
  readonly statistics: Statistics;
  readonly dirtyPages: DirtyPages;
  /** All that the guest can ask for by the catalogue's operations is done through these. */
  readonly operations: XenOperations;
  /** The virtual processor that executes, or did last. */
  running: XenVcpu;
  readonly outputIsFull: () => boolean;
  state: DomainState = { kind: 'running' };
  shutdownCode: number | undefined;
  /** Called when something from outside gives an idle domain work. */
  onWork: () => void = () => {};
  /** Whether the guest was told that its top tables may lie beyond 4 GiB. */
  extendedCr3 = false;
  /** The page tables that the domain was built with. */
  builderRoot = -1 as Mfn;
  readonly #permutation: ((pfn: number) => number) | undefined;
  readonly #paged: PagedMemory | undefined;
  readonly #wallclock: { readonly seconds: number; readonly nanoseconds: number };
  readonly #watchers: DomainWatcher[] = [];
  readonly #services: SystemServices[] = [];
  readonly #checker: ContractChecker | undefined;
  readonly #observer: TableObserver | undefined;
  readonly #liveTables: LiveTableObserver | undefined;
  readonly #flushTrace: () => void;
  #turnsToRecount = TURNS_PER_RECOUNT;
  #wallSeconds = 0;
  readonly #symbolize: Symbolizer;
  readonly refusedStores: RefusedStores;
  #crashed: XenVcpu | undefined;
  readonly #group: ProcessorGroup;
  readonly #sink: (bytes: Uint8Array) => void;
  readonly #random: (out: Uint32Array<ArrayBuffer>) => void;
  readonly #execution: Execution;
  readonly #waiting: HostWaits<XenVcpu>;
  readonly #disks: DomainDisks | undefined;
  /** A turn that ended in its midst: with virtual time nothing may happen before a page is there, or room for output. */
  #suspended: { readonly position: number; readonly budget: TurnBudget } | undefined;
  #nextVcpu = 0;

  /** @throws OutOfFrames when the pool is too small */
  constructor(options: XenDomainOptions) {
    const { group, pages, paged } = options;
    this.#paged = paged;
    this.#wallclock = options.wallclock;
    this.id = options.id;
    this.abi = GUEST_ABIS[options.bits];
    this.pages = pages;
    this.isTranslated = options.isTranslated ?? false;
    this.#group = group;
    this.clock = options.clock;
    this.uuidBytes = options.uuid;
    if (options.watcher) this.#watchers.push(options.watcher);
    this.#symbolize = options.symbolize ?? (() => undefined);
    this.refusedStores = new RefusedStores(this.#symbolize);
    this.#sink = options.consoleSink;
    this.outputIsFull = options.outputIsFull ?? (() => false);
    this.#random = options.random;
    const { pool, memory } = group.parts;
    this.memory = memory;
    this.space = paged?.machine ?? createMachineSpace(pool, this.#size);
    this.#waiting = new HostWaits(this, paged?.pager);
    const guest = {
      space: this.space,
      limit: numberLimit(this),
      invalidator: group,
      format: this.abi.tables,
      virtualProcessors: options.vcpus,
    };
    const events = pagingEvents(
      this,
      () => this.#checker,
      () => this.#observer,
      group,
    );
    this.paging = createPaging(guest, options, paged?.shadow, events);

    const frames = addDomainFrames(this.paging, this.space, this.#size, options.permutation);
    this.#permutation = options.permutation;
    const sharedPages = new SharedPages(this.space, group);
    this.shared = new SharedInfo(sharedPages, frames.sharedInfo, this.abi.sharedInfo, options.vcpus);
    this.events = new EventChannels(this.id, this.shared, this);
    this.timers = new Timers(this.events, this);
    this.runstates = new Runstates(options.vcpus, this.abi.runstate);
    this.grants = new GrantTable(
      this.id,
      sharedPages,
      {
        hold: (mfn, write) => !write || this.paging.holdType(mfn) === 0,
        release: (mfn, write) => {
          if (write) this.paging.dropType(mfn);
        },
      },
      frames.addGrantFrame,
      frames.grantFrames,
    );
    this.rings = new DomainRings(this.events, sharedPages, this.store.introduce(this.id), this.#sink);
    if (paged) this.#disks = this.#openDisks(paged, options.disks ?? []);

    for (let index = 0; index < options.vcpus; index++) {
      this.vcpus.push(new XenVcpu(index, group.create(), this.paging, this.shared, this.abi));
    }
    this.running = this.vcpus[0] as XenVcpu;
    this.dirtyPages = new DirtyPages(this.space, group);
    this.statistics = createStatistics(this, () => this.#wallSeconds);
    const trace = options.trace && writeTrace(this, options.trace);
    if (trace) this.#watchers.push(trace.watcher);
    this.#flushTrace = trace ? () => trace.writer.flush() : () => {};
    if (this.isTranslated) {
      this.#liveTables = observeTranslated(this, options, group, this.#symbolize);
    } else {
      if (options.audit) this.#observer = new TableObserver(this, options.audit, () => this.#checker);
      if (options.check) this.#checker = checkContracts(this, group.parts.marks, this.#symbolize, options.audit);
    }
    const checker = this.#checker ?? this.#liveTables?.checker;
    this.operations = createOperations(implementOperations(this), {
      counts: this.statistics.operations,
      observers: [
        ...(checker ? [checker] : []),
        ...(trace ? [trace.writer] : []),
        ...(options.audit ? [options.audit] : []),
      ],
    });
    if (!trace && !(this.clock instanceof VirtualClock)) {
      for (const vcpu of this.vcpus) vcpu.processor.timeSource = this.services(vcpu);
    }
    const execute = chooseExecution(options.exactTurns ?? false, options.profiler);
    this.#execution = new Execution(this, this.#watchers, execute);
  }

  get #size(): DomainSize {
    return { pages: this.pages, rules: TABLE_RULES[this.abi.tables], isTranslated: this.isTranslated };
  }

  /** Where the kernel has asked from for what is being carried out for a virtual processor. */
  askingPlace(vcpu: number): number {
    const { processor } = this.vcpus[vcpu] as XenVcpu; // operations are called for vCPUs that exist
    return askingPlace(processor, this.abi.bits === 64 ? 8 : 4);
  }

  /** Loads a kernel and lets the first processor begin with it. @throws InputError when it cannot be used, OutOfFrames */
  boot({ name, plan }: DomainBoot): void {
    const numbers = pageNumbers(this.#size, this.#permutation);
    const built = loadDomain(this, {
      name,
      plan,
      numbers,
      hasImages: !!this.#paged,
      startTime: this.#wallclock.seconds,
    });
    if (built.hypercallPage !== undefined) this.#fillHypercallPage(built.hypercallPage);
    this.#disks?.introduce();
    this.#publishWallclock();
    for (const { index } of this.vcpus) this.#publishTime(index);
    beginKernel(this, plan, built);
    for (const mfn of this.#paged?.pinned ?? []) this.space.unpin(mfn);
  }

  archive(archive: Archive): void {
    archive.words('uuid', this.uuidBytes);
    archive.part('clock', this.clock);
    if (this.#paged) archive.part('pager', this.#paged.pager);
    archive.part('shared', this.shared);
    archive.part('events', this.events);
    archive.part('timers', this.timers);
    archive.part('runstates', this.runstates);
    archive.part('grants', this.grants);
    archive.part('store', this.store);
    archive.part('rings', this.rings);
    if (this.#disks) archive.part('disks', this.#disks);
    // Behind all that brings frames into use.
    archive.part('paging', this.paging);
    archive.parts('vcpus', this.vcpus);
    archive.words('watchdogs', this.watchdogs);
    this.shutdownCode = archive.value('shutdownCode', this.shutdownCode);
    this.extendedCr3 = archive.value('extendedCr3', this.extendedCr3);
    this.builderRoot = archive.value('builderRoot', this.builderRoot);
    this.running = this.vcpus[archive.value('running', this.running.index)] ?? this.running;
    this.#nextVcpu = archive.value('nextVcpu', this.#nextVcpu);
    this.#suspended = archive.value('suspended', this.#suspended);
  }

  /** The memory of a domain whose pages come and go. */
  get ram(): GuestRam {
    if (!this.#paged) throw new Error('the domain has frames of its own, which are not saved');
    return new DomainRam(this, this.#paged.pager, this.#group);
  }

  /** What brings the memory's pages in, unless all stay. */
  get pager(): Pager | undefined {
    return this.#paged?.pager;
  }

  /** A copy of another domain gets a name and an identifier of its own; the number that its kernel knows stays. */
  rename(name: string): void {
    const words = new Uint32Array(this.uuidBytes.length / 4);
    for (let word = 0; word < words.length; word += 2) this.#random(words.subarray(word, word + 2));
    this.uuidBytes.set(new Uint8Array(words.buffer));
    this.store.write(`${homeOf(this.id)}/name`, name);
  }

  /** The date has gone on meanwhile, unless time is virtual. */
  restored(): void {
    if (!(this.clock instanceof VirtualClock)) this.#publishWallclock();
  }

  #publishWallclock(): void {
    publishWallclock(this.shared, this.#wallclock.seconds, this.#wallclock.nanoseconds);
  }

  #openDisks({ devices, events, pager }: PagedMemory, disks: readonly BlockStore[]): DomainDisks {
    const opened = new DomainDisks({
      disks,
      domain: this.id,
      store: this.store,
      pages: this.shared.pages,
      grants: this.grants,
      events: this.events,
      memory: devices.table,
      pageOf: (mfn) => pager.pageOf(mfn),
      onWork: () => this.onWork(),
    });
    events.onArrival = () => opened.wake();
    events.onFailure = (error) => this.crashForMemory(this.running, error.message);
    return opened;
  }

  #publishTime(index: number, flags: number = VcpuTimeFlag.tscStable): void {
    const info = this.shared.vcpuInfo(index);
    if (info < 0) return;
    const time = (info + VcpuInfo.time) as typeof info;
    publishVcpuTime(this.memory, time, this.clock, flags);
    this.shared.pages.written(time, VcpuTime.size);
  }

  /** Time goes on at once to the host's: the kernel is told that it was stopped, and not stuck. */
  noteAbsence(): void {
    if (this.clock instanceof VirtualClock) return;
    this.clock.advanceTo(Number.POSITIVE_INFINITY);
    for (const { index } of this.vcpus) this.#publishTime(index, VcpuTimeFlag.tscStable | VcpuTimeFlag.guestStopped);
  }

  /** VCPUOP_register_vcpu_time_memory_area: a copy for user programs. */
  writeTimeArea(area: GuestVirtual, vcpu: XenVcpu): boolean {
    return area === 0 || vcpu.processor.memory.write(area, encodeVcpuTime(this.clock, 2, 1));
  }

  allVcpus(): number[] {
    return this.vcpus.map((_vcpu, index) => index);
  }

  // Pages of the host's that a guest sees among its own

  /** @returns 0, or a `PagingError` where the number cannot be had */
  moveSharedInfo(to: Mfn): number {
    const result = this.paging.movePage(this.shared.mfn, to);
    if (result === 0) this.shared.moved(to);
    return result;
  }

  /** @param index counts frames of the grant table */
  moveGrantFrame(index: number, to: Mfn): number {
    const from = this.grants.frameAt(index);
    if (from < 0) return PagingError.invalid;
    const result = this.paging.movePage(from, to);
    if (result === 0) this.grants.moved(index, to);
    return result;
  }

  // Hypercall page

  /** A kernel named a page of its own, by pseudo-physical number, to be filled with stubs. */
  writeHypercallPage(pfn: number): boolean {
    // That number means an entry of the machine-to-physical table that holds none.
    if (pfn < 0) return false;
    const mfn = this.paging.numberOfPage(pfn as Pfn);
    if (mfn < 0 || this.paging.holdWritable(mfn) !== 0) return false;
    this.#fillHypercallPage(mfn);
    this.paging.dropWritable(mfn);
    return true;
  }

  #fillHypercallPage(mfn: Mfn): void {
    fillHypercallPage(this.space, mfn, this.abi.stubs);
    this.#group.frameWritten(this.space.frameOf(mfn), 0, PAGE_SIZE);
  }

  // Console

  /** Text from console_io, before the guest's console driver exists. */
  earlyConsole(bytes: Uint8Array): void {
    this.#sink(bytes);
  }

  type(bytes: Uint8Array): void {
    this.rings.type(bytes);
    this.onWork();
  }

  // Scheduling

  wake(index: number): void {
    const vcpu = this.vcpus[index];
    if (!vcpu?.blocked) return;
    vcpu.blocked = false;
    this.timers.asleep[index] = 0;
    this.#changeRunstate(vcpu, RunState.runnable);
  }

  block(vcpu: XenVcpu): void {
    vcpu.blocked = true;
    this.timers.asleep[vcpu.index] = 1;
    this.#changeRunstate(vcpu, RunState.blocked);
  }

  yield(): void {
    this.#execution.yield();
  }

  bringUp(vcpu: XenVcpu): void {
    if (!vcpu.down) return;
    vcpu.down = false;
    vcpu.blocked = false;
    this.timers.asleep[vcpu.index] = 0;
    this.#publishTime(vcpu.index);
    this.#changeRunstate(vcpu, RunState.runnable);
  }

  takeDown(vcpu: XenVcpu): void {
    if (vcpu.down) return;
    vcpu.down = true;
    this.timers.asleep[vcpu.index] = 1;
    this.#changeRunstate(vcpu, RunState.offline);
    if (this.vcpus.every((other) => other.down)) this.shutdown(ShutdownReason.poweroff);
  }

  #changeRunstate(vcpu: XenVcpu, state: RunState): void {
    if (this.runstates.change(vcpu.index, state, this.clock.now())) this.#publishRunstate(vcpu);
  }

  /** The guest's copy of the runstate, when its page is there. */
  #publishRunstate(vcpu: XenVcpu): void {
    this.#waiting.attempt(
      () => this.runstates.publish(vcpu.index, vcpu.processor.memory),
      () => this.#publishRunstate(vcpu),
    );
  }

  /**
   * A virtual processor needs a page that the host must bring in. Whether it is there already; otherwise the processor
   * executes no more until it is.
   */
  bringIn(vcpu: XenVcpu, page: number, write: boolean): boolean {
    return this.#waiting.bringIn(vcpu, page as Mfn, write);
  }

  shutdown(reason: ShutdownReason): void {
    if (this.state.kind !== 'running') return;
    switch (reason) {
      case ShutdownReason.poweroff:
        this.state = { kind: 'poweroff' };
        break;
      case ShutdownReason.reboot:
      case ShutdownReason.softReset:
        this.state = { kind: 'reboot' };
        break;
      default:
        this.crash(
          this.running,
          reason === ShutdownReason.watchdog ? 'the watchdog fired' : 'the guest reported a crash (kernel panic)',
        );
    }
  }

  /** The domain cannot go on. */
  crash(vcpu: XenVcpu, reason: string): void {
    if (this.state.kind !== 'running') return;
    this.state = { kind: 'crash', reason: this.refusedStores.explain(vcpu.index, reason) };
    this.#crashed = vcpu;
  }

  /** The host cannot give the domain the memory that it was promised. It ends between its turns. */
  crashForMemory(vcpu: XenVcpu, reason: string): void {
    this.crash(vcpu, reason);
    this.#lastTurn();
  }

  /** When something happens by itself; Infinity for never. System time in nanoseconds. */
  nextDeadline(): number {
    return Math.min(this.timers.nextDeadline(), ...this.watchdogs);
  }

  /** No page and no disk is waited for. */
  get isSettled(): boolean {
    return this.#waiting.areOver && !(this.#disks?.isBusy ?? false);
  }

  get idle(): boolean {
    if (this.#suspended) return this.#waiting.any;
    if (this.#standsStill) return true;
    return !this.rings.hasWork && this.vcpus.every((vcpu) => vcpu.down || vcpu.blocked || vcpu.awaitsHost);
  }

  /** Virtual time does not pass while a disk is at work, so that how long it takes makes no difference. */
  get #standsStill(): boolean {
    return this.clock instanceof VirtualClock && (this.#disks?.isBusy ?? false);
  }

  /** Milliseconds of host time until `nextDeadline`; 0 when it has passed. */
  millisecondsToDeadline(): number {
    if (this.#standsStill) return Number.POSITIVE_INFINITY;
    if (this.clock instanceof VirtualClock)
      return this.nextDeadline() === Number.POSITIVE_INFINITY ? Number.POSITIVE_INFINITY : 0;
    return Math.max(0, (this.nextDeadline() - this.clock.now()) / 1e6);
  }

  /** Timers that are due fire. */
  catchUp(): boolean {
    // With virtual time guests do not notice that they wait for the host.
    if (this.#suspended) return false;
    this.#serveDisks();
    if (this.#standsStill) return false;
    const moved = this.idle && this.isSettled && this.clock.advanceTo(this.nextDeadline());
    const now = this.clock.now();
    if (this.timers.nextDeadline() <= now) this.timers.expire(now);
    if (this.watchdogs.some((deadline) => deadline <= now)) this.shutdown(ShutdownReason.watchdog);
    return moved;
  }

  #serveDisks(): void {
    const disks = this.#disks;
    if (!disks?.hasWork || this.#standsStill) return;
    this.#waiting.attempt(
      () => disks.poll(),
      () => disks.resume(),
    );
    this.rings.storeChanged();
  }

  /** Lets each runnable virtual processor have one turn. */
  turn(): void {
    const { position: first, budget } = this.#suspended ?? { position: 0, budget: TURN };
    if (!this.#suspended) this.#beginTurn();
    this.#suspended = undefined;
    if (this.#standsStill) return;
    const count = this.vcpus.length;
    for (let position = first; position < count && this.state.kind === 'running'; position++) {
      const vcpu = this.vcpus[(this.#nextVcpu + position) % count] as XenVcpu;
      if (vcpu.down || vcpu.blocked || vcpu.awaitsHost) continue;
      this.#changeRunstate(vcpu, RunState.running);
      let rest: TurnRest | undefined;
      try {
        rest = this.#execution.run(vcpu, position === first ? budget : TURN);
      } catch (error) {
        if (!(error instanceof DomainCrash)) throw error;
        this.crash(vcpu, error.message);
      }
      if (rest && (rest.isHeld || vcpu.awaitsHost) && this.clock instanceof VirtualClock) {
        this.#suspended = { position, budget: { instructions: rest.instructions, exits: rest.exits } };
        return;
      }
      // What others take until its next turn, and its host to bring in a page, is stolen from it.
      if (!vcpu.down && !vcpu.blocked) this.#changeRunstate(vcpu, RunState.runnable);
    }
    this.#nextVcpu = (this.#nextVcpu + 1) % count;
    if (this.state.kind !== 'running') this.#lastTurn();
  }

  #beginTurn(): void {
    this.catchUp();
    this.rings.serve();
    if (this.#checker && --this.#turnsToRecount === 0) this.#recount();
  }

  #lastTurn(): void {
    this.rings.drainConsole();
    if (this.#checker && this.state.kind !== 'crash') this.#recount();
    this.#flushTrace();
  }

  /** Adds up types and counts of all frames; what the paging keeps must be the same. */
  #recount(): void {
    this.#turnsToRecount = TURNS_PER_RECOUNT;
    const reason = describeDiscrepancies(this.paging.recount());
    if (reason === undefined) return;
    // Of a domain that has ended well, too.
    this.state = { kind: 'crash', reason };
    this.#crashed = this.running;
  }

  /** Carries out the flush of all translations that changes of upper-level entries ask for. */
  flushIfAsked(): void {
    if (!this.paging.takeFlush()) return;
    for (const { processor } of this.vcpus) processor.flushTlb();
  }

  services(vcpu: XenVcpu): SystemServices {
    const { index } = vcpu;
    this.#services[index] ??= {
      timeStamp: (out) => this.operations.cpu.readTsc(index, out),
      timeStampAuxiliary: () => index,
      random: this.#random,
      // Whoever waits in a loop waits for another processor; one that sleeps is only woken by time that passes.
      paused: () => {
        if (this.vcpus.some((other) => other !== vcpu && !other.down && !other.blocked)) this.yield();
      },
    };
    return this.#services[index];
  }

  /** Instructions completed by all virtual processors. */
  get instructions(): number {
    return this.vcpus.reduce((sum, { processor }) => sum + processor.instructions, 0);
  }

  /** Ends the domain: its frames go back to the pool, its processors to the group. */
  destroy(): Promise<void> {
    this.#flushTrace();
    const freed = this.#waiting.end();
    this.#liveTables?.end();
    for (const { processor } of this.vcpus) this.#group.release(processor);
    this.paging.destroy();
    return freed;
  }

  crashReport(): string {
    const vcpu = this.#crashed;
    if (!vcpu || this.state.kind !== 'crash') return '';
    const { index, processor } = vcpu;
    const { reason } = this.state;
    const crash = { reason, domain: `guest ${this.id}`, vcpu: index, cr3: this.paging.root(index) };
    return crashReport(processor, crash, this.#symbolize);
  }

  /** Figures of the domain as plain data. */
  figures(wallSeconds: number): object {
    this.#wallSeconds = wallSeconds;
    return { ...this.statistics.report(), ...(this.#disks ? { dma: this.#disks.counters } : {}) };
  }
}

function createPaging(
  guest: DomainPagingOptions,
  { isTranslated = false, workPerCall }: Pick<XenDomainOptions, 'isTranslated' | 'workPerCall'>,
  shadow: ShadowTables | undefined,
  events: PagingEvents,
): DomainPaging {
  const bound = workPerCall === undefined ? {} : { workPerCall };
  if (!isTranslated) return new DirectPaging({ ...guest, ...bound, shadow, events });
  if (!shadow) throw new Error('without shadows nobody translates the numbers in a guest’s tables');
  return new TranslatedPaging({ ...guest, shadow });
}
