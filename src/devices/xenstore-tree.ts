import type { Archive, Archived } from '../archive/archive.ts';
import {
  allows,
  childOf,
  nameOf,
  type Permission,
  PRIVILEGED_DOMAIN,
  parentOf,
  StoreAccess,
  type StoreError,
  type StoreNode,
} from './xenstore-node.ts';

/** What one domain may use; the host itself is not bound by it. The figures are xenstored's own defaults. */
export const enum StoreQuota {
  nodes = 1000,
  watches = 128,
  transactions = 10,
  /** Nodes that one transaction may look at. */
  transactionNodes = 1024,
  valueBytes = 2048,
  permissions = 5,
}

/** One change, for the watches: they are told when the reader may see the node before it or after it. */
export interface StoreChange {
  readonly path: string;
  /** Only watches of exactly this path: a node that went with its parent. Its ancestors hear of the parent. */
  readonly exact: boolean;
  readonly before: readonly Permission[] | null;
  readonly after: readonly Permission[] | null;
}

/**
 * A transaction works on the store as it is and keeps its own changes aside. It remembers the generation of each node
 * that it has met; at the end all of them must be what they were, or it has to be tried again. Until then what it sees
 * may be torn: its own copy of a parent lists a child that is gone, or its own child has lost the parent. Either way a
 * node that it has met has changed, so such a transaction never commits, and its operations only have to survive.
 */
export interface Transaction {
  readonly domain: number;
  /** Generation of each node looked at, −1 for one that was not there. */
  readonly met: Map<string, number>;
  /** Nodes as the transaction has made them, null for removed ones. */
  readonly changes: Map<string, StoreNode | null>;
  /** By path, in order; merged, so that a transaction cannot queue without bound. */
  readonly events: Map<string, StoreChange>;
  /** Nodes that the transaction adds to each owner's count. */
  readonly owned: Map<number, number>;
}

/** A transaction as an archive takes it. */
export class ArchivedTransaction implements Archived {
  readonly transaction: Transaction;

  constructor(transaction: Transaction) {
    this.transaction = transaction;
  }

  archive(archive: Archive): void {
    archive.map('met', this.transaction.met);
    archive.map('changes', this.transaction.changes);
    archive.map('events', this.transaction.events);
    archive.map('owned', this.transaction.owned);
  }
}

const ABSENT = -1;
const EMPTY = new Uint8Array(0);

/**
 * The tree of nodes. Each operation is done for a domain and inside a transaction or outside (null); it ends with its
 * result or with an error's name, and has changed nothing then. Paths are absolute and valid (`resolvePath`).
 */
export class XenstoreTree implements Archived {
  readonly nodes = new Map<string, StoreNode>();
  /** Number of nodes by owner. */
  readonly owned = new Map<number, number>();
  generation = 0;
  readonly #changed: (change: StoreChange) => void;

  /** @param changed hears of each change outside transactions, and of a transaction's when it is committed */
  constructor(changed: (change: StoreChange) => void) {
    this.#changed = changed;
    const permissions = [{ domain: PRIVILEGED_DOMAIN, access: StoreAccess.none }];
    this.#put(null, '/', { value: EMPTY, permissions, children: [], generation: 0 });
  }

  archive(archive: Archive): void {
    archive.map('nodes', this.nodes);
    archive.map('owned', this.owned);
    this.generation = archive.value('generation', this.generation);
  }

  read(domain: number, transaction: Transaction | null, path: string): Uint8Array | StoreError {
    const node = this.#find(domain, transaction, path, StoreAccess.read);
    return typeof node === 'string' ? node : node.value;
  }

  /** Names of a node's children. */
  list(domain: number, transaction: Transaction | null, path: string): StoreNode | StoreError {
    return this.#find(domain, transaction, path, StoreAccess.read);
  }

  permissions(domain: number, transaction: Transaction | null, path: string): readonly Permission[] | StoreError {
    const node = this.#find(domain, transaction, path, StoreAccess.read);
    return typeof node === 'string' ? node : node.permissions;
  }

