import { checksum, type Ipv4Packet, Protocol, pseudoHeaderSum, viewOf } from './ipv4.ts';

/** UDP (RFC 768): source and destination port, length, checksum, then the data. */
const enum Header {
  source = 0,
  destination = 2,
  length = 4,
  checksum = 6,
  size = 8,
}

export interface Datagram {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly data: Uint8Array;
}

/** @returns the datagram, whose data is a view; undefined for what is damaged */
export function parseUdp(packet: Ipv4Packet): Datagram | undefined {
  const { payload } = packet;
  if (payload.length < Header.size) return undefined;
  const view = viewOf(payload);
  const length = view.getUint16(Header.length);
  if (length < Header.size || length > payload.length) return undefined;
  // A sender may leave the checksum out.
  const isSummed = view.getUint16(Header.checksum) !== 0;
  const covered = { ...packet, payload: payload.subarray(0, length) };
  if (isSummed && checksum(covered.payload, pseudoHeaderSum(covered)) !== 0) return undefined;
  return {
    sourcePort: view.getUint16(Header.source),
    destinationPort: view.getUint16(Header.destination),
    data: payload.subarray(Header.size, length),
  };
}

export function buildUdp(source: number, destination: number, datagram: Datagram): Ipv4Packet {
  const payload = new Uint8Array(Header.size + datagram.data.length);
  const view = viewOf(payload);
  view.setUint16(Header.source, datagram.sourcePort);
  view.setUint16(Header.destination, datagram.destinationPort);
  view.setUint16(Header.length, payload.length);
  payload.set(datagram.data, Header.size);
  const packet: Ipv4Packet = { source, destination, protocol: Protocol.udp, payload };
  // 0 would say that there is no checksum; its other form means the same sum.
  view.setUint16(Header.checksum, checksum(payload, pseudoHeaderSum(packet)) || 0xffff);
  return packet;
}
