import type { BootOptions } from '../api.ts';
import { InputError } from '../boot/input-error.ts';
import { guestMac } from '../devices/network/ethernet.ts';
import { BlockDevice } from '../devices/virtio/block.ts';
import { ConsoleDevice } from '../devices/virtio/console.ts';
import type { VirtioDevice } from '../devices/virtio/device.ts';
import { EntropyDevice, type RandomSource } from '../devices/virtio/entropy.ts';
import { NetworkDevice } from '../devices/virtio/network.ts';
import { MOST_VIRTIO_DEVICES } from './virtio-slots.ts';

export interface GuestDevices {
  /** In the order in which the guest finds them. */
  readonly devices: readonly VirtioDevice[];
  /** The one that the guest's user types at, where it is not the serial port. */
  readonly console: ConsoleDevice | undefined;
}

/** The devices that the user's options ask for. @throws InputError when there are too many */
export function createGuestDevices(
  options: Pick<BootOptions, 'disks' | 'adapters' | 'commandLine'>,
  guest: number,
  random: RandomSource,
  consoleSink: (bytes: Uint8Array) => void,
): GuestDevices {
  const { disks = [], adapters = [] } = options;
  const console = mainConsole(options.commandLine).startsWith('hvc') ? new ConsoleDevice(consoleSink) : undefined;
  const count = disks.length + adapters.length + (console ? 2 : 1);
  if (count > MOST_VIRTIO_DEVICES) {
    throw new InputError(`a guest has at most ${MOST_VIRTIO_DEVICES} virtio devices, and this one needs ${count}`);
  }
  const devices = [
    ...disks.map((disk) => new BlockDevice(disk)),
    ...adapters.map(({ network, mac }, index) => {
      return new NetworkDevice(mac ?? guestMac(guest * MOST_VIRTIO_DEVICES + index), network);
    }),
    ...(console ? [console] : []),
    new EntropyDevice(random),
  ];
  return { devices, console };
}

/** The console that /dev/console stands for: the last one that the kernel is told of. */
function mainConsole(commandLine: string): string {
  const named = [...commandLine.matchAll(/(?:^|\s)console=(\S+)/g)];
  return named[named.length - 1]?.[1] ?? '';
}
