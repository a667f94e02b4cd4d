import type {
  BootOptions,
  Host,
  HostOptions,
  InterfaceName,
  PagingName,
  ResumeOptions,
  VirtualMachine,
} from '../api.ts';
import type { Archived } from '../archive/archive.ts';
import { restore } from '../archive/reader.ts';
import { save } from '../archive/writer.ts';
import { InputError } from '../boot/input-error.ts';
import { refuseHopelessMemory, requireMemory, requireXenNotes } from '../boot/requirements.ts';
import { ProcessorGroup } from '../cpu/processor.ts';
import { MOST_DISKS } from '../devices/xen/block-backend.ts';
import { type Cell, chooseCell } from '../domain/cells.ts';
import { HostClock, VirtualClock } from '../domain/clock.ts';
import { Machine } from '../domain/machine.ts';
import { OutputQueue } from '../domain/output-queue.ts';
import { Scheduler } from '../domain/scheduler.ts';
import { SeededRandom } from '../domain/seeded-random.ts';
import { SharedFiles } from '../domain/shared-files.ts';
import { TransientKernel } from '../domain/transient-kernel.ts';
import { TableAudit } from '../inspect/audit.ts';
import { type CodeStatistics, codeStatistics } from '../inspect/code-statistics.ts';
import { recordedAccessors } from '../inspect/kernel-accessors.ts';
import { kernelSymbolizer } from '../inspect/kernel-symbols.ts';
import { Profiler } from '../inspect/profiler.ts';
import type { Symbolizer } from '../inspect/text.ts';
import { XenDomain } from '../interfaces/xen/domain.ts';
import { overheadFrames } from '../interfaces/xen/domain-frames.ts';
import { syscallName } from '../interfaces/xen/hypercalls/dispatch.ts';
import { FramePool, OutOfFrames } from '../memory/frame-pool.ts';
import { HostMemory } from '../memory/host-memory.ts';
import type { MicrovmDomain } from '../microvm/domain.ts';
import { AddressSpace } from '../mm/address-space.ts';
import { MemoryManager, type MemoryStatistics, overheadOf } from '../mm/memory-manager.ts';
import type { SwapStore } from '../mm/swap.ts';
import { shadowCapacity } from '../paging/shadow/shadow-pool.ts';
import type { GuestDescription, SnapshotTarget } from '../snapshot/format.ts';
import type { Snapshot } from '../snapshot/snapshot.ts';
import { writeSnapshot } from '../snapshot/write-snapshot.ts';
import { PAGE_SIZE } from '../x86/brand.ts';
import { bootMicrovm, type CommonOptions, resumeMicrovm } from './microvm-guest.ts';
import { noMemory } from './no-memory.ts';
import { SavedFiles } from './saved-files.ts';
import { bootXen, resumeXen } from './xen-guest.ts';

type GuestDomain = XenDomain | MicrovmDomain;

/** Room for what is not a frame: decoded code (32 MiB), its table, TLBs, state blocks. */
const CONTROL_BYTES = 128 << 20;

/** Wall clock, uuid and entropy of a deterministic guest: any fixed values would do. */
const DETERMINISTIC_EPOCH = 1_700_000_000;

/** What a guest is booted from or goes on from, as long as it runs. */
interface Origin {
  readonly guest: Omit<GuestDescription, 'domain' | 'systemTime'>;
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array;
  /** Gives the files back when the guest has ended. */
  release(): void;
}

/** Domains, their shared memory, and the loop that lets them take turns. */
export class RingHost implements Host {
  readonly #group: ProcessorGroup;
  readonly #scheduler = new Scheduler();
  readonly #machines = new Set<Machine>();
  readonly #memory: MemoryManager;
  readonly #files: SharedFiles;
  readonly #swap: SwapStore | undefined;
  /** Domains whose memory is being freed. */
  readonly #ending = new Set<Promise<void>>();
  readonly #saved: SavedFiles;
  #nextDomain = 1;
  #closed = false;

  constructor(options: HostOptions) {
    const guestPages = Math.ceil(options.memory / PAGE_SIZE);
    const frames = guestPages + overheadFrames(guestPages) + overheadOf(guestPages) + shadowCapacity(guestPages);
    const memory = new HostMemory(frames * PAGE_SIZE + CONTROL_BYTES);
    const pool = new FramePool(memory, frames);
    this.#group = new ProcessorGroup(memory, pool, { jit: options.jit ?? {} });
    this.#swap = options.swap;
    const store = options.swap ? { store: options.swap } : {};
    this.#memory = new MemoryManager({ pool, checked: options.check ?? false, ...store });
    this.#files = new SharedFiles(this.#memory);
    this.#saved = new SavedFiles(this.#memory);
  }

