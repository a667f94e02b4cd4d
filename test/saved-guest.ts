import { createHash } from 'node:crypto';
import { initramfs, kernelModules } from '../guests/recipes.ts';
import type { Archived } from '../src/archive/archive.ts';
import { restore } from '../src/archive/reader.ts';
import { save } from '../src/archive/writer.ts';
import { Exit } from '../src/cpu/exits.ts';
import { ProcessorGroup } from '../src/cpu/processor.ts';
import { State } from '../src/cpu/state.ts';
import { MemoryStore } from '../src/devices/block/memory-store.ts';
import type { BlockStore } from '../src/devices/block/store.ts';
import { chooseCell } from '../src/domain/cells.ts';
import { VirtualClock } from '../src/domain/clock.ts';
import { SeededRandom } from '../src/domain/seeded-random.ts';
import { SharedFiles } from '../src/domain/shared-files.ts';
import { bootMicrovm, type CommonOptions, resumeMicrovm } from '../src/host/microvm-guest.ts';
import { SavedFiles } from '../src/host/saved-files.ts';
import { bootXen, resumeXen } from '../src/host/xen-guest.ts';
import type { XenDomain } from '../src/interfaces/xen/domain.ts';
import { overheadFrames } from '../src/interfaces/xen/domain-frames.ts';
import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import type { MicrovmDomain } from '../src/microvm/domain.ts';
import { AddressSpace } from '../src/mm/address-space.ts';
import { MemoryManager, overheadOf } from '../src/mm/memory-manager.ts';
import { Snapshot } from '../src/snapshot/snapshot.ts';
import { type GuestImage, writeSnapshot } from '../src/snapshot/write-snapshot.ts';
import { PAGE_SIZE } from '../src/x86/brand.ts';
import { debianKernel } from './debian-kernel.ts';
import { sourceOf } from './snapshot-samples.ts';

/** What a guest has done up to some turn, and how it stands there. */
export interface Trail {
  readonly instructions: number;
  readonly console: string;
  readonly registers: string;
  /** Of all pages, and of the disk. */
  readonly memory: string;
}

/** A guest as it was saved, and what its disk held then. */
export interface Saved {
  readonly file: Uint8Array;
  readonly disk: Uint8Array;
}

type Image = Omit<GuestImage, 'state' | 'memory'>;

/** What a guest calls its disk. */
export const DISKS = { xen: '/dev/xvda', kvm: '/dev/vda', native: '/dev/vda' } as const;
const DISK_BYTES = 1 << 20;

const CONSOLES = {
  xen: 'console=hvc0',
  kvm: 'console=ttyS0 reboot=acpi panic=-1',
  native: 'console=ttyS0 reboot=acpi panic=-1',
} as const;
const EPOCH = { seconds: 1_700_000_000, nanoseconds: 0 };

/** A guest with virtual time in a host of its own, whose turns a test takes one by one. */
export class SavedGuest {
  readonly #memory: HostMemory;
  readonly #group: ProcessorGroup;
  readonly #manager: MemoryManager;
  readonly #random = new SeededRandom(1);
  readonly #image: Image;
  readonly #disk: Uint8Array;
  #domain: MicrovmDomain | XenDomain | undefined;
  #console = '';

