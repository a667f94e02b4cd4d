import type { BootOptions, Host, HostOptions, VirtualMachine } from './api.ts';
import { InputError } from './boot/input-error.ts';
import { createSymbolizer, type SymbolSource } from './boot/kallsyms.ts';
import { refuseHopelessMemory, requireMemory, requireXenNotes } from './boot/requirements.ts';
import { ProcessorGroup } from './cpu/processor.ts';
import { type Cell, chooseCell } from './domain/cells.ts';
import { HostClock, VirtualClock } from './domain/clock.ts';
import type { Domain } from './domain/domain.ts';
import { Machine } from './domain/machine.ts';
import { OutputQueue } from './domain/output-queue.ts';
import { Scheduler } from './domain/scheduler.ts';
import { type SharedFile, SharedFiles } from './domain/shared-files.ts';
import { type CodeStatistics, codeStatistics } from './inspect/code-statistics.ts';
import { Profiler } from './inspect/profiler.ts';
import type { Symbolizer } from './inspect/text.ts';
import { createKvmInterface } from './interfaces/kvm/kvm-interface.ts';
import { createNativeInterface } from './interfaces/native/native-interface.ts';
import { XenDomain } from './interfaces/xen/domain.ts';
import { overheadFrames } from './interfaces/xen/domain-frames.ts';
import { type DomainPlan, planDomain } from './interfaces/xen/domain-plan.ts';
import { syscallName } from './interfaces/xen/hypercalls/dispatch.ts';
import { createPagedMemory, type PagedMemory } from './interfaces/xen/paged-memory.ts';
import { FramePool, OutOfFrames } from './memory/frame-pool.ts';
import { HostMemory } from './memory/host-memory.ts';
import { MicrovmDomain, type MicrovmOptions } from './microvm/domain.ts';
import { createGuestDevices } from './microvm/guest-devices.ts';
import { layOutKernel } from './microvm/loader.ts';
import { createPagedMachine } from './microvm/paged-memory.ts';
import { MemoryManager, type MemoryStatistics, overheadOf } from './mm/memory-manager.ts';
import { bytesFile } from './mm/page-cache.ts';
import type { SwapStore } from './mm/swap.ts';
import { createLinearPaging } from './paging/native/linear-paging.ts';
import { shadowCapacity } from './paging/shadow/shadow-pool.ts';
import { PAGE_SIZE } from './x86/brand.ts';

/** Room for what is not a frame: decoded code (32 MiB), its table, TLBs, state blocks. */
const CONTROL_BYTES = 128 << 20;

/** Wall clock, uuid and entropy of a deterministic guest: any fixed values would do. */
const DETERMINISTIC_EPOCH = 1_700_000_000;

/** The files of one guest. */
interface GuestFiles {
  readonly kernel: SharedFile;
  readonly initrd: SharedFile;
}

