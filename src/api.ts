import type { JitThread } from './cpu/jit/jit-thread.ts';
import type { BlockStore } from './devices/block/store.ts';
import type { MacAddress } from './devices/network/ethernet.ts';
import type { EthernetSwitch } from './devices/network/switch.ts';
import type { Audit } from './inspect/audit.ts';
import type { Profile } from './inspect/profile.ts';
import type { SwapStore } from './mm/swap.ts';
import type { SnapshotTarget } from './snapshot/format.ts';
import type { Snapshot } from './snapshot/snapshot.ts';

/**
 * The library's public types. `src/index.ts` implements them; the command, the page and users' programs see no more.
 * Sizes are bytes, times seconds unless a name says otherwise.
 */

export interface HostOptions {
  /**
   * Memory for guests, in bytes: the frame pool that all domains of this host share. What the host itself needs (TLBs,
   * decoded code, page-table bookkeeping) comes on top. Guests may have more memory in sum, if there is a swap store.
   */
  readonly memory: number;
  /**
   * Guests that the host is to have at a time; 1 without it. With many, each gets smaller caches of translations, so that
   * their sum stays small; it is slower by that.
   */
  readonly guests?: number;
  /** When guests' code is compiled, and how. None of it changes what a guest sees. */
  readonly jit?: {
    /** Executions of a piece of code before it is compiled; 0 leaves everything to the interpreter. */
    readonly threshold?: number;
    /** Pieces that become one WebAssembly module; 1 on engines where modules are cheap. */
    readonly regionsPerModule?: number;
    /** Modules alive at a time. */
    readonly maximumModules?: number;
    /** Their bytes, of which engines take several times as much memory. */
    readonly maximumBytes?: number;
    /** Translates guests' code, and compiles modules of several pieces; without it guests wait for the translation. */
    readonly thread?: JitThread;
    /** Called when modules were replaced by others, so that their memory may be collected. */
    readonly onGathered?: () => void;
  };
  /** Where pages of guests go that have no room in memory. The host closes it when it is closed itself. */
  readonly swap?: SwapStore;
  /** Checks the rules that the host's memory and the page tables of guests keep between them, at a cost. */
  readonly check?: boolean;
}

export interface Host {
  /**
   * Builds a domain and lets it run. Rejects with an InputError when the kernel, the initrd or a size is unusable.
   */
  boot(options: BootOptions): Promise<VirtualMachine>;
  /**
   * Lets a guest go on from a snapshot, which `openSnapshot` gives; any number of guests can go on from the same one, and
   * share what they do not change. Rejects with an InputError when the devices are others than the guest had.
   */
  resume(snapshot: Snapshot, options?: ResumeOptions): Promise<VirtualMachine>;
  /** Figures over all domains, as plain JSON data. */
  statistics(): object;
  /** Ends every domain. The host cannot be used afterwards. Settles when all its memory is given back. */
  close(): Promise<void>;
}

/** How the guest asks for privileged work. */
export type InterfaceName = 'xen' | 'kvm' | 'native' | 'vmi' | 'lguest';

/** Ways of speaking to lguest: those of Linux 2.6.24 to 2.6.29, 2.6.30 to 3.0, 3.1 to 3.x. */
export type LguestEra = 'L1' | 'L2' | 'L3';

/** How the guest's page tables are carried out. */
export type PagingName = 'direct' | 'shadow' | 'translated' | 'nested' | 'native';

export interface BootOptions {
  /** A bzImage or an ELF kernel, either of them compressed or not. */
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
  readonly commandLine: string;
  /** Memory of this guest, in bytes; a multiple of 4096. */
  readonly memory: number;
  readonly vcpus: number;
  /** Network adapters, in the order in which the guest finds them; for kvm, vmi and native. */
  readonly adapters?: readonly NetworkAdapter[];
  /** Disks, in the order in which the guest finds them (/dev/vda …, as guests of xen /dev/xvda …). */
  readonly disks?: readonly Disk[];
  /** The default is 'xen'. */
  readonly interface?: InterfaceName;
  /** The release that a kernel's way of speaking to lguest belongs to; without it, the kernel's own file tells. */
  readonly lguestEra?: LguestEra;
  /**
   * Patches the kernel's call sites for the interface before it runs, in place of the kernel itself. Only for kernels that
   * record all that this takes, as the reference guest does.
   */
  readonly afterburn?: boolean;
  /** The default is what the interface prefers: 'direct' for xen, 'nested' for kvm, 'native' for native, 'shadow' for vmi and lguest. */
  readonly paging?: PagingName;
  /**
   * Takes the trace of all that crosses from guest to host, as JSON Lines (docs/operations.md names what they tell):
   * whole lines, several at a time. Called while the guest waits, so that no more than one piece is ever held.
   */
  readonly trace?: (text: string) => void;
  /** Checks the contract of every operation; a violation crashes the domain. */
  readonly check?: boolean;
  /** Finds out where the guest's time goes, at some cost; `VirtualMachine.profile` says it. */
  readonly profile?: boolean;
  /** Finds out which places of the kernel touch live page tables, at some cost; `VirtualMachine.audit` says it. */
  readonly audit?: boolean;
  /** Virtual time: the guest's clock counts instructions, and equal input gives equal runs. */
  readonly deterministic?: boolean;
}

