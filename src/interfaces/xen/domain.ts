import type { KernelImage } from '../../boot/kernel.ts';
import { SegmentRegister } from '../../cpu/decode/instruction.ts';
import { Exit } from '../../cpu/exits.ts';
import type { ProcessorGroup } from '../../cpu/processor.ts';
import { SystemResult, type SystemServices } from '../../cpu/system.ts';
import { ConsoleRing } from '../../devices/xen/console-ring.ts';
import { XenstoreRing } from '../../devices/xen/xenstore-ring.ts';
import { Xenstore } from '../../devices/xenstore.ts';
import { createDomainTree, createHostTree } from '../../devices/xenstore-domain.ts';
import type { Domain, DomainState } from '../../domain/domain.ts';
import type { ContractChecker } from '../../inspect/contracts.ts';
import { formatCrash } from '../../inspect/crash.ts';
import { Statistics, type TlbStatistics } from '../../inspect/statistics.ts';
import { hexadecimal, hexadecimal64, type Symbolizer } from '../../inspect/text.ts';
import type { HostMemory } from '../../memory/host-memory.ts';
import { MachineSpace } from '../../memory/machine-space.ts';
import { createOperations } from '../../ops/dispatch.ts';
import { DirectPaging } from '../../paging/direct/direct-paging.ts';
import { PagingError } from '../../paging/direct/errors.ts';
import { FrameOwner } from '../../paging/direct/frame-types.ts';
import { type GuestVirtual, type Mfn, PAGE_SIZE, type Pfn } from '../../x86/brand.ts';
import { Flag, Register, Vector } from '../../x86/registers.ts';
import { HYPERCALL_ARGUMENTS, HYPERCALL_NAMES, ShutdownReason } from './abi.ts';
import { type Clock, encodeVcpuTime, publishVcpuTime, publishWallclock, VirtualClock } from './clock.ts';
import { buildDomain } from './domain-builder.ts';
import { Errno } from './errno.ts';
import { EventChannels } from './event-channels.ts';
import { GrantTable } from './grant-table.ts';
import { Call, FAULT, NOT_IMPLEMENTED, Special } from './hypercalls/call.ts';
import { HYPERCALLS } from './hypercalls/index.ts';
import { checkContracts, type DomainWatcher, pagingEvents, writeTrace } from './inspection.ts';
import { implementOperations, type XenOperations } from './operations.ts';
import { executeCpuid, executeForGuest } from './privileged.ts';
import { RUNSTATE_64, RunState, Runstates } from './runstate.ts';
import { SHARED_INFO_64, SharedInfo, VcpuInfo } from './shared-info.ts';
import { Timers } from './timers.ts';
import { DomainCrash, XenVcpu } from './vcpu.ts';

export interface XenDomainOptions {
  readonly id: number;
  readonly name: string;
  readonly uuid: Uint8Array;
  readonly kernel: KernelImage;
  readonly initrd: Uint8Array;
  readonly commandLine: string;
  readonly pages: number;
  readonly vcpus: number;
  readonly group: ProcessorGroup;
  readonly clock: Clock;
  /** Unix time, in nanoseconds since 1970 as seconds and rest, at system time 0. */
  readonly wallclock: { readonly seconds: number; readonly nanoseconds: number };
  readonly random: (out: Uint32Array<ArrayBuffer>) => void;
  readonly consoleSink: (bytes: Uint8Array) => void;
  /** Machine frame number, from 0, of each pseudo-physical frame; default: in order. */
  readonly permutation?: (pfn: number) => number;
  readonly watcher?: DomainWatcher;
  /** Takes the trace of operations, hypercalls and exits: whole lines, several at a time. */
  readonly trace?: (text: string) => void;
  /** Checks the contracts of the mmu group and recounts frame types; what is broken crashes the domain. */
  readonly check?: boolean;
  /** Turns end after an exact count of instructions, so that virtual time does not depend on how code is executed. */
  readonly exactTurns?: boolean;
  /** Names for addresses in crash reports. */
  readonly symbolize?: Symbolizer;
}

/** Machine frame numbers begin here, so that they differ from pseudo-physical ones. */
const FIRST_MFN = 0x1000;
const GRANT_FRAMES = 64;
/** Numbers beyond the guest's pages and the host's: for memory that a balloon brings back. */
const SPARE_NUMBERS = 1024;

