import type { NetworkAdapter } from '../api.ts';
import { guestMac } from '../devices/network/ethernet.ts';
import { Gateway } from '../devices/network/gateway.ts';
import { EthernetSwitch } from '../devices/network/switch.ts';
import { NodeSockets } from '../node/sockets.ts';

/** The network that all guests of a host are in, and that leads to the world. */
export interface GuestNetwork {
  readonly gateway: Gateway;
  /** @param number from 1; the adapter keeps its address when its guest is booted again */
  adapter(number: number): NetworkAdapter;
}

export function openNetwork(): GuestNetwork {
  const network = new EthernetSwitch();
  const gateway = new Gateway(network, new NodeSockets());
  return { gateway, adapter: (number) => ({ network, mac: guestMac(number) }) };
}
