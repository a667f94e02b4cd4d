import type { Archive, Archived } from '../archive/archive.ts';
import { type ByteQueue, createByteQueue, dequeue, enqueue } from './ring.ts';
import type { Xenstore } from './xenstore.ts';
import {
  formatPermission,
  homeOf,
  parsePermission,
  resolvePath,
  type StoreError,
  type StoreNode,
  type Watch,
  watchedPath,
} from './xenstore-node.ts';
import {
  decodeMessage,
  encodeMessage,
  formatStrings,
  HEADER_BYTES,
  type Message,
  MessageType,
  PAYLOAD_LIMIT,
  parseStrings,
  payloadLength,
  toBytes,
  toText,
} from './xenstore-protocol.ts';
import { ArchivedTransaction, StoreQuota, type Transaction } from './xenstore-tree.ts';

/** While more than this waits to be read, no further request is taken: a guest that does not read is not served. */
const OUTPUT_LIMIT = 4 * (HEADER_BYTES + PAYLOAD_LIMIT);
/** Events that wait to be read. Equal ones are merged; a guest that lets more pile up loses the newest. */
const EVENT_LIMIT = 1024;

const DONE = formatStrings(['OK']);
const DOMID_SELF = 0x7ff0;

interface WaitingEvent {
  readonly watch: Watch;
  readonly path: string;
}

/** Answers a request with the reply's payload or an error. `transaction` is null outside of one. */
type Handler = (
  session: XenstoreSession,
  transaction: Transaction | null,
  payload: Uint8Array,
) => Uint8Array | StoreError;

/**
 * One guest's conversation with the store: a stream of bytes in each direction, cut anywhere. Everything that comes in
 * is the guest's to choose.
 */
export class XenstoreSession implements Archived {
  readonly store: Xenstore;
  readonly domain: number;
  /** A message that has not arrived completely. */
  readonly partial = new Uint8Array(HEADER_BYTES + PAYLOAD_LIMIT);
  partialLength = 0;
  readonly output: ByteQueue = createByteQueue();
  readonly events = new Map<string, WaitingEvent>();
  readonly transactions = new Map<number, Transaction>();
  nextTransaction = 1;
  /** A header announced more than a message may have. The stream has lost its borders, nothing more is read. */
  broken = false;

  constructor(store: Xenstore, domain: number) {
    this.store = store;
    this.domain = domain;
  }

  archive(archive: Archive): void {
    archive.words('partial', this.partial);
    this.partialLength = archive.value('partialLength', this.partialLength);
    archive.record('output', this.output);
    archive.map('events', this.events);
    const open = archive.value('open', [...this.transactions.keys()]);
    for (const id of open)
      if (!this.transactions.has(id)) this.transactions.set(id, this.store.tree.begin(this.domain));
    archive.parts(
      'transactions',
      [...this.transactions.values()].map((transaction) => new ArchivedTransaction(transaction)),
    );
    this.nextTransaction = archive.value('nextTransaction', this.nextTransaction);
    this.broken = archive.value('broken', this.broken);
  }

  /**
   * Takes bytes of requests and answers each request that is complete.
   * @returns how many bytes were taken; the others are to be given again when the guest has read its replies
   */
  receive(bytes: Uint8Array): number {
    let taken = 0;
    while (taken < bytes.length && !this.broken && this.output.length < OUTPUT_LIMIT) {
      const part = bytes.subarray(taken, taken + this.#wanted());
      this.partial.set(part, this.partialLength);
      this.partialLength += part.length;
      taken += part.length;
      if (this.partialLength < HEADER_BYTES) continue;
      if (payloadLength(this.partial) > PAYLOAD_LIMIT) this.broken = true;
      else if (this.#wanted() === 0) {
        this.partialLength = 0;
        this.#answer(decodeMessage(this.partial));
      }
    }
    return taken;
  }

  /** Takes at most `limit` bytes that the guest has to read: replies first, then events. */
  send(limit: number): Uint8Array {
    for (const [key, { watch, path }] of this.events) {
      if (this.output.length >= limit) break;
      this.events.delete(key);
      const payload = formatStrings([watchedPath(watch, path), watch.token]);
      enqueue(this.output, encodeMessage({ type: MessageType.watchEvent, request: 0, transaction: 0, payload }));
    }
    return dequeue(this.output, limit);
  }

  /** Whether `send` has something. */
  get waiting(): boolean {
    return this.output.length > 0 || this.events.size > 0;
  }

  queueEvent(watch: Watch, path: string): void {
    // What cannot be said in a message is not said, as in xenstored.
    if (watchedPath(watch, path).length + watch.token.length + 2 > PAYLOAD_LIMIT) return;
    // A path has no NUL, and a token none either, so the key is unambiguous.
    const key = `${path}\0${watch.path}\0${watch.token}`;
    if (this.events.size < EVENT_LIMIT && !this.events.has(key)) this.events.set(key, { watch, path });
  }

  /** Drops the events of watches that are no more. */
  dropEvents(which: (watch: Watch) => boolean): void {
    for (const [key, { watch }] of this.events) if (which(watch)) this.events.delete(key);
  }

  /** Bytes that the message in `partial` still lacks: of its header first, then of its payload. */
  #wanted(): number {
    if (this.partialLength < HEADER_BYTES) return HEADER_BYTES - this.partialLength;
    return HEADER_BYTES + payloadLength(this.partial) - this.partialLength;
  }