const SERVICE_STORE = 1;
const SERVICE_CONSOLE = 2;

/** Instructions of one turn. Between turns timers fire and other virtual processors run. */
const TURN = 250_000;

/** Between two recounts of all frame types under `check`: about a second of the guest. */
const TURNS_PER_RECOUNT = 1000;

/** Hypercalls that a preempted one may be repeated with before a turn ends. */
const CONTINUATIONS = 64;

/** Bytes of a multicall entry of 64-bit guests: op, result, six arguments. */
const MULTICALL_BYTES = 64;
const MULTICALL_LIMIT = 1024;

/** Frames that the host needs beyond the guest's own pages: machine-to-physical table, shared_info, grant table. */
export function overheadFrames(pages: number): number {
  const numbers = FIRST_MFN + pages + 1 + GRANT_FRAMES + SPARE_NUMBERS;
  return Math.ceil((numbers * 8) / PAGE_SIZE) + 1 + GRANT_FRAMES;
}

/** A 64-bit Xen PV domain: its memory, virtual processors, events and devices, and the loop that runs it. */
export class XenDomain implements Domain {
  readonly id: number;
  readonly pages: number;
  readonly memory: HostMemory;
  readonly space: MachineSpace;
  readonly paging: DirectPaging;
  readonly shared: SharedInfo;
  readonly events: EventChannels;
  readonly timers: Timers;
  readonly runstates: Runstates;
  readonly grants: GrantTable;
  readonly clock: Clock;
  readonly store = new Xenstore();
  readonly vcpus: XenVcpu[] = [];
  readonly watchdogs = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  readonly uuidBytes: Uint8Array;
  readonly statistics: Statistics;
  /** All that the guest can ask for by the catalogue's operations is done through these. */
  readonly operations: XenOperations;
  /** The virtual processor that executes, or did last. */
  running: XenVcpu;
  state: DomainState = { kind: 'running' };
  shutdownCode: number | undefined;
  /** Called when something from outside gives an idle domain work. */
  onWork: () => void = () => {};
  readonly #watchers: DomainWatcher[] = [];
  readonly #services: SystemServices[] = [];
  readonly #checker: ContractChecker | undefined;
  readonly #flushTrace: () => void;
  #turnsToRecount = TURNS_PER_RECOUNT;
  #wallSeconds = 0;
  readonly #exactTurns: boolean;
  readonly #symbolize: Symbolizer;
  #crashed: XenVcpu | undefined;
  readonly #group: ProcessorGroup;
  readonly #console: ConsoleRing;
  readonly #storeRing: XenstoreRing;
  readonly #consolePort: number;
  readonly #storePort: number;
  readonly #sink: (bytes: Uint8Array) => void;
  readonly #random: (out: Uint32Array<ArrayBuffer>) => void;
  readonly #call: Call;
  #pollConsole = false;
  #pollStore = false;
  #yielded = false;
  #nextVcpu = 0;

