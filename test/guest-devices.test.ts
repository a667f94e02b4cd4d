import { describe, expect, it } from 'vitest';
import type { BootOptions } from '../src/api.ts';
import { MemoryStore } from '../src/devices/block/memory-store.ts';
import { EthernetSwitch } from '../src/devices/network/switch.ts';
import { DeviceKind } from '../src/devices/virtio/registers.ts';
import { createGuestDevices, type GuestDevices } from '../src/microvm/guest-devices.ts';

const MAC_BYTES = 6;

function create(options: Partial<BootOptions>, guest = 1): GuestDevices {
  const required = { kernel: new Uint8Array(0), commandLine: '', memory: 0, vcpus: 1 };
  return createGuestDevices(
    { ...required, ...options },
    guest,
    () => {},
    () => {},
  );
}

const kinds = ({ devices }: GuestDevices): DeviceKind[] => devices.map(({ kind }) => kind);

describe('the devices of a guest', () => {
  it('are what was asked for, in order, and random numbers', () => {
    const network = new EthernetSwitch();
    const disk = new MemoryStore(new Uint8Array(512));
    expect(kinds(create({}))).toEqual([DeviceKind.entropy]);
    expect(kinds(create({ disks: [disk, disk], adapters: [{ network }] }))).toEqual([
      DeviceKind.block,
      DeviceKind.block,
      DeviceKind.network,
      DeviceKind.entropy,
    ]);
  });

  it.each([
    ['', false],
    ['console=ttyS0', false],
    ['console=hvc0', true],
    ['quiet console=ttyS0,115200 console=hvc0', true],
    ['console=hvc0 console=ttyS0', false],
    ['noconsole=hvc0', false],
  ])('have a console with "%s": %s', (commandLine, expected) => {
    const devices = create({ commandLine });
    expect(devices.console !== undefined).toBe(expected);
    expect(kinds(devices).includes(DeviceKind.console)).toBe(expected);
  });

  it('have addresses of their own, unless they are given one', () => {
    const network = new EthernetSwitch();
    const mac = Uint8Array.of(2, 0, 0, 0, 0, 1);
    const addresses = [
      create({ adapters: [{ network }, { network }, { network, mac }] }),
      create({ adapters: [{ network }] }, 2),
    ]
      .flatMap(({ devices }) => devices)
      .filter(({ kind }) => kind === DeviceKind.network)
      .map(({ configuration }) => String(configuration.subarray(0, MAC_BYTES)));
    expect(new Set(addresses).size).toBe(4);
    expect(addresses[2]).toBe(String(mac));
  });

  it('are no more than there are places for', () => {
    const disk = new MemoryStore(new Uint8Array(512));
    expect(create({ disks: Array(18).fill(disk) }).devices).toHaveLength(19);
    expect(() => create({ disks: Array(19).fill(disk) })).toThrow(/at most 19 virtio devices, and this one needs 20/);
  });
});
