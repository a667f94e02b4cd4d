import { type MacAddress, MTU } from './ethernet.ts';
import type { Ipv4Address, Ipv4Packet } from './ipv4.ts';
import type { DatagramSocket, Endpoint, HostSockets } from './sockets.ts';
import { buildUdp, type Datagram } from './udp.ts';

/** Guests' ports that have a socket at a time; the one that has been silent for longest gives its own away. */
const FLOW_LIMIT = 256;
/** Most data in one packet: fragments are not made. */
const LONGEST_DATA = MTU - 28;
const DNS_PORT = 53;

interface Flow {
  readonly socket: DatagramSocket;
  station: MacAddress;
}

/** Carries guests' datagrams to the world: for each port of a guest there is a socket of the host. */
export class DatagramRelay {
  readonly #sockets: HostSockets;
  readonly #nameServer: Ipv4Address;
  readonly #send: (station: MacAddress, packet: Ipv4Packet) => void;
  /** By the guest's end; the one used last is the last. */
  readonly #flows = new Map<string, Flow>();

  /**
   * @param nameServer the address under which guests know the host's name server
   * @param send takes packets for a guest
   */
  constructor(sockets: HostSockets, nameServer: Ipv4Address, send: (station: MacAddress, packet: Ipv4Packet) => void) {
    this.#sockets = sockets;
    this.#nameServer = nameServer;
    this.#send = send;
  }

  /** Takes a datagram for the world or for the name server. */
  forward(station: MacAddress, source: Ipv4Address, destination: Ipv4Address, datagram: Datagram): void {
    const target = this.#realAddress({ address: destination, port: datagram.destinationPort });
    if (target === undefined || target.port === 0) return;
    const guest: Endpoint = { address: source, port: datagram.sourcePort };
    const key = `${guest.address}:${guest.port}`;
    const flow = this.#flows.get(key) ?? this.#open(guest, key, station);
    flow.station = station.slice();
    this.#flows.delete(key);
    this.#flows.set(key, flow);
    flow.socket.send(target, datagram.data.slice());
  }

  close(): void {
    for (const { socket } of this.#flows.values()) socket.close();
    this.#flows.clear();
  }

  #open(guest: Endpoint, key: string, station: MacAddress): Flow {
    const [oldest] = this.#flows;
    if (oldest !== undefined && this.#flows.size === FLOW_LIMIT) {
      oldest[1].socket.close();
      this.#flows.delete(oldest[0]);
    }
    const socket = this.#sockets.openDatagram((from, data) => {
      const { address, port } = this.#knownAddress(from);
      const current = this.#flows.get(key)?.station;
      if (current === undefined || data.length > LONGEST_DATA) return;
      this.#send(current, buildUdp(address, guest.address, { sourcePort: port, destinationPort: guest.port, data }));
    });
    return { socket, station };
  }

  #realAddress(target: Endpoint): Endpoint | undefined {
    if (target.address !== this.#nameServer) return target;
    const address = this.#sockets.nameServer;
    return target.port !== DNS_PORT || address === undefined ? undefined : { address, port: DNS_PORT };
  }

  #knownAddress(from: Endpoint): Endpoint {
    const isNameServer = from.address === this.#sockets.nameServer && from.port === DNS_PORT;
    return isNameServer ? { address: this.#nameServer, port: DNS_PORT } : from;
  }
}
