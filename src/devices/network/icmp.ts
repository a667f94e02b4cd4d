import { checksum, viewOf } from './ipv4.ts';

/** ICMP (RFC 792): type, code, checksum, then what the type says. */
const enum Field {
  type = 0,
  code = 1,
  checksum = 2,
  size = 8,
}

const ECHO_REQUEST = 8;
const ECHO_REPLY = 0;

/** The answer to a ping; undefined when the message is none or damaged. */
export function echoReply(message: Uint8Array): Uint8Array | undefined {
  if (message.length < Field.size || checksum(message) !== 0) return undefined;
  if (message[Field.type] !== ECHO_REQUEST || message[Field.code] !== 0) return undefined;
  const reply = message.slice();
  const view = viewOf(reply);
  view.setUint8(Field.type, ECHO_REPLY);
  view.setUint16(Field.checksum, 0);
  view.setUint16(Field.checksum, checksum(reply));
  return reply;
}
