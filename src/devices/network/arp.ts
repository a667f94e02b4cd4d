import type { MacAddress } from './ethernet.ts';
import { type Ipv4Address, viewOf } from './ipv4.ts';

/** ARP for IPv4 over Ethernet (RFC 826). */
const enum Field {
  hardware = 0,
  protocol = 2,
  lengths = 4,
  operation = 6,
  senderMac = 8,
  senderAddress = 14,
  targetMac = 18,
  targetAddress = 24,
  size = 28,
}

const ETHERNET = 1;
const IPV4 = 0x0800;
const LENGTHS = 0x0604;
const REQUEST = 1;
const REPLY = 2;

export interface ArpSender {
  readonly mac: MacAddress;
  readonly address: Ipv4Address;
}

export interface ArpMessage {
  readonly isRequest: boolean;
  readonly sender: ArpSender;
  readonly target: Ipv4Address;
}

/** Undefined for what is no ARP for IPv4 over Ethernet. */
export function parseArp(bytes: Uint8Array): ArpMessage | undefined {
  if (bytes.length < Field.size) return undefined;
  const view = viewOf(bytes);
  const isKnown =
    view.getUint16(Field.hardware) === ETHERNET &&
    view.getUint16(Field.protocol) === IPV4 &&
    view.getUint16(Field.lengths) === LENGTHS;
  if (!isKnown) return undefined;
  return {
    isRequest: view.getUint16(Field.operation) === REQUEST,
    sender: {
      mac: bytes.slice(Field.senderMac, Field.senderAddress),
      address: view.getUint32(Field.senderAddress),
    },
    target: view.getUint32(Field.targetAddress),
  };
}

/** "I have this address", to whoever asked. */
export function buildArpReply(sender: ArpSender, target: ArpSender): Uint8Array {
  const bytes = new Uint8Array(Field.size);
  const view = viewOf(bytes);
  view.setUint16(Field.hardware, ETHERNET);
  view.setUint16(Field.protocol, IPV4);
  view.setUint16(Field.lengths, LENGTHS);
  view.setUint16(Field.operation, REPLY);
  bytes.set(sender.mac, Field.senderMac);
  view.setUint32(Field.senderAddress, sender.address);
  bytes.set(target.mac, Field.targetMac);
  view.setUint32(Field.targetAddress, target.address);
  return bytes;
}
