import type {
  BootOptions,
  CloneOptions,
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
import { bitsOfKernel } from '../boot/kernel.ts';
import { refuseHopelessMemory, requireMemory, requireXenNotes } from '../boot/requirements.ts';
import { findSeedPlaces, type SeedPlaces } from '../boot/seed-places.ts';
import { ProcessorGroup } from '../cpu/processor.ts';
import { COMMON_SHAPES } from '../cpu/semantics/shapes/index.ts';
import { MOST_DISKS } from '../devices/xen/block-backend.ts';
import { type Cell, chooseCell } from '../domain/cells.ts';
import { HostClock, VirtualClock } from '../domain/clock.ts';
import { renewSeed } from '../domain/kernel-seed.ts';
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
import type { LguestDomain } from '../interfaces/lguest/domain.ts';
import { XenDomain } from '../interfaces/xen/domain.ts';
import { overheadFrames } from '../interfaces/xen/domain-frames.ts';
import { callName } from '../interfaces/xen/hypercalls/dispatch.ts';
import { FramePool, OutOfFrames } from '../memory/frame-pool.ts';
import { HostMemory } from '../memory/host-memory.ts';
import type { MicrovmDomain } from '../microvm/domain.ts';
import { AddressSpace } from '../mm/address-space.ts';
import { MemoryManager, type MemoryStatistics, overheadOf } from '../mm/memory-manager.ts';
import type { SwapStore } from '../mm/swap.ts';
import { shadowCapacity } from '../paging/shadow/shadow-pool.ts';
import type { GuestDescription, SnapshotTarget } from '../snapshot/format.ts';
import type { Snapshot } from '../snapshot/snapshot.ts';
import { type GuestImage, writeSnapshot } from '../snapshot/write-snapshot.ts';
import { PAGE_SIZE } from '../x86/brand.ts';
import { afterburn } from './afterburn.ts';
import { bootLguest, resumeLguest } from './lguest-guest.ts';
import { bootMicrovm, type CommonOptions, resumeMicrovm, type SavedMemory } from './microvm-guest.ts';
import { noMemory, pagesMissing } from './no-memory.ts';
import { SavedFiles } from './saved-files.ts';
import { bootXen, resumeXen } from './xen-guest.ts';

type GuestDomain = XenDomain | MicrovmDomain | LguestDomain;

/** Room for what is not a frame: decoded code (32 MiB), its table, TLBs, state blocks. */
const CONTROL_BYTES = 128 << 20;

/** With more guests than these, TLBs of full size would take more memory than the guests do. */
const FEW_GUESTS = 8;
const SMALL_TLBS = { tlbEntries: 1024, tlbRoots: 4 } as const;
/** What one such guest takes of the control structures: nine TLBs of 32 KiB, and its state. */
const SMALL_GUEST_BYTES = 320 << 10;

/** Wall clock, uuid and entropy of a deterministic guest: any fixed values would do. */
const DETERMINISTIC_EPOCH = 1_700_000_000;

/** What a guest is booted from or goes on from, as long as it runs. */
interface Origin {
  readonly guest: Omit<GuestDescription, 'domain' | 'systemTime' | 'savedAt' | 'seed'>;
  /** Looked up when a copy is made of the guest: that takes long, and few are copied. */
  readonly seed: () => SeedPlaces | null;
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array;
  /** Gives the files back when the guest has ended. */
  release: () => void;
}

interface RunningGuest {
  readonly domain: GuestDomain;
  /** What a guest with virtual time takes for random. */
  readonly random: SeededRandom | undefined;
  readonly origin: Origin;
}

/** All that a guest is besides its memory. */
type SavedGuest = Omit<GuestImage, 'memory'>;

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
    const guests = options.guests ?? 1;
    const many = guests > FEW_GUESTS;
    const memory = new HostMemory(frames * PAGE_SIZE + CONTROL_BYTES + (many ? guests * SMALL_GUEST_BYTES : 0));
    const pool = new FramePool(memory, frames);
    this.#group = new ProcessorGroup(memory, pool, {
      jit: options.jit ?? {},
      commonShapes: COMMON_SHAPES,
      ...(many ? SMALL_TLBS : {}),
    });
    this.#swap = options.swap;
    const store = options.swap ? { store: options.swap } : {};
    this.#memory = new MemoryManager({ pool, checked: options.check ?? false, ...store });
    this.#files = new SharedFiles(this.#memory);
    this.#saved = new SavedFiles(this.#memory);
  }

  async boot(options: BootOptions): Promise<VirtualMachine> {
    if (this.#closed) throw new Error('the host is closed');
    const { initrd = new Uint8Array(0), memory } = options;
    const cell = chooseCell(options.interface, options.paging);
    refuseDevices(options, cell);
    const file = options.afterburn ? afterburn(options.kernel, cell) : options.kernel;
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
        const physicalOffset = cell.interface === 'xen' ? Number(image.xenNotes?.paddrOffset ?? 0n) : 0;
        const seed = once(() => findSeedPlaces(image, physicalOffset) ?? null);
        const origin = { guest: describe(options, cell), seed, kernel: file, initrd, release };
        return await this.#run(
          origin,
          options,
          { nanoseconds: 0, symbolize: kernelSymbolizer(() => image), accessors: () => recordedAccessors(image) },
          (common) => {
            if (cell.interface === 'xen') return bootXen(this.#memory, common, options, files);
            if (cell.interface === 'lguest') return bootLguest(this.#memory, common, options, files);
            return bootMicrovm(this.#memory, cell, common, options, files);
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
    const { guest, memory } = snapshot;
    refuseOtherDevices(guest, options);
    if (guest.paging === 'native') return this.#goOn(snapshot, { file: memory }, () => {}, options);
    const space = await this.#createSpace(guest.memory);
    await this.#saved.map(space, memory);
    return this.#goOn(snapshot, { space }, () => this.#saved.release(memory), options);
  }

  /** @param release gives back what the memory is made of, when the guest has ended or cannot be built */
  async #goOn(
    { guest, state, kernel, initrd }: SavedGuest,
    memory: SavedMemory,
    release: () => void,
    options: ResumeOptions,
  ): Promise<VirtualMachine> {
    const symbolize = kernelSymbolizer(() => new TransientKernel(kernel).image);
    const absence = absenceOf(guest);
    const start = { nanoseconds: guest.systemTime + absence, absence, symbolize };
    const cell = chooseCell(guest.interface as InterfaceName, guest.paging as PagingName);
    const { commandLine } = guest;
    try {
      const origin = { guest, seed: () => guest.seed, kernel, initrd, release };
      // A deterministic guest does the same as if it had never been saved, unless a copy is wanted.
      const isCopy = (options.fresh ?? false) || !guest.deterministic;
      return await this.#run(origin, options, start, async (common, random) => {
        const readBack = (domain: GuestDomain): void => {
          restore(savedState(domain, random), state);
          if (options.fresh) renew(domain, common, random);
        };
        const saved = { ...guest, kernel };
        const domain = await rebuild(cell, common, saved, memory, { ...options, commandLine, isCopy }, readBack);
        if (isCopy && (options.reseed ?? true)) await renewSeedOf(domain, guest.seed, common.random);
        return domain;
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
    options: Pick<BootOptions, 'trace' | 'profile' | 'audit' | 'check'>,
    start: {
      readonly nanoseconds: number;
      readonly absence?: number;
      readonly symbolize: Symbolizer;
      readonly accessors?: () => ReadonlySet<number> | undefined;
    },
    build: (common: CommonOptions, random: SeededRandom | undefined) => Promise<GuestDomain>,
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
        : new HostClock(() => performance.now(), start.absence),
      wallclock: wallclockAt(guest.deterministic ? 0 : start.nanoseconds, guest.deterministic),
      random: seeded ? (out) => seeded.fill(out) : (out) => void crypto.getRandomValues(out),
      consoleSink: (bytes: Uint8Array) => output.push(bytes),
      outputIsFull: () => output.isFull,
      exactTurns: guest.deterministic,
      symbolize: start.symbolize,
      profiler,
      audit,
      check: options.check ?? false,
      ...(options.trace ? { trace: options.trace } : {}),
    };
    try {
      domain = await build(common, seeded);
    } catch (error) {
      if (!(error instanceof OutOfFrames)) throw error;
      throw noMemory(guest.memory);
    }
    const running: RunningGuest = { domain, random: seeded, origin };
    const machine: Machine = new Machine(
      domain,
      output,
      { profiler, audit },
      {
        released: () => this.#end(machine, origin),
        save: (target) => this.#save(running, target),
        clone: (cloneOptions) => this.#clone(running, cloneOptions),
      },
    );
    this.#machines.add(machine);
    this.#scheduler.add(domain, machine);
    return machine;
  }

  async #save(running: RunningGuest, target: SnapshotTarget): Promise<void> {
    const { domain, origin } = running;
    // Before the guest stands still, since it takes long.
    origin.seed();
    return this.#scheduler.whileStanding(domain, () => {
      return writeSnapshot({ ...present(running), memory: domain.ram }, target);
    });
  }

  /** The guest stands still only until its pages are shared. */
  async #clone(running: RunningGuest, options: CloneOptions): Promise<VirtualMachine> {
    const { domain, origin } = running;
    const { pager } = domain;
    if (!pager) throw new InputError('a guest with native paging shares no pages, so it cannot be cloned; save it');
    origin.seed();
    const { saved, space, connected } = await this.#scheduler.whileStanding(domain, async () => {
      const disks = typeof options.disks === 'function' ? await options.disks() : (options.disks ?? []);
      const devices = { ...options, disks };
      refuseOtherDevices(origin.guest, devices);
      const cloned = await pager.cloneMemory(this.#memory);
      if (!(cloned instanceof AddressSpace)) throw noMemory(origin.guest.memory, cloned.message);
      return { saved: present(running), space: cloned, connected: devices };
    });
    return this.#goOn(saved, { space }, share(origin), { ...connected, fresh: true });
  }

  #end(machine: Machine, origin: Origin): void {
    this.#scheduler.remove(machine.domain);
    this.#machines.delete(machine);
    // Who saves it reads its memory, and who waits for its end may ask for figures with what it had.
    const ending = Promise.all([machine.saved, machine.done])
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

