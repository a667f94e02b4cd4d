import type { BootOptions, Host, HostOptions, VirtualMachine } from './api.ts';
import { InputError } from './boot/input-error.ts';
import { createSymbolizer } from './boot/kallsyms.ts';
import { type KernelImage, loadKernel } from './boot/kernel.ts';
import { refuseHopelessMemory, requireMemory, requireXenNotes } from './boot/requirements.ts';
import { ProcessorGroup } from './cpu/processor.ts';
import { BlockDevice } from './devices/virtio/block.ts';
import { EntropyDevice } from './devices/virtio/entropy.ts';
import { type Cell, chooseCell } from './domain/cells.ts';
import { HostClock, VirtualClock } from './domain/clock.ts';
import type { Domain } from './domain/domain.ts';
import { Machine } from './domain/machine.ts';
import { OutputQueue } from './domain/output-queue.ts';
import { Scheduler } from './domain/scheduler.ts';
import type { Symbolizer } from './inspect/text.ts';
import { createKvmInterface } from './interfaces/kvm/kvm-interface.ts';
import { createNativeInterface } from './interfaces/native/native-interface.ts';
import { XenDomain } from './interfaces/xen/domain.ts';
import { overheadFrames } from './interfaces/xen/domain-frames.ts';
import { FramePool, OutOfFrames } from './memory/frame-pool.ts';
import { HostMemory } from './memory/host-memory.ts';
import { MicrovmDomain, type MicrovmOptions } from './microvm/domain.ts';
import { MOST_VIRTIO_DEVICES } from './microvm/virtio-slots.ts';
import { createLinearPaging } from './paging/native/linear-paging.ts';
import { createResidentPaging } from './paging/nested/nested-paging.ts';
import { PAGE_SIZE } from './x86/brand.ts';

/** Room for what is not a frame: decoded code (32 MiB), its table, TLBs, state blocks. */
const CONTROL_BYTES = 64 << 20;

/** Wall clock, uuid and entropy of a deterministic guest: any fixed values would do. */
const DETERMINISTIC_EPOCH = 1_700_000_000;

/** The entropy device takes a place as well. */
const MOST_DISKS = MOST_VIRTIO_DEVICES - 1;

/** What all kinds of domains are made of. */
type CommonOptions = Omit<MicrovmOptions, 'paging' | 'createInterface' | 'devices'>;

/** Domains, their shared memory, and the loop that lets them take turns. */
export class RingHost implements Host {
  readonly #group: ProcessorGroup;
  readonly #scheduler = new Scheduler();
  readonly #machines = new Set<Machine>();
  #nextDomain = 1;
  #closed = false;

  constructor(options: HostOptions) {
    const guestPages = Math.ceil(options.memory / PAGE_SIZE);
    const frames = guestPages + overheadFrames(guestPages);
    const memory = new HostMemory(frames * PAGE_SIZE + CONTROL_BYTES);
    this.#group = new ProcessorGroup(memory, new FramePool(memory, frames), { jit: options.jit ?? {} });
  }

  async boot(options: BootOptions): Promise<VirtualMachine> {
    if (this.#closed) throw new Error('the host is closed');
    const { kernel: file, initrd = new Uint8Array(0), memory } = options;
    const cell = chooseCell(options.interface, options.paging);
    if (options.check && cell.interface !== 'xen') {
      throw new InputError(
        `contracts are checked for the interface xen only, not for ${cell.interface}; leave out the check`,
      );
    }
    const disks = options.disks ?? [];
    if (disks.length > 0 && cell.interface === 'xen') {
      throw new InputError('the interface xen has no disks yet; give kvm or native, or put files into the initrd');
    }
    if (disks.length > MOST_DISKS) throw new InputError(`a guest has at most ${MOST_DISKS} disks, not ${disks.length}`);
    refuseHopelessMemory(file, initrd.length, memory);
    const kernel = loadKernel(file);
    if (cell.interface === 'xen') requireXenNotes(kernel);
    requireMemory(kernel, initrd.length, memory);
    const deterministic = options.deterministic ?? false;
    const output = new OutputQueue();
    const id = this.#nextDomain++;
    const random = deterministic
      ? seededRandom(id)
      : (out: Uint32Array<ArrayBuffer>) => void crypto.getRandomValues(out);
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
      symbolize: symbolizer(kernel),
      ...(options.trace ? { trace: options.trace } : {}),
    };
    try {
      domain = cell.interface === 'xen' ? this.#xenDomain(common, options) : this.#microvm(common, options, cell);
    } catch (error) {
      if (!(error instanceof OutOfFrames)) throw error;
      throw new InputError(`the host has no memory left for a guest of ${memory >> 20}M; raise --host-memory`);
    }
    const machine = new Machine(domain, output, () => this.#end(machine));
    this.#machines.add(machine);
    this.#scheduler.add(domain, machine);
    return machine;
  }

  #xenDomain(common: CommonOptions, { memory, check = false }: BootOptions): XenDomain {
    const words = new Uint32Array(4);
    for (let half = 0; half < 2; half++) common.random(words.subarray(half * 2, half * 2 + 2));
    const uuid = new Uint8Array(words.buffer);
    return new XenDomain({ ...common, name: `guest${common.id}`, uuid, pages: Math.floor(memory / PAGE_SIZE), check });
  }

  #microvm(common: CommonOptions, { memory, disks = [] }: BootOptions, cell: Cell): MicrovmDomain {
    const group = this.#group;
    const create = cell.paging === 'native' ? createLinearPaging : createResidentPaging;
    const paging = create(group.parts.pool, group, Math.floor(memory / PAGE_SIZE));
    try {
      const createInterface = cell.interface === 'kvm' ? createKvmInterface : createNativeInterface;
      const devices = [...disks.map((disk) => new BlockDevice(disk)), new EntropyDevice(common.random)];
      return new MicrovmDomain({ ...common, paging, devices, createInterface });
    } catch (error) {
      paging.destroy();
      throw error;
    }
  }

  #end(machine: Machine): void {
    this.#scheduler.remove(machine.domain);
    this.#machines.delete(machine);
    machine.domain.destroy();
  }

  statistics(): object {
    const { jit } = this.#group;
    const { pool, code } = this.#group.parts;
    return {
      frames: { total: pool.total, available: pool.available },
      decodedInstructions: code.decodedInstructions,
      droppedBlocks: code.droppedBlocks,
      coldHandlers: this.#group.interpreter.coldHandlers,
      jit: jit
        ? { ...jit.counters, regions: jit.regions, liveModules: jit.liveModules, liveBytes: jit.liveBytes }
        : null,
    };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const machine of [...this.#machines]) machine.stop();
    this.#scheduler.close();
  }
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
function symbolizer(kernel: KernelImage): Symbolizer {
  const symbols = createSymbolizer(kernel);
  return (address) => {
    const symbol = symbols?.lookup(BigInt.asUintN(64, BigInt(address)));
    return symbol && { name: symbol.name, offset: symbol.offset, isData: !symbol.isCode };
  };
}