/** What all kinds of domains are made of. */
type CommonOptions = Omit<MicrovmOptions, 'paging' | 'paged' | 'createInterface' | 'devices' | 'console'>;

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
  }

  async boot(options: BootOptions): Promise<VirtualMachine> {
    if (this.#closed) throw new Error('the host is closed');
    const { kernel: file, initrd = new Uint8Array(0), memory } = options;
    const cell = chooseCell(options.interface, options.paging);
    refuseDevices(options, cell);
    refuseHopelessMemory(file, initrd.length, memory);
    const files = { kernel: this.#files.acquire(file), initrd: this.#files.acquire(initrd) };
    try {
      const { kernel } = files.kernel;
      kernel.hold();
      try {
        return await this.#bootFrom(files, options, cell);
      } finally {
        kernel.release();
      }
    } catch (error) {
      this.#release(files);
      throw error;
    }
  }

  async #bootFrom(files: GuestFiles, options: BootOptions, cell: Cell): Promise<VirtualMachine> {
    const { memory } = options;
    const { image: kernel } = files.kernel.kernel;
    const initrd = files.initrd.bytes;
    if (cell.interface === 'xen') requireXenNotes(kernel);
    requireMemory(kernel, initrd.length, memory);
    const deterministic = options.deterministic ?? false;
    const output = new OutputQueue();
    const id = this.#nextDomain++;
    const random = deterministic
      ? seededRandom(id)
      : (out: Uint32Array<ArrayBuffer>) => void crypto.getRandomValues(out);
    const symbolize = symbolizer(kernel);
    const profiler = options.profile ? createProfiler(symbolize, cell, this.#group) : undefined;
    const now = deterministic ? DETERMINISTIC_EPOCH * 1000 : Date.now();
    let domain: Domain & { readonly instructions: number };
    const common = {
      id,
      kernel,
      initrd,
      commandLine: options.commandLine,
      vcpus: options.vcpus,
      group: this.#group,
      clock: deterministic ? new VirtualClock(() => domain?.instructions ?? 0) : new HostClock(() => performance.now()),
      wallclock: { seconds: Math.floor(now / 1000), nanoseconds: (now % 1000) * 1_000_000 },
      random,
      consoleSink: (bytes: Uint8Array) => output.push(bytes),
      exactTurns: deterministic,
      symbolize,
      profiler,
      ...(options.trace ? { trace: options.trace } : {}),
    };
    try {
      domain =
        cell.interface === 'xen'
          ? await this.#xenDomain(common, options, files)
          : await this.#microvm(common, options, cell, files);
    } catch (error) {
      if (!(error instanceof OutOfFrames)) throw error;
      throw noMemory(memory);
    }
    const machine = new Machine(domain, output, () => this.#end(machine, files), profiler);
    this.#machines.add(machine);
    this.#scheduler.add(domain, machine);
    return machine;
  }

  async #xenDomain(common: CommonOptions, options: BootOptions, files: GuestFiles): Promise<XenDomain> {
    const { memory, check = false } = options;
    const { kernel, initrd, commandLine } = common;
    const plan = planDomain({ kernel, initrd, commandLine, pages: Math.floor(memory / PAGE_SIZE) });
    const words = new Uint32Array(4);
    for (let half = 0; half < 2; half++) common.random(words.subarray(half * 2, half * 2 + 2));
    const uuid = new Uint8Array(words.buffer);
    const paged = await this.#createMemory(plan, files, common.id);
    try {
      return new XenDomain({ ...common, name: `guest${common.id}`, uuid, plan, paged, check });
    } catch (error) {
      await paged.pager.end();
      throw error;
    }
  }

  async #createMemory(plan: DomainPlan, files: GuestFiles, order: number): Promise<PagedMemory> {
    // Guests that have just ended make room.
    await Promise.all(this.#ending);
    const paged = await createPagedMemory({
      manager: this.#memory,
      group: this.#group,
      plan,
      kernel: files.kernel.pagesOf(plan.kernelPages),
      initrd: files.initrd.pagesOf(bytesFile('the initrd', plan.initrd)),
      order,
    });
    if ('kind' in paged) throw noMemory(plan.pages * PAGE_SIZE, paged.message);
    return paged;
  }

  async #microvm(common: CommonOptions, options: BootOptions, cell: Cell, files: GuestFiles): Promise<MicrovmDomain> {
    const memory = await this.#createMachineMemory(common, options, cell, files);
    try {
      const createInterface = cell.interface === 'kvm' ? createKvmInterface : createNativeInterface;
      const { devices, console } = createGuestDevices(options, common.id, common.random, common.consoleSink);
      return new MicrovmDomain({ ...common, ...memory, devices, console, createInterface });
    } catch (error) {
      await memory.paging.destroy();
      throw error;
    }
  }

  async #createMachineMemory(
    { id, kernel, initrd }: CommonOptions,
    { memory }: BootOptions,
    { paging }: Cell,
    files: GuestFiles,
  ): Promise<Pick<MicrovmOptions, 'paging' | 'paged'>> {
    // Guests that have just ended make room.
    await Promise.all(this.#ending);
    const group = this.#group;
    const pages = Math.floor(memory / PAGE_SIZE);
    const layout = layOutKernel(kernel, initrd.length, pages);
    if (paging === 'native') return { paging: createLinearPaging(group.parts.pool, group, pages) };
    const paged = await createPagedMachine({
      manager: this.#memory,
      group,
      pages,
      layout,
      kernel: files.kernel.pagesOf(layout),
      initrd: files.initrd.pagesOf(bytesFile('the initrd', initrd)),
      shadowed: paging === 'shadow',
      order: id,
    });
    if ('kind' in paged) throw noMemory(memory, paged.message);
    return { paging: paged.paging, paged };
  }

  #end(machine: Machine, files: GuestFiles): void {
    this.#scheduler.remove(machine.domain);
    this.#machines.delete(machine);
    const ending = Promise.resolve(machine.domain.destroy()).then(() => {
      this.#ending.delete(ending);
      this.#release(files);
    });
    this.#ending.add(ending);
  }

  #release(files: GuestFiles): void {
    this.#files.release(files.kernel);
    this.#files.release(files.initrd);
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

function noMemory(bytes: number, reason?: string): InputError {
  const why = reason === undefined ? '' : ` (${reason})`;
  return new InputError(`the host has no memory left for a guest of ${bytes >> 20}M${why}; raise --host-memory`);
}

function refuseDevices({ disks = [], adapters = [], deterministic }: BootOptions, cell: Cell): void {
  if (disks.length + adapters.length > 0 && cell.interface === 'xen') {
    throw new InputError('the interface xen has neither disks nor network adapters yet; give kvm or native');
  }
  if (adapters.length > 0 && deterministic) {
    throw new InputError('what comes over a network knows no virtual time; leave out either of the two');
  }
}

function createProfiler(symbolize: Symbolizer, cell: Cell, { jit }: ProcessorGroup): Profiler {
  return new Profiler({
    symbolize,
    now: () => performance.now() / 1000,
    compileSeconds: () => (jit ? jit.counters.milliseconds / 1000 : 0),
    ...(cell.interface === 'xen' ? { syscallName } : {}),
  });
}

/** A small generator (xorshift) for guests that must run the same way each time; not for secrets. */
function seededRandom(seed: number): (out: Uint32Array) => void {
  let state = (seed * 0x9e37_79b9) | 1;
  return (out) => {
    for (let index = 0; index < out.length; index++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      out[index] = state;
    }
  };
}

/** Names for addresses of the guest's kernel; without symbols in the image, none. */
function symbolizer(kernel: SymbolSource): Symbolizer {
  // Most guests end without a name having been asked for; the tables are views of the whole kernel.
  let symbols: ReturnType<typeof createSymbolizer> | 'unread' = 'unread';
  return (address) => {
    if (symbols === 'unread') symbols = createSymbolizer(kernel);
    const symbol = symbols?.lookup(BigInt.asUintN(64, BigInt(address)));
    return symbol && { name: symbol.name, offset: symbol.offset, isData: !symbol.isCode };
  };
}