function refuseDevices({ disks = [], adapters = [], deterministic, vcpus }: BootOptions, cell: Cell): void {
  if (adapters.length > 0 && (cell.interface === 'xen' || cell.interface === 'lguest')) {
    throw new InputError(`the interface ${cell.interface} has no network adapters; give kvm or native`);
  }
  if (vcpus > 1 && cell.interface === 'lguest') throw new InputError('a guest of lguest has one processor');
  if (disks.length > MOST_DISKS && cell.interface === 'xen') {
    throw new InputError(`a guest of the interface xen has at most ${MOST_DISKS} disks, not ${disks.length}`);
  }
  if (adapters.length > 0 && deterministic) {
    throw new InputError('what comes over a network knows no virtual time; leave out either of the two');
  }
}

/** A guest that goes on has the devices that it had. */
function refuseOtherDevices(guest: Origin['guest'], { disks = [], adapters = [] }: ResumeOptions): void {
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

function present({ domain, random, origin: { guest, seed, kernel, initrd } }: RunningGuest): SavedGuest {
  const { clock } = domain;
  const systemTime = clock.now() + clock.behind;
  const savedAt = guest.deterministic ? 0 : Date.now();
  const description = { ...guest, domain: domain.id, systemTime, savedAt, seed: seed() };
  return { guest: description, state: save(savedState(domain, random)), kernel, initrd };
}

/** What takes long to find out, when it is first asked for. */
function once<Result>(find: () => Result): () => Result {
  let found: { readonly result: Result } | undefined;
  return () => {
    found ??= { result: find() };
    return found.result;
  };
}

/** Another guest has pages of the files: they are given back with the last of the two. @returns the other's release */
function share(origin: Origin): () => void {
  const { release } = origin;
  let users = 2;
  const leave = (): void => {
    if (--users === 0) release();
  };
  origin.release = leave;
  return leave;
}

/** Gives a copy of a guest what must not be the same in both. The host's own random numbers never are. */
function renew(domain: GuestDomain, { id }: CommonOptions, random: SeededRandom | undefined): void {
  random?.seed(id);
  if (domain instanceof XenDomain) domain.rename(`guest${id}`);
}

/** Builds a guest that goes on. @param readBack gives its domain the state that it had */
function rebuild(
  cell: Cell,
  common: CommonOptions,
  guest: GuestDescription & { readonly kernel: Uint8Array },
  memory: SavedMemory,
  options: ResumeOptions & { readonly commandLine: string; readonly isCopy: boolean },
  readBack: (domain: GuestDomain) => void,
): Promise<GuestDomain> {
  const pages = Math.floor(guest.memory / PAGE_SIZE);
  if ('space' in memory && cell.interface === 'xen') {
    const saved = { ...guest, bits: bitsOfKernel(guest.kernel) };
    return resumeXen({ ...common, id: guest.domain }, common.id, saved, memory.space, options.disks, readBack);
  }
  if ('space' in memory && cell.interface === 'lguest') {
    return resumeLguest(common, options, pages, memory.space, readBack);
  }
  return resumeMicrovm(cell, common, options, pages, memory, readBack);
}

/** @throws InputError when its memory cannot be had */
async function renewSeedOf(
  domain: GuestDomain,
  places: SeedPlaces | null,
  random: CommonOptions['random'],
): Promise<void> {
  const failed = places && (await renewSeed(domain.ram, places, random));
  if (!failed) return;
  await domain.destroy();
  throw pagesMissing(failed.message);
}

/** The state of a guest, as an archive takes it. */
function savedState(domain: Archived, random: SeededRandom | undefined): Archived {
  return {
    archive(archive) {
      archive.part('domain', domain);
      if (random) archive.part('random', random);
    },
  };
}

/** Nanoseconds that a guest was away. With virtual time it never is. */
function absenceOf({ deterministic, savedAt }: GuestDescription): number {
  return deterministic ? 0 : Math.max(0, Date.now() - savedAt) * 1e6;
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
    ...(name === 'xen' ? { callName } : {}),
  });
}
