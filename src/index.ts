/**
 * ring1: a paravirtualizing hypervisor. This is all that users of the library import.
 *
 *     const host = await createHost({ memory: 256 * 1024 * 1024 });
 *     const vm = await host.boot({ kernel, initrd, commandLine: 'console=hvc0', memory: 256 * 1024 * 1024, vcpus: 1 });
 */
import type { CreateHost } from './api.ts';
import { RingHost } from './host.ts';

export type {
  BootOptions,
  CreateHost,
  Disk,
  GuestConsole,
  Host,
  HostOptions,
  InterfaceName,
  NetworkAdapter,
  Outcome,
  PagingName,
  VirtualMachine,
} from './api.ts';
export { InputError } from './boot/input-error.ts';
export { MemoryStore } from './devices/block/memory-store.ts';
export { OverlayStore } from './devices/block/overlay-store.ts';
export { Gateway } from './devices/network/gateway.ts';
export { EthernetSwitch } from './devices/network/switch.ts';
export type { HostWork, Profile, ProfiledPlace } from './inspect/profile.ts';

export const createHost: CreateHost = async (options) => new RingHost(options);
