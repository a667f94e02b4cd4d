import type { MacAddress } from './ethernet.ts';
import type { Ipv4Packet } from './ipv4.ts';
import type { HostSockets } from './sockets.ts';
import { TcpConnection } from './tcp-connection.ts';
import { buildTcp, parseTcp, TcpFlag, type TcpSegment } from './tcp-segment.ts';

/** Connections of all guests at a time; others are refused. */
const CONNECTION_LIMIT = 512;

/** Carries guests' TCP connections to the world: each ends here and goes on over a socket of the host. */
export class StreamRelay {
  readonly #sockets: HostSockets;
  readonly #send: (station: MacAddress, packet: Ipv4Packet) => void;
  /** By both ends. */
  readonly #connections = new Map<string, TcpConnection>();

  /** @param send takes packets for a guest */
  constructor(sockets: HostSockets, send: (station: MacAddress, packet: Ipv4Packet) => void) {
    this.#sockets = sockets;
    this.#send = send;
  }

  /** Takes a packet of TCP. @param isReachable whether it is for the world */
  forward(station: MacAddress, packet: Ipv4Packet, isReachable: boolean): void {
    const segment = parseTcp(packet);
    if (segment === undefined) return;
    const key = keyOf(segment);
    const connection = this.#connections.get(key);
    if (connection !== undefined) connection.receive(segment);
    else if (isOpening(segment) && isReachable && this.#connections.size < CONNECTION_LIMIT) {
      this.#open(station.slice(), segment, key);
    } else this.#refuse(station, segment);
  }

  close(): void {
    for (const connection of [...this.#connections.values()]) connection.reset();
  }

  #open(station: MacAddress, opening: TcpSegment, key: string): void {
    const connection = new TcpConnection(
      opening,
      this.#sockets,
      (segment) => this.#send(station, buildTcp(segment)),
      () => this.#connections.delete(key),
      Math.floor(Math.random() * 0x1_0000_0000),
    );
    this.#connections.set(key, connection);
  }

  /** What belongs to no connection is answered with a reset (RFC 9293, 3.5.2). */
  #refuse(station: MacAddress, segment: TcpSegment): void {
    const { source, destination, sequence, flags, data } = segment;
    if (flags & TcpFlag.rst) return;
    const isAcknowledging = (flags & TcpFlag.ack) !== 0;
    const length = data.length + (flags & TcpFlag.syn ? 1 : 0) + (flags & TcpFlag.fin ? 1 : 0);
    const reset: TcpSegment = {
      source: destination,
      destination: source,
      sequence: isAcknowledging ? segment.acknowledgement : 0,
      acknowledgement: isAcknowledging ? 0 : (sequence + length) >>> 0,
      flags: TcpFlag.rst | (isAcknowledging ? 0 : TcpFlag.ack),
      window: 0,
      maximumSegment: 0,
      data: new Uint8Array(0),
    };
    this.#send(station, buildTcp(reset));
  }
}

function isOpening({ flags }: TcpSegment): boolean {
  return (flags & (TcpFlag.syn | TcpFlag.ack | TcpFlag.rst)) === TcpFlag.syn;
}

function keyOf({ source, destination }: TcpSegment): string {
  return `${source.address}:${source.port}-${destination.address}:${destination.port}`;
}