  private constructor(image: Image, disk: Uint8Array, threshold: number) {
    const pages = image.guest.memory / PAGE_SIZE;
    const frames = pages + overheadOf(pages) + overheadFrames(pages);
    this.#memory = new HostMemory(frames * PAGE_SIZE + (64 << 20));
    const pool = new FramePool(this.#memory, frames);
    const jit = { threshold, isAside: false };
    this.#group = new ProcessorGroup(this.#memory, pool, { tlbEntries: 1024, tlbRoots: 4, jit });
    this.#manager = new MemoryManager({ pool, checked: true });
    this.#image = image;
    this.#disk = disk;
  }

  static async boot(name: 'xen' | 'kvm' | 'native', program: string, vcpus: number): Promise<SavedGuest> {
    const cell = chooseCell(name);
    const memory = 96 << 20;
    const guest = {
      ...cell,
      memory,
      vcpus,
      commandLine: `${CONSOLES[name]} ring1.run="${program}"`,
      deterministic: true,
      domain: 1,
      disks: 1,
      adapters: 0,
      systemTime: 0,
      savedAt: 0,
      seed: null,
    };
    const kernel = await debianKernel('cloud-amd64');
    const initrd = await initramfs({ modules: await kernelModules('cloud-amd64') });
    const saved = new SavedGuest({ guest, kernel, initrd }, new Uint8Array(DISK_BYTES), 200);
    const shared = new SharedFiles(saved.#manager);
    const files = { kernel: shared.acquire(kernel), initrd: shared.acquire(initrd) };
    const options = { kernel, memory, vcpus, commandLine: guest.commandLine, disks: saved.#disks };
    saved.#domain =
      name === 'xen'
        ? await bootXen(saved.#manager, saved.#common(), options, files)
        : await bootMicrovm(saved.#manager, cell, saved.#common(), options, files);
    return saved;
  }

  /** @param threshold of the JIT, which must make no difference */
  static async resume({ file, disk }: Saved, threshold: number): Promise<SavedGuest> {
    const snapshot = await Snapshot.open(sourceOf(file));
    const { guest, memory } = snapshot;
    const saved = new SavedGuest(snapshot, disk.slice(), threshold);
    const cell = chooseCell(guest.interface as 'kvm', guest.paging as 'nested');
    const space = await saved.#manager.createSpace();
    if (!(space instanceof AddressSpace)) throw new Error(space.message);
    const paged = cell.paging !== 'native';
    if (paged) await new SavedFiles(saved.#manager).map(space, memory);
    const readBack = (domain: Archived): void => restore(saved.#state(domain), snapshot.state);
    const from = paged ? { space } : { file: memory };
    const options = { commandLine: guest.commandLine, disks: saved.#disks, isCopy: false };
    saved.#domain =
      cell.interface === 'xen'
        ? await resumeXen(saved.#common(), 1, { ...guest, bits: 64 }, space, options.disks, readBack)
        : await resumeMicrovm(cell, saved.#common(), options, memory.pages, from, readBack);
    return saved;
  }

  get #disks(): BlockStore[] {
    return [new MemoryStore(this.#disk)];
  }

  #common(): CommonOptions {
    return {
      id: 1,
      vcpus: this.#image.guest.vcpus,
      group: this.#group,
      clock: new VirtualClock(() => this.#domain?.instructions ?? 0),
      wallclock: EPOCH,
      random: (out) => this.#random.fill(out),
      consoleSink: (bytes) => {
        this.#console += new TextDecoder('latin1').decode(bytes);
      },
      exactTurns: true,
      profiler: undefined,
      symbolize: () => undefined,
    };
  }

  #state(domain: Archived): Archived {
    return {
      archive: (archive) => {
        archive.part('domain', domain);
        archive.part('random', this.#random);
      },
    };
  }

  get #running(): MicrovmDomain | XenDomain {
    if (!this.#domain) throw new Error('the guest was not built');
    return this.#domain;
  }

  /** Takes turns until something holds after one, or the guest ends. */
  async runUntil(isThere: (console: string, instructions: number) => boolean): Promise<void> {
    const domain = this.#running;
    while (domain.state.kind === 'running' && !isThere(this.#console, domain.instructions)) {
      domain.catchUp();
      if (domain.idle) await new Promise((resume) => setTimeout(resume, 0));
      else domain.turn();
    }
  }

  async save(): Promise<Saved> {
    const domain = this.#running;
    while (!domain.isSettled) await new Promise((resume) => setTimeout(resume, 0));
    const parts: Uint8Array[] = [];
    const image = { ...this.#image, state: save(this.#state(domain)), memory: domain.ram };
    await writeSnapshot(image, { append: async (bytes) => void parts.push(bytes) });
    return { file: Uint8Array.from(Buffer.concat(parts)), disk: this.#disk.slice() };
  }

  /** Exits of generated code by kind; those for pages of the host, which are no doing of the guest's, are left out. */
  get exits(): readonly number[] {
    return Array.from(this.#running.statistics.exits, (count, exit) => (exit === Exit.hostFault ? 0 : count));
  }

  async trail(): Promise<Trail> {
    const domain = this.#running;
    const registers = createHash('sha256');
    for (const { processor } of domain.vcpus) {
      const block = this.#memory.u8.subarray(processor.state, processor.state + State.size);
      registers.update(block.subarray(State.registers, State.zero));
      registers.update(`${processor.rip} ${processor.flags} ${processor.cr2} ${processor.userMode}`);
      registers.update(block.subarray(State.xmm, State.mxcsr + 4));
    }
    const contents = createHash('sha256');
    for (let page = 0; page < domain.ram.pages; page++) {
      const bytes = new Uint8Array(PAGE_SIZE);
      await domain.ram.readPage(page, bytes);
      contents.update(bytes);
    }
    contents.update(this.#disk);
    const { instructions } = domain;
    return {
      instructions,
      console: this.#console,
      registers: registers.digest('hex'),
      memory: contents.digest('hex'),
    };
  }
}
