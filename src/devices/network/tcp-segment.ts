import { checksum, type Ipv4Packet, Protocol, pseudoHeaderSum, viewOf } from './ipv4.ts';
import type { Endpoint } from './sockets.ts';

/** A segment of TCP (RFC 9293, 3.1): header of 20 bytes, options, data. */
const enum Header {
  sourcePort = 0,
  destinationPort = 2,
  sequence = 4,
  acknowledgement = 8,
  length = 12,
  flags = 13,
  window = 14,
  checksum = 16,
  size = 20,
}

export const enum TcpFlag {
  fin = 1,
  syn = 2,
  rst = 4,
  psh = 8,
  ack = 16,
}

const enum Option {
  end = 0,
  none = 1,
  maximumSegment = 2,
}

/** What a peer takes that names no maximum (RFC 9293, 3.7.1). */
const DEFAULT_SEGMENT = 536;

export interface TcpSegment {
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly flags: number;
  readonly window: number;
  /** Most bytes of data that the sender takes in one segment; it says so with SYN. */
  readonly maximumSegment: number;
  readonly data: Uint8Array;
}

/** @returns the segment, whose data is a view; undefined for what is damaged */
export function parseTcp(packet: Ipv4Packet): TcpSegment | undefined {
  const { payload } = packet;
  if (payload.length < Header.size || checksum(payload, pseudoHeaderSum(packet)) !== 0) return undefined;
  const view = viewOf(payload);
  const header = (view.getUint8(Header.length) >> 4) * 4;
  if (header < Header.size || header > payload.length) return undefined;
  return {
    source: { address: packet.source, port: view.getUint16(Header.sourcePort) },
    destination: { address: packet.destination, port: view.getUint16(Header.destinationPort) },
    sequence: view.getUint32(Header.sequence),
    acknowledgement: view.getUint32(Header.acknowledgement),
    flags: view.getUint8(Header.flags),
    window: view.getUint16(Header.window),
    maximumSegment: maximumSegmentOf(payload.subarray(Header.size, header)),
    data: payload.subarray(header),
  };
}

/** The option goes into segments with SYN only. */
export function buildTcp(segment: TcpSegment): Ipv4Packet {
  const { source, destination, data, maximumSegment } = segment;
  const isSyn = (segment.flags & TcpFlag.syn) !== 0;
  const header = Header.size + (isSyn ? 4 : 0);
  const payload = new Uint8Array(header + data.length);
  const view = viewOf(payload);
  view.setUint16(Header.sourcePort, source.port);
  view.setUint16(Header.destinationPort, destination.port);
  view.setUint32(Header.sequence, segment.sequence);
  view.setUint32(Header.acknowledgement, segment.acknowledgement);
  view.setUint8(Header.length, (header / 4) << 4);
  view.setUint8(Header.flags, segment.flags);
  view.setUint16(Header.window, segment.window);
  if (isSyn) payload.set([Option.maximumSegment, 4, maximumSegment >> 8, maximumSegment & 0xff], Header.size);
  payload.set(data, header);
  const packet: Ipv4Packet = {
    source: source.address,
    destination: destination.address,
    protocol: Protocol.tcp,
    payload,
  };
  view.setUint16(Header.checksum, checksum(payload, pseudoHeaderSum(packet)));
  return packet;
}

function maximumSegmentOf(options: Uint8Array): number {
  for (let at = 0; at < options.length; ) {
    const kind = options[at] as number;
    const length = options[at + 1] ?? 0;
    if (kind === Option.end) break;
    if (kind === Option.maximumSegment && length === 4 && at + 4 <= options.length) {
      return viewOf(options).getUint16(at + 2);
    }
    // A length below 2 would never end.
    at += kind === Option.none ? 1 : Math.max(2, length);
  }
  return DEFAULT_SEGMENT;
}
