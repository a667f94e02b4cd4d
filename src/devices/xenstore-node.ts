/**
 * What XenStore is made of: paths, nodes, permissions, watches, and the errors that go over the wire by name.
 *
 * A path is absolute here (`/local/domain/1/name`), or `@name` for the two events that are no nodes. It is a string of
 * the few characters that names may have, so one character is one byte. Values are bytes.
 */

/** Errors that requests end with; the wire carries the name. */
export type StoreError =
  | 'E2BIG'
  | 'EACCES'
  | 'EAGAIN'
  | 'EBUSY'
  | 'EEXIST'
  | 'EINVAL'
  | 'ENOENT'
  | 'ENOSPC'
  | 'ENOSYS'
  | 'EPERM';

/** Bits of an access; the owner of a node has both and may change permissions. */
export const enum StoreAccess {
  none = 0,
  read = 1,
  write = 2,
  both = 3,
}

/** The first permission of a node names its owner and what everyone else may do, the others what one domain may do. */
export interface Permission {
  readonly domain: number;
  readonly access: StoreAccess;
}

/** A node as it was at one time: records are replaced, never changed. */
export interface StoreNode {
  readonly value: Uint8Array;
  readonly permissions: readonly Permission[];
  /** Names, in the order in which they were created. */
  readonly children: readonly string[];
  /** Grows with each change of anything in the store; a node keeps that of its own last change. */
  readonly generation: number;
}

/** The domain that may do everything: the host itself. */
export const PRIVILEGED_DOMAIN = 0;

/** Longest absolute path, and longest part of a path behind `/local/domain/<id>/`, in bytes (xs_wire.h). */
const ABSOLUTE_PATH_LIMIT = 3072;
const RELATIVE_PATH_LIMIT = 2048;

export function homeOf(domain: number): string {
  return `/local/domain/${domain}`;
}

/** The absolute path that a domain means by a name, or null when the name is not a path. */
export function resolvePath(domain: number, name: string): string | null {
  const path = name.startsWith('/') || name.startsWith('@') ? name : `${homeOf(domain)}/${name}`;
  if (path.length > ABSOLUTE_PATH_LIMIT || !/^[-/_@A-Za-z0-9]+$/.test(path)) return null;
  if (path.includes('//') || (path.length > 1 && path.endsWith('/'))) return null;
  const local = /^\/local\/domain\/\d{1,5}\//.exec(path)?.[0].length ?? 0;
  return path.length > local + RELATIVE_PATH_LIMIT ? null : path;
}

/** `/a/b` of `/a/b/c`, `/` of `/a`. Not for `/` itself. */
export function parentOf(path: string): string {
  return path.slice(0, Math.max(1, path.lastIndexOf('/')));
}

export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

export function childOf(path: string, name: string): string {
  return path === '/' ? `/${name}` : `${path}/${name}`;
}

/** Whether `path` is `ancestor` or lies below it. */
export function isWithin(path: string, ancestor: string): boolean {
  if (!path.startsWith(ancestor)) return false;
  return path.length === ancestor.length || ancestor === '/' || path[ancestor.length] === '/';
}

export function accessOf(permissions: readonly Permission[], domain: number): StoreAccess {
  const owner = permissions[0];
  if (domain === PRIVILEGED_DOMAIN || owner === undefined || owner.domain === domain) return StoreAccess.both;
  for (let index = 1; index < permissions.length; index++) {
    if (permissions[index]!.domain === domain) return permissions[index]!.access;
  }
  return owner.access;
}

export function allows(permissions: readonly Permission[], domain: number, access: StoreAccess): boolean {
  return (accessOf(permissions, domain) & access) === access;
}

const LETTERS = 'nrwb';

/** `r1`, `n0` …: the letter is the access, the number the domain. Null when it is neither. */
export function parsePermission(text: string): Permission | null {
  const match = /^([nrwb])(\d{1,5})$/.exec(text);
  if (match === null) return null;
  return { access: LETTERS.indexOf(match[1]!) as StoreAccess, domain: Number(match[2]) };
}

export function formatPermission(permission: Permission): string {
  return `${LETTERS[permission.access]}${permission.domain}`;
}

/** A domain's wish to be told of changes of a path and of all below it. */
export interface Watch {
  /** The domain that is told. */
  readonly domain: number;
  readonly path: string;
  readonly token: string;
  /** The domain gave the path relative to its home, and is told paths in that form. */
  readonly relative: boolean;
}

/** A path as a watcher is told it. */
export function watchedPath(watch: Watch, path: string): string {
  return watch.relative ? path.slice(homeOf(watch.domain).length + 1) : path;
}
