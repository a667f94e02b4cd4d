import type { BootOptions } from '../../api.ts';
import { BlockDevice } from '../../devices/virtio/block.ts';
import { ConsoleDevice } from '../../devices/virtio/console.ts';
import type { VirtioDevice } from '../../devices/virtio/device.ts';
import { EntropyDevice, type RandomSource } from '../../devices/virtio/entropy.ts';

export interface LguestDevices {
  /** In the order in which the guest finds them. */
  readonly devices: readonly VirtioDevice[];
  readonly console: ConsoleDevice;
}

/** The devices that the user's options ask for; a console is always among them, for there is no other. */
export function createLguestDevices(
  { disks = [] }: Pick<BootOptions, 'disks'>,
  host: { readonly random: RandomSource; readonly consoleSink: (bytes: Uint8Array) => void },
): LguestDevices {
  const console = new ConsoleDevice(host.consoleSink);
  const devices = [console, ...disks.map((disk) => new BlockDevice(disk)), new EntropyDevice(host.random)];
  return { devices, console };
}