/** What a guest that goes on is connected to: as it was when it was saved. All else stands in the snapshot. */
export interface ResumeOptions extends Pick<BootOptions, 'disks' | 'adapters' | 'trace' | 'profile'> {
  /** The guest is one of several copies: it gets a name, an identifier and random numbers of its own. */
  readonly fresh?: boolean;
  /**
   * Whether a guest that may not be the only one with its state is made to draw other random numbers at once, where its
   * kernel is one of those that take a write into their memory for that (domain/kernel-seed.ts); true without it.
   */
  readonly reseed?: boolean;
}

/** What a copy of a guest that runs is connected to. */
export interface CloneOptions extends Omit<ResumeOptions, 'disks' | 'fresh'> {
  /** A function is called while the guest stands still, and can copy what its disks hold. */
  readonly disks?: readonly Disk[] | (() => Promise<readonly Disk[]>);
}

/** The contents of a disk, wherever they are kept. Its owner closes it, when the guests that had it have ended. */
export type Disk = BlockStore;

/** What connects a guest to a network; guests at the same one reach each other. */
export interface NetworkAdapter {
  readonly network: EthernetSwitch;
  /** The default is another one for each guest and adapter. */
  readonly mac?: MacAddress;
}

export interface VirtualMachine {
  readonly console: GuestConsole;
  /**
   * Settles once, when the guest has ended. Console output written before that can still be read. The guest's memory is
   * given back afterwards: a function handed to `done.then` at once finds what the guest had in the host's statistics.
   */
  readonly done: Promise<Outcome>;
  /**
   * Milliseconds by which the guest's date is behind that of its host. A guest that goes on begins with its absence, and
   * catches up: under xen and kvm at once, elsewhere whenever it is idle, by sleeps that are cut short. One that was away
   * for more than 50 days stays behind.
   */
  readonly behind: number;
  /** Figures of this domain, as plain JSON data; also valid after the end. */
  statistics(): object;
  /** Where the time went until now, if the guest was booted with `profile`; also valid after the end. */
  profile(): Profile | undefined;
  /** What touched live page tables until now, if the guest was booted with `audit`; also valid after the end. */
  audit(): Audit | undefined;
  /** Begins the profile anew: what was found until now is forgotten. */
  restartProfile(): void;
  /** Begins to log which pages of the guest's memory are written: by the guest, its devices, or the host for it. */
  startDirtyLog(): void;
  /**
   * The pages that were written since the log began or was last read, in order; the next answer begins empty. Pages have
   * guest-physical numbers, with xen the machine frame numbers that the guest's page tables hold. None is left out; those
   * that guest and host share (rings, event bits, clocks) are also listed when the host has only looked at them.
   */
  readDirtyLog(): number[];
  /** Ends the log. */
  stopDirtyLog(): void;
  /**
   * Writes down all that the guest is, disks apart. It stands still meanwhile and then goes on; with virtual time it does
   * not notice. Rejects with what the target said, and for a guest that has ended.
   */
  snapshot(target: SnapshotTarget): Promise<void>;
  /**
   * Another guest that goes on from where this one is, with a name, an identifier and random numbers of its own. The two
   * share all pages until one of them writes. Rejects with an InputError for a guest with native paging.
   */
  clone(options?: CloneOptions): Promise<VirtualMachine>;
  /** Ends the guest at once; `done` gives `stopped` unless it had ended by itself. */
  stop(): void;
}

export interface GuestConsole {
  /**
   * What the guest prints; closed when the guest has ended. Has one reader. A guest whose output is not read stands still
   * when 256 KiB of it wait; for one that nobody listens to, cancel the stream.
   */
  readonly output: ReadableStream<Uint8Array>;
  /** Types at the guest's console. Never blocks; bytes wait until the guest takes them. */
  write(bytes: Uint8Array): void;
  /** Tells the guest how large the terminal is, in characters, where its console can say so: that of virtio. */
  resize(columns: number, rows: number): void;
}

export type Outcome =
  | { readonly kind: 'poweroff' }
  /** The guest asked for a restart: boot it again with the same options. */
  | { readonly kind: 'reboot' }
  /** `reason` is one line; `report` has registers and a symbolised stack, several lines. */
  | { readonly kind: 'crash'; readonly reason: string; readonly report: string }
  /** `stop()` or `close()` was called. */
  | { readonly kind: 'stopped' };

export type CreateHost = (options: HostOptions) => Promise<Host>;