  /** @throws InputError when the kernel cannot be used, OutOfFrames when the pool is too small */
  constructor(options: XenDomainOptions) {
    const { group, pages } = options;
    this.id = options.id;
    this.pages = pages;
    this.#group = group;
    this.clock = options.clock;
    this.uuidBytes = options.uuid;
    if (options.watcher) this.#watchers.push(options.watcher);
    this.#exactTurns = options.exactTurns ?? false;
    this.#symbolize = options.symbolize ?? (() => undefined);
    this.#sink = options.consoleSink;
    this.#random = options.random;
    const { pool, memory } = group.parts;
    this.memory = memory;
    const sharedMfn = (FIRST_MFN + pages) as Mfn;
    const limit = sharedMfn + 1 + GRANT_FRAMES + SPARE_NUMBERS;
    this.space = new MachineSpace(pool, limit);
    this.paging = new DirectPaging({
      space: this.space,
      invalidator: group,
      virtualProcessors: options.vcpus,
      events: pagingEvents(this, () => this.#checker),
    });

    const p2m = new Uint32Array(pages);
    for (let pfn = 0; pfn < pages; pfn++) {
      const mfn = (FIRST_MFN + (options.permutation?.(pfn) ?? pfn)) as Mfn;
      p2m[pfn] = mfn;
      this.paging.addFrame(mfn, pool.allocate(), FrameOwner.domain);
      this.paging.machineToPhysical.set(mfn, pfn, 0);
    }
    this.paging.addFrame(sharedMfn, pool.allocate(), FrameOwner.shared);
    for (let spare = 0; spare < SPARE_NUMBERS; spare++) {
      this.paging.offerNumber((sharedMfn + 1 + GRANT_FRAMES + spare) as Mfn);
    }

    this.shared = new SharedInfo(this.space, sharedMfn, SHARED_INFO_64, options.vcpus);
    this.events = new EventChannels(this.id, this.shared, this);
    this.timers = new Timers(this.events, this);
    this.runstates = new Runstates(options.vcpus, RUNSTATE_64);
    this.grants = new GrantTable(
      this.id,
      this.space,
      {
        hold: (mfn, write) => !write || this.paging.holdWritable(mfn) === 0,
        release: (mfn, write) => {
          if (write) this.paging.dropWritable(mfn);
        },
        written: (mfn, offset, length) => group.frameWritten(this.space.frameOf(mfn), offset, length),
      },
      (index) => {
        if (index >= GRANT_FRAMES) return -1 as Mfn;
        const mfn = (sharedMfn + 1 + index) as Mfn;
        this.paging.addFrame(mfn, pool.allocate(), FrameOwner.shared);
        return mfn;
      },
      GRANT_FRAMES,
    );
    this.events.registerService(SERVICE_STORE, {
      notify: () => {
        this.#pollStore = true;
      },
    });
    this.events.registerService(SERVICE_CONSOLE, {
      notify: () => {
        this.#pollConsole = true;
      },
    });
    this.#storePort = this.events.openService(SERVICE_STORE);
    this.#consolePort = this.events.openService(SERVICE_CONSOLE);

    const built = buildDomain({
      kernel: options.kernel,
      initrd: options.initrd,
      commandLine: options.commandLine,
      pages,
      p2m,
      space: this.space,
      sharedInfo: sharedMfn,
      storePort: this.#storePort,
      consolePort: this.#consolePort,
    });
    if (built.hypercallPage !== undefined) this.#fillHypercallPage(built.hypercallPage);

    createHostTree(this.store);
    createDomainTree(this.store, {
      domain: this.id,
      name: options.name,
      uuid: formatUuid(options.uuid),
      memoryKiB: (pages * PAGE_SIZE) / 1024,
      vcpus: options.vcpus,
      store: { port: this.#storePort, mfn: built.store },
      console: { port: this.#consolePort, mfn: built.console },
      kernel: 'kernel',
      commandLine: options.commandLine,
      startTime: options.wallclock.seconds,
    });
    this.#console = new ConsoleRing(this.space, built.console, this.#sink);
    this.#storeRing = new XenstoreRing(this.space, built.store, this.store.introduce(this.id));
    this.paging.holdWritable(built.console);
    this.paging.holdWritable(built.store);
    this.grants.prefill(0, built.console);
    this.grants.prefill(1, built.store);

    const { seconds, nanoseconds } = options.wallclock;
    publishWallclock(this.shared, seconds, nanoseconds);
    for (let index = 0; index < options.vcpus; index++) {
      this.vcpus.push(new XenVcpu(index, group.create(), this.paging, this.shared));
      this.#publishTime(index);
    }
    this.running = this.vcpus[0] as XenVcpu;
    this.#call = new Call(this, this.running);
    this.statistics = new Statistics(
      {
        wallSeconds: () => this.#wallSeconds,
        guestSeconds: () => this.clock.now() / 1e9,
        instructions: () => this.instructions,
        tlb: () => this.#tlbStatistics(),
        framesByType: () => this.paging.statistics(),
        regionsCompiled: () => 0,
        memoryInUse: () => this.#memoryInUse(),
      },
      HYPERCALL_NAMES,
    );
    const trace = options.trace && writeTrace(this, options.trace);
    if (trace) this.#watchers.push(trace.watcher);
    this.#flushTrace = trace ? () => trace.writer.flush() : () => {};
    if (options.check) this.#checker = checkContracts(this, group.parts.marks, built.root, this.#symbolize);
    this.operations = createOperations(implementOperations(this), {
      counts: this.statistics.operations,
      observers: [...(this.#checker ? [this.#checker] : []), ...(trace ? [trace.writer] : [])],
    });
    this.#start(this.vcpus[0] as XenVcpu, built.root, built);
  }

  #start(vcpu: XenVcpu, root: Mfn, built: { entry: GuestVirtual; stack: GuestVirtual; startInfo: GuestVirtual }): void {
    this.#completely(() => this.paging.pin(4, root), 'the initial page tables');
    this.#completely(() => this.paging.newBasePointer(vcpu.index, root), 'the initial root');
    vcpu.useRoots();
    const { processor } = vcpu;
    processor.rip = built.entry;
    processor.setValue(Register.rsp, built.stack);
    processor.setValue(Register.rsi, built.startInfo);
    vcpu.kernelStack = built.stack;
    vcpu.initialised = true;
    vcpu.down = false;
    this.timers.asleep[vcpu.index] = 0;
  }

  #completely(step: () => number, what: string): void {
    for (;;) {
      const result = step();
      if (result === 0) return;
      if (result !== PagingError.preempted) throw new Error(`${what} are not valid (${result})`);
    }
  }

  #publishTime(index: number): void {
    const info = this.shared.vcpuInfo(index);
    if (info >= 0) publishVcpuTime(this.memory, (info + VcpuInfo.time) as typeof info, this.clock, 1);
  }

  /** VCPUOP_register_vcpu_time_memory_area: a copy for user programs. */
  writeTimeArea(area: GuestVirtual, vcpu: XenVcpu): boolean {
    return area === 0 || vcpu.processor.memory.write(area, encodeVcpuTime(this.clock, 2, 1));
  }

  allVcpus(): number[] {
    return this.vcpus.map((_vcpu, index) => index);
  }

  // Hypercall page

  /** A kernel named a page of its own, by pseudo-physical number, to be filled with stubs. */
  writeHypercallPage(pfn: number): boolean {
    const mfn = this.#mfnOf(pfn as Pfn);
    if (mfn === undefined || this.paging.holdWritable(mfn) !== 0) return false;
    this.#fillHypercallPage(mfn);
    this.paging.dropWritable(mfn);
    return true;
  }

  #mfnOf(pfn: Pfn): Mfn | undefined {
    for (let mfn = FIRST_MFN; mfn < this.space.limit; mfn++) {
      if (this.paging.machineToPhysical.get(mfn) === pfn) return mfn as Mfn;
    }
    return undefined;
  }

  /** 32 bytes a hypercall [§4.2]: save rcx and r11, load the number, SYSCALL, restore, return. */
  #fillHypercallPage(mfn: Mfn): void {
    const page = this.space.addressOf(mfn);
    const { u8, view } = this.memory;
    u8.fill(0xcc, page, page + PAGE_SIZE);
    for (let number = 0; number < 128; number++) {
      const at = page + number * 32;
      if (number === IRET) {
        u8.set([0x51, 0x41, 0x53, 0x50, 0xb8, 0, 0, 0, 0, 0x0f, 0x05], at);
        view.setUint32(at + 5, number, true);
      } else {
        u8.set([0x51, 0x41, 0x53, 0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3], at);
        view.setUint32(at + 4, number, true);
      }
    }
    this.#group.frameWritten(this.space.frameOf(mfn), 0, PAGE_SIZE);
  }

