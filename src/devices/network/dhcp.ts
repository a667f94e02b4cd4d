import { MAC_BYTES, type MacAddress } from './ethernet.ts';
import { type Ipv4Address, viewOf } from './ipv4.ts';

/** DHCP (RFC 2131, options in RFC 2132), the server's side: it gives each station an address of a pool, for good. */

export const SERVER_PORT = 67;
export const CLIENT_PORT = 68;

const enum Field {
  operation = 0,
  hardwareType = 1,
  hardwareLength = 2,
  transaction = 4,
  clientAddress = 12,
  yourAddress = 16,
  serverAddress = 20,
  clientHardware = 28,
  cookie = 236,
  options = 240,
}

const REQUEST = 1;
const REPLY = 2;
const ETHERNET = 1;
const COOKIE = 0x6382_5363;

const enum Option {
  subnetMask = 1,
  router = 3,
  nameServer = 6,
  requestedAddress = 50,
  leaseTime = 51,
  messageType = 53,
  server = 54,
  end = 255,
}

const enum MessageType {
  discover = 1,
  offer = 2,
  request = 3,
  acknowledge = 5,
  refuse = 6,
}

/** Seconds that a client may keep its address before it asks again: a day. */
const LEASE_TIME = 86_400;

export interface DhcpOptions {
  readonly server: Ipv4Address;
  readonly subnetMask: Ipv4Address;
  readonly router: Ipv4Address;
  readonly nameServer: Ipv4Address;
  /** First address that is given to a station, and how many there are. */
  readonly first: Ipv4Address;
  readonly count: number;
}

export class DhcpServer {
  readonly #options: DhcpOptions;
  /** Addresses by station. */
  readonly #leases = new Map<string, Ipv4Address>();

  constructor(options: DhcpOptions) {
    this.#options = options;
  }

  /** @returns the reply to broadcast (the client has no address yet), if the message is one that wants a reply */
  reply(message: Uint8Array): Uint8Array | undefined {
    if (message.length < Field.options) return undefined;
    const view = viewOf(message);
    const isRequest = view.getUint8(Field.operation) === REQUEST && view.getUint32(Field.cookie) === COOKIE;
    if (!isRequest || view.getUint8(Field.hardwareType) !== ETHERNET) return undefined;
    const options = parseOptions(message.subarray(Field.options));
    const type = options.get(Option.messageType)?.[0];
    const chosen = numberOf(options.get(Option.server));
    if (chosen !== undefined && chosen !== this.#options.server) return undefined;
    const station = message.slice(Field.clientHardware, Field.clientHardware + MAC_BYTES);
    const address = this.#lease(station);
    if (address === undefined) return undefined;
    if (type === MessageType.discover) return this.#message(message, address, MessageType.offer);
    if (type !== MessageType.request) return undefined;
    const wanted = numberOf(options.get(Option.requestedAddress)) ?? view.getUint32(Field.clientAddress);
    const isGranted = wanted === address;
    return this.#message(message, isGranted ? address : 0, isGranted ? MessageType.acknowledge : MessageType.refuse);
  }

  /** Undefined when every address is taken. */
  #lease(station: MacAddress): Ipv4Address | undefined {
    const key = String(station);
    const known = this.#leases.get(key);
    if (known !== undefined || this.#leases.size === this.#options.count) return known;
    const address = this.#options.first + this.#leases.size;
    this.#leases.set(key, address);
    return address;
  }

  #message(request: Uint8Array, address: Ipv4Address, type: MessageType): Uint8Array {
    const { server, subnetMask, router, nameServer } = this.#options;
    const settings: readonly (readonly [Option, number])[] = [
      [Option.subnetMask, subnetMask],
      [Option.router, router],
      [Option.nameServer, nameServer],
      [Option.leaseTime, LEASE_TIME],
    ];
    const options = [
      ...[Option.messageType, 1, type],
      ...word(Option.server, server),
      ...(type === MessageType.refuse ? [] : settings.flatMap(([option, value]) => word(option, value))),
      Option.end,
    ];
    const reply = new Uint8Array(Field.options + options.length);
    // The transaction, flags and the client's hardware address come back as they were.
    reply.set(request.subarray(0, Field.options));
    const view = viewOf(reply);
    view.setUint8(Field.operation, REPLY);
    view.setUint32(Field.yourAddress, address);
    view.setUint32(Field.serverAddress, server);
    reply.set(options, Field.options);
    return reply;
  }
}

function word(option: Option, value: number): number[] {
  return [option, 4, (value >>> 24) & 0xff, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
}

function numberOf(bytes: Uint8Array | undefined): number | undefined {
  return bytes?.length === 4 ? viewOf(bytes).getUint32(0) : undefined;
}

/** Options by number: each is its number, a length and so many bytes; 0 pads, 255 ends. */
function parseOptions(bytes: Uint8Array): Map<number, Uint8Array> {
  const options = new Map<number, Uint8Array>();
  for (let at = 0; at < bytes.length && bytes[at] !== Option.end; ) {
    const option = bytes[at] as number;
    const length = bytes[at + 1] ?? 0;
    if (option === 0) {
      at++;
      continue;
    }
    options.set(option, bytes.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return options;
}
