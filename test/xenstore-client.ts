import { decodeMessage, encodeMessage, payloadLength, toBytes, toText } from '../src/devices/xenstore-protocol.ts';
import type { XenstoreSession } from '../src/devices/xenstore-session.ts';

export interface Reply {
  readonly type: number;
  readonly request: number;
  readonly transaction: number;
  readonly text: string;
}

export const XS = {
  CONTROL: 0,
  DIRECTORY: 1,
  READ: 2,
  GET_PERMS: 3,
  WATCH: 4,
  UNWATCH: 5,
  TRANSACTION_START: 6,
  TRANSACTION_END: 7,
  INTRODUCE: 8,
  RELEASE: 9,
  GET_DOMAIN_PATH: 10,
  WRITE: 11,
  MKDIR: 12,
  RM: 13,
  SET_PERMS: 14,
  WATCH_EVENT: 15,
  ERROR: 16,
  IS_DOMAIN_INTRODUCED: 17,
  RESUME: 18,
  SET_TARGET: 19,
  RESET_WATCHES: 21,
  DIRECTORY_PART: 22,
} as const;

export function requestBytes(type: number, payload: string, transaction = 0, request = 0): Uint8Array {
  return encodeMessage({ type, request, transaction, payload: toBytes(payload) });
}

/** Cuts a stream of replies into messages; what is incomplete stays in `stream`. */
export function parseReplies(stream: number[]): Reply[] {
  const replies: Reply[] = [];
  while (stream.length >= 16) {
    const length = 16 + payloadLength(new Uint8Array(stream.slice(0, 16)));
    if (stream.length < length) break;
    const { type, request, transaction, payload } = decodeMessage(new Uint8Array(stream.splice(0, length)));
    replies.push({ type, request, transaction, text: toText(payload) });
  }
  return replies;
}

/** A guest's library: asks one thing at a time and keeps the watch events. */
export class StoreClient {
  readonly session: XenstoreSession;
  readonly #stream: number[] = [];
  readonly #events: string[] = [];
  #request = 100;

  constructor(session: XenstoreSession) {
    this.session = session;
  }

  /** The reply's payload, or the error's name. */
  ask(type: number, payload: string, transaction = 0): string {
    const request = this.#request++;
    const bytes = requestBytes(type, payload, transaction, request);
    if (this.session.receive(bytes) !== bytes.length) throw new Error('request was not taken');
    const replies = this.#drain();
    const [reply] = replies;
    if (replies.length !== 1 || reply === undefined) throw new Error(`${replies.length} replies`);
    if (reply.request !== request || reply.transaction !== transaction) throw new Error('reply to another request');
    if (reply.type !== XS.ERROR && reply.type !== type) throw new Error(`reply of type ${reply.type}`);
    return reply.type === XS.ERROR ? reply.text.slice(0, -1) : reply.text;
  }

  /** Watch events since the last call, as `path|token`. */
  events(): string[] {
    if (this.#drain().length > 0) throw new Error('reply without a request');
    return this.#events.splice(0);
  }

  start(): number {
    return Number(this.ask(XS.TRANSACTION_START, '\0').slice(0, -1));
  }

  end(transaction: number, commit = true): string {
    return this.ask(XS.TRANSACTION_END, commit ? 'T\0' : 'F\0', transaction);
  }

  #drain(): Reply[] {
    while (this.session.waiting) this.#stream.push(...this.session.send(1024));
    const replies = parseReplies(this.#stream);
    for (const { type, text } of replies) {
      if (type === XS.WATCH_EVENT) this.#events.push(text.slice(0, -1).replace('\0', '|'));
    }
    return replies.filter(({ type }) => type !== XS.WATCH_EVENT);
  }
}
