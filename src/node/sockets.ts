import { createSocket } from 'node:dgram';
import { getServers } from 'node:dns';
import { Socket } from 'node:net';
import { formatIpv4, type Ipv4Address, ipv4Address } from '../devices/network/ipv4.ts';
import type { DatagramSocket, Endpoint, HostSockets, StreamEvents, StreamSocket } from '../devices/network/sockets.ts';

const IPV4 = /^(\d{1,3})(\.\d{1,3}){3}$/;

/** Node's sockets, as a gateway uses them. */
export class NodeSockets implements HostSockets {
  readonly nameServer: Ipv4Address | undefined;

  constructor() {
    const server = getServers().find((address) => IPV4.test(address));
    this.nameServer = server === undefined ? undefined : ipv4Address(server);
  }

  openDatagram(receive: (from: Endpoint, data: Uint8Array) => void): DatagramSocket {
    const socket = createSocket('udp4', (data, from) => {
      receive({ address: ipv4Address(from.address), port: from.port }, data);
    });
    // A datagram that cannot be sent is lost, as any may be.
    socket.on('error', () => {});
    return {
      send: (to, data) => socket.send(data, to.port, formatIpv4(to.address), () => {}),
      close: () => socket.close(),
    };
  }

  connect(to: Endpoint, events: StreamEvents): StreamSocket {
    const socket = new Socket({ allowHalfOpen: true });
    socket.on('connect', () => events.connected());
    socket.on('data', (bytes: Buffer) => events.received(bytes));
    socket.on('drain', () => events.drained());
    socket.on('end', () => events.ended());
    socket.on('error', () => events.failed());
    socket.connect(to.port, formatIpv4(to.address));
    return {
      get backlog() {
        return socket.writableLength;
      },
      write: (bytes) => void socket.write(bytes),
      end: () => void socket.end(),
      pause: () => void socket.pause(),
      resume: () => void socket.resume(),
      destroy: () => void socket.destroy(),
    };
  }
}
