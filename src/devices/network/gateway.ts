import { buildArpReply, parseArp } from './arp.ts';
import { DatagramRelay } from './datagram-relay.ts';
import { CLIENT_PORT, DhcpServer, SERVER_PORT } from './dhcp.ts';
import { BROADCAST, buildFrame, Ethernet, type EthernetPort, type MacAddress, sourceOf } from './ethernet.ts';
import { echoReply } from './icmp.ts';
import {
  buildIpv4,
  type Ipv4Address,
  type Ipv4Packet,
  ipv4Address,
  LIMITED_BROADCAST,
  Protocol,
  parseIpv4,
  viewOf,
} from './ipv4.ts';
import type { HostSockets } from './sockets.ts';
import { StreamRelay } from './stream-relay.ts';
import type { EthernetSwitch } from './switch.ts';
import { buildUdp, parseUdp } from './udp.ts';

const enum EtherType {
  ipv4 = 0x0800,
  arp = 0x0806,
}

/** The network that guests find themselves in; its numbers are those of QEMU's user network, which people know. */
export const GUEST_NETWORK = {
  gateway: ipv4Address('10.0.2.2'),
  nameServer: ipv4Address('10.0.2.3'),
  subnetMask: ipv4Address('255.255.255.0'),
  /** First of the addresses that DHCP gives away. */
  first: ipv4Address('10.0.2.15'),
  count: 200,
} as const;

const GATEWAY_MAC: MacAddress = Uint8Array.of(0x02, 0x72, 0xff, 0, 0, 2);

/** First octets of addresses that lead nowhere from a gateway: this host itself, groups, and what is reserved. */
const UNREACHABLE = [0, 127];
const FIRST_GROUP = 224;

/** The host in a network of guests: it gives addresses away, answers to its own, and leads to the world. */
export class Gateway implements EthernetPort {
  readonly #network: EthernetSwitch;
  readonly #addresses: readonly Ipv4Address[] = [GUEST_NETWORK.gateway, GUEST_NETWORK.nameServer];
  readonly #datagrams: DatagramRelay | undefined;
  readonly #streams: StreamRelay | undefined;
  readonly #dhcp = new DhcpServer({
    ...GUEST_NETWORK,
    server: GUEST_NETWORK.gateway,
    router: GUEST_NETWORK.gateway,
  });

  /** @param sockets without them guests reach each other and the gateway only */
  constructor(network: EthernetSwitch, sockets?: HostSockets) {
    this.#network = network;
    if (sockets !== undefined) {
      const send = (station: MacAddress, packet: Ipv4Packet): void => this.#sendPacket(station, packet);
      this.#datagrams = new DatagramRelay(sockets, GUEST_NETWORK.nameServer, send);
      this.#streams = new StreamRelay(sockets, send);
    }
    network.connect(this);
  }

  /** Ends all conversations with the world. */
  close(): void {
    this.#network.disconnect(this);
    this.#datagrams?.close();
    this.#streams?.close();
  }

  receive(frame: Uint8Array): void {
    const payload = frame.subarray(Ethernet.payload);
    const type = viewOf(frame).getUint16(Ethernet.type);
    if (type === EtherType.arp) this.#receiveArp(payload);
    if (type === EtherType.ipv4) this.#receiveIpv4(sourceOf(frame), payload);
  }

  #receiveArp(bytes: Uint8Array): void {
    const message = parseArp(bytes);
    if (!message?.isRequest || !this.#addresses.includes(message.target)) return;
    const own = { mac: GATEWAY_MAC, address: message.target };
    this.#send(message.sender.mac, EtherType.arp, buildArpReply(own, message.sender));
  }

  #receiveIpv4(station: MacAddress, bytes: Uint8Array): void {
    const packet = parseIpv4(bytes);
    if (packet === undefined) return;
    const { source, destination, protocol } = packet;
    if (protocol === Protocol.udp) this.#receiveUdp(station, packet);
    if (protocol === Protocol.tcp) this.#streams?.forward(station, packet, isOutside(destination));
    if (protocol === Protocol.icmp && this.#addresses.includes(destination)) {
      const payload = echoReply(packet.payload);
      if (payload) this.#sendPacket(station, { source: destination, destination: source, protocol, payload });
    }
  }

  #receiveUdp(station: MacAddress, packet: Ipv4Packet): void {
    const datagram = parseUdp(packet);
    if (datagram === undefined) return;
    const { source, destination } = packet;
    if (datagram.destinationPort === SERVER_PORT && datagram.sourcePort === CLIENT_PORT) {
      const data = this.#dhcp.reply(datagram.data);
      const reply = data && { sourcePort: SERVER_PORT, destinationPort: CLIENT_PORT, data };
      if (reply) this.#sendPacket(BROADCAST, buildUdp(GUEST_NETWORK.gateway, LIMITED_BROADCAST, reply));
    } else if (isOutside(destination) || destination === GUEST_NETWORK.nameServer) {
      this.#datagrams?.forward(station, source, destination, datagram);
    }
  }

  #sendPacket(station: MacAddress, packet: Ipv4Packet): void {
    this.#send(station, EtherType.ipv4, buildIpv4(packet));
  }

  #send(station: MacAddress, type: EtherType, payload: Uint8Array): void {
    this.#network.send(this, buildFrame(station, GATEWAY_MAC, type, payload));
  }
}

/** Whether an address may be one of the world's. The host's own loopback is none: its services trust whoever is there. */
function isOutside(address: Ipv4Address): boolean {
  const isInside = ((address ^ GUEST_NETWORK.gateway) & GUEST_NETWORK.subnetMask) === 0;
  const first = address >>> 24;
  return !isInside && !UNREACHABLE.includes(first) && first < FIRST_GROUP;
}
