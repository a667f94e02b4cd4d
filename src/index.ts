/**
 * ring1: a paravirtualizing hypervisor. This is all that users of the library import.
 *
 *     const host = await createHost({ memory: 256 * 1024 * 1024 });
 *     const vm = await host.boot({ kernel, initrd, commandLine: 'console=hvc0', memory: 256 * 1024 * 1024, vcpus: 1 });
 */
import type { CreateHost } from './api.ts';
import { RingHost } from './host/host.ts';
import type { SnapshotSource } from './snapshot/format.ts';
import { Snapshot } from './snapshot/snapshot.ts';

export type {
  BootOptions,
  CloneOptions,
  CreateHost,
  Disk,
  GuestConsole,
  Host,
  HostOptions,
  InterfaceName,
  NetworkAdapter,
  Outcome,
  PagingName,
  ResumeOptions,
  VirtualMachine,
} from './api.ts';
export { InputError } from './boot/input-error.ts';
export { MemoryStore } from './devices/block/memory-store.ts';
export { OverlayStore } from './devices/block/overlay-store.ts';
export { Gateway } from './devices/network/gateway.ts';
export { EthernetSwitch } from './devices/network/switch.ts';
export type { HostWork, Profile, ProfiledPlace } from './inspect/profile.ts';

export type { SnapshotSource, SnapshotTarget } from './snapshot/format.ts';
export type { Snapshot } from './snapshot/snapshot.ts';

export const createHost: CreateHost = async (options) => new RingHost(options);

/** Opens a snapshot and checks all of it. @throws InputError when it is none, of another version, or damaged */
export const openSnapshot = (source: SnapshotSource): Promise<Snapshot> => Snapshot.open(source);
