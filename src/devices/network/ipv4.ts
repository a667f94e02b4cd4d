/** IPv4 (RFC 791) as far as an end of it needs: packets without options to send, any to receive, no fragments. */

/** An address as an unsigned number. */
export type Ipv4Address = number;

export const enum Protocol {
  icmp = 1,
  tcp = 6,
  udp = 17,
}

export const LIMITED_BROADCAST: Ipv4Address = 0xffff_ffff;

const enum Header {
  versionAndLength = 0,
  totalLength = 2,
  flagsAndOffset = 6,
  timeToLive = 8,
  protocol = 9,
  checksum = 10,
  source = 12,
  destination = 16,
  size = 20,
}

const DO_NOT_FRAGMENT = 0x4000;
const MORE_FRAGMENTS_AND_OFFSET = 0x3fff;
const TIME_TO_LIVE = 64;

export interface Ipv4Packet {
  readonly source: Ipv4Address;
  readonly destination: Ipv4Address;
  readonly protocol: number;
  readonly payload: Uint8Array;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

export function ipv4Address(text: string): Ipv4Address {
  return text.split('.').reduce((value, part) => value * 256 + Number(part), 0);
}

export function formatIpv4(address: Ipv4Address): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.');
}

/** The Internet checksum (RFC 1071) of some bytes, going on from an earlier sum. */
export function checksum(bytes: Uint8Array, start = 0): number {
  let sum = start;
  for (let index = 0; index < bytes.length; index += 2) {
    sum += ((bytes[index] as number) << 8) | (bytes[index + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** What the checksums of UDP and TCP cover besides their own bytes. */
export function pseudoHeaderSum({ source, destination, protocol, payload }: Ipv4Packet): number {
  const halves = (address: Ipv4Address): number => (address >>> 16) + (address & 0xffff);
  return halves(source) + halves(destination) + protocol + payload.length;
}

/** @returns the packet, whose payload is a view; undefined for what is damaged or a fragment */
export function parseIpv4(bytes: Uint8Array): Ipv4Packet | undefined {
  if (bytes.length < Header.size || (bytes[0] as number) >> 4 !== 4) return undefined;
  const view = viewOf(bytes);
  const header = ((bytes[0] as number) & 15) * 4;
  const total = view.getUint16(Header.totalLength);
  if (header < Header.size || total < header || total > bytes.length) return undefined;
  if (checksum(bytes.subarray(0, header)) !== 0) return undefined;
  if (view.getUint16(Header.flagsAndOffset) & MORE_FRAGMENTS_AND_OFFSET) return undefined;
  return {
    source: view.getUint32(Header.source),
    destination: view.getUint32(Header.destination),
    protocol: view.getUint8(Header.protocol),
    payload: bytes.subarray(header, total),
  };
}

export function buildIpv4({ source, destination, protocol, payload }: Ipv4Packet): Uint8Array {
  const bytes = new Uint8Array(Header.size + payload.length);
  const view = viewOf(bytes);
  view.setUint8(Header.versionAndLength, (4 << 4) | (Header.size / 4));
  view.setUint16(Header.totalLength, bytes.length);
  view.setUint16(Header.flagsAndOffset, DO_NOT_FRAGMENT);
  view.setUint8(Header.timeToLive, TIME_TO_LIVE);
  view.setUint8(Header.protocol, protocol);
  view.setUint32(Header.source, source);
  view.setUint32(Header.destination, destination);
  view.setUint16(Header.checksum, checksum(bytes.subarray(0, Header.size)));
  bytes.set(payload, Header.size);
  return bytes;
}
