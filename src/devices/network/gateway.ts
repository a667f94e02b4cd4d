import { buildArpReply, parseArp } from './arp.ts';
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

/** The host in a network of guests: it gives addresses away and answers to its own. */
export class Gateway implements EthernetPort {
  readonly #network: EthernetSwitch;
  readonly #addresses: readonly Ipv4Address[] = [GUEST_NETWORK.gateway, GUEST_NETWORK.nameServer];
  readonly #dhcp = new DhcpServer({
    ...GUEST_NETWORK,
    server: GUEST_NETWORK.gateway,
    router: GUEST_NETWORK.gateway,
  });

  constructor(network: EthernetSwitch) {
    this.#network = network;
    network.connect(this);
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
    if (packet.protocol === Protocol.udp) this.#receiveUdp(packet);
    if (packet.protocol === Protocol.icmp && this.#addresses.includes(packet.destination)) {
      const payload = echoReply(packet.payload);
      const { source, destination, protocol } = packet;
      if (payload) this.#sendPacket(station, { source: destination, destination: source, protocol, payload });
    }
  }

  #receiveUdp(packet: Ipv4Packet): void {
    const datagram = parseUdp(packet);
    if (datagram?.destinationPort !== SERVER_PORT || datagram.sourcePort !== CLIENT_PORT) return;
    const data = this.#dhcp.reply(datagram.data);
    if (data === undefined) return;
    const reply = { sourcePort: SERVER_PORT, destinationPort: CLIENT_PORT, data };
    this.#sendPacket(BROADCAST, buildUdp(GUEST_NETWORK.gateway, LIMITED_BROADCAST, reply));
  }

  #sendPacket(station: MacAddress, packet: Ipv4Packet): void {
    this.#send(station, EtherType.ipv4, buildIpv4(packet));
  }

  #send(station: MacAddress, type: EtherType, payload: Uint8Array): void {
    this.#network.send(this, buildFrame(station, GATEWAY_MAC, type, payload));
  }
}