  #answer(message: Message): void {
    const result = this.#execute(message);
    this.store.deliver();
    const failed = typeof result === 'string';
    enqueue(
      this.output,
      encodeMessage({
        type: failed ? MessageType.error : message.type,
        request: message.request,
        transaction: message.transaction,
        payload: failed ? formatStrings([result]) : result,
      }),
    );
  }

  #execute(message: Message): Uint8Array | StoreError {
    const handler = HANDLERS[message.type];
    if (handler === undefined) return 'ENOSYS';
    let transaction: Transaction | null = null;
    if (message.transaction !== 0 && !OUTSIDE_TRANSACTIONS.has(message.type)) {
      transaction = this.transactions.get(message.transaction) ?? null;
      if (transaction === null) return 'ENOENT';
      if (message.type === MessageType.transactionEnd) this.transactions.delete(message.transaction);
      else if (transaction.met.size > StoreQuota.transactionNodes) return 'ENOSPC';
    }
    return handler(this, transaction, message.payload);
  }
}

/** Requests that no transaction is about: their transaction id is not looked at. */
const OUTSIDE_TRANSACTIONS: ReadonlySet<number> = new Set([
  MessageType.control,
  MessageType.watch,
  MessageType.unwatch,
  MessageType.introduce,
  MessageType.release,
  MessageType.getDomainPath,
  MessageType.isDomainIntroduced,
  MessageType.resume,
  MessageType.setTarget,
  MessageType.resetWatches,
]);

const refused: Handler = () => 'EACCES';

