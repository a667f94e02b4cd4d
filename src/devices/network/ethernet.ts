/** Ethernet frames without preamble and checksum: destination and source address, type, payload. */
export const enum Ethernet {
  destination = 0,
  source = 6,
  type = 12,
  payload = 14,
}

/** Most payload bytes, and most bytes of a frame. */
export const MTU = 1500;
export const LONGEST_FRAME = Ethernet.payload + MTU;

export type MacAddress = Uint8Array;

export const MAC_BYTES = 6;
export const BROADCAST: MacAddress = new Uint8Array(MAC_BYTES).fill(0xff);

/** The first bit on the wire says that an address means several stations. */
export function isGroup(address: MacAddress): boolean {
  return ((address[0] as number) & 1) !== 0;
}

export function destinationOf(frame: Uint8Array): MacAddress {
  return frame.subarray(Ethernet.destination, Ethernet.source);
}

export function sourceOf(frame: Uint8Array): MacAddress {
  return frame.subarray(Ethernet.source, Ethernet.type);
}

/** An address that a host may give to its guests (locally administered), different for each number. */
export function guestMac(number: number): MacAddress {
  const address = Uint8Array.of(0x02, 0x72, 0, 0, 0, 0);
  new DataView(address.buffer).setUint32(2, number);
  return address;
}

export function buildFrame(destination: MacAddress, source: MacAddress, type: number, payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(Ethernet.payload + payload.length);
  frame.set(destination, Ethernet.destination);
  frame.set(source, Ethernet.source);
  new DataView(frame.buffer).setUint16(Ethernet.type, type);
  frame.set(payload, Ethernet.payload);
  return frame;
}

/** One end of a cable. */
export interface EthernetPort {
  /**
   * Takes a frame of at least 14 and at most 1514 bytes, which nobody changes afterwards. Never waits and never fails:
   * a port that has no room drops it.
   */
  receive(frame: Uint8Array): void;
}
