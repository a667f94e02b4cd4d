import type { Archive, Archived } from '../archive/archive.ts';
import {
  allows,
  isWithin,
  type Permission,
  PRIVILEGED_DOMAIN,
  resolvePath,
  StoreAccess,
  type StoreError,
  type Watch,
} from './xenstore-node.ts';
import { PAYLOAD_LIMIT } from './xenstore-protocol.ts';
import { XenstoreSession } from './xenstore-session.ts';
import { type StoreChange, StoreQuota, XenstoreTree } from './xenstore-tree.ts';

/** A watched path, as the watcher is told it. */
export type StoreListener = (path: string) => void;

/**
 * XenStore: the small hierarchical store through which the host and its guests agree on devices and requests
 * (public/io/xs_wire.h). Reading order:
 *
 *   xenstore-node.ts      paths, permissions, errors
 *   xenstore-tree.ts      the tree, quotas, transactions
 *   xenstore.ts           watches; the host's own access (this file)
 *   xenstore-protocol.ts  messages as bytes
 *   xenstore-session.ts   one guest's requests and replies
 *   xenstore-domain.ts    what stands in the store for a domain
 *   xen/xenstore-ring.ts  the page through which the bytes go
 *
 * The host reads and writes synchronously, as domain 0. Its listeners are called when the operation that fired them is
 * complete. All state but the listeners is plain data; they are set again after a restore.
 */
export class Xenstore implements Archived {
  readonly tree: XenstoreTree;
  watches: Watch[] = [];
  readonly sessions = new Map<number, XenstoreSession>();
  readonly #listeners = new Map<string, StoreListener>();
  #nextListener = 1;
  readonly #fired: { readonly token: string; readonly path: string }[] = [];
  #delivering = false;

  constructor() {
    this.tree = new XenstoreTree((change) => this.#fire(change));
  }

  archive(archive: Archive): void {
    archive.part('tree', this.tree);
    this.watches = archive.value('watches', this.watches);
    archive.parts('sessions', [...this.sessions.values()]);
  }

  // The host's side. Paths are the host's own and therefore right; a wrong one is a defect and throws.

  /** Value as text, or undefined when the node does not exist. */
  read(path: string): string | undefined {
    const value = this.tree.read(PRIVILEGED_DOMAIN, null, checked(path));
    return typeof value === 'string' ? undefined : new TextDecoder().decode(value);
  }

  /** Names of the children; none when the node does not exist. */
  list(path: string): readonly string[] {
    const node = this.tree.list(PRIVILEGED_DOMAIN, null, checked(path));
    return typeof node === 'string' ? [] : node.children;
  }

  /** Creates missing parents. Without `permissions` a node that exists keeps its own, another gets its parent's. */
  write(path: string, value: string | Uint8Array, permissions?: readonly Permission[]): void {
    const bytes = typeof value === 'string' ? new TextEncoder().encode(value) : value.slice();
    if (bytes.length > PAYLOAD_LIMIT)
      throw new RangeError(`${bytes.length} bytes are too many for ${path} in XenStore`);
    this.tree.write(PRIVILEGED_DOMAIN, null, checked(path), bytes);
    if (permissions !== undefined) this.tree.setPermissions(PRIVILEGED_DOMAIN, null, path, permissions);
    this.deliver();
  }

  remove(path: string): void {
    this.tree.remove(PRIVILEGED_DOMAIN, null, checked(path));
    this.deliver();
  }

  setPermissions(path: string, permissions: readonly Permission[]): void {
    this.tree.setPermissions(PRIVILEGED_DOMAIN, null, checked(path), permissions);
    this.deliver();
  }

  /**
   * Calls `listener` once at once and then on each change of the path and below it, with the path that changed.
   * @returns what `unwatch` takes
   */
  watch(path: string, listener: StoreListener): string {
    const token = `host-${this.#nextListener++}`;
    this.#listeners.set(token, listener);
    this.watches.push({ domain: PRIVILEGED_DOMAIN, path: checked(path), token, relative: false });
    this.#fired.push({ token, path });
    this.deliver();
    return token;
  }

  unwatch(token: string): void {
    this.#listeners.delete(token);
    this.#removeWatches((watch) => watch.domain === PRIVILEGED_DOMAIN && watch.token === token);
  }

  /** Opens the store to a domain; there is one session for each. */
  introduce(domain: number): XenstoreSession {
    const session = new XenstoreSession(this, domain);
    this.sessions.set(domain, session);
    this.#fire({ path: '@introduceDomain', exact: true, before: null, after: null });
    this.deliver();
    return session;
  }

  /** Forgets a domain's session and watches; its nodes stay until they are removed. */
  release(domain: number): void {
    if (!this.sessions.delete(domain)) return;
    this.removeWatchesOf(domain);
    this.#fire({ path: '@releaseDomain', exact: true, before: null, after: null });
    this.deliver();
  }

  isIntroduced(domain: number): boolean {
    return domain === PRIVILEGED_DOMAIN || this.sessions.has(domain);
  }

  // The sessions' side

  /** Registers a guest's watch; the first event is the session's to give. */
  addWatch(watch: Watch): StoreError | null {
    const own = this.watches.filter((other) => other.domain === watch.domain);
    if (own.some((other) => other.path === watch.path && other.token === watch.token)) return 'EEXIST';
    if (own.length >= StoreQuota.watches) return 'E2BIG';
    this.watches.push(watch);
    return null;
  }

  removeWatch(domain: number, path: string, token: string): StoreError | null {
    const removed = this.#removeWatches(
      (watch) => watch.domain === domain && watch.path === path && watch.token === token,
    );
    return removed ? null : 'ENOENT';
  }

  removeWatchesOf(domain: number): void {
    this.#removeWatches((watch) => watch.domain === domain);
  }

  /** Calls the host's listeners for what has fired. A listener may use the store; what that fires comes after. */
  deliver(): void {
    if (this.#delivering) return;
    this.#delivering = true;
    try {
      for (let event = this.#fired.shift(); event !== undefined; event = this.#fired.shift()) {
        this.#listeners.get(event.token)?.(event.path);
      }
    } finally {
      this.#delivering = false;
    }
  }

  #fire(change: StoreChange): void {
    for (const watch of this.watches) {
      const met = change.exact ? watch.path === change.path : isWithin(change.path, watch.path);
      if (!met || !maySee(watch.domain, change)) continue;
      if (watch.domain === PRIVILEGED_DOMAIN) this.#fired.push({ token: watch.token, path: change.path });
      else this.sessions.get(watch.domain)?.queueEvent(watch, change.path);
    }
  }

  #removeWatches(which: (watch: Watch) => boolean): boolean {
    const kept = this.watches.filter((watch) => !which(watch));
    const removed = kept.length < this.watches.length;
    this.watches.splice(0, this.watches.length, ...kept);
    return removed;
  }
}

function maySee(domain: number, change: StoreChange): boolean {
  if (domain === PRIVILEGED_DOMAIN) return true;
  const { before, after } = change;
  return (
    (before !== null && allows(before, domain, StoreAccess.read)) ||
    (after !== null && allows(after, domain, StoreAccess.read))
  );
}

function checked(path: string): string {
  if (resolvePath(PRIVILEGED_DOMAIN, path) !== path) throw new RangeError(`${path} is not an absolute XenStore path`);
  return path;
}