  // Console

  /** Text from console_io, before the guest's console driver exists. */
  earlyConsole(bytes: Uint8Array): void {
    this.#sink(bytes);
  }

  type(bytes: Uint8Array): void {
    this.#console.type(bytes);
    this.#pollConsole = true;
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
    this.#yielded = true;
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
    this.runstates.change(vcpu.index, state, this.clock.now(), vcpu.processor.memory);
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
        this.state = {
          kind: 'crash',
          reason:
            reason === ShutdownReason.watchdog ? 'the watchdog fired' : 'the guest reported a crash (kernel panic)',
        };
        this.#crashed = this.#call.vcpu;
    }
  }

  /** The domain cannot go on. */
  crash(vcpu: XenVcpu, reason: string): void {
    if (this.state.kind !== 'running') return;
    this.state = { kind: 'crash', reason };
    this.#crashed = vcpu;
  }

  /** When something happens by itself; Infinity for never. System time in nanoseconds. */
  nextDeadline(): number {
    return Math.min(this.timers.nextDeadline(), ...this.watchdogs);
  }

  get idle(): boolean {
    return !this.#pollConsole && !this.#pollStore && this.vcpus.every((vcpu) => vcpu.down || vcpu.blocked);
  }

  /** Milliseconds of host time until `nextDeadline`; 0 when it has passed. */
  millisecondsToDeadline(): number {
    if (this.clock instanceof VirtualClock)
      return this.nextDeadline() === Number.POSITIVE_INFINITY ? Number.POSITIVE_INFINITY : 0;
    return Math.max(0, (this.nextDeadline() - this.clock.now()) / 1e6);
  }

  /** Timers that are due fire; virtual time jumps to the next one when nothing can run. */
  catchUp(): void {
    if (this.idle && this.clock instanceof VirtualClock) this.clock.advanceTo(this.nextDeadline());
    const now = this.clock.now();
    if (this.timers.nextDeadline() <= now) this.timers.expire(now);
    if (this.watchdogs.some((deadline) => deadline <= now)) this.shutdown(ShutdownReason.watchdog);
  }

  /** Lets each runnable virtual processor have one turn. */
  turn(): void {
    this.catchUp();
    this.#serveRings();
    const count = this.vcpus.length;
    if (this.#checker && --this.#turnsToRecount === 0) this.#recount();
    for (let position = 0; position < count && this.state.kind === 'running'; position++) {
      const vcpu = this.vcpus[(this.#nextVcpu + position) % count] as XenVcpu;
      if (vcpu.down || vcpu.blocked) continue;
      this.#changeRunstate(vcpu, RunState.running);
      try {
        this.#runVcpu(vcpu, TURN);
      } catch (error) {
        if (!(error instanceof DomainCrash)) throw error;
        this.crash(vcpu, error.message);
      }
      if (!vcpu.down && !vcpu.blocked && count > 1) this.#changeRunstate(vcpu, RunState.runnable);
    }
    this.#nextVcpu = (this.#nextVcpu + 1) % count;
    if (this.state.kind !== 'running') this.#lastTurn();
  }

  #lastTurn(): void {
    this.#console.poll();
    if (this.#checker && this.state.kind !== 'crash') this.#recount();
    this.#flushTrace();
  }

  /** Adds up types and counts of all frames; what the paging keeps must be the same. */
  #recount(): void {
    this.#turnsToRecount = TURNS_PER_RECOUNT;
    const found = this.paging.recount();
    const [first] = found;
    if (!first) return;
    const { mfn, what, stored, expected } = first;
    const more = found.length === 1 ? '' : `, and ${found.length - 1} more`;
    this.state = {
      kind: 'crash',
      reason: `frame types do not add up: ${what} of frame ${hexadecimal(mfn)} is ${stored}, counted are ${expected}${more}`,
    };
    this.#crashed = this.running;
  }

  #serveRings(): void {
    if (this.#pollConsole) {
      this.#pollConsole = false;
      if (this.#console.poll()) this.events.raise(this.#consolePort);
    }
    if (this.#pollStore) {
      this.#pollStore = false;
      if (this.#storeRing.poll()) {
        this.events.raise(this.#storePort);
        this.#pollStore = true;
      }
    }
  }

  // The loop of one virtual processor

  #runVcpu(vcpu: XenVcpu, budget: number): void {
    const { processor } = vcpu;
    const { exits } = this.statistics;
    const end = processor.instructions + budget;
    this.running = vcpu;
    this.#yielded = false;
    while (this.state.kind === 'running' && !vcpu.blocked && !vcpu.down && !this.#yielded) {
      vcpu.deliverEvent();
      const left = end - processor.instructions;
      if (left <= 0) return;
      const exit = this.#exactTurns ? processor.runExactly(left) : processor.run(left);
      exits[exit]! += 1; // one for each kind of exit
      for (const watcher of this.#watchers) watcher.exit(vcpu, exit);
      switch (exit) {
        case Exit.budget:
          break;
        case Exit.exception:
          this.#exception(vcpu);
          break;
        case Exit.syscall:
          this.#syscall(vcpu);
          break;
        case Exit.system:
          if (executeForGuest(this, vcpu) === SystemResult.fault) this.#exception(vcpu);
          break;
        case Exit.softwareInterrupt:
          this.#softwareInterrupt(vcpu);
          break;
        case Exit.sysenter:
          if (vcpu.kernelMode || !vcpu.deliverSysenter()) {
            processor.raise(Vector.generalProtection);
            this.#exception(vcpu);
          }
          break;
        default:
          throw new Error(`unexpected exit ${exit}`);
      }
      if (this.#pollConsole || this.#pollStore) this.#serveRings();
    }
  }

  #exception(vcpu: XenVcpu): void {
    const { processor } = vcpu;
    const vector = processor.exitDetail;
    const error = processor.exitError;
    if (vector === Vector.invalidOpcode && this.#forcedCpuid(vcpu)) return;
    if (vector === Vector.pageFault) vcpu.publishCr2();
    if (vector === Vector.debug) vcpu.noteDebugConditions(error);
    if (vcpu.traps[vector]?.address === 0) {
      const where = vector === Vector.pageFault ? ` at address ${hexadecimal(processor.cr2)}` : '';
      throw new DomainCrash(
        `exception ${vector} (error code 0x${error.toString(16)})${where} before the guest has a handler for it`,
      );
    }
    vcpu.deliverTrap(vector, VECTORS_WITH_ERROR.has(vector) ? error : null);
  }

  /** UD2, "xen", CPUID: a PV kernel's way to ask the host and not the machine. */
  #forcedCpuid(vcpu: XenVcpu): boolean {
    const { processor } = vcpu;
    const bytes = new Uint8Array(FORCED_CPUID.length);
    if (!processor.memory.read(processor.rip, bytes)) return false;
    if (FORCED_CPUID.some((byte, index) => bytes[index] !== byte)) return false;
    executeCpuid(this, vcpu);
    processor.rip = (processor.rip + FORCED_CPUID.length) as GuestVirtual;
    processor.instructions++;
    return true;
  }

  #softwareInterrupt(vcpu: XenVcpu): void {
    const { processor } = vcpu;
    const vector = processor.exitDetail;
    const dpl = (vcpu.traps[vector]?.flags ?? 0) & 3;
    const allowed = dpl === 3 || (vcpu.kernelMode && dpl !== 0);
    if (!allowed) {
      processor.raise(Vector.generalProtection, vector * 8 + 2);
      this.#exception(vcpu);
      return;
    }
    processor.completeInstruction();
    vcpu.deliverTrap(vector, null);
  }

  #syscall(vcpu: XenVcpu): void {
    const { processor } = vcpu;
    if (!vcpu.kernelMode) {
      const next = (processor.rip + processor.exitLength) as GuestVirtual;
      if (vcpu.deliverSyscall(next)) {
        processor.instructions++;
        return;
      }
      processor.raise(Vector.invalidOpcode);
      this.#exception(vcpu);
      return;
    }
    const call = this.#call;
    call.loadFromRegisters(vcpu);
    const number = processor.low(Register.rax);
    const { flags } = processor;
    processor.completeInstruction();
    processor.setValue(Register.rcx, processor.rip);
    processor.set(Register.r11, flags & ~Flag.resume, 0);
    for (let attempt = 0; ; attempt++) {
      const result = this.#hypercall(call, number);
      if (result === Special.noResult) return;
      if (result !== Special.preempted) {
        processor.setValue(Register.rax, result);
        return;
      }
      // What is left is done by executing the same instruction again, after other work had its chance.
      if (attempt === CONTINUATIONS) {
        call.storeToRegisters();
        processor.rip = (processor.rip - SYSCALL_BYTES) as GuestVirtual;
        this.#yielded = true;
        return;
      }
    }
  }

  #hypercall(call: Call, number: number): number {
    this.statistics.hypercall(number);
    return this.#watchers.length === 0 ? this.#perform(call, number) : this.#performWatched(call, number);
  }

  #perform(call: Call, number: number): number {
    if (number === MULTICALL) return this.#multicall(call);
    const handler = HYPERCALLS[number];
    return handler ? handler(call) : NOT_IMPLEMENTED;
  }

  #performWatched(call: Call, number: number): number {
    // A preempted call changes its arguments to what is left.
    const count = HYPERCALL_ARGUMENTS[HYPERCALL_NAMES[number] ?? ''] ?? 5;
    const values: string[] = [];
    for (let index = 0; index < count; index++) {
      values.push(hexadecimal64(call.low[index] as number, call.high[index] as number));
    }
    const result = this.#perform(call, number);
    for (const watcher of this.#watchers) watcher.hypercall(call.vcpu, number, values, result);
    return result;
  }

  /** Entries are carried out in order; each gets its own result, and the call itself succeeds. */
  #multicall(outer: Call): number {
    if (outer.nested) return -Errno.EINVAL;
    const list = outer.value(0);
    const count = outer.low[1] as number;
    const call = new Call(this, outer.vcpu);
    call.nested = true;
    for (let index = 0; index < count; index++) {
      const address = list + index * MULTICALL_BYTES;
      const suspend = () => {
        outer.setValue(0, address);
        outer.setValue(1, count - index);
        return Special.preempted;
      };
      if (index === MULTICALL_LIMIT) return suspend();
      const view = outer.view(address, MULTICALL_BYTES);
      if (!view) return FAULT;
      for (let argument = 0; argument < 6; argument++) {
        call.low[argument] = view.getUint32(16 + argument * 8, true);
        call.high[argument] = view.getUint32(20 + argument * 8, true);
      }
      const number = view.getUint32(0, true);
      const result = this.#hypercall(call, number);
      if (result === Special.noResult) return Special.noResult;
      if (result === Special.preempted) {
        for (let argument = 0; argument < 6; argument++) {
          view.setUint32(16 + argument * 8, call.low[argument] as number, true);
          view.setUint32(20 + argument * 8, call.high[argument] as number, true);
        }
        return outer.writeView(address, view) ? suspend() : FAULT;
      }
      if (!outer.writeLong(address + 8, result)) return FAULT;
      if (this.state.kind !== 'running') return 0;
    }
    return 0;
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
      paused: () => {
        if (this.vcpus.length > 1) this.yield();
      },
    };
    return this.#services[index];
  }

  /** Instructions completed by all virtual processors. */
  get instructions(): number {
    return this.vcpus.reduce((sum, { processor }) => sum + processor.instructions, 0);
  }

  /** Ends the domain: its frames go back to the pool, its processors to the group. */
  destroy(): void {
    this.#flushTrace();
    for (const { index, processor } of this.vcpus) {
      this.paging.releaseProcessor(index);
      this.#group.release(processor);
    }
    this.paging.destroy();
  }

  crashReport(): string {
    const vcpu = this.#crashed;
    if (!vcpu || this.state.kind !== 'crash') return '';
    const { processor } = vcpu;
    const registers = new Uint32Array(32);
    for (let register = 0; register < 16; register++) {
      registers[register * 2] = processor.low(register as Register);
      registers[register * 2 + 1] = processor.high(register as Register);
    }
    return formatCrash(
      {
        reason: this.state.reason,
        domain: `guest ${this.id}`,
        vcpu: vcpu.index,
        registers,
        rip: processor.rip,
        flags: processor.flags,
        selectors: {
          cs: processor.selector(SegmentRegister.cs),
          ss: processor.selector(SegmentRegister.ss),
          ds: processor.selector(SegmentRegister.ds),
          es: processor.selector(SegmentRegister.es),
          fs: processor.selector(SegmentRegister.fs),
          gs: processor.selector(SegmentRegister.gs),
        },
        fsBase: processor.segmentBase(SegmentRegister.fs),
        gsBase: processor.segmentBase(SegmentRegister.gs),
        cr0: processor.cr0,
        cr2: processor.cr2,
        cr3: this.paging.root(vcpu.index),
        cr4: processor.cr4,
        wordSize: 8,
      },
      {
        symbolize: this.#symbolize,
        readStack: (address, out) => processor.memory.readLong(address, out),
      },
    );
  }

  /** Figures of the domain as plain data. */
  figures(wallSeconds: number): object {
    this.#wallSeconds = wallSeconds;
    return this.statistics.report();
  }

  #tlbStatistics(): TlbStatistics {
    const sum = { fills: 0, flushes: 0, pageFlushes: 0, switches: 0, returns: 0 };
    for (const { processor } of this.vcpus) {
      const { tlbCounters } = processor.memory;
      for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += tlbCounters[name];
    }
    return sum;
  }

  #memoryInUse(): number {
    const frames = this.paging.frameCount + this.paging.machineToPhysical.windows.length;
    return frames * PAGE_SIZE;
  }
}

const IRET = 23;
const MULTICALL = 13;
const SYSCALL_BYTES = 2;
const FORCED_CPUID = [0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2];
const VECTORS_WITH_ERROR: ReadonlySet<number> = new Set([8, 10, 11, 12, 13, 14, 17, 21]);

function formatUuid(bytes: Uint8Array): string {
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return [0, 8, 12, 16, 20].map((start, index, starts) => digits.slice(start, starts[index + 1] ?? 32)).join('-');
}