  async boot(options: BootOptions): Promise<VirtualMachine> {
    if (this.#closed) throw new Error('the host is closed');
    const { kernel: file, initrd = new Uint8Array(0), memory } = options;
    const cell = chooseCell(options.interface, options.paging);
    refuseDevices(options, cell);
    refuseAudit(options, cell);
    refuseHopelessMemory(file, initrd.length, memory);
    const files = { kernel: this.#files.acquire(file), initrd: this.#files.acquire(initrd) };
    const release = (): void => {
      this.#files.release(files.kernel);
      this.#files.release(files.initrd);
    };
    try {
      const { kernel } = files.kernel;
      kernel.hold();
      try {
        const { image } = kernel;
        if (cell.interface === 'xen') requireXenNotes(image);
        requireMemory(image, initrd.length, memory);
        const origin = { guest: describe(options, cell), kernel: file, initrd, release };
        return await this.#run(
          origin,
          options,
          { nanoseconds: 0, symbolize: kernelSymbolizer(() => image), accessors: () => recordedAccessors(image) },
          (common, _random, audit) => {
            return cell.interface === 'xen'
              ? bootXen(this.#memory, common, options, files, audit)
              : bootMicrovm(this.#memory, cell, common, options, files);
          },
        );
      } finally {
        kernel.release();
      }
    } catch (error) {
      release();
      throw error;
    }
  }

  async resume(snapshot: Snapshot, options: ResumeOptions = {}): Promise<VirtualMachine> {
    if (this.#closed) throw new Error('the host is closed');
    const { guest, memory, kernel, initrd } = snapshot;
    const cell = chooseCell(guest.interface as InterfaceName, guest.paging as PagingName);
    refuseOtherDevices(guest, options);
    const space = cell.paging === 'native' ? undefined : await this.#createSpace(guest.memory);
    if (space) await this.#saved.map(space, memory);
    const release = (): void => {
      if (space) this.#saved.release(memory);
    };
    try {
      const symbolize = kernelSymbolizer(() => new TransientKernel(kernel).image);
      const start = { nanoseconds: guest.systemTime, symbolize };
      const devices = { ...options, commandLine: guest.commandLine, deterministic: guest.deterministic };
      const origin = { guest: { ...guest }, kernel, initrd, release };
      return await this.#run(origin, devices, start, (common, random) => {
        const readBack = (domain: Archived): void => restore(savedState(domain, random), snapshot.state);
        if (space && cell.interface === 'xen') {
          return resumeXen({ ...common, id: guest.domain }, common.id, guest, space, readBack);
        }
        return resumeMicrovm(cell, common, devices, memory.pages, space ? { space } : { file: memory }, readBack);
      });
    } catch (error) {
      release();
      throw error;
    }
  }

  async #createSpace(bytes: number): Promise<AddressSpace> {
    await this.#roomMade();
    const space = await this.#memory.createSpace();
    if (!(space instanceof AddressSpace)) throw noMemory(bytes, space.message);
    return space;
  }

  /** Guests that have just ended make room. */
  async #roomMade(): Promise<void> {
    await Promise.all(this.#ending);
  }

  /** @param start system time that the guest begins with, and names of its kernel */
  async #run(
    origin: Origin,
    options: Pick<BootOptions, 'trace' | 'profile' | 'audit'>,
    start: {
      readonly nanoseconds: number;
      readonly symbolize: Symbolizer;
      readonly accessors?: () => ReadonlySet<number> | undefined;
    },
    build: (
      common: CommonOptions,
      random: SeededRandom | undefined,
      audit: TableAudit | undefined,
    ) => Promise<GuestDomain>,
  ): Promise<VirtualMachine> {
    await this.#roomMade();
    const { guest } = origin;
    const output = new OutputQueue();
    const id = this.#nextDomain++;
    const seeded = guest.deterministic ? new SeededRandom(id) : undefined;
    const { symbolize, accessors = () => undefined } = start;
    const audit = options.audit ? new TableAudit({ symbolize, accessors }) : undefined;
    const profiler = options.profile ? createProfiler(start.symbolize, guest.interface, this.#group) : undefined;
    let domain: GuestDomain | undefined;
    const common: CommonOptions = {
      id,
      vcpus: guest.vcpus,
      group: this.#group,
      clock: guest.deterministic
        ? new VirtualClock(() => domain?.instructions ?? 0)
        : new HostClock(() => performance.now()),
      wallclock: wallclockAt(guest.deterministic ? 0 : start.nanoseconds, guest.deterministic),
      random: seeded ? (out) => seeded.fill(out) : (out) => void crypto.getRandomValues(out),
      consoleSink: (bytes: Uint8Array) => output.push(bytes),
      exactTurns: guest.deterministic,
      symbolize: start.symbolize,
      profiler,
      ...(options.trace ? { trace: options.trace } : {}),
    };
    try {
      domain = await build(common, seeded, audit);
    } catch (error) {
      if (!(error instanceof OutOfFrames)) throw error;
      throw noMemory(guest.memory);
    }
    const machine: Machine = new Machine(
      domain,
      output,
      { profiler, audit },
      {
        released: () => this.#end(machine, origin),
        save: (target) => this.#save(domain, seeded, origin, target),
      },
    );
    this.#machines.add(machine);
    this.#scheduler.add(domain, machine);
    return machine;
  }

  async #save(
    domain: GuestDomain,
    random: SeededRandom | undefined,
    { guest, kernel, initrd }: Origin,
    target: SnapshotTarget,
  ): Promise<void> {
    if (guest.disks > 0 && domain instanceof XenDomain) {
      throw new InputError('a guest of the interface xen that has disks cannot be saved yet');
    }
    return this.#scheduler.whileStanding(domain, () => {
      const state = save(savedState(domain, random));
      const description = { ...guest, domain: domain.id, systemTime: domain.clock.now() };
      return writeSnapshot({ guest: description, state, memory: domain.savedPages, kernel, initrd }, target);
    });
  }

  #end(machine: Machine, origin: Origin): void {
    this.#scheduler.remove(machine.domain);
    this.#machines.delete(machine);
    // Who saves it reads its memory.
    const ending = machine.saved
      .then(() => machine.domain.destroy())
      .then(() => {
        this.#ending.delete(ending);
        origin.release();
      });
    this.#ending.add(ending);
  }

  statistics(): MemoryStatistics & CodeStatistics {
    return { ...this.#memory.statistics(), ...codeStatistics(this.#group) };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const machine of [...this.#machines]) machine.stop();
    this.#scheduler.close();
    await Promise.all(this.#ending);
    await this.#swap?.close();
  }
}

function refuseAudit({ audit }: BootOptions, cell: Cell): void {
  if (audit && cell.paging !== 'direct') {
    throw new InputError('only with direct paging does the host see what touches page tables; give --interface xen');
  }
}

function refuseDevices({ disks = [], adapters = [], deterministic }: BootOptions, cell: Cell): void {
  if (adapters.length > 0 && cell.interface === 'xen') {
    throw new InputError('the interface xen has no network adapters yet; give kvm or native');
  }
  if (disks.length > MOST_DISKS && cell.interface === 'xen') {
    throw new InputError(`a guest of the interface xen has at most ${MOST_DISKS} disks, not ${disks.length}`);
  }
  if (adapters.length > 0 && deterministic) {
    throw new InputError('what comes over a network knows no virtual time; leave out either of the two');
  }
}

/** A guest that goes on has the devices that it had. */
function refuseOtherDevices(guest: GuestDescription, { disks = [], adapters = [] }: ResumeOptions): void {
  const check = (what: string, had: number, has: number): void => {
    if (had !== has) throw new InputError(`the guest had ${had} ${what} when it was saved, and is given ${has}`);
  };
  check('disks', guest.disks, disks.length);
  check('network adapters', guest.adapters, adapters.length);
}

function describe(options: BootOptions, cell: Cell): Origin['guest'] {
  const { memory, vcpus, commandLine, deterministic = false, disks = [], adapters = [] } = options;
  return {
    ...cell,
    memory,
    vcpus,
    commandLine,
    deterministic,
    disks: disks.length,
    adapters: adapters.length,
  };
}

/** All that is saved of a guest besides its memory. */
function savedState(domain: Archived, random: SeededRandom | undefined): Archived {
  return {
    archive(archive) {
      archive.part('domain', domain);
      if (random) archive.part('random', random);
    },
  };
}

/** Unix time at system time 0 of a guest whose system time is `nanoseconds` at present. */
function wallclockAt(nanoseconds: number, deterministic: boolean): { seconds: number; nanoseconds: number } {
  const start = (deterministic ? DETERMINISTIC_EPOCH * 1000 : Date.now()) - nanoseconds / 1e6;
  const seconds = Math.floor(start / 1000);
  return { seconds, nanoseconds: Math.floor((start - seconds * 1000) * 1e6) };
}

function createProfiler(symbolize: Symbolizer, name: string, { jit }: ProcessorGroup): Profiler {
  return new Profiler({
    symbolize,
    now: () => performance.now() / 1000,
    compileSeconds: () => (jit ? jit.counters.milliseconds / 1000 : 0),
    ...(name === 'xen' ? { syscallName } : {}),
  });
}