  /** Sets a node's value; a missing node is created, with the parents that it lacks. */
  write(domain: number, transaction: Transaction | null, path: string, value: Uint8Array): StoreError | null {
    if (domain !== PRIVILEGED_DOMAIN && value.length > StoreQuota.valueBytes) return 'ENOSPC';
    const node = this.#find(domain, transaction, path, StoreAccess.write);
    if (node === 'ENOENT') return this.#create(domain, transaction, path, value);
    if (typeof node === 'string') return node;
    this.#put(transaction, path, { ...node, value });
    this.#note(transaction, { path, exact: false, before: node.permissions, after: node.permissions });
    return null;
  }

  /** Creates an empty node; one that exists stays as it is. */
  makeDirectory(domain: number, transaction: Transaction | null, path: string): StoreError | null {
    const node = this.#find(domain, transaction, path, StoreAccess.write);
    if (node === 'ENOENT') return this.#create(domain, transaction, path, EMPTY);
    return typeof node === 'string' ? node : null;
  }

  /** Removes a node and all below it. A node that is missing below an existing parent is removed already. */
  remove(domain: number, transaction: Transaction | null, path: string): StoreError | null {
    if (path === '/') return 'EINVAL';
    const node = this.#find(domain, transaction, path, StoreAccess.write);
    if (node === 'ENOENT') return this.#get(transaction, parentOf(path)) === undefined ? 'ENOENT' : null;
    if (typeof node === 'string') return node;
    const parentPath = parentOf(path);
    const parent = this.#get(transaction, parentPath);
    const name = nameOf(path);
    if (parent !== undefined) {
      this.#put(transaction, parentPath, { ...parent, children: parent.children.filter((child) => child !== name) });
    }
    this.#removeSubtree(transaction, path, node);
    return null;
  }

  /** Only the owner may, and only the host may change the owner. */
  setPermissions(
    domain: number,
    transaction: Transaction | null,
    path: string,
    permissions: readonly Permission[],
  ): StoreError | null {
    const node = this.#find(domain, transaction, path, StoreAccess.write);
    if (typeof node === 'string') return node;
    const owner = permissions[0];
    if (owner === undefined) return 'EINVAL';
    if (domain !== PRIVILEGED_DOMAIN) {
      const current = node.permissions[0]!.domain; // every node has an owner
      if (current !== domain) return 'EACCES';
      if (owner.domain !== current) return 'EPERM';
      if (permissions.length > StoreQuota.permissions) return 'ENOSPC';
    }
    this.#put(transaction, path, { ...node, permissions });
    this.#note(transaction, { path, exact: false, before: node.permissions, after: permissions });
    return null;
  }

  begin(domain: number): Transaction {
    return { domain, met: new Map(), changes: new Map(), events: new Map(), owned: new Map() };
  }

  /**
   * Makes a transaction's changes all at once. `EAGAIN`: something that it looked at has changed since; `ENOSPC`: with
   * what was committed meanwhile the domain would own too many nodes. The transaction is over in any case.
   */
  commit(transaction: Transaction): StoreError | null {
    for (const [path, generation] of transaction.met) {
      if ((this.nodes.get(path)?.generation ?? ABSENT) !== generation) return 'EAGAIN';
    }
    const added = transaction.owned.get(transaction.domain) ?? 0;
    if (added > 0 && !this.#affords(transaction.domain, null, added)) return 'ENOSPC';
    for (const [path, node] of transaction.changes) this.#put(null, path, node);
    for (const change of transaction.events.values()) this.#changed(change);
    return null;
  }

  /** The node for an access. Who may not access the nearest existing parent does not learn that a node is missing. */
  #find(domain: number, transaction: Transaction | null, path: string, access: StoreAccess): StoreNode | StoreError {
    if (!path.startsWith('/')) return 'EINVAL';
    const node = this.#get(transaction, path);
    if (node !== undefined) return allows(node.permissions, domain, access) ? node : 'EACCES';
    const ancestor = this.#existingAncestor(transaction, path);
    return allows(ancestor.permissions, domain, access) ? 'ENOENT' : 'EACCES';
  }

