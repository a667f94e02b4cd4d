/**
 * XenStore's messages as bytes (xen/include/public/io/xs_wire.h): a header of four little-endian words
 *
 *   type, request id, transaction id, length
 *
 * and at most 4096 bytes of payload. Text in a payload is Latin-1 here, so that every byte comes back as it was.
 */
export const enum MessageType {
  control = 0,
  directory = 1,
  read = 2,
  getPermissions = 3,
  watch = 4,
  unwatch = 5,
  transactionStart = 6,
  transactionEnd = 7,
  introduce = 8,
  release = 9,
  getDomainPath = 10,
  write = 11,
  makeDirectory = 12,
  remove = 13,
  setPermissions = 14,
  watchEvent = 15,
  error = 16,
  isDomainIntroduced = 17,
  resume = 18,
  setTarget = 19,
  resetWatches = 21,
  directoryPart = 22,
}

export const HEADER_BYTES = 16;
export const PAYLOAD_LIMIT = 4096;

export interface Message {
  readonly type: number;
  readonly request: number;
  readonly transaction: number;
  readonly payload: Uint8Array;
}

/** Payload length that a header announces: any 32-bit number. */
export function payloadLength(header: Uint8Array): number {
  return new DataView(header.buffer, header.byteOffset).getUint32(12, true);
}

/** Reads one whole message; `payload` is a view into `bytes`. */
export function decodeMessage(bytes: Uint8Array): Message {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return {
    type: view.getUint32(0, true),
    request: view.getUint32(4, true),
    transaction: view.getUint32(8, true),
    payload: bytes.subarray(HEADER_BYTES, HEADER_BYTES + payloadLength(bytes)),
  };
}

export function encodeMessage(message: Message): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + message.payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, message.type, true);
  view.setUint32(4, message.request, true);
  view.setUint32(8, message.transaction, true);
  view.setUint32(12, message.payload.length, true);
  bytes.set(message.payload, HEADER_BYTES);
  return bytes;
}

/** `text` must be Latin-1. */
export function toBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
  return bytes;
}

export function toText(bytes: Uint8Array): string {
  // At most PAYLOAD_LIMIT arguments.
  return String.fromCharCode(...bytes);
}

/** The strings of a payload that is nothing but NUL-terminated strings, or null. */
export function parseStrings(payload: Uint8Array): string[] | null {
  if (payload.at(-1) !== 0) return null;
  return toText(payload.subarray(0, -1)).split('\0');
}

export function formatStrings(strings: readonly string[]): Uint8Array {
  return toBytes(strings.map((text) => `${text}\0`).join(''));
}
