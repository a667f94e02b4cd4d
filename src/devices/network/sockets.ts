import type { Ipv4Address } from './ipv4.ts';

/** One end of a conversation over UDP or TCP. */
export interface Endpoint {
  readonly address: Ipv4Address;
  readonly port: number;
}

/** The host's own sockets: what a gateway carries guests' conversations with the world over. */
export interface HostSockets {
  /** Whom the host asks for names; undefined when nobody is known. */
  readonly nameServer: Ipv4Address | undefined;
  /** @param receive takes datagrams that come back */
  openDatagram(receive: (from: Endpoint, data: Uint8Array) => void): DatagramSocket;
  /** Begins to connect; `events` say what becomes of it, from a later step of the event loop on. */
  connect(to: Endpoint, events: StreamEvents): StreamSocket;
}

export interface DatagramSocket {
  /** Sends, or fails without a word, as the network may. */
  send(to: Endpoint, data: Uint8Array): void;
  close(): void;
}

export interface StreamSocket {
  /** Bytes written that the host's network has not taken yet. */
  readonly backlog: number;
  /** Takes bytes that nobody changes afterwards. */
  write(bytes: Uint8Array): void;
  /** No more will be written. */
  end(): void;
  /** Stops `received`, so that the world has to wait; `resume` lets it go on. */
  pause(): void;
  resume(): void;
  /** Ends both directions at once; no event follows. */
  destroy(): void;
}

export interface StreamEvents {
  connected(): void;
  received(bytes: Uint8Array): void;
  /** The backlog has become smaller. */
  drained(): void;
  /** The other end will write no more. */
  ended(): void;
  /** Nothing more follows, in either direction. */
  failed(): void;
}