  #existingAncestor(transaction: Transaction | null, path: string): StoreNode {
    for (let ancestor = parentOf(path); ; ancestor = parentOf(ancestor)) {
      const node = this.#get(transaction, ancestor);
      if (node !== undefined) return node; // at the latest the root
    }
  }

  #create(domain: number, transaction: Transaction | null, path: string, value: Uint8Array): StoreError | null {
    const missing: string[] = [];
    let ancestor = path;
    while (this.#get(transaction, ancestor) === undefined) {
      missing.push(ancestor);
      ancestor = parentOf(ancestor);
    }
    if (!this.#affords(domain, transaction, missing.length)) return 'ENOSPC';
    const parent = this.#get(transaction, ancestor)!; // the loop ended there
    // What a guest creates is its own; what the host creates belongs to the parent's owner.
    const [owner, ...others] = parent.permissions;
    const permissions = domain === PRIVILEGED_DOMAIN ? parent.permissions : [{ ...owner!, domain }, ...others];
    this.#put(transaction, ancestor, { ...parent, children: [...parent.children, nameOf(missing.at(-1)!)] });
    for (let index = missing.length - 1; index >= 0; index--) {
      const children = index > 0 ? [nameOf(missing[index - 1]!)] : [];
      const node = { value: index > 0 ? EMPTY : value, permissions, children, generation: 0 };
      this.#put(transaction, missing[index]!, node);
    }
    this.#note(transaction, { path, exact: false, before: null, after: permissions });
    return null;
  }

  #removeSubtree(transaction: Transaction | null, root: string, rootNode: StoreNode): void {
    const paths = [root];
    const removed: StoreChange[] = [{ path: root, exact: false, before: rootNode.permissions, after: null }];
    for (let path = paths.pop(); path !== undefined; path = paths.pop()) {
      const node = this.#get(transaction, path);
      if (node === undefined) continue;
      for (const name of node.children) paths.push(childOf(path, name));
      if (path !== root) removed.push({ path, exact: true, before: node.permissions, after: null });
      this.#put(transaction, path, null);
    }
    for (const change of removed) this.#note(transaction, change);
  }

  #get(transaction: Transaction | null, path: string): StoreNode | undefined {
    if (transaction === null) return this.nodes.get(path);
    const changed = transaction.changes.get(path);
    if (changed !== undefined) return changed ?? undefined;
    const node = this.nodes.get(path);
    if (!transaction.met.has(path)) transaction.met.set(path, node?.generation ?? ABSENT);
    return node;
  }

  #put(transaction: Transaction | null, path: string, node: StoreNode | null): void {
    const owned = transaction === null ? this.owned : transaction.owned;
    const before = this.#get(transaction, path)?.permissions[0]?.domain;
    const after = node?.permissions[0]?.domain;
    if (before !== after) {
      if (before !== undefined) owned.set(before, (owned.get(before) ?? 0) - 1);
      if (after !== undefined) owned.set(after, (owned.get(after) ?? 0) + 1);
    }
    if (transaction !== null) transaction.changes.set(path, node);
    else if (node === null) this.nodes.delete(path);
    else this.nodes.set(path, { ...node, generation: ++this.generation });
  }

  #affords(domain: number, transaction: Transaction | null, more: number): boolean {
    if (domain === PRIVILEGED_DOMAIN) return true;
    const owned = (this.owned.get(domain) ?? 0) + (transaction?.owned.get(domain) ?? 0);
    return owned + more <= StoreQuota.nodes;
  }

  #note(transaction: Transaction | null, change: StoreChange): void {
    if (transaction === null) {
      this.#changed(change);
      return;
    }
    const earlier = transaction.events.get(change.path);
    transaction.events.set(change.path, {
      path: change.path,
      exact: change.exact && (earlier?.exact ?? true),
      before: earlier === undefined ? change.before : earlier.before,
      after: change.after,
    });
  }
}