const HANDLERS: Readonly<Record<number, Handler | undefined>> = {
  [MessageType.control]: refused,
  [MessageType.introduce]: refused,
  [MessageType.release]: refused,
  [MessageType.resume]: refused,
  [MessageType.setTarget]: refused,

  [MessageType.read]: onPath((session, transaction, path) =>
    session.store.tree.read(session.domain, transaction, path),
  ),

  [MessageType.directory]: onPath((session, transaction, path) => {
    const node = session.store.tree.list(session.domain, transaction, path);
    if (typeof node === 'string') return node;
    const bytes = node.children.reduce((sum, name) => sum + name.length + 1, 0);
    return bytes > PAYLOAD_LIMIT ? 'E2BIG' : formatStrings(node.children);
  }),

  [MessageType.getPermissions]: onPath((session, transaction, path) => {
    const permissions = session.store.tree.permissions(session.domain, transaction, path);
    return typeof permissions === 'string' ? permissions : formatStrings(permissions.map(formatPermission));
  }),

  [MessageType.makeDirectory]: onPath(
    (session, transaction, path) => session.store.tree.makeDirectory(session.domain, transaction, path) ?? DONE,
  ),

  [MessageType.remove]: onPath(
    (session, transaction, path) => session.store.tree.remove(session.domain, transaction, path) ?? DONE,
  ),

  [MessageType.write]: (session, transaction, payload) => {
    const end = payload.indexOf(0);
    if (end < 0) return 'EINVAL';
    const path = resolvePath(session.domain, toText(payload.subarray(0, end)));
    if (path === null) return 'EINVAL';
    return session.store.tree.write(session.domain, transaction, path, payload.slice(end + 1)) ?? DONE;
  },

  [MessageType.setPermissions]: onStrings((session, transaction, [name, ...texts]) => {
    const path = resolvePath(session.domain, name!);
    const permissions = texts.map(parsePermission).filter((permission) => permission !== null);
    if (path === null || texts.length === 0 || permissions.length < texts.length) return 'EINVAL';
    return session.store.tree.setPermissions(session.domain, transaction, path, permissions) ?? DONE;
  }),

  [MessageType.directoryPart]: onStrings((session, transaction, strings) => {
    const path = resolvePath(session.domain, strings[0]!);
    if (strings.length !== 2 || path === null || !/^\d{1,9}$/.test(strings[1]!)) return 'EINVAL';
    const node = session.store.tree.list(session.domain, transaction, path);
    if (typeof node === 'string') return node;
    return directoryPart(node, Number(strings[1]));
  }),

  [MessageType.watch]: onStrings((session, _transaction, strings) => {
    const watch = parseWatch(session.domain, strings);
    if (watch === null) return 'EINVAL';
    const error = session.store.addWatch(watch);
    if (error !== null) return error;
    session.queueEvent(watch, watch.path);
    return DONE;
  }),

  [MessageType.unwatch]: onStrings((session, _transaction, strings) => {
    const watch = parseWatch(session.domain, strings);
    if (watch === null) return 'EINVAL';
    const error = session.store.removeWatch(session.domain, watch.path, watch.token);
    if (error !== null) return error;
    session.dropEvents((other) => other.path === watch.path && other.token === watch.token);
    return DONE;
  }),

  [MessageType.resetWatches]: (session) => {
    session.store.removeWatchesOf(session.domain);
    session.dropEvents(() => true);
    session.transactions.clear();
    return DONE;
  },

  [MessageType.transactionStart]: (session, transaction) => {
    if (transaction !== null) return 'EBUSY';
    if (session.transactions.size >= StoreQuota.transactions) return 'ENOSPC';
    const id = session.nextTransaction;
    // 0 means "no transaction". Ten ids at most are in use, so the next ones are free.
    session.nextTransaction = id === 0xffff_ffff ? 1 : id + 1;
    session.transactions.set(id, session.store.tree.begin(session.domain));
    return formatStrings([String(id)]);
  },

  [MessageType.transactionEnd]: onStrings((session, transaction, strings) => {
    if (transaction === null) return 'ENOENT';
    if (strings.length !== 1 || (strings[0] !== 'T' && strings[0] !== 'F')) return 'EINVAL';
    if (strings[0] === 'F') return DONE;
    return session.store.tree.commit(transaction) ?? DONE;
  }),

  [MessageType.getDomainPath]: onDomain((_session, domain) => formatStrings([homeOf(domain)])),

  [MessageType.isDomainIntroduced]: onDomain((session, domain) =>
    formatStrings([domain === DOMID_SELF || session.store.isIntroduced(domain) ? 'T' : 'F']),
  ),
};

/** A request that carries NUL-terminated strings only, at least one. */
function onStrings(
  handler: (session: XenstoreSession, transaction: Transaction | null, strings: string[]) => Uint8Array | StoreError,
): Handler {
  return (session, transaction, payload) => {
    const strings = parseStrings(payload);
    return strings === null ? 'EINVAL' : handler(session, transaction, strings);
  };
}

/** A request that carries one path. */
function onPath(
  handler: (session: XenstoreSession, transaction: Transaction | null, path: string) => Uint8Array | StoreError,
): Handler {
  return onStrings((session, transaction, strings) => {
    const path = strings.length === 1 ? resolvePath(session.domain, strings[0]!) : null;
    return path === null ? 'EINVAL' : handler(session, transaction, path);
  });
}

/** A request that carries one domain id. */
function onDomain(handler: (session: XenstoreSession, domain: number) => Uint8Array | StoreError): Handler {
  return onStrings((session, _transaction, strings) => {
    if (strings.length !== 1 || !/^\d{1,5}$/.test(strings[0]!)) return 'EINVAL';
    return handler(session, Number(strings[0]));
  });
}

function parseWatch(domain: number, strings: readonly string[]): Watch | null {
  const [name, token] = strings;
  if (strings.length !== 2 || name === undefined || token === undefined) return null;
  const path = resolvePath(domain, name);
  if (path === null) return null;
  return { domain, path, token, relative: path !== name };
}

/**
 * A piece of a list that may be longer than a message: the node's generation, then whole names from byte `offset` of
 * the list on; an empty name follows the last one of the list.
 */
function directoryPart(node: StoreNode, offset: number): Uint8Array {
  let text = `${node.generation}\0`;
  let position = 0;
  for (const name of node.children) {
    const end = position + name.length + 1;
    if (end > offset) {
      const part = `${name}\0`.slice(Math.max(0, offset - position));
      // Room for the empty name. A name is shorter than a message, so the first one always fits.
      if (text.length + part.length + 1 > PAYLOAD_LIMIT) return toBytes(text);
      text += part;
    }
    position = end;
  }
  return toBytes(`${text}\0`);
}
